package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func TestLife(t *testing.T) {
	e := newEngine()
	a := e.open(t)
	l := listen(t, a)
	grace := 1500 * time.Millisecond
	task := wanted("task1", func(w *session.Task) { w.Spec.ContainerSpec.StopGracePeriod = &grace })
	assign(a, task)
	got := l.state("task1", wire.TaskRunning)
	same(t, "message", got.Message, "started")
	same(t, "container", got.ContainerStatus, &wire.TaskContainerStatus{ContainerID: fmt.Sprintf("%064d", 1), PID: 1000})
	same(t, "name", e.all[got.ContainerStatus.ContainerID].Name, "/web.3.task1")

	task.DesiredState = wire.TaskShutdown
	assign(a, task)
	got = l.state("task1", wire.TaskShutdown)
	same(t, "message", got.Message, "shutdown")
	same(t, "exit status", got.ContainerStatus.ExitCode, 143)
	same(t, "grace", e.stopping, []int{2})
	if len(e.all) != 1 {
		t.Error("a task that is shut down keeps its container")
	}

	task.DesiredState = wire.TaskRemove
	assign(a, task)
	l.until("gone", func() bool { return l.gone["task1"] })
	if len(e.all) != 0 {
		t.Error("a removed task has a container")
	}
	if again := a.News(0); len(again.Gone) != 1 {
		t.Error("a new session is not told that a task is gone")
	}
	assign(a)
	eventually(t, "the task is forgotten", func() bool { return len(a.News(0).Gone) == 0 })
}

// The states come in Docker's order, whatever a session misses of them.
func TestStates(t *testing.T) {
	e := newEngine()
	a := e.open(t)
	l := listen(t, a)
	assign(a, wanted("task1", desired(wire.TaskReady)))
	got := l.state("task1", wire.TaskReady)
	same(t, "message", got.Message, "prepared")
	if e.did("start") != 0 {
		t.Error("a task that shall be ready is started")
	}
	assign(a, wanted("task1", nil))
	l.state("task1", wire.TaskRunning)
	last := -1
	for _, s := range l.heard["task1"] {
		if rank(s) <= last {
			t.Errorf("states %v: out of order", l.heard["task1"])
		}
		last = rank(s)
	}
}

func TestEnds(t *testing.T) {
	e := newEngine()
	a := e.open(t)
	l := listen(t, a)
	assign(a, wanted("good", nil), wanted("bad", nil), wanted("killed", nil))
	for _, id := range []string{"good", "bad", "killed"} {
		l.state(id, wire.TaskRunning)
	}
	e.exit(t, "good", 0)
	e.exit(t, "bad", 3)
	e.exit(t, "killed", 137)
	same(t, "good", l.state("good", wire.TaskComplete).Message, "finished")
	got := l.state("bad", wire.TaskFailed)
	same(t, "bad", [3]any{got.Message, got.Err, got.ContainerStatus.ExitCode}, [3]any{"started", "task: non-zero exit (3)", 3})
	same(t, "killed", l.state("killed", wire.TaskFailed).Err, "task: non-zero exit (137)")
	// The end of an end is no news.
	seq := l.seq
	e.mu.Lock()
	e.refuse["remove"] = errors.New("busy")
	e.mu.Unlock()
	assign(a, wanted("good", desired(wire.TaskShutdown)), wanted("bad", nil), wanted("killed", nil))
	assign(a, wanted("good", desired(wire.TaskRemove)), wanted("bad", desired(wire.TaskRemove)))
	tries(t, e, "remove", 6)
	same(t, "news", len(a.News(seq).Tasks), 0)
}

func TestRejected(t *testing.T) {
	e := newEngine()
	a := e.open(t)
	l := listen(t, a)
	assign(a,
		wanted("image", func(w *session.Task) { w.Spec.ContainerSpec.Image = "nothing:1" }),
		wanted("secret", func(w *session.Task) { w.Spec.ContainerSpec.Secrets = []*wire.TaskSecret{{SecretID: "x"}} }))
	got := l.state("image", wire.TaskRejected)
	same(t, "image", [2]string{got.Message, got.Err}, [2]string{"preparing", "No such image: nothing:1"})
	got = l.state("secret", wire.TaskRejected)
	same(t, "secret", [2]string{got.Message, got.Err}, [2]string{"resolving controller failed", "ContainerSpec.Secrets: secrets are not supported"})
}

