package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/wire"
)

// failing fails an Update after its function was called, as one whose leadership ends.
type failing struct {
	*store.Memory
	err  error
	fail atomic.Int32
}

func (f *failing) Update(ctx context.Context, fn func(store.Writer) error) error {
	if f.fail.Load() > 0 {
		f.fail.Add(-1)
		_ = f.Memory.Update(ctx, func(w store.Writer) error { _ = fn(w); return errors.New("not this time") })
		return f.err
	}
	return f.Memory.Update(ctx, fn)
}

func TestReportsSurviveAFailedWrite(t *testing.T) {
	for _, cause := range []error{store.ErrUncertain, store.ErrNotLeader} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			f := &failing{Memory: w.store, err: cause}
			w.objects = f
			w.lead()
			n1 := w.join(t.Context(), "n1")
			settle()
			f.fail.Store(1)
			n1.say(t, session.Report{Tasks: map[string]wire.TaskStatus{"t1": {State: wire.TaskRunning}}})
			settle()
			if state := w.store.Reader().Task("t1").Status.State; state != wire.TaskRunning {
				t.Errorf("after a write that failed with %q the task is %s", cause, state)
			}
		})
	}
}

func TestBigReportsHurtNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.change(func(s store.Writer) {
			s.PutTask(&wire.Task{ID: "t2", ServiceID: "s", NodeID: "n2", Slot: 2, DesiredState: wire.TaskRunning, Status: wire.TaskStatus{State: wire.TaskAssigned}})
		})
		w.lead()
		n1, n2 := w.join(t.Context(), "n1"), w.join(t.Context(), "n2")
		settle()
		_ = n1.send(session.Report{Tasks: map[string]wire.TaskStatus{"t1": {State: wire.TaskRunning, Err: strings.Repeat("<", 900<<10)}}})
		_ = n2.send(session.Report{Tasks: map[string]wire.TaskStatus{"t2": {State: wire.TaskRunning}}})
		settle()
		if state := w.store.Reader().Task("t2").Status.State; state != wire.TaskRunning {
			t.Errorf("after another node's report of 900 KiB the task is %s", state)
		}
	})
}

func TestBigDescriptionsHurtNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lead()
		n1, n2 := w.join(t.Context(), "n1"), w.join(t.Context(), "n2")
		settle()
		_ = n2.send(session.Report{Description: &wire.NodeDescription{Hostname: strings.Repeat("<", 900<<10)}})
		_ = n1.send(session.Report{Tasks: map[string]wire.TaskStatus{"t1": {State: wire.TaskRunning}}})
		settle()
		if state := w.store.Reader().Task("t1").Status.State; state != wire.TaskRunning {
			t.Errorf("after another node's description of 900 KiB the task is %s", state)
		}
	})
}

// slowStream takes its time to send, and its receive ends as the test says.
type slowStream struct {
	over    chan struct{}
	sending atomic.Bool
}

func (s *slowStream) send(session.Wanted) error {
	s.sending.Store(true)
	time.Sleep(time.Second)
	s.sending.Store(false)
	return nil
}
func (s *slowStream) stop() {}

func (s *slowStream) receive() (session.Report, error) {
	<-s.over
	return session.Report{}, errors.New("over")
}

func TestServeWaitsForBothDirections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lead()
		s := &slowStream{over: make(chan struct{})}
		ended := make(chan struct{})
		go func() { defer close(ended); _ = w.serve(t.Context(), "n1", s) }()
		time.Sleep(2*batchTime + 10*time.Millisecond)
		synctest.Wait()
		if !s.sending.Load() {
			t.Fatal("it does not send")
		}
		close(s.over)
		<-ended
		if s.sending.Load() {
			t.Error("serve has returned while it sends: the answer of HTTP/2 is over then, and to write into it panics")
		}
		time.Sleep(2 * time.Second)
	})
}

func TestDownWithALiveSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lead()
		n1 := w.join(t.Context(), "n1")
		settle()
		w.change(func(s store.Writer) { // as watch does that has waited for its turn while the node came back
			n := *s.Node("n1")
			n.Status.State = wire.NodeDown
			s.PutNode(&n)
		})
		for range 4 {
			n1.say(t, session.Report{})
		}
		if state := w.store.Reader().Node("n1").Status.State; state != wire.NodeReady {
			t.Errorf("a node that speaks is %s", state)
		}
	})
}

// A node is told all of its tasks, however long the specification is that they have in common.
func TestManyTasksOfALongSpecification(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const tasks, long = 30, 350 << 10
		spec := wire.TaskSpec{ContainerSpec: &wire.ContainerSpec{Image: "busybox", Env: []string{"TEXT=" + strings.Repeat("a", long)}}}
		for i := range tasks {
			w.change(func(s store.Writer) {
				s.PutTask(&wire.Task{ID: fmt.Sprint("long", i), ServiceID: "s", NodeID: "n2", Slot: 1 + i, Spec: spec, DesiredState: wire.TaskRunning, Status: wire.TaskStatus{State: wire.TaskAssigned}})
			})
		}
		if tasks*long < session.MaxWanted {
			t.Fatal("they would fit one by one")
		}
		w.lead()
		n2 := w.join(t.Context(), "n2")
		settle()
		got := n2.wanted().Tasks
		if len(got) != tasks {
			t.Fatalf("it is told %d tasks", len(got))
		}
		for _, task := range got {
			if task.Spec.ContainerSpec == nil || len(task.Spec.ContainerSpec.Env[0]) < long {
				t.Errorf("task %s is of %+v", task.ID, task.Spec)
			}
		}
	})
}
