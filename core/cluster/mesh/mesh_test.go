package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/cluster/transport"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// published is the number of the port in these tests; each node has it on a socket of its own.
const published = 8080

// host is a node with a mesh, its published ports and its cluster listener.
type host struct {
	*Mesh
	id      string
	cluster string // address of its cluster listener

	mu        sync.Mutex
	listeners map[uint16]net.Listener
	tasks     map[string]netip.AddrPort
	busy      int // how often the port is another's
}

// Endpoint is the agent's.
func (h *host) Endpoint(_ context.Context, id string, port uint32) (netip.AddrPort, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	address, there := h.tasks[id]
	switch {
	case !there:
		return address, fault.New(fault.NotFound, "task %s not found on this node", id)
	case port != 80:
		return address, fault.New(fault.Forbidden, "task %s: port %d is not published in ingress mode", id, port)
	}
	return address, nil
}

func (h *host) listen(number uint16) (net.Listener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy > 0 {
		h.busy--
		return nil, syscall.EADDRINUSE
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		h.listeners[number] = l
	}
	return l, err
}

// newHost starts a node of the swarm, with the transport that it has in life; nil: its tunnels are bare sockets.
func newHost(t *testing.T, id string, s *swarm, change func(*Options)) *host {
	t.Helper()
	h := &host{id: id, listeners: map[uint16]net.Listener{}, tasks: map[string]netip.AddrPort{}}
	o := Options{NodeID: id, Tasks: h, Listen: h.listen}
	var serve func()
	if s == nil {
		serve = h.bare(t, &o)
	} else {
		serve = s.join(t, h, &o)
	}
	if change != nil {
		change(&o)
	}
	h.Mesh = New(o)
	t.Cleanup(func() { closed(t, h) })
	serve()
	return h
}

// bare has the node's tunnels come over sockets without TLS, once it serves.
func (h *host) bare(t *testing.T, o *Options) (serve func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.cluster = l.Addr().String()
	o.Dial = func(ctx context.Context, _, address string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	var served sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		served.Wait()
	})
	return func() {
		served.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				served.Go(func() { h.Serve(context.Background(), conn) })
			}
		})
	}
}

// swarm is whose certificates its nodes have.
type swarm struct {
	id        string
	authority identity.Authority
	ids       map[string]string // of nodes, by what they are called in these tests
}

func newSwarm(t *testing.T) *swarm {
	t.Helper()
	authority, err := identity.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return &swarm{identity.NewID(), authority, map[string]string{}}
}

func (s *swarm) join(t *testing.T, h *host, o *Options) (serve func()) {
	t.Helper()
	s.ids[h.id] = identity.NewID()
	key, csr, err := identity.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := s.authority.Sign(csr, s.ids[h.id], wire.RoleWorker, s.id, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	who, err := identity.New(cert, key, s.authority.Cert)
	if err != nil {
		t.Fatal(err)
	}
	n, err := transport.Listen("127.0.0.1:0", identity.NewHolder(who), transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, n) })
	h.cluster = n.Addr().String()
	o.Dial = func(ctx context.Context, id, address string) (net.Conn, error) {
		return n.DialTunnel(ctx, s.ids[id], address)
	}
	return func() {
		n.Tunnels(func(ctx context.Context, conn net.Conn, _ identity.Peer) { h.Serve(ctx, conn) })
	}
}

// task starts a task on the node; each connection to it is handled by serve.
func (h *host) task(t *testing.T, id string, serve func(*net.TCPConn)) session.Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer conn.Close()
				serve(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		closed(t, h) // first, so that no connection to the task is left
		l.Close()
		served.Wait()
	})
	h.at(id, l.Addr().String())
	return h.target(id)
}

func (h *host) at(id, address string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tasks[id] = netip.MustParseAddrPort(address)
}

func (h *host) target(id string) session.Target {
	return session.Target{Task: id, Node: h.id, Addr: h.cluster}
}

// names is a task that says its name.
func names(id string) func(*net.TCPConn) {
	return func(c *net.TCPConn) { _, _ = io.WriteString(c, id) }
}

func route(targets ...session.Target) []session.Route {
	return []session.Route{{Service: "service1", Targets: targets,
		Port: wire.ServicePort{Protocol: "tcp", TargetPort: 80, PublishedPort: published, PublishMode: wire.PublishIngress}}}
}

// address is where a published port of the node is.
func (h *host) address(t *testing.T) (address string) {
	t.Helper()
	eventually(t, "the port is there", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		l := h.listeners[published]
		if l != nil {
			address = l.Addr().String()
		}
		return l != nil
	})
	return address
}

func (h *host) connect(t *testing.T) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", h.address(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

// asks makes n connections and counts who answers.
func (h *host) asks(t *testing.T, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		b, err := io.ReadAll(h.connect(t))
		if err != nil {
			t.Fatal(err)
		}
		got[string(b)]++
	}
	return got
}

func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came to pass: %s", what)
		}
	}
}

