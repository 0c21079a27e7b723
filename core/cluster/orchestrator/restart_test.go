package orchestrator

import (
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/wire"
)

func TestTaskThatEndedIsReplaced(t *testing.T) {
	for _, tt := range []struct {
		condition, state string
		replaced         bool
	}{
		{"", wire.TaskFailed, true},
		{"", wire.TaskComplete, true},
		{wire.RestartAny, wire.TaskComplete, true},
		{wire.RestartAny, wire.TaskRejected, true},
		{wire.RestartOnFailure, wire.TaskFailed, true},
		{wire.RestartOnFailure, wire.TaskComplete, false},
		{wire.RestartNone, wire.TaskFailed, false},
		{wire.RestartNone, wire.TaskComplete, false},
	} {
		t.Run(tt.condition+" "+tt.state, func(t *testing.T) {
			w := newWorld(t, "a")
			s := spec("web", 1)
			if tt.condition != "" {
				s.TaskTemplate.RestartPolicy = &wire.TaskRestart{Condition: tt.condition}
			}
			w.create(s)
			w.settle()
			old := w.tasks("web")[0]
			w.says(old, tt.state)
			w.settle()
			expect(w, "desired state of what has ended", w.Reader().Task(old.ID).DesiredState, wire.TaskShutdown)
			if !tt.replaced {
				expect(w, "tasks", len(w.tasks("web")), 1)
				w.pass(time.Minute)
				expect(w, "tasks", len(w.tasks("web")), 1)
				return
			}
			expect(w, "tasks", len(w.tasks("web")), 2)
			next := w.tasks("web")[1]
			expect(w, "slot", next.Slot, old.Slot)
			expect(w, "desired state before the delay", next.DesiredState, wire.TaskReady)
			expect(w, "state before the delay", next.Status.State, wire.TaskReady)
			expect(w, "time until the next step", w.again, 5*time.Second)
			w.pass(5 * time.Second)
			expect(w, "state after the delay", w.tasks("web")[1].Status.State, wire.TaskRunning)
		})
	}
}

// A task that always fails is tried again at the pace of its delay, and only the newest are kept.
func TestRestartLoop(t *testing.T) {
	for _, state := range []string{wire.TaskFailed, wire.TaskRejected} {
		w := newWorld(t, "a")
		w.fate = func(*wire.Task) string { return state }
		w.create(spec("web", 1))
		w.pass(60 * time.Second)
		expect(w, "tasks that were made", w.ids, 14)
		expect(w, "tasks that are kept", len(w.tasks("web")), 5)
		w.fate = nil
		w.pass(10 * time.Second)
		expect(w, "tasks that are wanted", len(w.wanted("web")), 1)
		expect(w, "state", w.wanted("web")[0].Status.State, wire.TaskRunning)
	}
}

// One that is refused while it is prepared waits for its own delay before it is replaced.
func TestRestartLoopOfPreparedTasks(t *testing.T) {
	w := newWorld(t, "a")
	w.create(spec("web", 1))
	w.settle()
	w.says(w.tasks("web")[0], wire.TaskFailed)
	w.settle()
	w.says(w.wanted("web")[0], wire.TaskRejected)
	w.settle()
	expect(w, "tasks", w.ids, 2)
	w.pass(5 * time.Second)
	expect(w, "tasks", w.ids, 3)
	expect(w, "desired state", w.wanted("web")[0].DesiredState, wire.TaskReady)
}

func TestMaxAttempts(t *testing.T) {
	w := newWorld(t, "a")
	w.fate = func(*wire.Task) string { return wire.TaskFailed }
	w.create(spec("web", 2, restarts(wire.RestartAny, time.Second, 3, 0)))
	w.pass(time.Minute)
	expect(w, "tasks of two slots, each with three more attempts", w.ids, 8)
	expect(w, "tasks that are kept", len(w.tasks("web")), 8)
	expect(w, "tasks that are wanted", len(w.wanted("web")), 0)
	// A new specification has its own attempts.
	w.change("web", image(2), updates(wire.UpdateConfig{FailureAction: "continue", Parallelism: 0}))
	w.pass(time.Minute)
	expect(w, "tasks", w.ids, 16)
}

