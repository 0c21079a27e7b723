package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/event"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

const node = "node1"

// engine is a daemon's containers and images without processes.
type engine struct {
	mu     sync.Mutex
	all    map[string]*fake
	images map[string]bool
	remote map[string]bool // what the registry has
	events *event.Log
	calls  []string
	made   int

	pulling  chan struct{} // when not nil, a pull waits for it
	refuse   map[string]error
	logins   []*wire.AuthConfig
	creating wire.ContainerCreateRequest // the last
	stopping []int
}

// fake is a container of the engine.
type fake struct {
	wire.ContainerInspect
	exit []chan wire.WaitResponse
}

func newEngine() *engine {
	return &engine{all: map[string]*fake{}, images: map[string]bool{"busybox:latest": true}, remote: map[string]bool{},
		events: event.NewLog(), refuse: map[string]error{}}
}

func (e *engine) call(verb, what string) error {
	e.calls = append(e.calls, verb+" "+what)
	return e.refuse[verb]
}

// did counts the calls of a verb.
func (e *engine) did(verb string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.calls {
		if strings.HasPrefix(c, verb+" ") {
			n++
		}
	}
	return n
}

func (e *engine) find(ref string) (*fake, error) {
	for _, c := range e.all {
		if c.ID == ref || c.Name == "/"+ref {
			return c, nil
		}
	}
	return nil, fault.New(fault.NotFound, "No such container: %s", ref)
}

func (e *engine) Create(ctx context.Context, name, _ string, req wire.ContainerCreateRequest) (wire.ContainerCreateResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.call("create", name); err != nil {
		return wire.ContainerCreateResponse{}, err
	}
	if !e.images[req.Image] {
		return wire.ContainerCreateResponse{}, fault.New(fault.NotFound, "No such image: %s", req.Image)
	}
	if _, err := e.find(name); err == nil {
		return wire.ContainerCreateResponse{}, fault.New(fault.Conflict, "Conflict. The container name %q is already in use", name)
	}
	e.made++
	e.creating = req
	id := fmt.Sprintf("%064d", e.made)
	config := req.ContainerConfig
	c := &fake{ContainerInspect: wire.ContainerInspect{ID: id, Name: "/" + name, Config: &config, HostConfig: req.HostConfig,
		State: &wire.ContainerState{Status: "created"}, NetworkSettings: &wire.NetworkSettings{}}}
	e.all[id] = c
	return wire.ContainerCreateResponse{ID: id}, nil
}

func (e *engine) Start(_ context.Context, ref string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	if err := e.call("start", c.Name); err != nil {
		return err
	}
	*c.State = wire.ContainerState{Status: "running", Running: true, Pid: 1000, StartedAt: started.Format(time.RFC3339Nano)}
	if probed(&c.ContainerInspect) {
		c.State.Health = &wire.HealthState{Status: "starting"}
	}
	c.NetworkSettings.Networks = map[string]*wire.EndpointSettings{"bridge": {IPAddress: "127.0.0.1"}}
	c.NetworkSettings.Ports = map[string][]wire.PortBinding{}
	for port, bindings := range c.HostConfig.PortBindings {
		for _, b := range bindings {
			for _, ip := range []string{"0.0.0.0", "::"} {
				c.NetworkSettings.Ports[port] = append(c.NetworkSettings.Ports[port], wire.PortBinding{HostIP: ip, HostPort: b.HostPort})
			}
		}
	}
	return nil
}

// started is when all containers were started.
var started = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

// ends is the end of a container's process.
func (e *engine) ends(c *fake, code int) {
	*c.State = wire.ContainerState{Status: "exited", ExitCode: code, Health: c.State.Health, StartedAt: c.State.StartedAt}
	*c.NetworkSettings = wire.NetworkSettings{}
	for _, w := range c.exit {
		w <- wire.WaitResponse{StatusCode: int64(code)}
	}
	c.exit = nil
}

// exit ends the process of a task's container.
func (e *engine) exit(t *testing.T, task string, code int) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ends(e.of(t, task), code)
}

// health changes the health of a task's container.
func (e *engine) health(t *testing.T, task, status string) {
	t.Helper()
	e.mu.Lock()
	c := e.of(t, task)
	c.State.Health = &wire.HealthState{Status: status}
	id := c.ID
	e.mu.Unlock()
	e.events.Emit(event.Container, "health_status: "+status, id, nil)
}

// of is the container of a task.
func (e *engine) of(t *testing.T, task string) *fake {
	t.Helper()
	for _, c := range e.all {
		if c.Config.Labels[labelTaskID] == task {
			return c
		}
	}
	t.Fatalf("task %s has no container", task)
	return nil
}

func (e *engine) Stop(_ context.Context, ref, _ string, seconds *int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	if !c.State.Running {
		return fault.New(fault.NotModified, "container is already stopped")
	}
	if err := e.call("stop", c.Name); err != nil {
		return err
	}
	if seconds != nil {
		e.stopping = append(e.stopping, *seconds)
	}
	e.ends(c, 143)
	return nil
}

func (e *engine) Remove(_ context.Context, ref string, o container.RemoveOptions) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(ref)
	if err != nil {
		return err
	}
	if err := e.call("remove", c.Name); err != nil {
		return err
	}
	if c.State.Running {
		e.ends(c, 137)
	}
	delete(e.all, c.ID)
	return nil
}

