package orchestrator

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func TestServicesAreRefused(t *testing.T) {
	w := newWorld(t)
	w.create(spec("web", 1))
	version := w.service("web").Version.Index
	for name, tt := range map[string]struct {
		do    func(store.Writer) error
		err   string
		class fault.Class
	}{
		"name is taken": {func(tx store.Writer) error { _, err := Create(tx, "x", spec("web", 1), w.now); return err },
			"name conflicts with an existing object: service web already exists", fault.Exists},
		"not valid": {func(tx store.Writer) error { _, err := Create(tx, "x", spec("", 1), w.now); return err },
			"meta: name must be provided", fault.Invalid},
		"no such service": {func(tx store.Writer) error { _, err := Change(tx, "x", 1, spec("x", 1), w.now); return err },
			"service x not found", fault.NotFound},
		"old version": {func(tx store.Writer) error { _, err := Change(tx, "web", version-1, spec("web", 1), w.now); return err },
			"update out of sequence", fault.Internal},
		"not valid any more": {func(tx store.Writer) error {
			_, err := Change(tx, "web", version, spec("web", 1, image(2), restarts("", -1, 0, 0)), w.now)
			return err
		},
			"TaskSpec: restart-delay cannot be negative", fault.Invalid},
		"other mode": {func(tx store.Writer) error {
			_, err := Change(tx, "web", version, spec("web", 1, onEachNode), w.now)
			return err
		},
			"service mode change is not allowed", fault.NotImplemented},
		"other name": {func(tx store.Writer) error { _, err := Change(tx, "web", version, spec("db", 1), w.now); return err },
			"renaming services is not supported", fault.NotImplemented},
		"nothing to go back to": {func(tx store.Writer) error { _, err := Revert(tx, "web", version, w.now); return err },
			"service web does not have a previous spec", fault.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			w.update(func(tx store.Writer) {
				err := tt.do(tx)
				if got := message(err); got != tt.err || !fault.Is(err, tt.class) {
					t.Errorf("%q (%v), want %q (%v)", got, fault.ClassOf(err), tt.err, tt.class)
				}
			})
		})
	}
}

func TestChangeKeepsThePreviousSpec(t *testing.T) {
	w := newWorld(t)
	w.create(spec("web", 1))
	w.change("web", image(2))
	s := w.service("web")
	expect(w, "previous image", s.PreviousSpec.TaskTemplate.ContainerSpec.Image, "busybox:1")
	expect(w, "image", s.Spec.TaskTemplate.ContainerSpec.Image, "busybox:2")
}

func TestStatus(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.fate = func(task *wire.Task) string {
		if task.Slot == 2 || task.ServiceID == "agent" && task.NodeID == "a" {
			return wire.TaskPreparing
		}
		return ""
	}
	w.create(spec("web", 3))
	w.create(spec("agent", 0, onEachNode))
	w.settle()
	for id, want := range map[string]wire.ServiceStatus{
		"web":   {RunningTasks: 2, DesiredTasks: 3},
		"agent": {RunningTasks: 1, DesiredTasks: 2},
	} {
		if diff := cmp.Diff(want, Status(w.Reader(), w.service(id))); diff != "" {
			t.Errorf("%s: %s", id, diff)
		}
	}
}

// A service that is larger than one change of the store may be is made in several.
func TestManyTasks(t *testing.T) {
	w := newWorld(t, "a", "b")
	options := Options{NewID: func() string { w.ids++; return string(rune('a'+w.ids%26)) + time.Duration(w.ids).String() }}
	w.create(spec("web", 120, container(func(c *wire.ContainerSpec) { c.Env = []string{"TEXT=" + strings.Repeat("a", 50_000)} })))
	steps := 0
	for again := time.Duration(1); again != 0; steps++ {
		w.update(func(tx store.Writer) { again = Step(tx, w.now, options) })
		if steps > 100 {
			t.Fatal("no end after 100 steps")
		}
	}
	placed := 0
	for _, task := range w.tasks("web") {
		if Placed(task) {
			placed++
		}
	}
	if placed != 120 || steps < 3 {
		t.Errorf("%d tasks with a node after %d steps", placed, steps)
	}
}

// The longest specification that is allowed, with the previous one and all its ports, is not too long for the store.
func TestLongestSpec(t *testing.T) {
	w := newWorld(t)
	var ports []wire.ServicePort
	for i := range 5000 {
		ports = append(ports, fixed(uint32(i+1), uint32(i+10000)))
	}
	w.create(spec("web", 0, publishes(ports...)))
	w.step()
	w.change("web", publishes(ports[1:]...))
	w.step()
	w.change("web", publishes(ports...))
	w.step()
	expect(w, "ports", len(w.service("web").Endpoint.Ports), len(ports))
	s := Complete(spec("db", 0, publishes(append(ports, ports...)...)))
	if err := validateSize(&s); err == nil {
		t.Error("twice as many ports are not too long")
	}
}

// follower is a store that does not lead at first.
type follower struct {
	*store.Memory
	leads chan struct{}
}

func (f *follower) IsLeader() bool {
	select {
	case <-f.leads:
		return true
	default:
		return false
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := newWorld(t, "a")
		w.now = time.Now()
		w.create(spec("web", 1))
		f := &follower{w.Memory, make(chan struct{})}
		ids := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			Run(ctx, f, Options{NewID: func() string { ids++; return string(rune('a' + ids)) }})
		}()
		synctest.Wait()
		expect(w, "tasks that a follower makes", len(w.tasks("web")), 0)
		close(f.leads)
		w.label("a", "any", "thing") // the store would wake it for the leadership
		synctest.Wait()
		expect(w, "tasks", len(w.tasks("web")), 1)
		w.now = time.Now()
		w.says(w.tasks("web")[0], wire.TaskFailed)
		synctest.Wait()
		expect(w, "desired state of the next", w.wanted("web")[0].DesiredState, wire.TaskReady)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		expect(w, "desired state of the next", w.wanted("web")[0].DesiredState, wire.TaskRunning)
		cancel()
		<-done
	})
}
