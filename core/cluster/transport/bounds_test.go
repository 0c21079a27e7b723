package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// fake is a connection of somebody that says whether it was closed.
type fake struct {
	net.Conn
	name   string
	from   string
	closed bool
}

func (f *fake) Close() error         { f.closed = true; return nil }
func (f *fake) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(f.from)) }

func TestCrowd(t *testing.T) {
	const a, b, c = "192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"
	for _, test := range []struct {
		name            string
		max, perAddress int
		from            []string
		gone            []int // in any order
	}{
		{"room for all", 4, 2, []string{a, a, b, b}, nil},
		{"the oldest of the same address", 4, 2, []string{a, b, a, a}, []int{0}},
		{"the oldest of who has the most", 4, 3, []string{c, a, a, b, b, b}, []int{1, 3}},
		{"an address that is alone is not for one that comes with many", 3, 3, []string{a, b, b, b, b}, []int{1, 2}},
		{"a network of IPv6 is one", 4, 2, []string{"[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "[2001:db8:0:1::1]:1"}, []int{0}},
		{"IPv4 in IPv6", 4, 1, []string{a, "[::ffff:192.0.2.1]:1"}, []int{0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			crowd := newCrowd(test.max, test.perAddress)
			var all []*fake
			for i, from := range test.from {
				f := &fake{name: fmt.Sprint(i), from: from}
				all = append(all, f)
				crowd.enter(f)
			}
			want, left := map[int]bool{}, 0
			for _, i := range test.gone {
				want[i] = true
			}
			for i, f := range all {
				if f.closed != want[i] {
					t.Errorf("%d of %s: closed %v", i, f.from, f.closed)
				}
				if crowd.leave(f) != !want[i] {
					t.Errorf("%d of %s: not counted as it should", i, f.from)
				}
				if !want[i] {
					left++
				}
			}
			if left == 0 || len(crowd.oldest) != 0 || len(crowd.by) != 0 {
				t.Errorf("%d were left, and then %v and %v", left, crowd.oldest, crowd.by)
			}
			crowd.close()
			late := &fake{from: a}
			if crowd.enter(late); !late.closed {
				t.Error("one came in after the end")
			}
		})
	}
}

func TestPeers(t *testing.T) {
	p := newPeers(3, 2)
	conns := []*fake{{name: "0"}, {name: "1"}, {name: "2"}, {name: "3"}, {name: "4"}}
	got := []bool{p.enter(conns[0], "a", Tunnel), p.enter(conns[1], "a", Tunnel), p.enter(conns[2], "a", Tunnel), p.enter(conns[3], "b", Tunnel), p.enter(conns[4], "c", Tunnel)}
	if diff := cmp.Diff([]bool{true, true, false, true, false}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	p.leave(conns[2]) // was never in
	p.leave(conns[0])
	if !p.enter(conns[2], "a", Tunnel) {
		t.Error("no room though one has left")
	}
	// tunnels have taken all that is theirs, and the log and requests have their own
	more := []*fake{{name: "5"}, {name: "6"}, {name: "7"}, {name: "8"}}
	got = []bool{p.enter(more[0], "a", Raft), p.enter(more[1], "a", HTTP), p.enter(more[2], "a", Raft), p.enter(more[3], "c", Raft), p.enter(conns[4], "d", HTTP)}
	if diff := cmp.Diff([]bool{true, true, false, true, false}, got); diff != "" {
		t.Errorf("beside tunnels (-want +got):\n%s", diff)
	}
	p.leave(more[3])
	p.drop("a")
	if !conns[1].closed || !conns[2].closed || conns[3].closed {
		t.Errorf("after Drop of a: %+v", conns)
	}
}

// Half-open handshakes end by themselves, and keep nobody out while they last.
func TestHalfOpenHandshakes(t *testing.T) {
	s := newSwarm(t)
	worker := s.node(wire.RoleWorker, Options{})
	for name, c := range map[string]struct {
		options Options
		say     string
	}{
		"in time":           {Options{HandshakeTimeout: 50 * time.Millisecond}, ""},
		"in time, a hello":  {Options{HandshakeTimeout: 50 * time.Millisecond}, "\x16\x03\x01\x02\x00\x01"},
		"no TLS":            {Options{}, "GET / HTTP/1.1\r\n\r\n"},
		"others of its own": {Options{HandshakesPerAddress: 1}, ""},
		"others of all":     {Options{Handshakes: 1}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			manager := s.node(wire.RoleManager, c.options)
			manager.Serve(http.HandlerFunc(greet))
			half, err := net.Dial("tcp", manager.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer half.Close()
			fmt.Fprint(half, c.say)
			if c.options.HandshakeTimeout == 0 && c.say == "" {
				waitFor(t, func() bool { return count(manager.handshakes) == 1 })
			}
			if c.options.HandshakeTimeout == 0 { // else nobody knows whether the node has the time
				if got, err := get(t.Context(), worker.Client(), manager.addr); got != "HTTP/2.0 worker "+worker.id || err != nil {
					t.Errorf("a node beside it: %q, %v", got, err)
				}
			}
			if _, err := io.ReadAll(half); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("the end: %v", err)
			}
			waitFor(t, func() bool { return count(manager.handshakes) == 0 })
		})
	}
}

func TestStrangersAreBounded(t *testing.T) {
	s := newSwarm(t)
	digest, _ := s.authority.Digest()
	var waiting atomic.Int32
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		waiting.Add(1)
		<-r.Context().Done()
		waiting.Add(-1)
	})
	// Each asks over a connection of its own.
	ask := func(t *testing.T, addr string) io.Reader { return open(t, JoinClient(digest), addr) }
	t.Run("in time", func(t *testing.T) {
		manager := s.node(wire.RoleManager, Options{StrangerTime: 100 * time.Millisecond})
		manager.Serve(handler)
		client := JoinClient(digest)
		defer client.CloseIdleConnections()
		if got, err := get(t.Context(), client, manager.addr); err == nil {
			t.Errorf("it ended as if it were whole: %q", got)
		}
		waitFor(t, func() bool { return count(manager.strangers) == 0 && waiting.Load() == 0 })
	})
	t.Run("in time, though it asks again and again", func(t *testing.T) {
		manager := s.node(wire.RoleManager, Options{StrangerTime: 100 * time.Millisecond})
		manager.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) }))
		client := JoinClient(digest)
		defer client.CloseIdleConnections()
		// It ends in the middle of an answer, or the next has another connection.
		first, err := get(t.Context(), client, manager.addr)
		for now := first; err == nil && now == first; {
			now, err = get(t.Context(), client, manager.addr)
		}
	})
	t.Run("in number", func(t *testing.T) {
		manager := s.node(wire.RoleManager, Options{StrangersPerAddress: 2})
		manager.Serve(handler)
		first := ask(t, manager.addr)
		ask(t, manager.addr)
		ask(t, manager.addr)
		if _, err := io.ReadAll(first); err == nil {
			t.Error("the first of three goes on, or ended as if it were whole")
		}
		waitFor(t, func() bool { return count(manager.strangers) == 2 && waiting.Load() == 2 })
	})
	t.Run("before anybody serves", func(t *testing.T) {
		manager := s.node(wire.RoleManager, Options{HandshakeTimeout: 50 * time.Millisecond})
		client := JoinClient(digest)
		defer client.CloseIdleConnections()
		if got, err := get(t.Context(), client, manager.addr); err == nil {
			t.Errorf("got %q", got)
		}
	})
}

