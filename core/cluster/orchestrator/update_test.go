package orchestrator

import (
	"strings"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/wire"
)

// images counts the tasks of web that run, by image.
func (w *world) images() map[string]int {
	n := map[string]int{}
	for _, t := range w.wanted("web") {
		if t.Status.State == wire.TaskRunning {
			n[t.Spec.ContainerSpec.Image]++
		}
	}
	return n
}

func TestRollingUpdate(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("web", 4, updates(wire.UpdateConfig{Parallelism: 2, Delay: 10 * time.Second})))
	w.settle()
	w.change("web", image(2))
	w.step()
	status := w.service("web").UpdateStatus
	expect(w, "state", status.State, wire.UpdateUpdating)
	expect(w, "message", status.Message, "update in progress")
	expect(w, "start", *status.StartedAt, w.now)
	stopping, waiting := 0, 0
	for _, task := range w.tasks("web") {
		switch task.DesiredState {
		case wire.TaskShutdown:
			stopping++
		case wire.TaskReady:
			waiting++
		}
	}
	expect(w, "tasks that are stopped first", stopping, 2)
	expect(w, "tasks that wait for that", waiting, 2)
	w.settle()
	expect(w, "new tasks", w.images()["busybox:2"], 2)
	expect(w, "old tasks", w.images()["busybox:1"], 2)
	w.pass(9 * time.Second)
	expect(w, "new tasks before the delay is over", w.images()["busybox:2"], 2)
	w.pass(time.Second)
	expect(w, "new tasks", w.images()["busybox:2"], 4)
	expect(w, "state", w.service("web").UpdateStatus.State, wire.UpdateUpdating)
	// As long as the delay and one second more the last tasks are watched, after the delay.
	w.pass(20 * time.Second)
	expect(w, "state", w.service("web").UpdateStatus.State, wire.UpdateUpdating)
	w.pass(time.Second)
	status = w.service("web").UpdateStatus
	expect(w, "state", status.State, wire.UpdateCompleted)
	expect(w, "message", status.Message, "update completed")
	expect(w, "end", *status.CompletedAt, w.now)
	expect(w, "time to the next step", w.again, 0)
}

func TestUpdateAllAtOnce(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("web", 5, updates(wire.UpdateConfig{Parallelism: 0})))
	w.settle()
	w.change("web", image(2))
	w.settle()
	expect(w, "new tasks", w.images()["busybox:2"], 5)
	w.pass(5 * time.Second)
	expect(w, "state", w.service("web").UpdateStatus.State, wire.UpdateCompleted)
}

func TestUpdateStartFirst(t *testing.T) {
	w := newWorld(t, "a", "b")
	slow := false
	w.fate = func(task *wire.Task) string {
		if slow && task.Spec.ContainerSpec.Image == "busybox:2" {
			return wire.TaskStarting
		}
		return ""
	}
	w.create(spec("web", 2, updates(wire.UpdateConfig{Parallelism: 1, Order: "start-first"})))
	w.settle()
	slow = true
	w.change("web", image(2))
	w.settle()
	expect(w, "old tasks while the new one starts", w.images()["busybox:1"], 2)
	expect(w, "tasks", len(w.wanted("web")), 3)
	w.pass(time.Hour)
	expect(w, "old tasks while the new one starts", w.images()["busybox:1"], 2)
	slow = false
	w.pass(10 * time.Second)
	expect(w, "new tasks", w.images()["busybox:2"], 2)
	expect(w, "old tasks", w.images()["busybox:1"], 0)
	expect(w, "state", w.service("web").UpdateStatus.State, wire.UpdateCompleted)
}

// failing2 has tasks of image 2 fail.
func (w *world) failing2() {
	w.fate = func(task *wire.Task) string {
		if task.Spec.ContainerSpec.Image == "busybox:2" {
			return wire.TaskFailed
		}
		return ""
	}
}

func TestUpdateThatFails(t *testing.T) {
	for _, tt := range []struct {
		name, action, order, state, message string
		one, two                            int // running tasks
	}{
		{"", "pause", "stop-first", wire.UpdatePaused, "update paused due to failure or early termination of task ", 3, 0},
		{"", "pause", "start-first", wire.UpdatePaused, "update paused due to failure or early termination of task ", 4, 0},
		{"", "rollback", "stop-first", wire.UpdateRollbackCompleted, "rollback completed", 4, 0},
		{"", "rollback", "start-first", wire.UpdateRollbackCompleted, "rollback completed", 4, 0},
		{"", "continue", "stop-first", wire.UpdateCompleted, "update completed", 0, 0},
		{"", "continue", "start-first", wire.UpdateCompleted, "update completed", 4, 0},
	} {
		t.Run(tt.action+" "+tt.order, func(t *testing.T) {
			w := newWorld(t, "a", "b")
			w.failing2()
			w.create(spec("web", 4))
			w.settle()
			w.change("web", image(2), updates(wire.UpdateConfig{Parallelism: 1, FailureAction: tt.action, Order: tt.order}))
			w.pass(time.Minute)
			status := w.service("web").UpdateStatus
			expect(w, "state", status.State, tt.state)
			if !strings.HasPrefix(status.Message, tt.message) {
				t.Errorf("message %q, want %q", status.Message, tt.message)
			}
			expect(w, "tasks of image 1", w.images()["busybox:1"], tt.one)
			expect(w, "tasks of image 2", w.images()["busybox:2"], tt.two)
			w.pass(5 * time.Minute)
			expect(w, "state much later", w.service("web").UpdateStatus.State, tt.state)
		})
	}
}

