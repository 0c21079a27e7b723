// Package agent runs a node's tasks: for each task that the leader assigns to the node a container, and for
// what becomes of the container a status for the leader.
//
//	Assign    what the leader wants, as a whole; each task has a goroutine that drives it there (task.go)
//	step      one transition of a task: prepare, start, wait, stop, remove (step.go, health.go, pull.go)
//	create    the container of a task (create.go), its templates (template.go), what is refused (refuse.go)
//	News      the statuses that the session has not told the leader yet (news.go)
//
// # Crashes
//
// The agent writes nothing to the disk. What it knows of a task after a start of the daemon is what the leader says
// of it, and its container, which is found by its name and by the label that says whose it is. From these two
// it goes on: a container that is there is not created again, one that was started is not started again, and the end of
// one that ended while no daemon was there is read from it. A container whose task the leader does not
// know any more is removed, once the leader has spoken.
//
// States and messages are those of Docker's swarm mode, as `docker service ps` and `docker inspect` show them.
package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Containers are what the agent needs of *container.Manager.
type Containers interface {
	Create(ctx context.Context, name, platform string, req wire.ContainerCreateRequest) (wire.ContainerCreateResponse, error)
	Start(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref, signal string, seconds *int) error
	Remove(ctx context.Context, ref string, o container.RemoveOptions) error
	Inspect(ctx context.Context, ref string, size bool) (wire.ContainerInspect, error)
	List(ctx context.Context, o container.ListOptions) ([]wire.ContainerSummary, error)
	Wait(ctx context.Context, ref, condition string) (<-chan wire.WaitResponse, error)
	Logs(ctx context.Context, ref string, o container.LogOptions, w io.Writer) error
}

// Images are what the agent needs of *image.Store.
type Images interface {
	Inspect(ctx context.Context, ref string) (wire.ImageInspect, error)
	Pull(ctx context.Context, ref, platform string, auth *wire.AuthConfig, progress func(wire.Message)) error
}

// Events are what the agent needs of *event.Log.
type Events interface {
	Subscribe(ctx context.Context, since, until time.Time, filters map[string][]string) (<-chan wire.Event, error)
}

// Options are what an Agent is made of.
type Options struct {
	NodeID     string
	Containers Containers
	Images     Images
	Events     Events
	// Info is what GET /info says of this daemon.
	Info   func(ctx context.Context) (wire.Info, error)
	Logger *slog.Logger
	// PreferLocal starts tasks with the image that is here, though a registry may have a newer one of that
	// name: Docker's DOCKER_SERVICE_PREFER_OFFLINE_IMAGE.
	PreferLocal bool
	// Patience is the first wait after something failed that is tried again, and doubled each time; 0 is a second.
	Patience time.Duration
}

// atOnce is how many containers are created or started at the same time.
const atOnce = 16

// Agent runs the tasks of one node. Its methods may be called in parallel.
type Agent struct {
	o     Options
	log   *slog.Logger
	gate  chan struct{} // bounds what is created and started at once
	pulls pulls

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	drivers sync.WaitGroup

	mu    sync.Mutex
	tasks map[string]*task
	swept bool // the containers that were there at the start have been looked at
	news  journal
}

// New returns an Agent without tasks. Nothing is touched before the first Assign.
func New(o Options) *Agent {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Patience == 0 {
		o.Patience = time.Second
	}
	a := &Agent{o: o, log: o.Logger, gate: make(chan struct{}, atOnce), tasks: map[string]*task{}, news: newJournal()}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.pulls = pulls{images: o.Images, patience: answerTime, running: map[string]*pull{}, down: map[string]time.Time{}}
	return a
}

