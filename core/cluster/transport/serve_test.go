package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func TestTunnels(t *testing.T) {
	s := newSwarm(t)
	one, two := s.node(wire.RoleWorker, Options{}), s.node(wire.RoleWorker, Options{})
	seen := make(chan identity.Peer, 1)
	two.Tunnels(func(_ context.Context, c net.Conn, peer identity.Peer) {
		seen <- peer
		all, err := io.ReadAll(c) // until the other half is closed
		fmt.Fprintf(c, "%s %v", strings.ToUpper(string(all)), err)
	})
	c, err := one.DialTunnel(t.Context(), two.id, two.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "to the end")
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); string(got) != "TO THE END <nil>" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if p := <-seen; p != one.who.Current().Peer() {
		t.Errorf("the other end sees %v", p)
	}

	t.Run("another node than was meant", func(t *testing.T) {
		if c, err := one.DialTunnel(t.Context(), identity.NewID(), two.addr); c != nil || !fault.Is(err, fault.Unavailable) {
			t.Errorf("got %v, %v", c, err)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if c, err := one.DialTunnel(t.Context(), two.id, l.Addr().String()); c != nil || !fault.Is(err, fault.Unavailable) {
			t.Errorf("got %v, %v", c, err)
		}
	})
	t.Run("nobody takes tunnels", func(t *testing.T) {
		c, err := two.DialTunnel(t.Context(), one.id, one.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("got %d, %v", n, err)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		many := s.node(wire.RoleWorker, Options{})
		many.Tunnels(func(_ context.Context, c net.Conn, _ identity.Peer) { _, _ = io.Copy(c, c) })
		var all sync.WaitGroup
		for i := range 300 {
			all.Go(func() {
				c, err := one.DialTunnel(t.Context(), many.id, many.addr)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				want := fmt.Sprintf("%08d", i)
				fmt.Fprint(c, want)
				got := make([]byte, len(want))
				if _, err := io.ReadFull(c, got); string(got) != want || err != nil {
					t.Errorf("got %s, %v, want %s", got, err, want)
				}
			})
		}
		all.Wait()
		if len(one.dialing.by) != 0 {
			t.Errorf("gates that nobody uses: %v", one.dialing.by)
		}
	})
}

func TestRaft(t *testing.T) {
	s := newSwarm(t)
	one, two, worker := s.node(wire.RoleManager, Options{}), s.node(wire.RoleManager, Options{}), s.node(wire.RoleWorker, Options{})
	left, right := one.Raft(), two.Raft()
	dialled, err := left.Dial(raft.ServerAddress(two.addr), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer dialled.Close()
	accepted, err := right.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	fmt.Fprint(dialled, "vote")
	got := make([]byte, 4)
	if _, err := io.ReadFull(accepted, got); string(got) != "vote" || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
	if right.Addr().String() != two.addr {
		t.Errorf("addr %s, want %s", right.Addr(), two.addr)
	}

	t.Run("a worker may not", func(t *testing.T) {
		config, err := identity.ClientConfig(worker.who, identity.AnyManager, Raft)
		if err != nil {
			t.Fatal(err)
		}
		refused(t, two.addr, config)
	})
	t.Run("nor is it dialled", func(t *testing.T) {
		worker.Raft()
		if c, err := left.Dial(raft.ServerAddress(worker.addr), time.Minute); c != nil || err == nil {
			t.Errorf("got %v, %v", c, err)
		}
	})
	t.Run("the end of a layer is not the node's", func(t *testing.T) {
		again := two.Raft()
		if _, err := right.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the former accepts: %v", err)
		}
		if n, err := dialled.Read(make([]byte, 1)); err == nil {
			t.Errorf("what the former accepted goes on: %d", n)
		}
		c, err := left.Dial(raft.ServerAddress(two.addr), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		accepted, err := again.Accept()
		if err != nil {
			t.Fatal(err)
		}
		accepted.Close()
		if err := again.Close(); err != nil {
			t.Error(err)
		}
		if c, err := again.Dial(raft.ServerAddress(one.addr), time.Minute); c != nil || !errors.Is(err, net.ErrClosed) {
			t.Errorf("a closed layer dials: %v, %v", c, err)
		}
		config, err := identity.ClientConfig(one.who, identity.AnyManager, Raft)
		if err != nil {
			t.Fatal(err)
		}
		if err := try(t, two.addr, config); !errors.Is(err, io.EOF) {
			t.Errorf("a closed layer takes connections: %v", err)
		}
	})
}

// The layer is what the log's own transport takes it for.
func TestTheLogSpeaksThroughTheLayer(t *testing.T) {
	s := newSwarm(t)
	one, two := s.node(wire.RoleManager, Options{}), s.node(wire.RoleManager, Options{})
	speak := func(n *node) *raft.NetworkTransport {
		log := raft.NewNetworkTransport(n.Raft(), 2, time.Minute, io.Discard)
		t.Cleanup(func() { _ = log.Close() })
		return log
	}
	left, right := speak(one), speak(two)
	go func() {
		for range 2 {
			rpc := <-right.Consumer()
			rpc.Respond(&raft.RequestVoteResponse{Term: rpc.Command.(*raft.RequestVoteRequest).Term + 1}, nil)
		}
	}()
	for term := range uint64(2) { // the second over the connection of the first
		var answer raft.RequestVoteResponse
		if err := left.RequestVote("two", right.LocalAddr(), &raft.RequestVoteRequest{Term: term}, &answer); err != nil || answer.Term != term+1 {
			t.Fatalf("got %+v, %v", answer, err)
		}
	}
}

func TestClose(t *testing.T) {
	s := newSwarm(t)
	manager, worker := s.node(wire.RoleManager, Options{}), s.node(wire.RoleWorker, Options{})
	over := make(chan struct{}, 3)
	manager.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		over <- struct{}{}
	}))
	manager.Tunnels(func(ctx context.Context, c net.Conn, _ identity.Peer) {
		_, _ = io.Copy(c, c) // whoever waits for the connection alone learns of the end too
		<-ctx.Done()
		over <- struct{}{}
	})
	answer, err := worker.Client().Get("https://" + manager.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	c, err := worker.DialTunnel(t.Context(), manager.id, manager.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	half, err := net.Dial("tcp", manager.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	layer := manager.Raft()
	pass(t, c) // so it is there at both ends
	digest, _ := s.authority.Digest()
	joining, err := JoinClient(digest).Get("https://" + manager.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer joining.Body.Close()

	if err := manager.Close(); err != nil {
		t.Fatal(err)
	}
	if err := manager.Close(); err != nil {
		t.Errorf("a second time: %v", err)
	}
	for range cap(over) {
		<-over
	}
	for name, body := range map[string]io.Reader{"node": answer.Body, "stranger": joining.Body} {
		if _, err := io.ReadAll(body); err == nil {
			t.Errorf("the answer to a %s ended as if it were whole", name)
		}
	}
	for name, c := range map[string]net.Conn{"tunnel": c, "half-open": half} {
		if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := layer.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("raft: %v", err)
	}
	if _, err := get(t.Context(), manager.Client(), worker.addr); !fault.Is(err, fault.Unavailable) {
		t.Errorf("its client: %v", err)
	}
	waitFor(t, func() bool {
		manager.peers.mu.Lock()
		left := len(manager.peers.nodes)
		manager.peers.mu.Unlock()
		return left+count(manager.strangers)+count(manager.handshakes) == 0
	})
}