func TestUpdateBearsSomeFailures(t *testing.T) {
	w := newWorld(t, "a")
	w.fate = func(task *wire.Task) string {
		if task.Spec.ContainerSpec.Image == "busybox:2" && task.Slot == 2 {
			return wire.TaskFailed
		}
		return ""
	}
	w.create(spec("web", 4, restarts(wire.RestartAny, time.Hour, 0, 0)))
	w.settle()
	w.change("web", image(2), updates(wire.UpdateConfig{Parallelism: 1, MaxFailureRatio: 0.25}))
	w.pass(time.Minute)
	expect(w, "state", w.service("web").UpdateStatus.State, wire.UpdateCompleted)
	w.change("web", image(1))
	w.pass(3 * time.Hour)
	w.change("web", image(2), updates(wire.UpdateConfig{Parallelism: 1, MaxFailureRatio: 0.2}))
	w.pass(time.Minute)
	expect(w, "state", w.service("web").UpdateStatus.State, wire.UpdatePaused)
}

// A task that ends after it was watched long enough is no failure of the update.
func TestMonitor(t *testing.T) {
	for _, tt := range []struct {
		after time.Duration
		state string
	}{{5 * time.Second, wire.UpdatePaused}, {6 * time.Second, wire.UpdateUpdating}} {
		w := newWorld(t, "a")
		w.create(spec("web", 2, updates(wire.UpdateConfig{Parallelism: 1, Delay: time.Hour})))
		w.settle()
		w.change("web", image(2))
		w.settle()
		w.pass(tt.after)
		for _, task := range w.wanted("web") {
			if task.Spec.ContainerSpec.Image == "busybox:2" {
				w.says(task, wire.TaskComplete)
			}
		}
		w.settle()
		expect(w, "state", w.service("web").UpdateStatus.State, tt.state)
	}
}

func TestRollbackThatFails(t *testing.T) {
	w := newWorld(t, "a")
	broken := false
	w.fate = func(task *wire.Task) string {
		if broken {
			return wire.TaskFailed
		}
		return ""
	}
	w.create(spec("web", 2))
	w.settle()
	w.change("web", image(2))
	w.pass(time.Minute)
	broken = true
	w.update(func(tx store.Writer) {
		if _, err := Revert(tx, "web", tx.Service("web").Version.Index, w.now); err != nil {
			t.Fatal(err)
		}
	})
	w.pass(10 * time.Second)
	status := w.service("web").UpdateStatus
	expect(w, "state", status.State, wire.UpdateRollbackPaused)
	if !strings.HasPrefix(status.Message, "rollback paused due to failure or early termination of task ") {
		t.Error(status.Message)
	}
}

func TestManualRollback(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("web", 3))
	w.settle()
	w.change("web", image(2))
	w.pass(time.Minute)
	w.update(func(tx store.Writer) {
		s, err := Revert(tx, "web", tx.Service("web").Version.Index, w.now)
		if err != nil {
			t.Fatal(err)
		}
		expect(w, "state", s.UpdateStatus.State, wire.UpdateRollbackStarted)
		expect(w, "message", s.UpdateStatus.Message, "manually requested rollback")
		expect(w, "previous image", s.PreviousSpec.TaskTemplate.ContainerSpec.Image, "busybox:2")
	})
	w.pass(time.Minute)
	expect(w, "state", w.service("web").UpdateStatus.State, wire.UpdateRollbackCompleted)
	expect(w, "tasks of image 1", w.images()["busybox:1"], 3)
}

func TestForcedUpdate(t *testing.T) {
	w := newWorld(t, "a")
	w.create(spec("web", 2))
	w.settle()
	w.change("web", func(s *wire.ServiceSpec) { s.TaskTemplate.ForceUpdate++ })
	w.pass(time.Minute)
	expect(w, "tasks", len(w.tasks("web")), 4)
	expect(w, "state", w.service("web").UpdateStatus.State, wire.UpdateCompleted)
}

func TestWhatNeedsNewTasks(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*wire.ServiceSpec)
		new    bool
	}{
		"image":                              {image(2), true},
		"port":                               {publishes(wire.ServicePort{TargetPort: 80}), true},
		"labels":                             {func(s *wire.ServiceSpec) { s.Labels = map[string]string{"a": "b"} }, false},
		"replicas":                           {scale(3), false},
		"update config":                      {updates(wire.UpdateConfig{Parallelism: 3}), false},
		"constraint that its node satisfies": {constrained("node.hostname==host-a"), false},
		"constraint that its node does not":  {constrained("node.hostname==host-b"), true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "a")
			w.create(spec("web", 1))
			w.settle()
			old := w.tasks("web")[0]
			w.change("web", tt.change)
			w.settle()
			expect(w, "the task is replaced", !wanted(w.Reader().Task(old.ID)), tt.new)
		})
	}
}

