package orchestrator

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/wire"
)

func job(concurrent, total uint64) func(*wire.ServiceSpec) {
	return func(s *wire.ServiceSpec) {
		s.Mode = wire.ServiceMode{ReplicatedJob: &wire.ReplicatedJob{MaxConcurrent: &concurrent, TotalCompletions: &total}}
	}
}

// states counts the tasks of job by state.
func (w *world) states() map[string]int {
	n := map[string]int{}
	for _, t := range w.tasks("job") {
		n[t.Status.State]++
	}
	return n
}

func TestReplicatedJob(t *testing.T) {
	w := newWorld(t, "a", "b")
	done := false
	w.fate = func(*wire.Task) string {
		if done {
			return ""
		}
		return wire.TaskRunning
	}
	w.create(spec("job", 0, job(2, 5)))
	w.settle()
	if diff := cmp.Diff(map[string]int{"running": 2}, w.states()); diff != "" {
		t.Error(diff)
	}
	status := Status(w.Reader(), w.service("job"))
	if diff := cmp.Diff(wire.ServiceStatus{RunningTasks: 2, DesiredTasks: 2}, status); diff != "" {
		t.Error(diff)
	}
	done = true
	w.pass(time.Minute)
	if diff := cmp.Diff(map[string]int{"complete": 5}, w.states()); diff != "" {
		t.Error(diff)
	}
	slots := map[int]bool{}
	for _, task := range w.tasks("job") {
		slots[task.Slot] = true
		expect(w, "desired", task.DesiredState, wire.TaskComplete)
	}
	if !slots[0] || !slots[4] || len(slots) != 5 {
		t.Errorf("slots %v", slots)
	}
	status = Status(w.Reader(), w.service("job"))
	if diff := cmp.Diff(wire.ServiceStatus{DesiredTasks: 2, CompletedTasks: 5}, status); diff != "" {
		t.Error(diff)
	}
	w.pass(time.Hour)
	expect(w, "tasks", w.ids, 5)
	// Whatever changes, the job is run again, and what was is forgotten.
	w.change("job", func(s *wire.ServiceSpec) { s.TaskTemplate.ForceUpdate++ })
	w.pass(time.Minute)
	expect(w, "tasks", w.ids, 10)
	if diff := cmp.Diff(map[string]int{"complete": 5}, w.states()); diff != "" {
		t.Error(diff)
	}
	expect(w, "iteration", w.tasks("job")[0].JobIteration.Index, 1)
}

func TestJobThatFails(t *testing.T) {
	w := newWorld(t, "a")
	w.fate = func(task *wire.Task) string {
		if task.Slot == 1 {
			return wire.TaskFailed
		}
		return ""
	}
	w.create(spec("job", 0, job(1, 3), restarts(wire.RestartOnFailure, time.Second, 2, 0)))
	w.pass(time.Minute)
	if diff := cmp.Diff(map[string]int{"complete": 2, "failed": 3}, w.states()); diff != "" {
		t.Error(diff)
	}
	expect(w, "tasks", w.ids, 5)
}

func TestJobOnANodeThatIsLost(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.fate = func(task *wire.Task) string {
		if task.NodeID == "a" {
			return wire.TaskRunning
		}
		return ""
	}
	w.create(spec("job", 0, job(2, 2)))
	w.settle()
	w.state("a", wire.NodeDown)
	w.pass(time.Minute)
	complete := Status(w.Reader(), w.service("job")).CompletedTasks
	expect(w, "complete tasks", complete, 2)
}

func TestGlobalJob(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("job", 0, jobOnEach, constrained("node.labels.idle!=yes")))
	w.settle()
	if diff := cmp.Diff(map[string]int{"complete": 2}, w.states()); diff != "" {
		t.Error(diff)
	}
	w.node("c", nil)
	w.node("d", func(n *wire.Node) { n.Spec.Labels = map[string]string{"idle": "yes"} })
	w.settle()
	if diff := cmp.Diff(map[string]int{"complete": 3}, w.states()); diff != "" {
		t.Error(diff)
	}
	w.available("a", wire.AvailabilityDrain)
	w.available("a", wire.AvailabilityActive)
	w.pass(time.Hour)
	expect(w, "tasks", w.ids, 3)
}
