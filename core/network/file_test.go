package network

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/network/port"
	"github.com/sampan-project/sampan/core/wire"
)

func TestParseRoutes(t *testing.T) {
	v4 := `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010011AC	0003	0	0	0	00000000	0	0	0
eth0	000011AC	00000000	0001	0	0	0	0000FFFF	0	0	0
sampan0	000012AC	00000000	0001	0	0	0	0000FFFF	0	0	0
broken
`
	if d := cmp.Diff([]string{"172.17.0.0/16"}, texts(parseRoutes4(v4, "sampan0"))); d != "" {
		t.Error(d)
	}
	v6 := `fd001234000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
`
	if d := cmp.Diff([]string{"fd00:1234::/64"}, texts(parseRoutes6(v6, ""))); d != "" {
		t.Error(d)
	}
}

func texts(list []netip.Prefix) (out []string) {
	for _, p := range list {
		out = append(out, p.String())
	}
	return out
}

func FuzzParseRoutes(f *testing.F) {
	f.Add("eth0	000011AC	00000000	0001	0	0	0	0000FFFF	0	0	0")
	f.Add("fd001234000000000000000000000000 40 0 00 0 00000100 00000001 00000000 00000001 eth0")
	f.Fuzz(func(t *testing.T, text string) {
		for _, p := range append(parseRoutes4(text, ""), parseRoutes6(text, "")...) {
			if !p.IsValid() || p.Masked() != p {
				t.Errorf("%q gives %v", text, p)
			}
		}
	})
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add("nameserver 192.0.2.53\nsearch a b\noptions ndots:2\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, a := range parseResolvConf([]byte(text)).servers {
			if !a.IsValid() {
				t.Errorf("%q gives %v", text, a)
			}
		}
	})
}