// A node that was removed is put out and not let in, in both directions, whatever its certificate says.
func TestRemovedNodes(t *testing.T) {
	s := newSwarm(t)
	var removed atomic.Pointer[string]
	allowed := func(p identity.Peer, protocol string) bool {
		id := removed.Load()
		return id == nil || *id != p.NodeID
	}
	manager, worker, other := s.node(wire.RoleManager, Options{Allowed: allowed}), s.node(wire.RoleManager, Options{}), s.node(wire.RoleWorker, Options{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	for _, n := range []*node{manager, worker} {
		n.Serve(handler)
		n.Tunnels(func(_ context.Context, c net.Conn, _ identity.Peer) { _, _ = io.Copy(c, c) })
	}
	in, out := open(t, worker.Client(), manager.addr), open(t, manager.Client(), worker.addr)
	tunnel, err := worker.DialTunnel(t.Context(), manager.id, manager.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer tunnel.Close()
	staying, err := other.DialTunnel(t.Context(), manager.id, manager.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer staying.Close()
	pass(t, tunnel)
	pass(t, staying)

	removed.Store(&worker.id)
	manager.Drop(worker.id)
	for name, r := range map[string]io.Reader{"in": in, "out": out, "tunnel": tunnel} {
		if n, err := r.Read(make([]byte, 1)); err == nil || n > 0 {
			t.Errorf("%s goes on: %d, %v", name, n, err)
		}
	}
	pass(t, staying)
	for _, protocol := range []string{HTTP, Raft, Tunnel} {
		config, err := identity.ClientConfig(worker.who, identity.AnyManager, protocol)
		if err != nil {
			t.Fatal(err)
		}
		refused(t, manager.addr, config)
	}
	if c, err := manager.DialTunnel(t.Context(), worker.id, worker.addr); c != nil || !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "not allowed") {
		t.Errorf("it is still dialled: %v, %v", c, err)
	}
	waitFor(t, func() bool {
		manager.peers.mu.Lock()
		defer manager.peers.mu.Unlock()
		return manager.peers.counts[worker.id] == 0
	})
}

// A node that was removed is told so, and nothing else: its requests do not come to the handler, and its connections are
// a stranger's.
func TestARemovedNodeIsTold(t *testing.T) {
	s := newSwarm(t)
	var removed atomic.Bool
	var asked atomic.Int32
	manager := s.node(wire.RoleManager, Options{
		Allowed: func(identity.Peer, string) bool { return !removed.Load() },
		Refused: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "you were removed", http.StatusForbidden) },
	})
	manager.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); greet(w, r) }))
	worker := s.node(wire.RoleWorker, Options{})
	if got, err := get(t.Context(), worker.Client(), manager.addr); got != "HTTP/2.0 worker "+worker.id || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	removed.Store(true)
	manager.Drop(worker.id)
	waitFor(t, func() bool { // the client may still have the old connection
		got, err := get(t.Context(), worker.Client(), manager.addr)
		return err == nil && got == "you were removed\n"
	})
	if n := asked.Load(); n != 1 {
		t.Errorf("the handler was asked %d times", n)
	}
	if n := count(manager.strangers); n != 1 {
		t.Errorf("there are %d strangers' connections", n)
	}
	for _, protocol := range []string{Raft, Tunnel} {
		config, err := identity.ClientConfig(worker.who, identity.AnyManager, protocol)
		if err != nil {
			t.Fatal(err)
		}
		refused(t, manager.addr, config)
	}
}