func closed(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestAllTasksInTurn(t *testing.T) {
	s := newSwarm(t)
	a, b, c := newHost(t, "a", s, nil), newHost(t, "b", s, nil), newHost(t, "c", s, nil)
	routes := route(a.task(t, "one", names("one")), a.task(t, "two", names("two")), b.task(t, "three", names("three")))
	for _, h := range []*host{a, b, c} {
		h.Update(routes)
		same(t, "answers on node "+h.id, h.asks(t, 9), map[string]int{"one": 3, "two": 3, "three": 3})
	}
	// One task less.
	a.Update(route(routes[0].Targets[2]))
	same(t, "answers", a.asks(t, 3), map[string]int{"three": 3})
}

func TestNextTask(t *testing.T) {
	a, b := newHost(t, "a", nil, nil), newHost(t, "b", nil, nil)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	a.at("dead", closed.Addr().String())
	b.at("far dead", closed.Addr().String())
	nowhere := session.Target{Task: "lost", Node: "c", Addr: closed.Addr().String()}
	a.Update(route(a.target("dead"), b.target("far dead"), b.target("unknown"), nowhere, a.target("gone"), b.task(t, "alive", names("alive"))))
	same(t, "answers", a.asks(t, 12), map[string]int{"alive": 12})
}

// A task that could not be reached comes after the others for a while.
func TestShyTasks(t *testing.T) {
	a := newHost(t, "a", nil, nil)
	order := func(turn uint64) (ids string) {
		for _, target := range a.sorted([]session.Target{{Task: "1"}, {Task: "2"}, {Task: "3"}}, turn) {
			ids += target.Task
		}
		return ids
	}
	same(t, "order", order(1), "231")
	a.remember("2", true)
	same(t, "order with one that is shy", order(1), "312")
	a.remember("2", false)
	same(t, "order", order(1), "231")
}

// A node that takes connections and says nothing.
func TestSilentNode(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := newHost(t, "a", nil, func(o *Options) { o.DialTimeout = 50 * time.Millisecond })
	a.Update(route(session.Target{Task: "silent", Node: "b", Addr: l.Addr().String()}, a.task(t, "alive", names("alive"))))
	same(t, "answers", a.asks(t, 3), map[string]int{"alive": 3})
}

func TestNoTask(t *testing.T) {
	a := newHost(t, "a", nil, nil)
	for name, routes := range map[string][]session.Route{"none": route(), "none that can be reached": route(a.target("gone"), a.target("lost"))} {
		a.Update(routes)
		conn, err := net.Dial("tcp", a.address(t))
		if err == nil {
			_, err = io.ReadAll(conn)
			closed(t, conn)
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v: want a reset connection", name, err)
		}
	}
}

// Each end may say that it sends nothing more and go on reading; all bytes arrive, and as many as there are.
func TestHalfClose(t *testing.T) {
	const size = 3 << 20
	s := newSwarm(t)
	a, b := newHost(t, "a", s, nil), newHost(t, "b", s, nil)
	serve := func(c *net.TCPConn) {
		n, err := io.Copy(io.Discard, c)
		if err != nil {
			return
		}
		_, _ = fmt.Fprintf(c, "%d %s", n, strings.Repeat("x", size))
	}
	for _, target := range []session.Target{a.task(t, "near", serve), b.task(t, "far", serve)} {
		a.Update(route(target))
		conn := a.connect(t)
		if _, err := io.WriteString(conn, strings.Repeat("y", size)); err != nil {
			t.Fatal(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		if want := fmt.Sprintf("%d %s", size, strings.Repeat("x", size)); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v: want %d", target.Task, len(got), err, len(want))
		}
	}
}

// The task's end first: what the client says then still arrives.
func TestHalfCloseOfTask(t *testing.T) {
	s := newSwarm(t)
	a, b := newHost(t, "a", s, nil), newHost(t, "b", s, nil)
	heard := make(chan string, 2)
	serve := func(c *net.TCPConn) {
		_ = c.CloseWrite()
		b, _ := io.ReadAll(c)
		heard <- string(b)
	}
	for _, target := range []session.Target{a.task(t, "near", serve), b.task(t, "far", serve)} {
		a.Update(route(target))
		conn := a.connect(t)
		if b, err := io.ReadAll(conn); err != nil || len(b) != 0 {
			t.Fatalf("%q, %v", b, err)
		}
		if _, err := io.WriteString(conn, "late"); err != nil {
			t.Fatal(err)
		}
		closed(t, conn)
		same(t, target.Task, <-heard, "late")
	}
}

// A task that breaks a connection off has not ended it well, and the client must see that.
func TestReset(t *testing.T) {
	s := newSwarm(t)
	a, b := newHost(t, "a", s, nil), newHost(t, "b", s, nil)
	serve := func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.SetLinger(0)
	}
	for _, target := range []session.Target{a.task(t, "near", serve), b.task(t, "far", serve)} {
		a.Update(route(target))
		conn := a.connect(t)
		_, _ = conn.Write([]byte("x"))
		if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v: want a reset connection", target.Task, err)
		}
	}
}

// waits is a task that answers when the connection ends.
func waits(c *net.TCPConn) { _, _ = io.Copy(c, c) }