func TestMaxAttemptsWithinWindow(t *testing.T) {
	w := newWorld(t, "a")
	w.create(spec("web", 1, restarts(wire.RestartAny, time.Second, 2, 30*time.Second)))
	w.settle()
	fail := func() {
		w.says(w.wanted("web")[0], wire.TaskFailed)
		w.pass(2 * time.Second)
	}
	fail()
	w.pass(time.Minute)
	fail()
	w.pass(time.Minute)
	fail()
	fail()
	expect(w, "tasks that are wanted", len(w.wanted("web")), 1)
	fail()
	expect(w, "tasks that are wanted after the third in the window", len(w.wanted("web")), 0)
	w.pass(time.Hour)
	expect(w, "tasks that are wanted", len(w.wanted("web")), 0)
}

func TestReplacementWaitsForTheOldTask(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("web", 1))
	w.settle()
	old := w.tasks("web")[0]
	w.now = w.now.Add(time.Second)
	w.available(old.NodeID, wire.AvailabilityDrain)
	w.step() // the node does not answer yet
	next := w.wanted("web")[0]
	expect(w, "desired state of the next", next.DesiredState, wire.TaskReady)
	expect(w, "time until it does not wait any longer", w.again, time.Minute)
	w.says(old, wire.TaskShutdown)
	w.step()
	expect(w, "desired state of the next", w.wanted("web")[0].DesiredState, wire.TaskRunning)
}

func TestReplacementStopsWaiting(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("web", 1))
	w.settle()
	w.now = w.now.Add(time.Second)
	w.available(w.tasks("web")[0].NodeID, wire.AvailabilityDrain)
	w.step()
	w.now = w.now.Add(time.Minute)
	w.step()
	expect(w, "desired state", w.wanted("web")[0].DesiredState, wire.TaskRunning)
}

func TestHistoryLimit(t *testing.T) {
	for limit, want := range map[int64]int{0: 1, 2: 2, 7: 7, -1: 14} {
		w := newWorld(t, "a")
		w.update(func(tx store.Writer) {
			c := *tx.Cluster()
			c.Spec.Orchestration.TaskHistoryRetentionLimit = &limit
			tx.PutCluster(&c)
		})
		w.fate = func(*wire.Task) string { return wire.TaskFailed }
		w.create(spec("web", 1))
		w.pass(time.Minute)
		expect(w, "tasks", len(w.tasks("web")), want)
	}
}

// A task that has ended for good is not deleted, as its place would be taken for an empty one.
func TestHistoryKeepsTheLast(t *testing.T) {
	w := newWorld(t, "a")
	w.update(func(tx store.Writer) {
		c := *tx.Cluster()
		c.Spec.Orchestration.TaskHistoryRetentionLimit = new(int64)
		tx.PutCluster(&c)
	})
	w.fate = func(*wire.Task) string { return wire.TaskComplete }
	w.create(spec("web", 1, restarts(wire.RestartNone, 0, 0, 0)))
	w.pass(time.Hour)
	expect(w, "tasks", w.ids, 1)
}

// A clock that was set back, or two tasks in one moment: the last that was made is still told from the others.
func TestNewestWhenTheClockGoesBack(t *testing.T) {
	w := newWorld(t, "a")
	w.create(spec("web", 1, restarts(wire.RestartOnFailure, 0, 0, 0)))
	w.settle()
	w.now = w.now.Add(-time.Hour)
	w.says(w.wanted("web")[0], wire.TaskFailed)
	w.settle()
	w.says(w.wanted("web")[0], wire.TaskComplete)
	w.settle()
	expect(w, "tasks that are wanted after the last has ended well", len(w.wanted("web")), 0)
}

// A clock that is set back lengthens no delay: what is left of it is the whole delay at most.
func TestDelayWhenTheClockGoesBack(t *testing.T) {
	w := newWorld(t, "a")
	w.create(spec("web", 1, restarts(wire.RestartAny, 7*time.Second, 0, 0)))
	w.settle()
	w.says(w.tasks("web")[0], wire.TaskFailed)
	w.settle()
	w.now = w.now.Add(-time.Hour)
	w.settle()
	expect(w, "time until the next step", w.again, 7*time.Second)
	w.pass(6 * time.Second)
	expect(w, "desired state before the delay", w.wanted("web")[0].DesiredState, wire.TaskReady)
	w.pass(time.Second)
	expect(w, "desired state after the delay", w.wanted("web")[0].DesiredState, wire.TaskRunning)
}