// A manager whose role was taken away, and whose certificate still has it, has no part in the log.
func TestAllowedByProtocol(t *testing.T) {
	s := newSwarm(t)
	manager := s.node(wire.RoleManager, Options{Allowed: func(_ identity.Peer, protocol string) bool { return protocol != Raft }})
	former := s.node(wire.RoleManager, Options{})
	manager.Serve(http.HandlerFunc(greet))
	manager.Raft()
	config, err := identity.ClientConfig(former.who, identity.AnyManager, Raft)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, manager.addr, config)
	if got, err := get(t.Context(), former.Client(), manager.addr); got != "HTTP/2.0 manager "+former.id || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// What a manager has open of the log when its role is taken away ends with it; its other connections do not.
func TestReview(t *testing.T) {
	s := newSwarm(t)
	var demoted atomic.Bool
	manager := s.node(wire.RoleManager, Options{Allowed: func(_ identity.Peer, protocol string) bool { return protocol != Raft || !demoted.Load() }})
	former := s.node(wire.RoleManager, Options{})
	manager.Tunnels(func(_ context.Context, c net.Conn, _ identity.Peer) { _, _ = io.Copy(c, c) })
	layer := manager.Raft()
	go func() {
		c, err := layer.Accept()
		if err == nil {
			_, _ = io.Copy(c, c)
		}
	}()
	log, err := former.Raft().Dial(raft.ServerAddress(manager.addr), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	tunnel, err := former.DialTunnel(t.Context(), manager.id, manager.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer tunnel.Close()
	manager.Review(Raft)
	pass(t, log)
	pass(t, tunnel)
	demoted.Store(true)
	manager.Review(Raft)
	if n, err := log.Read(make([]byte, 1)); err == nil || n > 0 {
		t.Errorf("the log's connection goes on: %d, %v", n, err)
	}
	pass(t, tunnel)
}

// An end of a tunnel is one that the other end has said: what a killed node leaves is none.
func TestTunnelCutOff(t *testing.T) {
	s := newSwarm(t)
	manager, worker := s.node(wire.RoleManager, Options{}), s.node(wire.RoleWorker, Options{})
	manager.Tunnels(func(_ context.Context, c net.Conn, _ identity.Peer) {
		b := make([]byte, 1)
		if _, err := io.ReadFull(c, b); err == nil && b[0] == 'x' {
			_ = c.(*tls.Conn).NetConn().Close()
		}
	})
	for sent, want := range map[string]error{"x": errCut, "y": nil} {
		tunnel, err := worker.DialTunnel(t.Context(), manager.id, manager.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tunnel, sent); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(tunnel); !errors.Is(err, want) {
			t.Errorf("after %q: %v, want %v", sent, err, want)
		}
		tunnel.Close()
	}
}

func TestTooManyConnections(t *testing.T) {
	s := newSwarm(t)
	manager, worker := s.node(wire.RoleManager, Options{ConnectionsPerNode: 1}), s.node(wire.RoleWorker, Options{})
	manager.Tunnels(func(_ context.Context, c net.Conn, _ identity.Peer) { _, _ = io.Copy(c, c) })
	first, err := worker.DialTunnel(t.Context(), manager.id, manager.addr)
	if err != nil {
		t.Fatal(err)
	}
	pass(t, first)
	second, err := worker.DialTunnel(t.Context(), manager.id, manager.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if n, err := second.Read(make([]byte, 1)); err == nil {
		t.Errorf("got %d", n)
	}
	first.Close()
	waitFor(t, func() bool {
		manager.peers.mu.Lock()
		defer manager.peers.mu.Unlock()
		return len(manager.peers.nodes) == 0
	})
	third, err := worker.DialTunnel(t.Context(), manager.id, manager.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	pass(t, third)
}

// open asks for an answer that goes on until the end of the test, if nobody ends it.
func open(t *testing.T, client *http.Client, addr string) io.Reader {
	t.Helper()
	answer, err := client.Get("https://" + addr) //nolint:bodyclose // in Cleanup
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close(); client.CloseIdleConnections() })
	return answer.Body
}

// pass sends a byte through an echo.
func pass(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func count(c *crowd) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.oldest)
}

// waitFor returns when it has come to pass; the test's time limit is its own.
func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	for !what() {
		select {
		case <-t.Context().Done():
			t.Fatal("it did not come to pass")
		case <-time.After(time.Millisecond):
		}
	}
}