func TestStartFails(t *testing.T) {
	e := newEngine()
	e.refuse["start"] = errors.New("exec: \"nothing\": not found")
	a := e.open(t)
	l := listen(t, a)
	assign(a, wanted("task1", nil))
	got := l.state("task1", wire.TaskFailed)
	same(t, "status", [2]string{got.Message, got.Err}, [2]string{"starting", `starting container failed: exec: "nothing": not found`})
}

// What the engine cannot do now is tried again, and not for ever.
func TestRefusals(t *testing.T) {
	e := newEngine()
	e.refuse["start"] = fault.New(fault.Unavailable, "the daemon is stopping")
	a := e.open(t)
	l := listen(t, a)
	assign(a, wanted("task1", nil))
	got := l.state("task1", wire.TaskFailed)
	same(t, "error", got.Err, "starting container failed: the daemon is stopping")
	same(t, "starts", e.did("start"), maxRefusals+1)
}

// A container that cannot be stopped or removed now is tried again.
func TestRemovalFails(t *testing.T) {
	e := newEngine()
	a := e.open(t)
	l := listen(t, a)
	assign(a, wanted("task1", nil))
	l.state("task1", wire.TaskRunning)
	e.mu.Lock()
	e.refuse["stop"], e.refuse["remove"] = errors.New("busy"), errors.New("busy")
	e.mu.Unlock()
	assign(a, wanted("task1", desired(wire.TaskRemove)))
	tries(t, e, "stop", 3)
	e.mu.Lock()
	delete(e.refuse, "stop")
	e.mu.Unlock()
	l.state("task1", wire.TaskShutdown)
	tries(t, e, "remove", 3)
	e.mu.Lock()
	delete(e.refuse, "remove")
	e.mu.Unlock()
	l.until("gone", func() bool { return l.gone["task1"] })
}

func tries(t *testing.T, e *engine, verb string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d times %s", n, verb), func() bool { return e.did(verb) >= n })
}

func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came to pass: %s", what)
		}
	}
}

func TestHealth(t *testing.T) {
	e := newEngine()
	a := e.open(t)
	l := listen(t, a)
	probed := func(w *session.Task) {
		w.Spec.ContainerSpec.Healthcheck = &wire.Healthcheck{Test: []string{"CMD", "true"}}
		w.Ports = []wire.ServicePort{{TargetPort: 80}}
	}
	assign(a, wanted("well", probed), wanted("never", probed), wanted("ends", probed))
	for _, id := range []string{"well", "never", "ends"} {
		l.state(id, wire.TaskStarting)
	}
	tries(t, e, "start", 3)
	if _, err := a.Endpoint(t.Context(), "well", 80); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a task that is not healthy yet is reached: %v", err)
	}
	e.health(t, "well", "healthy")
	l.state("well", wire.TaskRunning)

	e.health(t, "never", "unhealthy")
	got := l.state("never", wire.TaskFailed)
	same(t, "never", [2]string{got.Message, got.Err}, [2]string{"starting", "task: non-zero exit (143): dockerexec: unhealthy container"})

	e.exit(t, "ends", 0)
	same(t, "ends", l.state("ends", wire.TaskComplete).Message, "finished")

	e.health(t, "well", "unhealthy")
	got = l.state("well", wire.TaskFailed)
	same(t, "well", [2]string{got.Message, got.Err}, [2]string{"started", "task: non-zero exit (143): dockerexec: unhealthy container"})
}