func TestPlaces(t *testing.T) {
	one := func(o *Options) { o.MaxConns = 1 }
	a, b := newHost(t, "a", nil, one), newHost(t, "b", nil, one)
	a.Update(route(a.task(t, "near", waits)))
	first, second := a.connect(t), a.connect(t)
	echo(t, first)
	if _, err := second.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	a.Mesh.mu.Lock()
	carried := len(a.pairs)
	a.Mesh.mu.Unlock()
	same(t, "carried", carried, 1)
	closed(t, first)
	if _, err := io.ReadFull(second, make([]byte, 1)); err != nil {
		t.Errorf("a connection that waited for its place: %v", err)
	}
	closed(t, second)

	// Of tunnels those beyond the bound are refused, and the other node takes another task.
	target := b.task(t, "far", waits)
	tunnel, err := a.tunnel(t.Context(), target, 80)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.tunnel(t.Context(), target, 80); err == nil || !strings.Contains(err.Error(), "1 connections are carried") {
		t.Errorf("a second tunnel: %v", err)
	}
	tunnel.Close()
	eventually(t, "the place is free", func() bool {
		again, err := a.tunnel(t.Context(), target, 80)
		if err == nil {
			again.Close()
		}
		return err == nil
	})
}

func echo(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestRefusedTunnels(t *testing.T) {
	a, b := newHost(t, "a", nil, nil), newHost(t, "b", nil, nil)
	b.task(t, "one", names("one"))
	for name, c := range map[string]struct{ line, want string }{
		"another's task":   {`{"task":"two","port":80}`, `{"error":"task two not found on this node"}`},
		"another port":     {`{"task":"one","port":22}`, `{"error":"task one: port 22 is not published in ingress mode"}`},
		"no JSON":          {`GET / HTTP/1.1`, `{"error":"the first line of a tunnel: invalid character 'G' looking for beginning of value"}`},
		"a long line":      {strings.Repeat("x", maxLine+1), `{"error":"the first line of a tunnel: expected at most 1024 bytes"}`},
		"a port below all": {`{"task":"one","port":-1}`, `{"error":"the first line of a tunnel: json: cannot unmarshal number -1 into Go struct field greeting.port of type uint32"}`},
	} {
		conn, err := a.o.Dial(t.Context(), "b", b.cluster)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, c.line+"\n")
		got, _ := io.ReadAll(conn) // what was not read makes a reset of the end
		same(t, name, string(got), c.want+"\n")
		closed(t, conn)
	}
}

func TestPortOfOthers(t *testing.T) {
	a := newHost(t, "a", nil, nil)
	a.busy = 2
	a.Update(route(a.task(t, "one", names("one"))))
	same(t, "answers", a.asks(t, 1), map[string]int{"one": 1})
}

// A port that is not published any more is given back; who is connected stays so.
func TestUnpublished(t *testing.T) {
	a := newHost(t, "a", nil, nil)
	a.Update(route(a.task(t, "one", waits)))
	conn := a.connect(t)
	echo(t, conn)
	a.Update(nil)
	if late, err := net.Dial("tcp", a.address(t)); err == nil {
		late.Close()
		t.Error("the port is still there")
	}
	echo(t, conn)
	// What is no port of the mesh's is none.
	for _, p := range []wire.ServicePort{{Protocol: "udp", TargetPort: 80, PublishedPort: 1}, {TargetPort: 80, PublishedPort: 1, PublishMode: wire.PublishHost},
		{TargetPort: 80}, {TargetPort: 80, PublishedPort: 1 << 16}, {PublishedPort: 1}} {
		a.Update([]session.Route{{Service: "service1", Port: p}})
		a.Mesh.mu.Lock()
		same(t, fmt.Sprint(p), len(a.ports), 0)
		a.Mesh.mu.Unlock()
	}
}

func TestIdle(t *testing.T) {
	s := newSwarm(t)
	short := func(o *Options) { o.Idle = 200 * time.Millisecond }
	a, b := newHost(t, "a", s, short), newHost(t, "b", s, nil)
	for _, target := range []session.Target{a.task(t, "near", waits), b.task(t, "far", waits)} {
		a.Update(route(target))
		conn := a.connect(t)
		echo(t, conn)
		if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v: want a reset connection", target.Task, err)
		}
	}
}

func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("nodes", func(t *testing.T) {
		s := newSwarm(t)
		a, b := newHost(t, "a", s, nil), newHost(t, "b", s, nil)
		a.Update(route(a.task(t, "near", waits), b.task(t, "far", waits)))
		for range 4 {
			echo(t, a.connect(t))
		}
		closed(t, a)
		closed(t, a)
		a.Update(route(b.target("far"))) // nothing comes of it
		a.Mesh.mu.Lock()
		same(t, "connections", len(a.pairs), 0)
		a.Mesh.mu.Unlock()
		// A closed mesh takes no tunnel.
		if _, err := b.tunnel(t.Context(), a.target("near"), 80); err == nil {
			t.Error("a closed mesh takes a tunnel")
		}
	})
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}
