package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/sampan-project/sampan/core/wire"
)

// patience is how long a test waits for what must come. Nothing is measured: machines are busy.
const patience = 2 * time.Minute

// loopback is a raft.StreamLayer of plain TCP.
type loopback struct{ net.Listener }

func (loopback) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(addr), timeout)
}

// swarm is managers in this process.
type swarm struct {
	t       *testing.T
	options Options // what all have in common
	members []*member
}

// member is one of them. Its store is nil while it is dead.
type member struct {
	swarm         *swarm
	id, dir, addr string
	*Store
}

func newSwarm(t *testing.T, o Options) *swarm {
	t.Helper()
	if o.Election == 0 {
		o.Election = 1500 * time.Millisecond // machines are busy: a shorter one ends by itself
	}
	if o.snapshotCheck == 0 {
		o.snapshotCheck = 100 * time.Millisecond
	}
	s := &swarm{t: t, options: o}
	t.TempDir() // so that directories are removed after the stores are closed
	t.Cleanup(func() {
		for _, m := range s.members {
			m.kill()
		}
		noneLeft(t)
	})
	return s
}

// noneLeft waits until no goroutine of a store is left.
func noneLeft(t *testing.T) {
	t.Helper()
	var left []string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		left = left[:0]
		buf := make([]byte, 4<<20)
		for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			for _, of := range []string{"hashicorp/raft.", "store.(*Store)", "store.(*transport)", "store.(*streams)", "go.etcd.io/bbolt"} {
				if strings.Contains(stack, of) && !strings.Contains(stack, "store.noneLeft") {
					left = append(left, stack)
					break
				}
			}
		}
		if len(left) == 0 {
			return
		}
	}
	t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
}

// add makes a member that has not been started.
func (s *swarm) add() *member {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	l.Close()
	m := &member{swarm: s, id: fmt.Sprint("m", len(s.members)+1), dir: filepath.Join(s.t.TempDir(), "raft"), addr: l.Addr().String()}
	s.members = append(s.members, m)
	return m
}

// three is a swarm of three managers; the first one leads.
func three(t *testing.T, o Options) *swarm {
	t.Helper()
	s := newSwarm(t, o)
	first := s.add()
	first.start()
	first.begin()
	for range 2 {
		m := s.add()
		m.start()
		first.join(m)
	}
	return s
}

func (m *member) with() Options {
	o := m.swarm.options
	o.Dir, o.NodeID, o.Addr = m.dir, m.id, m.addr
	return o
}

// open opens the member's store, which may fail.
func (m *member) open() error {
	m.swarm.t.Helper()
	var l net.Listener
	eventually(m.swarm.t, "its port", func() bool {
		var err error
		l, err = net.Listen("tcp", m.addr)
		return err == nil
	})
	o := m.with()
	o.Layer = loopback{l}
	s, err := Open(o)
	if err == nil {
		m.Store = s
	}
	return err
}

func (m *member) start() {
	m.swarm.t.Helper()
	if err := m.open(); err != nil {
		m.swarm.t.Fatal(err)
	}
}

// kill closes the store: nothing is written or told that would not be if its process died.
func (m *member) kill() {
	if m.Store != nil {
		m.Close() //nolint:errcheck // it has died
		m.Store = nil
	}
}

func (m *member) begin() {
	m.swarm.t.Helper()
	if err := m.Bootstrap(limited(m.swarm.t)); err != nil {
		m.swarm.t.Fatal(err)
	}
}

func (m *member) join(other *member) {
	m.swarm.t.Helper()
	if err := m.AddManager(limited(m.swarm.t), other.id, other.addr); err != nil {
		m.swarm.t.Fatal(err)
	}
}

// leader waits for a leader among the living.
func (s *swarm) leader() (found *member) {
	s.t.Helper()
	eventually(s.t, "a leader", func() bool {
		for _, m := range s.members {
			if m.Store != nil && m.Barrier(limited(s.t)) == nil {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

func (s *swarm) follower() *member {
	leader := s.leader()
	for _, m := range s.members {
		if m != leader && m.Store != nil {
			return m
		}
	}
	s.t.Fatal("no follower")
	return nil
}

// agree waits until all the living have the same state, which is the answer.
func (s *swarm) agree() (same string) {
	s.t.Helper()
	eventually(s.t, "agreement", func() bool {
		same = dump(s.t, *s.leader().current())
		for _, m := range s.members {
			if m.Store != nil && dump(s.t, *m.current()) != same {
				return false
			}
		}
		return true
	})
	return same
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, fn func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !fn(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: did not come", what)
		}
	}
}

func putNode(id string) func(Writer) error {
	return func(w Writer) error {
		w.PutNode(&wire.Node{ID: id})
		return nil
	}
}

// put makes one change for each node, on this manager; on another one if this does not lead any more.
func (m *member) put(ids ...string) {
	m.swarm.t.Helper()
	for _, id := range ids {
		err := m.Update(limited(m.swarm.t), putNode(id))
		for errors.Is(err, ErrNotLeader) || errors.Is(err, ErrUncertain) {
			err = m.swarm.leader().Update(limited(m.swarm.t), putNode(id))
		}
		if err != nil {
			m.swarm.t.Fatalf("put %s: %v", id, err)
		}
	}
}

// copyDir copies a directory as it is.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// refused fails the test unless err is one of the two errors of a manager that does not lead.
func refused(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrUncertain) {
		t.Errorf("unexpected error: %v", err)
	}
}