// The daemon may die at any time: what the next one finds is gone on with.
func TestRestart(t *testing.T) {
	for name, c := range map[string]struct {
		known   string         // what the leader has heard
		between func(*engine)  // while no daemon is there
		want    string         // state
		err     string         // of it
		calls   map[string]int // of both daemons
	}{
		"running, known":       {known: wire.TaskRunning, want: wire.TaskRunning, calls: map[string]int{"create": 1, "start": 1}},
		"running, not known":   {known: wire.TaskPreparing, want: wire.TaskRunning, calls: map[string]int{"create": 1, "start": 1}},
		"running, not at all":  {known: wire.TaskAssigned, want: wire.TaskRunning, calls: map[string]int{"create": 1, "start": 1, "pull": 1}},
		"ended well":           {known: wire.TaskRunning, between: func(e *engine) { e.exitAll(0) }, want: wire.TaskComplete},
		"ended badly":          {known: wire.TaskRunning, between: func(e *engine) { e.exitAll(7) }, want: wire.TaskFailed, err: "task: non-zero exit (7)"},
		"ended, start unknown": {known: wire.TaskReady, between: func(e *engine) { e.exitAll(7) }, want: wire.TaskFailed, err: "task: non-zero exit (7)", calls: map[string]int{"start": 1}},
		"removed by a user":    {known: wire.TaskRunning, between: func(e *engine) { clear(e.all) }, want: wire.TaskFailed, err: "No such container: web.3.task1", calls: map[string]int{"create": 1}},
		"known as failed":      {known: wire.TaskFailed, between: func(e *engine) { e.exitAll(7) }, want: "", calls: map[string]int{"start": 1}},
		"not started, as the machine forgot": {known: wire.TaskRunning, between: func(e *engine) { e.all[fmt.Sprintf("%064d", 1)].State.Status = "created"; e.exitAll(-1) },
			want: wire.TaskFailed, err: "task: the container is not the one that was started", calls: map[string]int{"start": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine()
			first := e.open(t)
			assign(first, wanted("task1", nil))
			listen(t, first).state("task1", wire.TaskRunning)
			closed(t, first)
			if c.between != nil {
				c.between(e)
			}
			second := e.open(t)
			l := listen(t, second)
			assign(second, wanted("task1", func(w *session.Task) { w.Status.State = c.known }), wanted("other", nil))
			l.state("other", wire.TaskRunning)
			if c.want != "" && !(c.want == c.known) {
				same(t, "error", l.state("task1", c.want).Err, c.err)
			}
			ends := 0
			for _, s := range l.heard["task1"] {
				if ended(s) {
					ends++
				}
				if rank(s) < starting {
					t.Errorf("the beginning is told again: %s", s)
				}
			}
			if c.want == wire.TaskRunning && c.known != c.want {
				same(t, "time", l.tasks["task1"].Timestamp, started)
			}
			if want := map[bool]int{true: 1}[ended(c.want)]; ends != want {
				t.Errorf("the end was told %d times, want %d", ends, want)
			}
			for verb, n := range c.calls {
				same(t, verb, e.did(verb), n+1) // and that of the other task
			}
		})
	}
}

// exitAll ends all containers; -1 leaves how.
func (e *engine) exitAll(code int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.all {
		if code >= 0 {
			e.ends(c, code)
		} else {
			c.State.Running = false
		}
	}
}

// Containers of tasks that the leader does not know any more are removed, and no others.
func TestOrphans(t *testing.T) {
	e := newEngine()
	first := e.open(t)
	assign(first, wanted("kept", nil), wanted("lost", nil))
	l := listen(t, first)
	l.state("kept", wire.TaskRunning)
	l.state("lost", wire.TaskRunning)
	closed(t, first)
	for name, labels := range map[string]map[string]string{
		"user":  {"com.docker.swarm.note": "mine"},
		"other": {labelTask: "", labelTaskID: "foreign", labelNodeID: "node2"},
	} {
		if _, err := e.Create(t.Context(), name, "", wire.ContainerCreateRequest{ContainerConfig: wire.ContainerConfig{Image: "busybox:latest", Labels: labels}}); err != nil {
			t.Fatal(err)
		}
	}
	e.refuse["list"] = errors.New("not now")
	second := e.open(t)
	same(t, "containers are looked for before the leader has spoken", e.did("list"), 1)
	assign(second, wanted("kept", func(w *session.Task) { w.Status.State = wire.TaskRunning }))
	tries(t, e, "list", 4)
	e.mu.Lock()
	delete(e.refuse, "list")
	e.mu.Unlock()
	tries(t, e, "remove", 1)
	var names []string
	e.mu.Lock()
	for _, c := range e.all {
		names = append(names, c.Name)
	}
	e.mu.Unlock()
	if len(names) != 3 || strings.Contains(strings.Join(names, " "), "lost") {
		t.Errorf("containers: %v", names)
	}
	// One that is not wanted any more while the agent lives.
	assign(second)
	tries(t, e, "remove", 2)
	same(t, "removed", e.did("stop"), 2)
}

