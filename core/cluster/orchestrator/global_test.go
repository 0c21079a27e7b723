package orchestrator

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/wire"
)

func TestGlobal(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("agent", 0, onEachNode))
	w.settle()
	each := func(want map[string]int) {
		t.Helper()
		w.pass(10 * time.Second)
		if diff := cmp.Diff(want, w.on("agent")); diff != "" {
			t.Errorf("%s\n%s", diff, w.list())
		}
		for _, task := range w.wanted("agent") {
			expect(w, "slot", task.Slot, 0)
			expect(w, "state", task.Status.State, wire.TaskRunning)
		}
	}
	each(map[string]int{"a": 1, "b": 1})
	w.node("c", nil)
	each(map[string]int{"a": 1, "b": 1, "c": 1})
	w.available("b", wire.AvailabilityDrain)
	each(map[string]int{"a": 1, "c": 1})
	w.available("b", wire.AvailabilityActive)
	each(map[string]int{"a": 1, "b": 1, "c": 1})
	w.state("a", wire.NodeDown)
	each(map[string]int{"b": 1, "c": 1})
	w.state("a", wire.NodeReady)
	each(map[string]int{"a": 1, "b": 1, "c": 1})
	w.update(func(tx store.Writer) { tx.DeleteNode("c") })
	each(map[string]int{"a": 1, "b": 1})
	w.node("d", func(n *wire.Node) { n.Spec.Availability = wire.AvailabilityPause })
	each(map[string]int{"a": 1, "b": 1})
}

func TestGlobalWithConstraints(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.label("a", "disk", "ssd")
	w.create(spec("agent", 0, onEachNode, constrained("node.labels.disk==ssd")))
	w.settle()
	if diff := cmp.Diff(map[string]int{"a": 1}, w.on("agent")); diff != "" {
		t.Error(diff)
	}
	w.label("b", "disk", "ssd")
	w.label("a", "disk", "tape")
	w.settle()
	if diff := cmp.Diff(map[string]int{"b": 1}, w.on("agent")); diff != "" {
		t.Errorf("%s\n%s", diff, w.list())
	}
}

// A node that cannot take its task says so without a word of other nodes.
func TestGlobalTaskThatDoesNotFit(t *testing.T) {
	w := newWorld(t, "a")
	w.create(spec("agent", 0, onEachNode, func(s *wire.ServiceSpec) {
		s.TaskTemplate.Resources = &wire.TaskResources{Reservations: &wire.NodeResources{MemoryBytes: 9 << 30}}
	}))
	w.settle()
	task := w.tasks("agent")[0]
	expect(w, "state", task.Status.State, wire.TaskPending)
	expect(w, "message", task.Status.Message, "pending task scheduling")
	expect(w, "error", task.Status.Err, "insufficient resources on 1 node")
	w.node("a", func(n *wire.Node) { n.Description.Resources.MemoryBytes = 16 << 30 })
	w.settle()
	task = w.tasks("agent")[0]
	expect(w, "state", task.Status.State, wire.TaskRunning)
}

func TestGlobalTaskIsRestartedOnItsNode(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("agent", 0, onEachNode))
	w.settle()
	w.says(w.tasks("agent")[0], wire.TaskFailed)
	w.pass(10 * time.Second)
	expect(w, "tasks", len(w.tasks("agent")), 3)
	if diff := cmp.Diff(map[string]int{"a": 1, "b": 1}, w.on("agent")); diff != "" {
		t.Error(diff)
	}
}

func TestGlobalUpdate(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.create(spec("agent", 0, onEachNode))
	w.settle()
	w.change("agent", image(2))
	w.pass(time.Minute)
	expect(w, "update", w.service("agent").UpdateStatus.State, wire.UpdateCompleted)
	for _, task := range w.wanted("agent") {
		expect(w, "image", task.Spec.ContainerSpec.Image, "busybox:2")
		expect(w, "state", task.Status.State, wire.TaskRunning)
	}
	if diff := cmp.Diff(map[string]int{"a": 1, "b": 1, "c": 1}, w.on("agent")); diff != "" {
		t.Error(diff)
	}
}

func TestGlobalServiceThatIsConstrainedLater(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("agent", 0, onEachNode))
	w.settle()
	w.change("agent", constrained("node.id==b"))
	w.pass(time.Minute)
	if diff := cmp.Diff(map[string]int{"b": 1}, w.on("agent")); diff != "" {
		t.Errorf("%s\n%s", diff, w.list())
	}
	expect(w, "tasks that were made", w.ids, 2)
}
