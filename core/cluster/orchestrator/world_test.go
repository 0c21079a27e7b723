package orchestrator

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/wire"
)

// failer is the part of testing.TB that rapid.T has too.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// world is a swarm whose nodes are played by the test, with a clock of its own.
type world struct {
	failer
	*store.Memory
	now   time.Time
	ids   int
	again time.Duration
	// fate is what becomes of a task that is started; the default is that it runs.
	fate func(*wire.Task) string
}

var dawn = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld(t failer, nodes ...string) *world {
	w := &world{failer: t, now: dawn}
	w.Memory = store.NewMemory(func() time.Time { return w.now })
	w.update(func(tx store.Writer) {
		tx.PutCluster(&store.Cluster{SwarmInfo: wire.SwarmInfo{ID: "swarm"}})
	})
	for _, id := range nodes {
		w.node(id, nil)
	}
	return w
}

func (w *world) update(fn func(store.Writer)) {
	w.Helper()
	if err := w.Update(context.Background(), func(tx store.Writer) error { fn(tx); return nil }); err != nil {
		w.Fatalf("update: %v", err)
	}
}

// node makes or changes a node. A new one is a ready worker with 4 CPUs and 8 GiB.
func (w *world) node(id string, change func(*wire.Node)) {
	w.Helper()
	w.update(func(tx store.Writer) {
		n := &wire.Node{ID: id}
		n.Spec.Role, n.Spec.Availability = wire.RoleWorker, wire.AvailabilityActive
		n.Description = wire.NodeDescription{
			Hostname: "host-" + id, Platform: wire.NodePlatform{Architecture: "x86_64", OS: "linux"},
			Resources: wire.NodeResources{NanoCPUs: 4e9, MemoryBytes: 8 << 30},
		}
		n.Status.State = wire.NodeReady
		if old := tx.Node(id); old != nil {
			c := *old
			n = &c
		}
		if change != nil {
			change(n)
		}
		tx.PutNode(n)
	})
}

func (w *world) label(id, key, value string) {
	w.Helper()
	w.node(id, func(n *wire.Node) { n.Spec.Labels = map[string]string{key: value} })
}

func (w *world) available(id, availability string) {
	w.Helper()
	w.node(id, func(n *wire.Node) { n.Spec.Availability = availability })
}

func (w *world) state(id, state string) {
	w.Helper()
	w.node(id, func(n *wire.Node) { n.Status.State = state })
}

// spec is a replicated service's.
func spec(name string, replicas uint64, change ...func(*wire.ServiceSpec)) wire.ServiceSpec {
	s := wire.ServiceSpec{Annotations: wire.Annotations{Name: name}}
	s.TaskTemplate.ContainerSpec = &wire.ContainerSpec{Image: "busybox:1"}
	s.Mode.Replicated = &wire.Replicated{Replicas: &replicas}
	for _, c := range change {
		c(&s)
	}
	return s
}

func onEachNode(s *wire.ServiceSpec) { s.Mode = wire.ServiceMode{Global: &wire.Global{}} }
func jobOnEach(s *wire.ServiceSpec)  { s.Mode = wire.ServiceMode{GlobalJob: &wire.Global{}} }
func image(n int) func(*wire.ServiceSpec) {
	return func(s *wire.ServiceSpec) {
		c := *s.TaskTemplate.ContainerSpec
		c.Image = fmt.Sprintf("busybox:%d", n)
		s.TaskTemplate.ContainerSpec = &c
	}
}

func constrained(constraints ...string) func(*wire.ServiceSpec) {
	return func(s *wire.ServiceSpec) {
		p := wire.Placement{}
		if s.TaskTemplate.Placement != nil {
			p = *s.TaskTemplate.Placement
		}
		p.Constraints = constraints
		s.TaskTemplate.Placement = &p
	}
}

func restarts(condition string, delay time.Duration, attempts uint64, window time.Duration) func(*wire.ServiceSpec) {
	return func(s *wire.ServiceSpec) {
		s.TaskTemplate.RestartPolicy = &wire.TaskRestart{Condition: condition, Delay: &delay, MaxAttempts: &attempts, Window: &window}
	}
}

func updates(c wire.UpdateConfig) func(*wire.ServiceSpec) {
	return func(s *wire.ServiceSpec) { s.UpdateConfig = &c }
}

func publishes(ports ...wire.ServicePort) func(*wire.ServiceSpec) {
	return func(s *wire.ServiceSpec) { s.EndpointSpec = &wire.EndpointSpec{Ports: ports} }
}

// create makes a service whose ID is its name.
func (w *world) create(s wire.ServiceSpec) {
	w.Helper()
	w.update(func(tx store.Writer) {
		if _, err := Create(tx, s.Name, s, w.now); err != nil {
			w.Fatalf("create %s: %v", s.Name, err)
		}
	})
}