// A task is removed though its service, and with it the container's name, is known to nobody any more.
func TestRemovedService(t *testing.T) {
	e := newEngine()
	first := e.open(t)
	assign(first, wanted("task1", nil))
	listen(t, first).state("task1", wire.TaskRunning)
	closed(t, first)
	assign(e.open(t), wanted("task1", func(w *session.Task) {
		w.DesiredState, w.Service = wire.TaskRemove, session.ServiceName{ID: w.Service.ID}
	}))
	tries(t, e, "remove", 1)
	same(t, "stopped", e.did("stop"), 1)
}

// A node that was away stops what the leader has given up.
func TestOrphaned(t *testing.T) {
	e := newEngine()
	a := e.open(t)
	l := listen(t, a)
	assign(a, wanted("task1", nil))
	l.state("task1", wire.TaskRunning)
	assign(a, wanted("task1", func(w *session.Task) { w.Status.State = wire.TaskOrphaned }))
	l.state("task1", wire.TaskShutdown)
}

func TestClear(t *testing.T) {
	e := newEngine()
	a := e.open(t)
	l := listen(t, a)
	assign(a, wanted("task1", nil), wanted("task2", nil))
	l.state("task1", wire.TaskRunning)
	l.state("task2", wire.TaskRunning)
	if err := a.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(e.all) != 0 || e.did("stop") != 0 {
		t.Errorf("%d containers are left, %d were stopped", len(e.all), e.did("stop"))
	}
	assign(a, wanted("task3", nil)) // nothing comes of it
	same(t, "created", e.did("create"), 2)
}

// Desires come as they like, also while a step is under way.
func TestDesires(t *testing.T) {
	e := newEngine()
	e.pulling = make(chan struct{})
	a := e.open(t)
	l := listen(t, a)
	assign(a, wanted("task1", nil), wanted("task2", nil))
	l.state("task1", wire.TaskPreparing)
	l.state("task2", wire.TaskPreparing)
	eventually(t, "both wait for one pull", func() bool {
		a.pulls.mu.Lock()
		defer a.pulls.mu.Unlock()
		p := a.pulls.running["busybox:latest\n"]
		return p != nil && p.waiting == 2
	})
	assign(a, wanted("task1", desired(wire.TaskShutdown)), wanted("task2", nil), wanted("", nil), wanted("task2", desired("nonsense")))
	l.state("task1", wire.TaskShutdown)
	close(e.pulling)
	l.state("task2", wire.TaskRunning)
	same(t, "pulls", e.did("pull"), 1)
	same(t, "created", e.did("create"), 1)
	for range 50 {
		assign(a, wanted("task2", nil))
		assign(a)
	}
	tries(t, e, "remove", 1)
	assign(a, wanted("task3", desired("nonsense")), wanted("task4", nil))
	l.state("task4", wire.TaskRunning)
	if _, there := l.tasks["task3"]; there {
		t.Error("a task whose desired state nobody knows is driven")
	}
}

// The last that waits for a pull ends it.
func TestPullEnds(t *testing.T) {
	e := newEngine()
	e.pulling = make(chan struct{})
	a := e.open(t)
	assign(a, wanted("task1", nil), wanted("task2", nil))
	tries(t, e, "pull", 1)
	assign(a)
	eventually(t, "no task is left", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.tasks) == 0
	})
	closed(t, a) // waits for the pull
}

