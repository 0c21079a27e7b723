package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func TestOneManagerKeepsItsState(t *testing.T) {
	s := newSwarm(t, Options{Now: clock()})
	m := s.add()
	m.start()
	if err := m.Update(t.Context(), putNode("early")); !errors.Is(err, ErrNotLeader) {
		t.Errorf("Update before Bootstrap: %v", err)
	}
	m.begin()
	m.put("a", "b")
	if got := m.Reader().Node("b"); got == nil || got.Version.Index == 0 || got.Version.Index != m.Reader().Index() || got.CreatedAt.IsZero() || !got.UpdatedAt.Equal(got.CreatedAt) {
		t.Errorf("node b is %+v", got)
	}
	if id, addr := m.Leader(); id != m.id || addr != m.addr || !m.IsLeader() {
		t.Errorf("the leader is %s at %s", id, addr)
	}
	if info, err := os.Stat(m.dir); err != nil || info.Mode().Perm() != 0o700 { // it has keys
		t.Errorf("the directory: %+v, %v", info, err)
	}
	was := s.agree()
	for range 3 {
		m.kill()
		m.start()
		s.leader() // without anything that says so: it is alone
		if diff := cmp.Diff(was, dump(t, *m.current())); diff != "" {
			t.Fatal(diff)
		}
	}
	if err := m.Bootstrap(limited(t)); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "is of another swarm") {
		t.Errorf("Bootstrap of what is there: %v", err)
	}
}

// Who has nobody to wait for does not wait for an election.
func TestLoneManagerLeadsAtOnce(t *testing.T) {
	s := newSwarm(t, Options{Election: 100 * time.Hour})
	m := s.add()
	m.start()
	m.begin()
	m.put("a")
	m.kill()
	m.start()
	if s.leader(); m.Reader().Node("a") == nil {
		t.Error("it has lost its state")
	}
}

func TestBootstrapAfterACrashInIt(t *testing.T) {
	m := newSwarm(t, Options{}).add()
	if err := prepare(m.dir); err != nil {
		t.Fatal(err)
	}
	l, err := openLogs(m.dir, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.SetUint64([]byte("CurrentTerm"), 1), l.Close()); err != nil {
		t.Fatal(err)
	}
	m.start()
	m.begin()
	m.put("a")
}

func TestManagersAgree(t *testing.T) {
	s := three(t, Options{})
	leader, follower := s.leader(), s.follower()
	leader.put("a", "b", "c")
	s.agree()
	woken := follower.Changed()
	leader.put("d")
	select {
	case <-woken:
	case <-limited(t).Done():
		t.Error("a follower was not woken")
	}
	called := false
	err := follower.Update(limited(t), func(Writer) error { called = true; return nil })
	if !errors.Is(err, ErrNotLeader) || errors.Is(err, ErrUncertain) || !fault.Is(err, fault.Unavailable) || called {
		t.Errorf("Update on a follower: %v, called %v", err, called)
	}
	if err := follower.Barrier(limited(t)); !errors.Is(err, ErrNotLeader) {
		t.Errorf("Barrier on a follower: %v", err)
	}
	if err := follower.AddManager(limited(t), "x", "127.0.0.1:1"); !errors.Is(err, ErrNotLeader) {
		t.Errorf("AddManager on a follower: %v", err)
	}
	eventually(t, "the follower's leader", func() bool {
		id, addr := follower.Leader()
		return id == leader.id && addr == leader.addr
	})
	want := []Manager{{"m1", s.members[0].addr, true, true}, {"m2", s.members[1].addr, false, true}, {"m3", s.members[2].addr, false, true}}
	for _, m := range s.members {
		eventually(t, "the list of managers", func() bool { return cmp.Equal(want, m.Managers()) })
	}
	s.members[2].kill()
	eventually(t, "that one is not reached", func() bool { return !leader.Managers()[2].Reachable })
	leader.put("e")
	s.members[2].start()
	eventually(t, "that it is reached again", func() bool { return leader.Managers()[2].Reachable })
	s.agree()
}

func TestUpdatesComeOneAfterTheOther(t *testing.T) {
	s := three(t, Options{})
	leader := s.leader()
	var all sync.WaitGroup
	var made, uncertain atomic.Int64
	for range 8 {
		all.Go(func() {
			for range 20 {
				err := leader.Update(limited(t), func(w Writer) error {
					n := wire.Node{ID: "counter"}
					if was := w.Node("counter"); was != nil {
						n = *was
					}
					n.Description.Resources.NanoCPUs++
					w.PutNode(&n)
					return nil
				})
				switch {
				case err == nil:
					made.Add(1)
				case errors.Is(err, ErrUncertain):
					uncertain.Add(1)
				default:
					refused(t, err)
				}
			}
		})
	}
	all.Wait()
	s.agree()
	got := s.follower().Reader().Node("counter").Description.Resources.NanoCPUs
	if got < made.Load() || got > made.Load()+uncertain.Load() || made.Load() == 0 {
		t.Errorf("%d changes are there: %d were made, and maybe %d", got, made.Load(), uncertain.Load())
	}
}

