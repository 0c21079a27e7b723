package cluster

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/wire"
)

// What is too much for the state ends the session of whoever says it, and is not in the way of the others' news.
func TestPortsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.change(func(s store.Writer) {
			s.PutTask(&wire.Task{ID: "t2", ServiceID: "s", NodeID: "n2", Slot: 2, DesiredState: wire.TaskRunning, Status: wire.TaskStatus{State: wire.TaskAssigned}})
		})
		w.lead()
		n1, n2 := w.join(t.Context(), "n1"), w.join(t.Context(), "n2")
		settle()
		status := wire.TaskStatus{State: wire.TaskRunning}
		status.PortStatus.Ports = []wire.ServicePort{{Protocol: strings.Repeat("<", 900<<10)}} // six times as long in JSON
		if err := n1.send(session.Report{Tasks: map[string]wire.TaskStatus{"t1": status}}); err != nil {
			t.Fatal(err)
		}
		n2.say(t, session.Report{Tasks: map[string]wire.TaskStatus{"t2": {State: wire.TaskRunning}}})
		if state := w.store.Reader().Task("t2").Status.State; state != wire.TaskRunning {
			t.Errorf("after another node's ports the task is %s", state)
		}
		<-n1.done
	})
}

// turns are tables whose changes wait for one another.
type turns struct {
	*store.Memory
	turn chan struct{}
}

func (h *turns) Update(ctx context.Context, fn func(store.Writer) error) error {
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	return h.Memory.Update(ctx, fn)
}

// A node that comes back while the change waits that would call it down stays as it is: its tasks would be replaced.
func TestBackBeforeItIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		tables := &turns{w.store, make(chan struct{}, 1)}
		w.objects = tables
		w.lead()
		n1 := w.join(t.Context(), "n1")
		settle()
		tables.turn <- struct{}{}
		time.Sleep((missedHeartbeats + 2) * heartbeatOfWorld)
		<-n1.done
		w.join(t.Context(), "n1")
		synctest.Wait()
		was := w.store.Reader().Node("n1").UpdatedAt
		<-tables.turn
		settle()
		n := w.store.Reader().Node("n1")
		if n.Status.State != wire.NodeReady || !n.UpdatedAt.Equal(was) {
			t.Errorf("it is %s, and was changed at %s, before at %s", n.Status.State, n.UpdatedAt, was)
		}
	})
}

// A line of an older session that comes late says less than the newer session has said.
func TestLateLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lead()
		n1 := w.join(t.Context(), "n1")
		settle()
		if err := n1.send(session.Report{Tasks: map[string]wire.TaskStatus{"t1": {State: wire.TaskRunning}}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.hear("n1", &dialogue{}, session.Report{Tasks: map[string]wire.TaskStatus{"t1": {State: wire.TaskPreparing}}})
		settle()
		if state := w.store.Reader().Task("t1").Status.State; state != wire.TaskRunning {
			t.Errorf("the task is %s", state)
		}
	})
}

// A node's new address comes while the routes are made, which name the addresses of nodes: neither waits for the other.
func TestANodeMovesWhileRoutesAreMade(t *testing.T) {
	w := newWorld(t)
	w.change(func(s store.Writer) {
		n := *s.Node("n1")
		n.Status.State = wire.NodeReady
		s.PutNode(&n)
		task := *s.Task("t1")
		task.Status.State = wire.TaskRunning
		s.PutTask(&task)
	})
	mine := &dialogue{func() {}}
	w.sessions["n1"] = mine
	begun, goOn, made, heard := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(made)
		w.routes.of(w.store.Reader(), func(*wire.Node) string { close(begun); <-goOn; return "" })
	}()
	<-begun
	go func() {
		defer close(heard)
		w.hear("n1", mine, session.Report{Addr: "192.0.2.1:1111"})
	}()
	eventually(t, "there is an address to be asked for", func() bool {
		if !w.mu.TryLock() {
			return false
		}
		defer w.mu.Unlock()
		return w.addrs["n1"] == "192.0.2.1:1111"
	})
	close(goOn)
	<-made
	<-heard
	if got := w.routes.of(w.store.Reader(), w.addr); len(got) != 1 || len(got[0].Targets) != 1 || got[0].Targets[0].Addr != "192.0.2.1:1111" {
		t.Errorf("routes: %+v", got)
	}
}