// A second update begins while the first is under way: tasks of both old specifications are replaced.
func TestUpdateDuringUpdate(t *testing.T) {
	w := newWorld(t, "a")
	w.create(spec("web", 4, updates(wire.UpdateConfig{Parallelism: 1, Delay: time.Minute})))
	w.settle()
	w.change("web", image(2))
	w.pass(90 * time.Second)
	expect(w, "tasks of image 2", w.images()["busybox:2"], 2)
	w.change("web", image(3), updates(wire.UpdateConfig{Parallelism: 0}))
	w.pass(time.Minute)
	expect(w, "tasks of image 3", w.images()["busybox:3"], 4)
	expect(w, "state", w.service("web").UpdateStatus.State, wire.UpdateCompleted)
}

// An update does not wait for a task whose node is lost.
func TestUpdateWhenANodeIsLost(t *testing.T) {
	w := newWorld(t, "a", "b")
	slow := true
	w.fate = func(task *wire.Task) string {
		if slow && task.Spec.ContainerSpec.Image == "busybox:2" {
			return wire.TaskPreparing
		}
		return ""
	}
	w.create(spec("web", 2))
	w.settle()
	w.change("web", image(2))
	w.settle()
	for _, task := range w.wanted("web") {
		if task.Spec.ContainerSpec.Image == "busybox:2" {
			w.state(task.NodeID, wire.NodeDown)
		}
	}
	slow = false
	w.pass(time.Minute)
	expect(w, "tasks of image 2", w.images()["busybox:2"], 2)
	expect(w, "state", w.service("web").UpdateStatus.State, wire.UpdateCompleted)
}

func TestUpdateOfTasksThatAreNotRestarted(t *testing.T) {
	w := newWorld(t, "a")
	w.fate = func(task *wire.Task) string {
		if task.Spec.ContainerSpec.Image == "busybox:1" {
			return wire.TaskComplete
		}
		return ""
	}
	w.create(spec("web", 2, restarts(wire.RestartNone, 0, 0, 0)))
	w.pass(time.Minute)
	expect(w, "tasks", w.ids, 2)
	w.change("web", image(2))
	w.pass(time.Minute)
	expect(w, "tasks of image 2", w.images()["busybox:2"], 2)
}

// Two changes at one time of the clock are two updates.
func TestUpdatesAtOneTime(t *testing.T) {
	w := newWorld(t, "a")
	w.create(spec("web", 2, updates(wire.UpdateConfig{Parallelism: 0})))
	w.settle()
	w.change("web", image(2))
	w.settle()
	w.change("web", image(3))
	w.pass(time.Minute)
	expect(w, "tasks of image 3", w.images()["busybox:3"], 2)
}

// Of two old tasks the one that runs is left until the new one does.
func TestStartFirstKeepsWhatRuns(t *testing.T) {
	w := newWorld(t, "a")
	w.fate = func(*wire.Task) string { return wire.TaskStarting }
	w.create(spec("web", 1, updates(wire.UpdateConfig{Order: "start-first"})))
	w.settle()
	w.change("web", image(2))
	w.settle()
	w.says(w.tasks("web")[1], wire.TaskRunning)
	w.change("web", image(3))
	w.step()
	for i, want := range []bool{false, true, true} {
		expect(w, "the task is wanted", wanted(w.tasks("web")[i]), want)
	}
}

// A failure counts though the task is no longer kept for its place's history.
func TestFailuresAreNotForgotten(t *testing.T) {
	w := newWorld(t, "a")
	w.update(func(tx store.Writer) {
		c := *tx.Cluster()
		c.Spec.Orchestration.TaskHistoryRetentionLimit = new(int64)
		tx.PutCluster(&c)
	})
	w.failing2()
	w.create(spec("web", 4, restarts(wire.RestartAny, time.Second, 0, 0)))
	w.settle()
	w.change("web", image(2), updates(wire.UpdateConfig{Parallelism: 1, Delay: 4 * time.Second, MaxFailureRatio: 0.4}))
	w.pass(time.Minute)
	expect(w, "state", w.service("web").UpdateStatus.State, wire.UpdatePaused)
	expect(w, "tasks that were not touched", w.images()["busybox:1"], 2)
}

// A clock that is set back holds up no update: what was seen is of now then.
func TestUpdateWhenTheClockGoesBack(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.create(spec("web", 2, updates(wire.UpdateConfig{Parallelism: 1, Delay: 10 * time.Second})))
	w.settle()
	w.change("web", image(2))
	w.settle()
	expect(w, "new tasks", w.images()["busybox:2"], 1)
	w.now = w.now.Add(-time.Hour)
	w.pass(9 * time.Second)
	expect(w, "new tasks before the delay is over", w.images()["busybox:2"], 1)
	w.pass(time.Second)
	expect(w, "new tasks", w.images()["busybox:2"], 2)
	w.now = w.now.Add(-time.Hour)
	w.pass(time.Minute)
	expect(w, "state", w.service("web").UpdateStatus.State, wire.UpdateCompleted)
}
