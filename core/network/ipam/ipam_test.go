package ipam

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/sampan-project/sampan/core/fault"
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestChoose(t *testing.T) {
	for _, tc := range []struct {
		name  string
		taken []netip.Prefix
		want  string
	}{
		{"gives the first when nothing is taken", nil, "172.17.0.0/16"},
		{"skips what is taken", prefixes("172.17.0.0/16", "172.18.0.0/16"), "172.19.0.0/16"},
		{"skips a route inside of a subnet", prefixes("172.17.5.0/24"), "172.18.0.0/16"},
		{"skips a route that covers many", prefixes("172.16.0.0/12"), "192.168.0.0/20"},
		{"fills a gap", prefixes("172.17.0.0/16", "172.19.0.0/16"), "172.18.0.0/16"},
		{"cuts the last pool into slices", prefixes("172.16.0.0/12", "192.168.0.0/20", "192.168.17.0/24"), "192.168.32.0/20"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Choose(DefaultPools(), tc.taken)
			if err != nil || got.String() != tc.want {
				t.Errorf("got %v, %v, want %s", got, err, tc.want)
			}
		})
	}
	if _, err := Choose(DefaultPools(), prefixes("0.0.0.0/0")); !fault.Is(err, fault.Conflict) {
		t.Errorf("with everything taken: %v, want a conflict", err)
	}
}

func TestChooseGivesAllPools(t *testing.T) {
	var taken []netip.Prefix
	for range 15 + 16 {
		p, err := Choose(DefaultPools(), taken)
		if err != nil {
			t.Fatalf("after %d subnets: %v", len(taken), err)
		}
		for _, q := range taken {
			if q.Overlaps(p) {
				t.Fatalf("%s overlaps %s", p, q)
			}
		}
		taken = append(taken, p)
	}
	if _, err := Choose(DefaultPools(), taken); err == nil {
		t.Error("the pools have 31 subnets")
	}
}

func TestLocalPool(t *testing.T) {
	p, err := Choose([]Pool{LocalPool([5]byte{1, 2, 3, 4, 5})}, prefixes("fd01:203:405::/64"))
	if err != nil || p.String() != "fd01:203:405:1::/64" {
		t.Errorf("got %v, %v", p, err)
	}
}

func TestSpaceRefuses(t *testing.T) {
	s := NewSpace([]Subnet{{Prefix: netip.MustParsePrefix("10.1.2.0/24")}})
	s.Mark(netip.MustParseAddr("10.1.2.1"))
	for a, class := range map[string]fault.Class{
		"10.1.2.1": fault.Forbidden, "10.1.2.0": fault.Invalid, "10.1.2.255": fault.Invalid,
		"10.1.3.1": fault.Invalid, "fd00::1": fault.Invalid,
	} {
		if _, err := s.Reserve(netip.MustParseAddr(a)); !fault.Is(err, class) {
			t.Errorf("Reserve(%s): %v, want class %v", a, err, class)
		}
	}
	if _, err := s.Take(true); !fault.Is(err, fault.Invalid) {
		t.Errorf("IPv6 of an IPv4 network: %v", err)
	}
}

func TestSpaceIsExhausted(t *testing.T) {
	s := NewSpace([]Subnet{{Prefix: netip.MustParsePrefix("10.1.2.0/29")}})
	for range 6 {
		if _, err := s.Take(false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Take(false); !fault.Is(err, fault.Conflict) {
		t.Errorf("a /29 has six addresses: %v", err)
	}
	s.Release(netip.MustParseAddr("10.1.2.3"))
	if a, err := s.Take(false); err != nil || a.String() != "10.1.2.3/29" {
		t.Errorf("the released one is the next: %v, %v", a, err)
	}
}

func TestSpacePointToPoint(t *testing.T) {
	s := NewSpace([]Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/31")}})
	a, _ := s.Take(false)
	b, err := s.Take(false)
	if err != nil || a.Addr().String() != "10.0.0.0" || b.Addr().String() != "10.0.0.1" {
		t.Errorf("both addresses of a /31 are usable: %v %v %v", a, b, err)
	}
}

// Whatever is taken, reserved and released, in any order: no address is given twice, none outside
// of the range, and never that of the network or broadcast.
func TestSpaceNeverGivesTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(0, 255).Draw(t, "net")), 0, 0}), rapid.IntRange(24, 30).Draw(t, "bits"))
		within := netip.Prefix{}
		if rapid.Bool().Draw(t, "range") {
			within = netip.PrefixFrom(prefix.Addr(), min(prefix.Bits()+1, 31))
		}
		s := NewSpace([]Subnet{{Prefix: prefix, Range: within}})
		given := map[netip.Addr]bool{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				p, err := s.Take(false)
				if err != nil {
					continue
				}
				a := p.Addr()
				if given[a] {
					t.Fatalf("%s was given twice", a)
				}
				if a == prefix.Addr() || a == last(prefix) || !prefix.Contains(a) || within.IsValid() && !within.Contains(a) {
					t.Fatalf("%s is not usable in %s, range %v", a, prefix, within)
				}
				given[a] = true
			case 1:
				a := netip.AddrFrom4([4]byte{10, prefix.Addr().As4()[1], 0, byte(rapid.IntRange(0, 255).Draw(t, "host"))})
				if _, err := s.Reserve(a); err == nil {
					if given[a] {
						t.Fatalf("%s was reserved while given", a)
					}
					given[a] = true
				}
			case 2:
				for a := range given {
					s.Release(a)
					delete(given, a)
					break
				}
			}
		}
	})
}

func TestMAC(t *testing.T) {
	if got := MAC(netip.MustParseAddr("172.17.0.2")); got != [6]byte{2, 0x42, 172, 17, 0, 2} {
		t.Errorf("got %x", got)
	}
	if MAC(netip.MustParseAddr("fd00::2")) == MAC(netip.MustParseAddr("fd00::3")) {
		t.Error("two addresses, one MAC")
	}
}

func FuzzChoose(f *testing.F) {
	f.Add("172.17.0.0/16", "10.0.0.0/8")
	f.Fuzz(func(t *testing.T, a, b string) {
		var taken []netip.Prefix
		for _, s := range []string{a, b} {
			if p, err := netip.ParsePrefix(s); err == nil {
				taken = append(taken, p)
			}
		}
		p, err := Choose(DefaultPools(), taken)
		if err != nil {
			return
		}
		for _, q := range taken {
			if q.Overlaps(p) {
				t.Errorf("%s overlaps %s", p, q)
			}
		}
	})
}