// Assign says what the leader wants of this node; it returns at once. Containers of this node whose tasks are
// not in it are removed. The tasks are kept: the caller must not change them afterwards.
func (a *Agent) Assign(w session.Wanted) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx.Err() != nil {
		return
	}
	wanted := make(map[string]bool, len(w.Tasks))
	for _, want := range w.Tasks {
		if want.ID == "" || wanted[want.ID] {
			continue // twice, or nothing that could be reported on
		}
		wanted[want.ID] = true
		if t := a.tasks[want.ID]; t != nil {
			t.wish(want, false)
		} else {
			a.drive(newTask(a, want, false))
		}
	}
	for id, t := range a.tasks {
		if !wanted[id] {
			t.wish(t.want, true)
		}
	}
	if !a.swept {
		a.swept = true
		a.drivers.Go(a.sweep)
	}
}

// drive adds a task and begins to drive it. The mutex is held.
func (a *Agent) drive(t *task) {
	a.tasks[t.id] = t
	a.drivers.Go(t.run)
}

// forget drops a task of which nothing is left, unless it is wanted again meanwhile.
func (a *Agent) forget(t *task) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !t.unwanted {
		return false
	}
	delete(a.tasks, t.id)
	a.news.forget(t.id)
	return true
}

// sweep finds the containers that an earlier life of the daemon left, and has those removed that belong to no task.
func (a *Agent) sweep() {
	for wait := a.o.Patience; ; wait = longer(wait) {
		left, err := a.ours(a.ctx)
		if err == nil {
			a.adopt(left)
			return
		}
		a.log.Error("look for containers of tasks", "error", err)
		if !a.pause(wait, nil) {
			return
		}
	}
}

func (a *Agent) adopt(left []wire.ContainerSummary) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range left {
		id := c.Labels[labelTaskID]
		if a.tasks[id] != nil || a.ctx.Err() != nil {
			continue
		}
		want := session.Task{Task: wire.Task{ID: id, DesiredState: wire.TaskRemove,
			Status: wire.TaskStatus{State: wire.TaskOrphaned, ContainerStatus: &wire.TaskContainerStatus{ContainerID: c.ID}}}}
		a.drive(newTask(a, want, true))
	}
}

// ours are the containers of tasks of this node.
func (a *Agent) ours(ctx context.Context) (list []wire.ContainerSummary, err error) {
	all, err := a.o.Containers.List(ctx, container.ListOptions{All: true,
		Filters: map[string][]string{"label": {labelTask, labelNodeID + "=" + a.o.NodeID}}})
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if c.Labels[labelTaskID] != "" {
			list = append(list, c)
		}
	}
	return list, nil
}

// pause waits; it reports whether the agent goes on. A change, when one is given, ends it early.
func (a *Agent) pause(d time.Duration, changed <-chan struct{}) bool {
	var over <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-over:
	case <-changed:
	case <-a.ctx.Done():
		return false
	}
	return true
}

// longest bounds the waits between attempts.
const longest = 30 * time.Second

func longer(d time.Duration) time.Duration { return min(2*d, longest) }

// Close ends the agent and leaves the containers as they are, for the next one to adopt. It comes before
// container.Manager.Shutdown, whose stops would else be told to the leader as ends of tasks.
func (a *Agent) Close() error {
	a.mu.Lock()
	a.cancel()
	a.mu.Unlock()
	a.drivers.Wait()
	a.pulls.wait()
	return nil
}

// Clear is Close, and then removes all containers of the node's tasks: for a node that leaves its swarm.
func (a *Agent) Clear(ctx context.Context) error {
	if err := a.Close(); err != nil {
		return err
	}
	left, err := a.ours(ctx)
	if err != nil {
		return err
	}
	errs := make([]error, len(left))
	var all sync.WaitGroup
	for i, c := range left {
		all.Go(func() {
			a.gate <- struct{}{}
			defer func() { <-a.gate }()
			if err := a.o.Containers.Remove(ctx, c.ID, removal); !fault.Is(err, fault.NotFound) {
				errs[i] = err
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// removal takes the anonymous volumes of a task with it, as Docker does.
var removal = container.RemoveOptions{Force: true, Volumes: true}