func TestNewsIsBounded(t *testing.T) {
	a := newEngine().open(t)
	worst := wire.TaskStatus{State: wire.TaskRunning, Timestamp: time.Now(), Message: "resolving controller failed", Err: strings.Repeat("\x01", maxError),
		ContainerStatus: &wire.TaskContainerStatus{ContainerID: strings.Repeat("f", 64), PID: math.MaxInt32, ExitCode: math.MinInt32}}
	for range maxPorts {
		worst.PortStatus.Ports = append(worst.PortStatus.Ports, wire.ServicePort{Protocol: "sctp", TargetPort: math.MaxUint16, PublishedPort: math.MaxUint16, PublishMode: wire.PublishHost})
	}
	const all = 40
	for i := range all {
		a.news.tell(fmt.Sprintf("%025d", i), word{status: worst})
	}
	seen, calls := map[string]bool{}, 0
	for seq := uint64(0); ; {
		n := a.News(seq)
		calls++
		for id := range n.Tasks {
			seen[id] = true
		}
		line, err := json.Marshal(session.Report{Tasks: n.Tasks, Gone: n.Gone})
		if err != nil || len(line) > session.MaxReport {
			t.Fatalf("%d bytes, %v", len(line), err)
		}
		seq = n.Seq
		select {
		case <-n.Changed:
			continue
		default:
		}
		break
	}
	same(t, "tasks", len(seen), all)
	if calls < 3 {
		t.Errorf("%d calls: the bound was not tried", calls)
	}
}

// Whatever is under way, Close ends it and leaves the containers as they are.
func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	e := newEngine()
	e.pulling = make(chan struct{})
	e.images["probed:latest"] = true
	a := New(Options{NodeID: node, Containers: e, Images: picture{e}, Events: e.events, Info: info, Patience: time.Millisecond, PreferLocal: true})
	l := listen(t, a)
	probed := func(w *session.Task) {
		w.Spec.ContainerSpec.Healthcheck = &wire.Healthcheck{Test: []string{"CMD", "true"}}
	}
	assign(a, wanted("runs", nil), wanted("starts", probed), wanted("pulls", func(w *session.Task) { w.Spec.ContainerSpec.Image = "new" }), wanted("stops", nil))
	l.state("runs", wire.TaskRunning)
	l.state("stops", wire.TaskRunning)
	l.state("starts", wire.TaskStarting)
	tries(t, e, "pull", 1)
	tries(t, e, "start", 3)
	e.mu.Lock()
	e.refuse["stop"] = errors.New("busy")
	e.mu.Unlock()
	assign(a, wanted("runs", nil), wanted("starts", probed), wanted("pulls", func(w *session.Task) { w.Spec.ContainerSpec.Image = "new" }), wanted("stops", desired(wire.TaskShutdown)))
	tries(t, e, "stop", 1)
	closed(t, a)
	closed(t, a)
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
	same(t, "containers", len(e.all), 3)
	for id, s := range a.News(0).Tasks {
		if ended(s.State) {
			t.Errorf("the end of the agent is that of task %s: %+v", id, s)
		}
	}
}

// Whatever is wanted one after the other, and whenever the daemon dies, in the end there is what is wanted last.
func TestAnything(t *testing.T) {
	for seed := range uint64(20) {
		dice := rand.New(rand.NewPCG(seed, 1))
		e := newEngine()
		e.remote["new:1"] = true
		a := e.open(t)
		for range 60 {
			var tasks []session.Task
			for id := range 6 {
				if dice.IntN(3) == 0 {
					continue
				}
				tasks = append(tasks, wanted(fmt.Sprint("task", id), func(w *session.Task) {
					w.DesiredState = order[dice.IntN(len(order))]
					w.Status.State = order[dice.IntN(len(order))]
					if id%2 == 0 {
						w.Spec.ContainerSpec.Healthcheck = &wire.Healthcheck{Test: []string{"CMD", "true"}}
					}
					if id%3 == 0 {
						w.Spec.ContainerSpec.Image = "new:1"
					}
				}))
			}
			assign(a, tasks...)
			switch dice.IntN(10) {
			case 0:
				closed(t, a)
				a = e.open(t)
			case 1:
				e.exitAll(dice.IntN(2))
			case 2:
				time.Sleep(time.Millisecond)
			}
		}
		last := []session.Task{wanted("last1", nil), wanted("last2", nil)}
		assign(a, last...)
		l := listen(t, a)
		l.state("last1", wire.TaskRunning)
		l.state("last2", wire.TaskRunning)
		eventually(t, fmt.Sprint("nothing else is there, seed ", seed), func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			e.mu.Lock()
			defer e.mu.Unlock()
			return len(a.tasks) == 2 && len(e.all) == 2
		})
		closed(t, a)
	}
}
