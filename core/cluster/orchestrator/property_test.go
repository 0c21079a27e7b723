package orchestrator

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/wire"
)

// anySpec draws a specification of a few tasks.
func anySpec(t *rapid.T, name string) wire.ServiceSpec {
	s := spec(name, rapid.Uint64Range(0, 6).Draw(t, "replicas"))
	switch rapid.IntRange(0, 6).Draw(t, "mode") {
	case 0:
		onEachNode(&s)
	case 1:
		job(rapid.Uint64Range(1, 3).Draw(t, "concurrent"), rapid.Uint64Range(1, 5).Draw(t, "completions"))(&s)
	case 2:
		jobOnEach(&s)
	}
	for _, change := range anyChange(t) {
		change(&s)
	}
	return s
}

// anyChange draws changes of a specification that leave its mode.
func anyChange(t *rapid.T) []func(*wire.ServiceSpec) {
	all := []func(*wire.ServiceSpec){image(rapid.IntRange(1, 3).Draw(t, "image"))}
	if rapid.Bool().Draw(t, "scaled") {
		n := rapid.Uint64Range(0, 6).Draw(t, "new replicas")
		all = append(all, func(s *wire.ServiceSpec) {
			if s.Mode.Replicated != nil {
				scale(n)(s)
			}
		})
	}
	if rapid.Bool().Draw(t, "placed") {
		p := wire.Placement{MaxReplicas: rapid.Uint64Range(0, 3).Draw(t, "maximum")}
		p.Constraints = rapid.SampledFrom([][]string{nil, {"node.labels.zone==a"}, {"node.labels.zone!=a"}, {"node.role==manager"}}).Draw(t, "constraints")
		if rapid.Bool().Draw(t, "preference") {
			p.Preferences = []wire.PlacementPreference{{Spread: &wire.SpreadOver{SpreadDescriptor: "node.labels.zone"}}}
		}
		all = append(all, placement(p))
	}
	if rapid.Bool().Draw(t, "restarts") {
		all = append(all, restarts(rapid.SampledFrom([]string{"any", "none", "on-failure"}).Draw(t, "condition"),
			time.Duration(rapid.IntRange(0, 8).Draw(t, "delay"))*time.Second, rapid.Uint64Range(0, 3).Draw(t, "attempts"),
			time.Duration(rapid.IntRange(0, 30).Draw(t, "window"))*time.Second))
	}
	if rapid.Bool().Draw(t, "reserves") {
		all = append(all, reserves(rapid.Int64Range(0, 2).Draw(t, "processors")*1e9, 0))
	}
	if rapid.Bool().Draw(t, "port") {
		all = append(all, publishes(rapid.SampledFrom([]wire.ServicePort{anyPort(80), host(8080), host(8081)}).Draw(t, "port of a kind")))
	}
	if rapid.Bool().Draw(t, "update config") {
		c := wire.UpdateConfig{
			Parallelism: rapid.Uint64Range(0, 3).Draw(t, "parallelism"), Delay: time.Duration(rapid.IntRange(0, 8).Draw(t, "delay")) * time.Second,
			FailureAction: rapid.SampledFrom([]string{"pause", "continue", "rollback"}).Draw(t, "action"), MaxFailureRatio: rapid.Float32Range(0, 1).Draw(t, "ratio"),
			Order: rapid.SampledFrom([]string{"stop-first", "start-first"}).Draw(t, "order"),
		}
		all = append(all, func(s *wire.ServiceSpec) {
			if !isJob(s) {
				s.UpdateConfig, s.RollbackConfig = &c, &c
			}
		})
	}
	return all
}

