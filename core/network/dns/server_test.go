package dns

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/sampan-project/sampan/core/network/netns"
)

type fakeNames struct {
	names     map[string][]netip.Addr
	upstreams []netip.AddrPort
}

func (f fakeNames) Lookup(name string) ([]netip.Addr, bool) {
	a, ok := f.names[name]
	return append([]netip.Addr{}, a...), ok
}

func (f fakeNames) Reverse(a netip.Addr) []string {
	for n, list := range f.names {
		for _, b := range list {
			if a == b {
				return []string{n + ".front"}
			}
		}
	}
	return nil
}

func (f fakeNames) Upstreams() []netip.AddrPort { return f.upstreams }

// upstream is a resolver on the host's loopback that knows example.com.
func upstream(t *testing.T) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg).SetReply(q)
		if q.Question[0].Name == "example.com." {
			rr, _ := dns.NewRR("example.com. 60 IN A 203.0.113.80")
			a.Answer = append(a.Answer, rr)
		} else {
			a.Rcode = dns.RcodeNameError
		}
		if err := w.WriteMsg(a); err != nil {
			t.Error(err)
		}
	})}
	go s.ActivateAndServe() //nolint:errcheck // ends with the connection
	t.Cleanup(func() { conn.Close() })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func serve(t *testing.T, names Names) *os.File {
	t.Helper()
	ns, err := netns.Create()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Serve(ns, names, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		ns.Close()
	})
	return ns
}

// ask queries port 53 as a container does.
func ask(t *testing.T, ns *os.File, network, name string, kind uint16) (answers []string, rcode int) {
	t.Helper()
	var a *dns.Msg
	err := netns.Do(ns, func() error {
		conn, err := net.Dial(network, "127.0.0.11:53")
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		c := &dns.Conn{Conn: conn}
		if err := c.WriteMsg(new(dns.Msg).SetQuestion(name, kind)); err != nil {
			return err
		}
		a, err = c.ReadMsg()
		return err
	})
	if err != nil {
		t.Fatalf("%s %s: %v", network, name, err)
	}
	for _, rr := range a.Answer {
		answers = append(answers, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return answers, a.Rcode
}

func TestAnswers(t *testing.T) {
	ns := serve(t, fakeNames{
		names: map[string][]netip.Addr{
			"db":   {netip.MustParseAddr("172.18.0.2")},
			"both": {netip.MustParseAddr("172.18.0.3"), netip.MustParseAddr("fd00::3")},
		},
		upstreams: []netip.AddrPort{upstream(t)},
	})
	for _, tc := range []struct {
		name, network, query string
		kind                 uint16
		want                 []string
		rcode                int
	}{
		{"a container's name", "udp", "db.", dns.TypeA, []string{"172.18.0.2"}, 0},
		{"in any case", "udp", "DB.", dns.TypeA, []string{"172.18.0.2"}, 0},
		{"over TCP", "tcp", "db.", dns.TypeA, []string{"172.18.0.2"}, 0},
		{"no IPv6 address is no error", "udp", "db.", dns.TypeAAAA, nil, 0},
		{"IPv6", "udp", "both.", dns.TypeAAAA, []string{"fd00::3"}, 0},
		{"backwards", "udp", "2.0.18.172.in-addr.arpa.", dns.TypePTR, []string{"db.front."}, 0},
		{"backwards IPv6", "udp", "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, []string{"both.front."}, 0},
		{"another name is forwarded", "udp", "example.com.", dns.TypeA, []string{"203.0.113.80"}, 0},
		{"and so is its absence", "udp", "nowhere.example.", dns.TypeA, nil, dns.RcodeNameError},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, rcode := ask(t, ns, tc.network, tc.query, tc.kind)
			if diff := cmp.Diff(tc.want, got); diff != "" || rcode != tc.rcode {
				t.Errorf("rcode %s, answers (-want +got):\n%s", dns.RcodeToString[rcode], diff)
			}
		})
	}
}

func TestNoUpstream(t *testing.T) {
	ns := serve(t, fakeNames{})
	if _, rcode := ask(t, ns, "udp", "example.com.", dns.TypeA); rcode != dns.RcodeNameError {
		t.Errorf("got %s", dns.RcodeToString[rcode])
	}
}

// The container keeps port 53 for a server of its own.
func TestPort53StaysFree(t *testing.T) {
	ns := serve(t, fakeNames{})
	err := netns.Do(ns, func() error {
		l, err := net.Listen("tcp4", "0.0.0.0:53")
		if err != nil {
			return err
		}
		defer l.Close()
		p, err := net.ListenPacket("udp4", "0.0.0.0:53")
		if err != nil {
			return err
		}
		return p.Close()
	})
	if err != nil {
		t.Error(err)
	}
}

// After a restart of the daemon a second server takes the place of the first.
func TestServeReplaces(t *testing.T) {
	ns := serve(t, fakeNames{names: map[string][]netip.Addr{"old": {netip.MustParseAddr("10.0.0.1")}}})
	s, err := Serve(ns, fakeNames{names: map[string][]netip.Addr{"db": {netip.MustParseAddr("10.0.0.2")}}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, _ := ask(t, ns, "udp", "db.", dns.TypeA); len(got) != 1 || got[0] != "10.0.0.2" {
		t.Errorf("got %v", got)
	}
}

func TestMalformed(t *testing.T) {
	s := &Server{names: fakeNames{}, log: slog.New(slog.DiscardHandler), slots: make(chan struct{}, 1)}
	if a := s.answer(&dns.Msg{}, "udp"); a.Rcode != dns.RcodeFormatError {
		t.Errorf("no question: %s", dns.RcodeToString[a.Rcode])
	}
}

func FuzzFromReverse(f *testing.F) {
	f.Add("2.0.18.172.in-addr.arpa")
	f.Add("3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa")
	f.Fuzz(func(t *testing.T, name string) { fromReverse(name) })
}
