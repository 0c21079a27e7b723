package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func TestFromThreeToOneByRemoval(t *testing.T) {
	s := three(t, Options{})
	leader := s.leader()
	leader.put("a")
	var gone []*member
	for _, m := range s.members {
		if m != leader {
			if err := leader.RemoveManager(limited(t), m.id); err != nil {
				t.Fatal(err)
			}
			leader.put("without " + m.id)
			gone = append(gone, m)
		}
	}
	if err := leader.RemoveManager(limited(t), gone[0].id); err != nil {
		t.Errorf("removing it twice: %v", err)
	}
	for _, m := range gone {
		m.kill()
	}
	leader.put("alone")
	err := leader.RemoveManager(limited(t), leader.id)
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "is the last one of the swarm") {
		t.Errorf("removing the last one: %v", err)
	}
	if got := leader.Managers(); !cmp.Equal(got, []Manager{{leader.id, leader.addr, true, true}}) {
		t.Errorf("the managers are %+v", got)
	}
	// One that was removed starts with its old directory: it leads nothing and disturbs nobody.
	gone[0].start()
	leader.put("in spite of it")
	if gone[0].IsLeader() || !leader.IsLeader() {
		t.Error("a manager that was removed leads")
	}
	leader.kill()
	leader.start()
	s.leader().put("again")
	if leader.Reader().Node("a") == nil {
		t.Error("it has lost its state")
	}
}

func TestLeaderLeaves(t *testing.T) {
	s := three(t, Options{})
	leader := s.leader()
	leader.put("a")
	if err := leader.RemoveManager(limited(t), leader.id); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("the leader removes itself: %v", err)
	}
	next := s.leader()
	if next == leader {
		t.Fatal("the leadership was not handed over")
	}
	if err := next.RemoveManager(limited(t), leader.id); err != nil {
		t.Fatal(err)
	}
	leader.kill()
	next.put("b")
	s.agree()
	if n := len(next.Managers()); n != 2 {
		t.Errorf("there are %d managers", n)
	}
	if err := s.follower().StepDown(limited(t)); !errors.Is(err, ErrNotLeader) {
		t.Errorf("StepDown of a follower: %v", err)
	}
	s.follower().kill()
	if err := next.StepDown(limited(t)); err == nil {
		t.Error("the leadership was handed to a dead manager")
	}
}

func TestRemovalThatWouldCostTheMajority(t *testing.T) {
	s := three(t, Options{})
	leader := s.leader()
	var alive, dead *member
	for _, m := range s.members {
		if m == leader {
			continue
		}
		alive, dead = dead, m
	}
	dead.kill()
	eventually(t, "that it is not reached", func() bool {
		for _, m := range leader.Managers() {
			if m.ID == dead.id {
				return !m.Reachable
			}
		}
		return false
	})
	err := leader.RemoveManager(limited(t), alive.id)
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "there would be no majority: 1 of the other 2 managers can be reached") {
		t.Errorf("removing one of two that live: %v", err)
	}
	if err := leader.RemoveManager(limited(t), dead.id); err != nil {
		t.Errorf("removing the dead one: %v", err)
	}
	leader.put("a")
	s.agree()
}

func TestManagerThatCannotBeReachedIsNotAdded(t *testing.T) {
	s := newSwarm(t, Options{})
	m := s.add()
	m.start()
	m.begin()
	absent := s.add()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := m.AddManager(ctx, absent.id, absent.addr)
	if !fault.Is(err, fault.Deadline) || !strings.Contains(err.Error(), "does not follow the swarm's log") {
		t.Errorf("error is %v", err)
	}
	m.put("still the majority")
	if n := len(m.Managers()); n != 1 {
		t.Errorf("there are %d managers", n)
	}
	absent.start()
	m.join(absent)
	s.agree()
	if err := m.AddManager(limited(t), absent.id, absent.addr); err != nil {
		t.Errorf("adding it twice: %v", err)
	}
	if err := m.AddManager(limited(t), "m9", absent.addr); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "duplicate address") {
		t.Errorf("another one with its address: %v", err)
	}
	if err := m.AddManager(limited(t), "", ""); !fault.Is(err, fault.Invalid) {
		t.Errorf("no ID: %v", err)
	}
}

// A leader that dies between the two steps of AddManager leaves a node without a vote, which the next leader takes out.
func TestHalfAManagerIsTakenOut(t *testing.T) {
	s := three(t, Options{})
	leader := s.leader()
	absent := s.add()
	if err := leader.raft.AddNonvoter(raft.ServerID(absent.id), raft.ServerAddress(absent.addr), 0, 0).Error(); err != nil {
		t.Fatal(err)
	}
	for _, m := range s.members {
		if m.Store != nil && m != leader {
			eventually(t, "that all know of it", func() bool { return m.find(raft.ServerID(absent.id)) != nil })
		}
	}
	leader.kill()
	next := s.leader()
	eventually(t, "that it is listed no more", func() bool { return next.find(raft.ServerID(absent.id)) == nil })
	absent.start()
	next.join(absent)
	s.agree()
	if n := len(next.Managers()); n != 4 {
		t.Errorf("there are %d managers", n)
	}
}