// act draws something that may happen in a swarm.
func (w *world) act(t *rapid.T) {
	names := []string{"web", "db", "app"}
	ids := []string{"n1", "n2", "n3", "n4"}
	switch rapid.IntRange(0, 9).Draw(t, "act") {
	case 0, 1:
		name := rapid.SampledFrom(names).Draw(t, "service")
		if w.service(name) == nil {
			w.create(anySpec(t, name))
		} else {
			w.change(name, anyChange(t)...)
		}
	case 2:
		name := rapid.SampledFrom(names).Draw(t, "service")
		w.update(func(tx store.Writer) {
			if s := tx.Service(name); s != nil && s.PreviousSpec != nil && rapid.Bool().Draw(t, "back") {
				if _, err := Revert(tx, name, s.Version.Index, w.now); err != nil {
					t.Fatal(err)
				}
			} else {
				tx.DeleteService(name)
			}
		})
	case 3, 4:
		id := rapid.SampledFrom(ids).Draw(t, "node")
		if rapid.IntRange(0, 4).Draw(t, "what") == 0 {
			w.update(func(tx store.Writer) { tx.DeleteNode(id) })
			return
		}
		w.node(id, func(n *wire.Node) {
			n.Spec.Availability = rapid.SampledFrom([]string{"active", "active", "pause", "drain"}).Draw(t, "availability")
			n.Status.State = rapid.SampledFrom([]string{wire.NodeReady, wire.NodeReady, wire.NodeDown, wire.NodeUnknown}).Draw(t, "state")
			n.Spec.Labels = map[string]string{"zone": rapid.SampledFrom([]string{"a", "b", ""}).Draw(t, "zone")}
			n.Spec.Role = rapid.SampledFrom([]string{wire.RoleManager, wire.RoleWorker}).Draw(t, "role")
		})
	case 5, 6:
		w.anyReports(t)
	default:
		w.now = w.now.Add(time.Duration(rapid.IntRange(1, 12).Draw(t, "seconds")) * time.Second)
	}
}

// anyReports has nodes report whatever may come next of some tasks.
func (w *world) anyReports(t *rapid.T) {
	states := []string{wire.TaskPreparing, wire.TaskReady, wire.TaskStarting, wire.TaskRunning, wire.TaskRunning, wire.TaskRunning, wire.TaskComplete, wire.TaskFailed, wire.TaskRejected, wire.TaskShutdown}
	w.update(func(tx store.Writer) {
		for _, task := range tx.Tasks() {
			if !Placed(task) || ended(task) || rapid.Bool().Draw(t, "silent") {
				continue
			}
			state := rapid.SampledFrom(states).Draw(t, "state")
			if (task.DesiredState == wire.TaskReady && state == wire.TaskRunning) || !Advances(task.Status, wire.TaskStatus{State: state}) {
				continue
			}
			report(tx, task.ID, state, w.now)
		}
	})
}

// check looks at what holds at every moment. before is the one before the last Step.
func (w *world) check(before store.Reader) {
	w.Helper()
	r := w.Reader()
	s := &step{parsed: map[string][]constraint{}}
	for _, service := range r.Services() {
		at := map[string]int{}
		total := uint64(0)
		for _, t := range r.TasksOf(service.ID) {
			if !wanted(t) || (t.Status.State == wire.TaskComplete && isJob(&service.Spec)) {
				continue
			}
			total++
			place := fmt.Sprint(t.Slot)
			if isGlobal(&service.Spec) {
				place = t.NodeID
			}
			at[place]++
		}
		for place, n := range at {
			// A task that starts first is beside the one that it replaces, or, when that one failed, the one after it. On a node
			// that pauses it stays there whatever becomes of the update.
			node := r.Node(place)
			pauses := node != nil && node.Spec.Availability == wire.AvailabilityPause
			if n > 2 || (n > 1 && service.UpdateStatus == nil && !pauses) {
				w.Fatalf("%d tasks are wanted in place %s of %s:\n%s", n, place, service.ID, w.list())
			}
		}
		places := uint64(len(at))
		switch m := service.Spec.Mode; {
		case m.Replicated != nil && places > *m.Replicated.Replicas:
			w.Fatalf("%d places of %s are taken, and it wants %d:\n%s", places, service.ID, *m.Replicated.Replicas, w.list())
		case m.ReplicatedJob != nil && total > *m.ReplicatedJob.TotalCompletions:
			w.Fatalf("%d tasks of job %s:\n%s", total, service.ID, w.list())
		}
	}
	ports := map[string]string{}
	for _, t := range r.Tasks() {
		node := r.Node(t.NodeID)
		if Placed(t) && !ended(t) {
			for _, p := range hostPorts(t) {
				k := fmt.Sprint(t.NodeID, p)
				if ports[k] != "" {
					w.Fatalf("tasks %s and %s have port %d of node %s:\n%s", t.ID, ports[k], p.port, t.NodeID, w.list())
				}
				ports[k] = t.ID
			}
		}
		if old := before.Task(t.ID); !Placed(t) || ended(t) || (old != nil && Placed(old)) || node == nil {
			continue
		}
		if node.Status.State != wire.NodeReady || node.Spec.Availability != wire.AvailabilityActive || !matches(s.constraintsOf(t.Spec.Placement), node) {
			w.Fatalf("task %s was given to node %s, which may not have it:\n%s", t.ID, node.ID, w.list())
		}
	}
}