// What was acknowledged is there for ever, and what was refused for sure never is, whoever dies.
func TestLeaderDiesAmidUpdates(t *testing.T) {
	s := three(t, Options{SnapshotEntries: 20, KeepEntries: 5, Election: 400 * time.Millisecond})
	ctx, stop := context.WithCancel(limited(t))
	var mu sync.Mutex // of the members' stores and of the outcomes
	outcome := map[string]error{}
	acknowledged := 0
	var writers sync.WaitGroup
	for w := range 3 {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				mu.Lock()
				store := s.members[(w+i)%3].Store
				mu.Unlock()
				if store == nil {
					continue
				}
				id := fmt.Sprintf("w%d-%d", w, i)
				err := store.Update(ctx, putNode(id))
				mu.Lock()
				outcome[id] = err
				if err == nil {
					acknowledged++
				}
				mu.Unlock()
				if errors.Is(err, ErrNotLeader) {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	progress := func() {
		mu.Lock()
		from := acknowledged
		mu.Unlock()
		eventually(t, "updates", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return acknowledged > from+25
		})
	}
	for range 4 {
		progress()
		victim := s.members[0]
		for _, m := range s.members {
			if m.IsLeader() {
				victim = m
			}
		}
		mu.Lock()
		dying := victim.Store
		victim.Store = nil
		mu.Unlock()
		dying.Close() //nolint:errcheck // it has died
		progress()
		fresh := &member{swarm: s, id: victim.id, dir: victim.dir, addr: victim.addr}
		fresh.start()
		mu.Lock()
		victim.Store = fresh.Store
		mu.Unlock()
	}
	stop()
	writers.Wait()
	s.agree()
	r := s.follower().Reader()
	counts := map[string]int{}
	for id, err := range outcome {
		there := r.Node(id) != nil
		switch {
		case err == nil:
			counts["acknowledged"]++
			if !there {
				t.Errorf("%s was acknowledged and is lost", id)
			}
		case errors.Is(err, ErrUncertain):
			counts["uncertain"]++
		default:
			counts["refused"]++
			if there {
				t.Errorf("%s was refused (%v) and is there", id, err)
			}
		}
	}
	t.Log(counts)
}

func TestLeadershipLostAmidAnUpdate(t *testing.T) {
	s := three(t, Options{})
	leader := s.leader()
	leader.put("before")
	for _, m := range s.members {
		if m != leader {
			m.kill()
		}
	}
	err := leader.Update(limited(t), putNode("amid"))
	refused(t, err)
	if err == nil {
		t.Error("an Update without a majority has succeeded")
	}
	eventually(t, "the end of the leadership", func() bool { return !leader.IsLeader() })
	if err := leader.Update(limited(t), putNode("after")); !errors.Is(err, ErrNotLeader) {
		t.Errorf("Update without a majority: %v", err)
	}
	for _, m := range s.members {
		if m != leader {
			m.start()
		}
	}
	s.leader().put("later")
	s.agree()
	if r := leader.Reader(); r.Node("before") == nil || r.Node("later") == nil || r.Node("after") != nil {
		t.Error("the state is not what was agreed on")
	}
}

func TestContextEndsAmidAnUpdate(t *testing.T) {
	s := three(t, Options{Election: 3 * time.Second})
	leader := s.leader()
	leader.put("before")
	for _, m := range s.members {
		if m != leader {
			m.kill()
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := leader.Update(ctx, func(w Writer) error {
		defer cancel()
		return putNode("amid")(w)
	})
	if !errors.Is(err, ErrUncertain) {
		t.Errorf("error is %v", err)
	}
	if err := leader.Update(ctx, putNode("next")); !errors.Is(err, context.Canceled) && !errors.Is(err, ErrNotLeader) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// An entry that was made from another state than it finds is refused by all managers alike.
func TestEntryOfAnotherStateChangesNothing(t *testing.T) {
	s := three(t, Options{})
	leader := s.leader()
	d := newDraft(*leader.current(), time.Now())
	d.PutNode(&wire.Node{ID: "stale"})
	entry, err := d.entry()
	if err != nil {
		t.Fatal(err)
	}
	leader.put("newer")
	if err := leader.judge(leader.commit(entry)); !errors.Is(err, ErrNotLeader) {
		t.Errorf("error is %v", err)
	}
	leader.put("newest")
	s.agree()
	if r := s.follower().Reader(); r.Node("stale") != nil || r.Node("newest") == nil {
		t.Error("the state is not what was agreed on")
	}
}

func TestClosedStore(t *testing.T) {
	s := newSwarm(t, Options{})
	m := s.add()
	m.start()
	m.begin()
	m.put("a")
	store := m.Store
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	if err := store.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	select {
	case <-store.Done():
	default:
		t.Error("Done is open")
	}
	for name, err := range map[string]error{
		"Update":        store.Update(t.Context(), putNode("b")),
		"Barrier":       store.Barrier(t.Context()),
		"StepDown":      store.StepDown(t.Context()),
		"AddManager":    store.AddManager(t.Context(), "x", "y"),
		"RemoveManager": store.RemoveManager(t.Context(), "x"),
		"Bootstrap":     store.Bootstrap(t.Context()),
	} {
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "is closed") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if store.Reader().Node("a") == nil {
		t.Error("what it knew is forgotten")
	}
}

func TestOpenRefuses(t *testing.T) {
	s := newSwarm(t, Options{})
	m := s.add()
	m.start()
	other := s.add()
	other.dir = m.dir
	if err := other.open(); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "another sampand uses") {
		t.Errorf("a directory in use: %v", err)
	}
	for _, o := range []Options{{}, {Dir: "d"}, {Dir: "d", NodeID: "n"}, {Dir: "d", NodeID: "n", Addr: "a:1"}} {
		if _, err := Open(o); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