func TestResolvConf(t *testing.T) {
	six := []member{{Endpoint: Endpoint{Addresses: []netip.Prefix{netip.MustParsePrefix("fd00::2/64")}}}}
	const host = "# comment\nnameserver 192.0.2.53\nnameserver fd00::53\nnameserver 127.0.0.1\nsearch example.com\noptions edns0\n"
	for name, tc := range map[string]struct {
		rec  record
		want string
	}{
		"what it reaches":    {record{}, "nameserver 192.0.2.53\nsearch example.com\noptions edns0\n"},
		"with IPv6":          {record{Endpoints: six}, "nameserver 192.0.2.53\nnameserver fd00::53\nsearch example.com\noptions edns0\n"},
		"a server of ours":   {record{Resolver: true}, "nameserver 127.0.0.11\nsearch example.com\noptions edns0 ndots:0\n"},
		"ndots is the users": {record{Resolver: true, DNSOptions: []string{"ndots:2"}}, "nameserver 127.0.0.11\nsearch example.com\noptions ndots:2\n"},
		"the host's own":     {record{Host: true}, host},
		"host with a search": {record{Host: true, DNSSearch: []string{"x"}}, "nameserver 192.0.2.53\nnameserver fd00::53\nnameserver 127.0.0.1\nsearch x\noptions edns0\n"},
		"asked":              {record{DNS: []string{"203.0.113.1", "no address\nnameserver 6.6.6.6"}}, "nameserver 203.0.113.1\nsearch example.com\noptions edns0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.resolvConf(host)
			if d := cmp.Diff(tc.want, string(h.m.resolvConf(tc.rec))); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestHosts(t *testing.T) {
	h := newHouse(t)
	got, err := h.m.hosts(record{
		Hostname: "web", Domainname: "example.com", ExtraHosts: []string{"db:10.0.0.5", "six:[fd00::5]", "raw:fd00::6", "up:host-gateway"},
		Endpoints: []member{{Endpoint: Endpoint{Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.2/24")}}}},
	})
	want := loopbackHosts + "10.0.0.5\tdb\nfd00::5\tsix\nfd00::6\traw\n198.18.0.1\tup\n198.18.0.2\tweb.example.com web\n"
	if d := cmp.Diff(want, string(got)); err != nil || d != "" {
		t.Error(err, d)
	}
	for _, line := range []string{"", "db", ":10.0.0.5", "a b:10.0.0.5", "db:x", "x\n6.6.6.6 y:10.0.0.1"} {
		if _, err := h.m.hosts(record{ExtraHosts: []string{line}}); err == nil {
			t.Errorf("%q is taken", line)
		}
	}
}

func TestPublications(t *testing.T) {
	got, err := publications(JoinRequest{
		PublishAll:   true,
		ExposedPorts: map[string]struct{}{"443/tcp": {}, "80/tcp": {}, "53/udp": {}},
		Ports: map[string][]wire.PortBinding{
			"80/tcp": {{HostPort: ""}, {HostIP: "127.0.0.1", HostPort: "8000-8010"}},
			"81":     {{HostIP: "::", HostPort: "81"}},
			"90/tcp": nil,
		},
	})
	want := []publication{
		{"tcp", 80, netip.MustParseAddr("127.0.0.1"), port.Range{Low: 8000, High: 8010}},
		{"tcp", 81, netip.MustParseAddr("::"), port.Range{Low: 81, High: 81}},
		{protocol: "tcp", container: 80},
		{protocol: "udp", container: 53},
		{protocol: "tcp", container: 443},
	}
	same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if d := cmp.Diff(want, got, cmp.AllowUnexported(publication{}), same); err != nil || d != "" {
		t.Error(err, d)
	}
	for _, bad := range []string{"0/tcp", "65536/tcp", "80/icmp", "http", "", "-1/tcp"} {
		if _, err := publications(JoinRequest{Ports: map[string][]wire.PortBinding{bad: {{}}}}); err == nil {
			t.Errorf("container port %q is taken", bad)
		}
	}
	for _, bad := range []string{"8010-8000", "x", "1-2-3", "-5", "99999"} {
		if _, err := publications(JoinRequest{Ports: map[string][]wire.PortBinding{"80/tcp": {{HostPort: bad}}}}); err == nil {
			t.Errorf("host port %q is taken", bad)
		}
	}
}

func TestParseUntil(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for text, want := range map[string]time.Time{
		"24h":                  now.Add(-24 * time.Hour),
		"1700000000":           time.Unix(1_700_000_000, 0),
		"1700000000.5":         time.Unix(1_700_000_000, 5e8),
		"2026-01-02T15:04:05Z": time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC),
		"2026-01-02":           time.Date(2026, 1, 2, 0, 0, 0, 0, time.Local),
	} {
		if got, err := parseUntil(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v, want %v", text, got, err, want)
		}
	}
	if _, err := parseUntil(strings.Repeat("x", 1000), now); err == nil || len(err.Error()) > 400 {
		t.Errorf("got %v", err)
	}
}

func TestWishes(t *testing.T) {
	h := newHouse(t)
	front := h.create(wire.NetworkCreateRequest{Name: "front"})
	// No name that an ID can begin with.
	ask := func(names ...string) map[string]*wire.EndpointSettings {
		m := map[string]*wire.EndpointSettings{}
		for _, n := range names {
			m[n] = nil
		}
		return m
	}
	for name, tc := range map[string]struct {
		r    JoinRequest
		want []string
	}{
		"nothing is the default":          {JoinRequest{}, []string{"default"}},
		"a list replaces the default":     {JoinRequest{Mode: "bridge", Endpoints: ask("front")}, []string{"front"}},
		"unless it is in it":              {JoinRequest{Mode: "bridge", Endpoints: ask("left", "bridge")}, []string{"bridge", "left"}},
		"the mode first":                  {JoinRequest{Mode: "front", Endpoints: ask("left", "right")}, []string{"front", "left", "right"}},
		"by name and ID, it is one":       {JoinRequest{Mode: front, Endpoints: ask("left", "front")}, []string{"front", "left"}},
		"none is none, whatever is asked": {JoinRequest{Mode: "none", Endpoints: ask("front")}, []string{"none"}},
	} {
		var got []string
		for _, w := range h.m.wishes(tc.r) {
			got = append(got, w.ref)
		}
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