// Whatever happens: a second Step at the same time changes nothing (world.step), what must hold holds, and when all
// nodes are well and every task starts, the services get what they want and then there is rest.
func TestWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, "n1", "n2")
		for range rapid.IntRange(1, 25).Draw(t, "acts") {
			w.act(t)
			before := w.Reader()
			w.step()
			w.check(before)
			if rapid.IntRange(0, 9).Draw(t, "clock") == 0 {
				w.now = w.now.Add(-2 * time.Hour) // somebody sets it back
			}
		}
		for _, id := range []string{"n1", "n2", "n3"} {
			w.node(id, func(n *wire.Node) {
				n.Spec.Availability, n.Status.State, n.Spec.Role = wire.AvailabilityActive, wire.NodeReady, wire.RoleManager
				n.Description.Resources.NanoCPUs = 1000e9
			})
		}
		w.update(func(tx store.Writer) { tx.DeleteNode("n4") })
		w.pass(10 * time.Minute)
		w.check(w.Reader())
		if w.again != 0 {
			t.Fatalf("no rest after ten minutes, but a step after %v:\n%s", w.again, w.list())
		}
		before := w.Reader().Index()
		w.pass(time.Hour)
		if w.Reader().Index() != before {
			t.Fatalf("something changed in the hour after:\n%s", w.list())
		}
		w.checkWhole(t)
	})
}

// checkWhole looks whether each service has what it wants, as far as its own policies let it have.
func (w *world) checkWhole(t *rapid.T) {
	for _, service := range w.Reader().Services() {
		spec := service.Spec
		m, p := spec.Mode, spec.TaskTemplate.RestartPolicy
		free := spec.EndpointSpec == nil && spec.TaskTemplate.Placement == nil && (p == nil || (p.Condition == "any" && *p.MaxAttempts == 0))
		if !free || (service.UpdateStatus != nil && service.UpdateStatus.CompletedAt == nil) {
			continue
		}
		running := uint64(0)
		for _, task := range w.wanted(service.ID) {
			if task.Status.State == wire.TaskRunning {
				running++
				if !same(task.Spec, spec.TaskTemplate) {
					t.Fatalf("task %s is of an old specification:\n%s", task.ID, w.list())
				}
			}
		}
		status := Status(w.Reader(), service)
		switch {
		case m.Replicated != nil && running != *m.Replicated.Replicas, m.Global != nil && running != 3,
			m.ReplicatedJob != nil && status.CompletedTasks < *m.ReplicatedJob.TotalCompletions:
			t.Fatalf("%s has %d running tasks, %+v:\n%s", service.ID, running, status, w.list())
		}
	}
}
