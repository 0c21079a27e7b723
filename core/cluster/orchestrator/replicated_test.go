package orchestrator

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/wire"
)

func TestReplicatedSpreadsItsTasks(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.create(spec("web", 6))
	w.create(spec("db", 3))
	w.settle()
	if diff := cmp.Diff(map[string]int{"a": 2, "b": 2, "c": 2}, w.on("web")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]int{"a": 1, "b": 1, "c": 1}, w.on("db")); diff != "" {
		t.Error(diff)
	}
	slots := map[int]bool{}
	for _, task := range w.tasks("web") {
		slots[task.Slot] = true
		expect(w, "state", task.Status.State, wire.TaskRunning)
		expect(w, "desired", task.DesiredState, wire.TaskRunning)
	}
	if len(slots) != 6 || slots[0] || !slots[6] {
		t.Errorf("slots %v", slots)
	}
	expect(w, "time to the next step", w.again, 0)
	if status := w.service("web").UpdateStatus; status != nil {
		t.Errorf("a new service has the update status %v", status)
	}
}

func TestScale(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("web", 2))
	w.settle()
	w.change("web", scale(5))
	w.settle()
	expect(w, "tasks", len(w.wanted("web")), 5)
	// One on the fullest node goes first, of these the one that does not run, then the one with the highest number.
	w.change("web", scale(4))
	w.settle()
	if diff := cmp.Diff(map[string]int{"a": 2, "b": 2}, w.on("web")); diff != "" {
		t.Error(diff)
	}
	w.change("web", scale(1))
	w.step()
	removed := 0
	for _, task := range w.tasks("web") {
		if task.DesiredState == wire.TaskRemove {
			removed++
		}
	}
	expect(w, "tasks that shall be removed", removed, 3)
	w.settle()
	expect(w, "tasks", len(w.tasks("web")), 1)
	expect(w, "slot", w.tasks("web")[0].Slot, 1)
	w.change("web", scale(0))
	w.settle()
	expect(w, "tasks", len(w.tasks("web")), 0)
	w.change("web", scale(2))
	w.settle()
	expect(w, "tasks", len(w.wanted("web")), 2)
	if status := w.service("web").UpdateStatus; status != nil {
		t.Errorf("scaling made an update: %v", status)
	}
}

func TestScaleDownPrefersWhatDoesNotRun(t *testing.T) {
	w := newWorld(t, "a")
	w.fate = func(task *wire.Task) string {
		if task.Slot == 2 {
			return wire.TaskPreparing
		}
		return ""
	}
	w.create(spec("web", 3))
	w.settle()
	w.change("web", scale(2))
	w.settle()
	for _, task := range w.wanted("web") {
		if task.Slot == 2 {
			t.Errorf("the task that was still prepared is left:\n%s", w.list())
		}
	}
}

// A slot whose task is about to be removed is free, whatever the restart policy says of that task.
func TestScaleUpAgain(t *testing.T) {
	w := newWorld(t, "a")
	w.create(spec("web", 2, restarts(wire.RestartNone, 0, 0, 0)))
	w.settle()
	w.change("web", scale(1))
	w.step()
	w.change("web", scale(2))
	w.step()
	expect(w, "tasks", len(w.wanted("web")), 2)
}

func TestServiceRemoval(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("web", 4))
	w.settle()
	w.state("b", wire.NodeDown)
	w.update(func(tx store.Writer) { tx.DeleteService("web") })
	w.settle()
	expect(w, "tasks left on the node that is down", len(w.tasks("web")), 2)
	w.update(func(tx store.Writer) { tx.DeleteNode("b") })
	w.settle()
	expect(w, "tasks", len(w.tasks("web")), 0)
}

func TestNodesThatAreLost(t *testing.T) {
	for name, lose := range map[string]func(*world){
		"down":    func(w *world) { w.state("b", wire.NodeDown) },
		"drained": func(w *world) { w.available("b", wire.AvailabilityDrain) },
		"removed": func(w *world) { w.update(func(tx store.Writer) { tx.DeleteNode("b") }) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "a", "b")
			w.create(spec("web", 4))
			w.settle()
			lose(w)
			w.pass(10 * time.Second)
			if diff := cmp.Diff(map[string]int{"a": 4}, w.on("web")); diff != "" {
				t.Errorf("%s\n%s", diff, w.list())
			}
			for _, task := range w.wanted("web") {
				expect(w, "state", task.Status.State, wire.TaskRunning)
			}
		})
	}
}

func TestNodeReturns(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("web", 2))
	w.settle()
	w.state("b", wire.NodeDown)
	w.pass(10 * time.Second)
	w.state("b", wire.NodeReady)
	w.settle()
	for _, task := range w.tasks("web") {
		if task.NodeID == "b" {
			expect(w, "desired state of the old task", task.DesiredState, wire.TaskShutdown)
			expect(w, "state of the old task", task.Status.State, wire.TaskShutdown)
		}
	}
	expect(w, "tasks that are wanted", len(w.wanted("web")), 2)
}

func TestTasksOfLongLostNodesAreGivenUp(t *testing.T) {
	w := newWorld(t, "a")
	w.create(spec("web", 1))
	w.settle()
	w.state("a", wire.NodeDown)
	w.pass(23 * time.Hour)
	expect(w, "state", w.tasks("web")[0].Status.State, wire.TaskRunning)
	w.pass(2 * time.Hour)
	expect(w, "state", w.tasks("web")[0].Status.State, wire.TaskOrphaned)
}

func TestPausedNodeKeepsItsTasks(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("web", 2))
	w.settle()
	w.available("b", wire.AvailabilityPause)
	w.change("web", scale(6))
	w.settle()
	if diff := cmp.Diff(map[string]int{"a": 5, "b": 1}, w.on("web")); diff != "" {
		t.Error(diff)
	}
}
