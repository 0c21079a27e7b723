package cluster

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// world is a dispatcher over tables without managers, with two nodes and a service of one task on the first.
type world struct {
	t *testing.T
	*dispatcher
	store *store.Memory
}

const heartbeatOfWorld = time.Second

func newWorld(t *testing.T) *world {
	t.Helper()
	m := store.NewMemory(time.Now)
	w := &world{t: t, store: m, dispatcher: newDispatcher(m, func() []wire.SwarmPeer { return []wire.SwarmPeer{{NodeID: "boss", Addr: "192.0.2.9:2377"}} }, slog.New(slog.DiscardHandler))}
	w.change(func(s store.Writer) {
		c := &store.Cluster{RootCert: []byte("root")}
		c.ID, c.Spec.Dispatcher.HeartbeatPeriod = "swarm", heartbeatOfWorld
		s.PutCluster(c)
		for _, id := range []string{"n1", "n2"} {
			s.PutNode(newNode(id, wire.RoleWorker, wire.AvailabilityActive, id, "192.0.2.1:2377"))
		}
		service := &wire.Service{ID: "s", Spec: wire.ServiceSpec{Annotations: wire.Annotations{Name: "web"}}}
		service.Endpoint.Ports = []wire.ServicePort{{TargetPort: 80, PublishedPort: 8080, PublishMode: wire.PublishIngress, Protocol: "tcp"}}
		s.PutService(service)
		s.PutAuth("s", "secret")
		spec := wire.TaskSpec{ContainerSpec: &wire.ContainerSpec{Image: "busybox"}}
		s.PutTask(&wire.Task{ID: "t1", ServiceID: "s", NodeID: "n1", Slot: 1, Spec: spec, DesiredState: wire.TaskRunning, Status: wire.TaskStatus{State: wire.TaskAssigned}})
	})
	return w
}

func (w *world) change(fn func(store.Writer)) {
	w.t.Helper()
	if err := w.store.Update(w.t.Context(), func(s store.Writer) error { fn(s); return nil }); err != nil {
		w.t.Fatal(err)
	}
}

// lead runs the dispatcher until the test ends.
func (w *world) lead() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var work sync.WaitGroup
	work.Go(func() { w.run(ctx) })
	synctest.Wait()
	stop = func() { cancel(); work.Wait() }
	w.t.Cleanup(stop)
	return stop
}

// settle gives everything time that waits for a batch.
func settle() {
	time.Sleep(4 * batchTime)
	synctest.Wait()
}

// fakeNode is a node's end: it says what it is told to and keeps the last line that it got.
type fakeNode struct {
	link
	mu   sync.Mutex
	last session.Wanted
	err  error
	done chan struct{}
}

func (w *world) join(ctx context.Context, id string) *fakeNode {
	n := &fakeNode{link: w.local(ctx, id), done: make(chan struct{})}
	go func() {
		defer close(n.done)
		for {
			wanted, err := n.receive()
			if err == nil {
				err = wanted.Unpack()
			}
			n.mu.Lock()
			if err != nil {
				n.err = err
				n.mu.Unlock()
				return
			}
			n.last = wanted
			n.mu.Unlock()
		}
	}()
	w.t.Cleanup(func() { n.close(); <-n.done })
	return n
}

func (n *fakeNode) wanted() session.Wanted {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.last
}

func (n *fakeNode) say(t *testing.T, r session.Report) {
	t.Helper()
	if err := n.send(r); err != nil {
		t.Fatal(err)
	}
	settle()
}

func TestSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lead()
		n1, n2 := w.join(t.Context(), "n1"), w.join(t.Context(), "n2")
		settle()
		if state := w.store.Reader().Node("n1").Status.State; state != wire.NodeReady {
			t.Errorf("a node with a session is %s", state)
		}
		n1.say(t, session.Report{Addr: "192.0.2.1:1111", Description: &wire.NodeDescription{Hostname: "one"}})
		got := n1.wanted()
		if got.Role != wire.RoleWorker || len(got.Managers) != 1 || got.HeartbeatSec != 1 || string(got.Roots) != "root" {
			t.Errorf("the node is told %+v", got)
		}
		if len(got.Tasks) != 1 || got.Tasks[0].ID != "t1" || got.Tasks[0].Service.Name != "web" || got.Tasks[0].Auth != "secret" || len(got.Tasks[0].Ports) != 1 {
			t.Errorf("tasks of n1: %+v", got.Tasks)
		}
		if tasks := n2.wanted().Tasks; len(tasks) != 0 {
			t.Errorf("n2 is told of n1's tasks: %+v", tasks)
		}
		if n := w.store.Reader().Node("n1"); n.Description.Hostname != "one" || n.Status.Addr != "192.0.2.1" {
			t.Errorf("the node is not described: %+v", n)
		}

		n1.say(t, session.Report{Tasks: map[string]wire.TaskStatus{"t1": {State: wire.TaskRunning}}})
		routes := n2.wanted().Routes
		if len(routes) != 1 || len(routes[0].Targets) != 1 || routes[0].Targets[0] != (session.Target{Task: "t1", Node: "n1", Addr: "192.0.2.1:1111"}) {
			t.Errorf("routes: %+v", routes)
		}
		if state := n1.wanted().Tasks[0].Status.State; state != wire.TaskRunning {
			t.Errorf("a task that has run is told as %s: a node that has lost its container would start it again", state)
		}

		if task := n1.wanted().Tasks[0]; task.Auth != "" || task.Spec.ContainerSpec == nil || len(task.Ports) != 1 {
			t.Errorf("a task that runs is told as %+v", task)
		}

		n1.say(t, session.Report{Tasks: map[string]wire.TaskStatus{"t1": {State: wire.TaskFailed}}})
		ended := n1.wanted().Tasks[0]
		if ended.Status.State != wire.TaskFailed || ended.ID != "t1" || ended.NodeID != "n1" || ended.Slot != 1 || ended.Service.Name != "web" {
			t.Errorf("a task that has ended is told as %+v", ended)
		}
		if ended.Spec.ContainerSpec != nil || ended.Auth != "" || len(ended.Ports) != 0 {
			t.Errorf("the node is told how to run a task that has ended: %+v", ended)
		}
	})
}

func TestReportsAreNotBelievedBlindly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lead()
		n1, n2 := w.join(t.Context(), "n1"), w.join(t.Context(), "n2")
		settle()
		// what a node says of another's task does not silence that one
		accepted := session.Report{Tasks: map[string]wire.TaskStatus{"t1": {State: wire.TaskAccepted}}}
		if err := n1.send(accepted); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		n2.say(t, session.Report{Tasks: map[string]wire.TaskStatus{"t1": {State: wire.TaskFailed}}})
		state := func() string {
			if task := w.store.Reader().Task("t1"); task != nil {
				return task.Status.State
			}
			return "none"
		}
		for _, step := range []struct {
			what string
			from *fakeNode
			says session.Report
			want string
		}{
			{"another node's report", n2, session.Report{Tasks: map[string]wire.TaskStatus{"t1": {State: wire.TaskFailed}}}, wire.TaskAccepted},
			{"another node's removal", n2, session.Report{Gone: []string{"t1"}}, wire.TaskAccepted},
			{"its own", n1, session.Report{Tasks: map[string]wire.TaskStatus{"t1": {State: wire.TaskRunning}}}, wire.TaskRunning},
			{"a state that it has left", n1, session.Report{Tasks: map[string]wire.TaskStatus{"t1": {State: wire.TaskPreparing}}}, wire.TaskRunning},
			{"a word that is no state", n1, session.Report{Tasks: map[string]wire.TaskStatus{"t1": {State: "happy"}}}, wire.TaskRunning},
			{"a task that there is not", n1, session.Report{Tasks: map[string]wire.TaskStatus{"t9": {State: wire.TaskRunning}}}, wire.TaskRunning},
			{"that it is gone, unasked", n1, session.Report{Gone: []string{"t1"}}, wire.TaskRunning},
		} {
			step.from.say(t, step.says)
			if got := state(); got != step.want {
				t.Errorf("after %s the task is %s, want %s", step.what, got, step.want)
			}
		}
		w.change(func(s store.Writer) {
			task := *s.Task("t1")
			task.DesiredState = wire.TaskRemove
			s.PutTask(&task)
		})
		n1.say(t, session.Report{Gone: []string{"t1"}})
		if got := state(); got != "none" {
			t.Errorf("a task that was to be removed and is gone is still %s", got)
		}
	})
}

func TestSilentNodesAreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.lead()
		n1 := w.join(t.Context(), "n1")
		settle()
		state := func(id string) string { return w.store.Reader().Node(id).Status.State }
		for range 8 { // n1 speaks, n2 never has
			time.Sleep(heartbeatOfWorld / 2)
			n1.say(t, session.Report{})
		}
		if state("n1") != wire.NodeReady || state("n2") != wire.NodeDown {
			t.Errorf("n1 is %s and n2 %s", state("n1"), state("n2"))
		}
		time.Sleep((missedHeartbeats + 2) * heartbeatOfWorld)
		synctest.Wait()
		if state("n1") != wire.NodeDown {
			t.Errorf("a silent node is %s", state("n1"))
		}
		select {
		case <-n1.done:
		default:
			t.Error("the session of a node that is down goes on")
		}
		w.join(t.Context(), "n1")
		settle()
		if state("n1") != wire.NodeReady {
			t.Errorf("a node that is back is %s", state("n1"))
		}
	})
}

// A node that was made before the clock was set back is called down like any other.
func TestSilentSinceBeforeItWasMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.change(func(s store.Writer) {
			n := *newNode("n3", wire.RoleWorker, wire.AvailabilityActive, "n3", "192.0.2.1:2377")
			n.CreatedAt = time.Now().Add(time.Hour)
			s.PutNode(&n)
		})
		w.lead()
		time.Sleep((missedHeartbeats + 2) * heartbeatOfWorld)
		synctest.Wait()
		if state := w.store.Reader().Node("n3").Status.State; state != wire.NodeDown {
			t.Errorf("it is %s", state)
		}
	})
}

// A new leader gives the nodes time to come to it.
func TestNewLeaderWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.change(func(s store.Writer) {
			n := *s.Node("n1")
			n.Status.State = wire.NodeReady
			s.PutNode(&n)
		})
		time.Sleep(time.Hour) // so long ago
		w.lead()
		time.Sleep((missedHeartbeats - 1) * heartbeatOfWorld)
		synctest.Wait()
		if state := w.store.Reader().Node("n1").Status.State; state != wire.NodeReady {
			t.Errorf("a node that the new leader has not waited for is %s", state)
		}
	})
}

func TestSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		late := w.join(t.Context(), "n1")
		synctest.Wait()
		if <-late.done; !errors.Is(late.err, errNotLed) && !errors.Is(late.err, context.Canceled) {
			t.Errorf("a manager that does not lead answers %v", late.err)
		}
		stop := w.lead()
		stranger := w.join(t.Context(), "n9")
		synctest.Wait()
		if <-stranger.done; !fault.Is(stranger.err, fault.Forbidden) && !errors.Is(stranger.err, context.Canceled) {
			t.Errorf("a node that there is not gets %v", stranger.err)
		}
		first := w.join(t.Context(), "n1")
		settle()
		second := w.join(t.Context(), "n1")
		settle()
		<-first.done // the newer one has ended it
		removed := w.join(t.Context(), "n2")
		settle()
		w.forget("n2")
		<-removed.done
		stop()
		<-second.done
	})
}