func TestManagerMoves(t *testing.T) {
	s := three(t, Options{})
	leader, mover := s.leader(), s.follower()
	mover.kill()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	mover.addr = l.Addr().String()
	mover.start()
	leader.join(mover)
	leader.put("a")
	s.agree()
	for _, m := range leader.Managers() {
		if m.ID == mover.id && m.Addr != mover.addr {
			t.Errorf("its address is %s, want %s", m.Addr, mover.addr)
		}
	}
}

func TestLateJoinerGetsASnapshot(t *testing.T) {
	s := newSwarm(t, Options{SnapshotEntries: 10, KeepEntries: 2})
	m := s.add()
	m.start()
	m.begin()
	for i := range 60 {
		m.put(fmt.Sprint("n", i))
	}
	first := uint64(0)
	eventually(t, "that the log is cut", func() bool {
		first, _ = m.logs.FirstIndex()
		return first > 20
	})
	late := s.add()
	late.start()
	m.join(late)
	s.agree()
	if found, _ := filepath.Glob(filepath.Join(late.dir, "snapshots", "*", "state.bin")); len(found) == 0 {
		t.Error("it has no snapshot")
	}
	late.kill()
	late.start()
	s.agree()
	if late.Reader().Node("n0") == nil {
		t.Error("what the snapshot had is lost")
	}
}

func TestSpecSaysWhenToMakeSnapshots(t *testing.T) {
	s := newSwarm(t, Options{})
	m := s.add()
	m.start()
	m.begin()
	c := &Cluster{SwarmInfo: wire.SwarmInfo{ID: "swarm"}}
	c.Spec.Raft.SnapshotInterval, c.Spec.Raft.LogEntriesForSlowFollowers = 5, 1
	if err := m.Update(limited(t), func(w Writer) error { w.PutCluster(c); return nil }); err != nil {
		t.Fatal(err)
	}
	m.put("a", "b", "c", "d", "e")
	eventually(t, "a snapshot", func() bool {
		found, _ := filepath.Glob(filepath.Join(m.dir, "snapshots", "*", "state.bin"))
		return len(found) > 0
	})
}

func TestLongLogIsCut(t *testing.T) {
	s := newSwarm(t, Options{KeepEntries: 1, maxLog: 100 << 10})
	m := s.add()
	m.start()
	m.begin()
	for i := range 8 {
		if err := m.Update(limited(t), func(w Writer) error {
			w.PutAuth(fmt.Sprint("s", i), strings.Repeat("x", 20<<10))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a snapshot", func() bool {
		found, _ := filepath.Glob(filepath.Join(m.dir, "snapshots", "*", "state.bin"))
		return len(found) > 0
	})
	m.put("after")
	s.agree()
}

func TestRecover(t *testing.T) {
	for _, c := range []struct {
		name    string
		options Options
	}{
		{"from the log", Options{}},
		{"from a snapshot and the log", Options{SnapshotEntries: 10, KeepEntries: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := three(t, c.options)
			leader := s.leader()
			for i := range 30 {
				leader.put(fmt.Sprint("n", i))
			}
			s.agree()
			survivor := s.follower()
			for _, m := range s.members {
				m.kill()
			}
			if err := Recover(survivor.with()); err != nil {
				t.Fatal(err)
			}
			if err := Recover(survivor.with()); err != nil {
				t.Fatalf("twice: %v", err)
			}
			survivor.start()
			if s.leader() != survivor {
				t.Fatal("it does not lead")
			}
			if got := survivor.Managers(); !cmp.Equal(got, []Manager{{survivor.id, survivor.addr, true, true}}) {
				t.Errorf("the managers are %+v", got)
			}
			for i := range 30 {
				if survivor.Reader().Node(fmt.Sprint("n", i)) == nil {
					t.Errorf("n%d is lost", i)
				}
			}
			survivor.put("after")
			fresh := s.add()
			fresh.start()
			survivor.join(fresh)
			s.agree()
		})
	}
}

func TestRecoverRefuses(t *testing.T) {
	s := newSwarm(t, Options{})
	m := s.add()
	if err := Recover(m.with()); err == nil || !strings.Contains(err.Error(), "no initial state") {
		t.Errorf("an empty directory: %v", err)
	}
	m.start()
	if err := Recover(m.with()); !fault.Is(err, fault.Conflict) {
		t.Errorf("a directory in use: %v", err)
	}
	m.begin()
	m.put("a")
	m.kill()
	if err := os.Truncate(filepath.Join(m.dir, logFile), 12<<10); err != nil {
		t.Fatal(err)
	}
	if err := Recover(m.with()); err == nil || !strings.Contains(err.Error(), "it is cut off") {
		t.Errorf("a log that is cut off: %v", err)
	}
}
