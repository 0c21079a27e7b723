package orchestrator

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/wire"
)

func TestConstraintsAreEnforced(t *testing.T) {
	for name, tt := range map[string]struct {
		spec   wire.ServiceSpec
		change func(*world)
		want   map[string]int
	}{
		"label": {spec("web", 2, constrained("node.labels.disk!=tape")), func(w *world) { w.label("a", "disk", "tape") }, map[string]int{"b": 2}},
		"role":  {spec("web", 2, constrained("node.role==worker")), func(w *world) { w.node("a", func(n *wire.Node) { n.Spec.Role = wire.RoleManager }) }, map[string]int{"b": 2}},
		"memory": {spec("web", 2, reserves(0, 2<<30)), func(w *world) {
			w.node("a", func(n *wire.Node) { n.Description.Resources.MemoryBytes = 1 << 30 })
		}, map[string]int{"b": 2}},
		"memory for one of two": {spec("web", 4, reserves(0, 2<<30)), func(w *world) {
			w.node("a", func(n *wire.Node) { n.Description.Resources.MemoryBytes = 3 << 30 })
		}, map[string]int{"a": 1, "b": 3}},
		"label of a paused node": {spec("web", 2, constrained("node.labels.disk!=tape")), func(w *world) {
			w.available("a", wire.AvailabilityPause)
			w.label("a", "disk", "tape")
		}, map[string]int{"a": 1, "b": 1}},
		"other label": {spec("web", 2, constrained("node.labels.disk!=tape")), func(w *world) { w.label("a", "color", "red") }, map[string]int{"a": 1, "b": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "a", "b")
			w.create(tt.spec)
			w.settle()
			tt.change(w)
			w.pass(time.Minute)
			if diff := cmp.Diff(tt.want, w.on("web")); diff != "" {
				t.Errorf("%s\n%s", diff, w.list())
			}
			for _, task := range w.tasks("web") {
				if task.Status.State == wire.TaskRejected {
					expect(w, "message", task.Status.Message, "task rejected by constraint enforcer")
					expect(w, "error", task.Status.Err, "assigned node no longer meets constraints")
				}
			}
		})
	}
}

// A constraint that came later, and that the nodes satisfied then, is enforced as well.
func TestLaterConstraintsAreEnforced(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("web", 2))
	w.settle()
	w.change("web", constrained("node.labels.disk!=tape"))
	w.settle()
	expect(w, "tasks", len(w.tasks("web")), 2)
	w.label("a", "disk", "tape")
	w.pass(time.Minute)
	if diff := cmp.Diff(map[string]int{"b": 2}, w.on("web")); diff != "" {
		t.Errorf("%s\n%s", diff, w.list())
	}
	if status := w.service("web").UpdateStatus; status != nil {
		t.Errorf("an update: %v", status)
	}
}

// A constraint that the nodes do not satisfy makes an update, not a rejection of all tasks at once.
func TestNewConstraintMakesAnUpdate(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("web", 4, updates(wire.UpdateConfig{Parallelism: 1, Delay: time.Minute})))
	w.settle()
	w.change("web", constrained("node.id==b"))
	w.settle()
	if diff := cmp.Diff(map[string]int{"a": 1, "b": 3}, w.on("web")); diff != "" {
		t.Errorf("%s\n%s", diff, w.list())
	}
	w.pass(time.Hour)
	if diff := cmp.Diff(map[string]int{"b": 4}, w.on("web")); diff != "" {
		t.Errorf("%s\n%s", diff, w.list())
	}
}

func TestAdvances(t *testing.T) {
	for _, tt := range []struct {
		from, to string
		want     bool
	}{
		{wire.TaskAssigned, wire.TaskRunning, true},
		{wire.TaskRunning, wire.TaskRunning, true},
		{wire.TaskRunning, wire.TaskReady, false},
		{wire.TaskRejected, wire.TaskRunning, false},
		{wire.TaskRejected, wire.TaskShutdown, false},
		{wire.TaskOrphaned, wire.TaskRunning, false},
		{wire.TaskRunning, "asleep", false},
		{wire.TaskRunning, "", false},
	} {
		if got := Advances(wire.TaskStatus{State: tt.from}, wire.TaskStatus{State: tt.to}); got != tt.want {
			t.Errorf("%s to %s: %v", tt.from, tt.to, got)
		}
	}
}