func (e *engine) Inspect(ctx context.Context, ref string, _ bool) (wire.ContainerInspect, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(ref)
	if err != nil {
		return wire.ContainerInspect{}, err
	}
	if err := e.refuse["inspect"]; err != nil {
		return wire.ContainerInspect{}, err
	}
	return copied(c.ContainerInspect), nil
}

// copied is what somebody else may keep.
func copied[T any](v T) (c T) {
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		panic(err)
	}
	return c
}

func (e *engine) List(_ context.Context, o container.ListOptions) (list []wire.ContainerSummary, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.call("list", ""); err != nil {
		return nil, err
	}
	for _, c := range e.all {
		if !slices.ContainsFunc(o.Filters["label"], func(want string) bool {
			key, value, has := strings.Cut(want, "=")
			got, ok := c.Config.Labels[key]
			return !ok || has && got != value
		}) {
			list = append(list, wire.ContainerSummary{ID: c.ID, Names: []string{c.Name}, Labels: maps.Clone(c.Config.Labels)})
		}
	}
	return list, nil
}

func (e *engine) Wait(ctx context.Context, ref, condition string) (<-chan wire.WaitResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	w := make(chan wire.WaitResponse, 1)
	if !c.State.Running {
		w <- wire.WaitResponse{StatusCode: int64(c.State.ExitCode)}
		return w, nil
	}
	c.exit = append(c.exit, w)
	return w, nil
}

func (e *engine) Logs(_ context.Context, ref string, o container.LogOptions, w io.Writer) error {
	_, err := io.WriteString(w, "line of "+ref[60:]+"\n")
	return err
}

// picture are the images of the engine.
type picture struct{ *engine }

func (p picture) Inspect(_ context.Context, ref string) (wire.ImageInspect, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.images[ref] && !p.images[ref+":latest"] {
		return wire.ImageInspect{}, fault.New(fault.NotFound, "No such image: %s", ref)
	}
	return wire.ImageInspect{ID: "sha256:" + ref}, nil
}

func (p picture) Pull(ctx context.Context, ref, _ string, auth *wire.AuthConfig, _ func(wire.Message)) error {
	p.mu.Lock()
	err := p.call("pull", ref)
	p.logins = append(p.logins, auth)
	wait, there := p.pulling, p.remote[ref]
	p.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err == nil && !there {
		err = fault.New(fault.NotFound, "pull access denied for %s", ref)
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.images[ref] = true
	return nil
}

func info(context.Context) (wire.Info, error) {
	return wire.Info{Name: "host1", Architecture: "x86_64", OSType: "linux", NCPU: 2, MemTotal: 1 << 30, ServerVersion: "1.2.3",
		Labels: []string{"zone=a", "odd"}, Plugins: wire.InfoPlugins{Volume: []string{"local"}, Network: []string{"host", "bridge"}, Log: []string{"json-file"}}}, nil
}

// open is a start of the daemon.
func (e *engine) open(t *testing.T) *Agent {
	t.Helper()
	a := New(Options{NodeID: node, Containers: e, Images: picture{e}, Events: e.events, Info: info, Patience: time.Millisecond})
	t.Cleanup(func() { closed(t, a) })
	return a
}

func closed(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// wanted is a task that shall run.
func wanted(id string, change func(*session.Task)) session.Task {
	w := session.Task{Task: wire.Task{ID: id, ServiceID: "service1", Slot: 3, NodeID: node, DesiredState: wire.TaskRunning,
		Spec: wire.TaskSpec{ContainerSpec: &wire.ContainerSpec{Image: "busybox", Args: []string{"top"}}}, Status: wire.TaskStatus{State: wire.TaskAssigned}},
		Service: session.ServiceName{ID: "service1", Name: "web", Labels: map[string]string{"tier": "front"}}}
	if change != nil {
		change(&w)
	}
	return w
}

func desired(state string) func(*session.Task) {
	return func(w *session.Task) { w.DesiredState = state }
}

func assign(a *Agent, tasks ...session.Task) { a.Assign(session.Wanted{Tasks: tasks}) }

// told is what a session has heard.
type told struct {
	t     *testing.T
	a     *Agent
	seq   uint64
	tasks map[string]wire.TaskStatus
	gone  map[string]bool
	// heard are the states of each task in the order in which they came; a session may miss some.
	heard map[string][]string
}

func listen(t *testing.T, a *Agent) *told {
	return &told{t: t, a: a, tasks: map[string]wire.TaskStatus{}, gone: map[string]bool{}, heard: map[string][]string{}}
}

// until reads news until something is so.
func (l *told) until(what string, so func() bool) {
	l.t.Helper()
	for deadline := time.After(20 * time.Second); ; {
		n := l.a.News(l.seq)
		l.seq = n.Seq
		for id, s := range n.Tasks {
			l.tasks[id] = s
			l.heard[id] = append(l.heard[id], s.State)
		}
		for _, id := range n.Gone {
			l.gone[id] = true
		}
		if so() {
			return
		}
		select {
		case <-n.Changed:
		case <-deadline:
			l.t.Fatalf("%s never came: %+v, gone %v", what, l.tasks, l.gone)
		}
	}
}

func (l *told) state(id, state string) wire.TaskStatus {
	l.t.Helper()
	l.until(id+" "+state, func() bool { return l.tasks[id].State == state })
	return l.tasks[id]
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