func (w *world) change(id string, change ...func(*wire.ServiceSpec)) {
	w.Helper()
	w.update(func(tx store.Writer) {
		old := tx.Service(id)
		s := old.Spec
		for _, c := range change {
			c(&s)
		}
		if _, err := Change(tx, id, old.Version.Index, s, w.now); err != nil {
			w.Fatalf("change %s: %v", id, err)
		}
	})
}

func scale(n uint64) func(*wire.ServiceSpec) {
	return func(s *wire.ServiceSpec) { s.Mode.Replicated = &wire.Replicated{Replicas: &n} }
}

// step asks for a Step, and then that another one changes nothing.
func (w *world) step() {
	w.Helper()
	options := Options{NewID: func() string { w.ids++; return fmt.Sprintf("task%04d", w.ids) }}
	w.update(func(tx store.Writer) { w.again = Step(tx, w.now, options) })
	before := w.Reader().Index()
	var again time.Duration
	w.update(func(tx store.Writer) { again = Step(tx, w.now, options) })
	if w.Reader().Index() != before || again != w.again {
		w.Fatalf("a second Step at the same time changed something, or its time from %v to %v:\n%s", w.again, again, w.list())
	}
}

// agents has the nodes that are ready report what became of their tasks. It answers whether anything did.
func (w *world) agents() bool {
	w.Helper()
	changed := false
	w.update(func(tx store.Writer) {
		for _, t := range tx.Tasks() {
			n := tx.Node(t.NodeID)
			if n == nil || n.Status.State != wire.NodeReady || !Placed(t) || ended(t) {
				continue
			}
			state := w.outcome(t)
			if state == t.Status.State {
				continue
			}
			changed = true
			report(tx, t.ID, state, w.now)
		}
	})
	return changed
}

func (w *world) outcome(t *wire.Task) string {
	if after(t.DesiredState, wire.TaskComplete) {
		return wire.TaskShutdown
	}
	if t.DesiredState == wire.TaskReady {
		return wire.TaskReady
	}
	if w.fate != nil {
		if state := w.fate(t); state != "" {
			return state
		}
	}
	if t.DesiredState == wire.TaskComplete {
		return wire.TaskComplete
	}
	return wire.TaskRunning
}

func report(tx store.Writer, id, state string, at time.Time) {
	t := *tx.Task(id)
	t.Status = wire.TaskStatus{State: state, Timestamp: at}
	tx.PutTask(&t)
}

// says has a node report a state of a task.
func (w *world) says(t *wire.Task, state string) {
	w.Helper()
	w.update(func(tx store.Writer) { report(tx, t.ID, state, w.now) })
}

// settle steps, with nodes that do what they are told, until nothing happens any more without time passing.
func (w *world) settle() {
	w.Helper()
	for range 100 {
		w.step()
		if !w.agents() {
			return
		}
	}
	w.Fatalf("no rest after 100 steps:\n%s", w.list())
}

// pass lets time go by, with a Step whenever one is due.
func (w *world) pass(d time.Duration) {
	w.Helper()
	end := w.now.Add(d)
	for range 10000 {
		w.settle()
		if w.again == 0 || w.now.Add(w.again).After(end) {
			w.now = end
			w.settle()
			return
		}
		w.now = w.now.Add(w.again)
	}
	w.Fatalf("10000 steps within %v:\n%s", d, w.list())
}

// tasks are those of a service, oldest first.
func (w *world) tasks(service string) []*wire.Task { return w.Reader().TasksOf(service) }

func (w *world) wanted(service string) []*wire.Task {
	return slices.DeleteFunc(w.tasks(service), func(t *wire.Task) bool { return !wanted(t) })
}

// on counts the wanted tasks of a service by node.
func (w *world) on(service string) map[string]int {
	n := map[string]int{}
	for _, t := range w.wanted(service) {
		n[t.NodeID]++
	}
	return n
}

func (w *world) service(id string) *wire.Service { return w.Reader().Service(id) }

func (w *world) list() string {
	text := ""
	for _, s := range w.Reader().Services() {
		text += fmt.Sprintf("%s %v\n", s.ID, s.UpdateStatus)
	}
	for _, t := range w.Reader().Tasks() {
		text += fmt.Sprintf("%s.%d on %q %s: wanted %s, is %s (%s) %s\n", t.ServiceID, t.Slot, t.NodeID, t.ID, t.DesiredState, t.Status.State, t.Status.Err, t.Spec.ContainerSpec.Image)
	}
	return text
}

// expect compares, and shows the whole swarm when it is not so.
func expect[T comparable](w *world, what string, got, want T) {
	w.Helper()
	if got != want {
		w.Fatalf("%s: %v, want %v\n%s", what, got, want, w.list())
	}
}

var _ failer = (*testing.T)(nil)
