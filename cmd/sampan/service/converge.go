package service

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// interval is how often the tasks are looked at.
const interval = 200 * time.Millisecond

// defaultMonitor is how long tasks have to stay as they are when the service says nothing.
const defaultMonitor = 5 * time.Second

// wait shows how the tasks of a service become what they shall be, until they have been so for a while. Who presses
// Ctrl-C stops the waiting and not the service.
func wait(ctx context.Context, c *cli.CLI, engine *client.Client, name string, quiet bool) error {
	w := &waiter{engine: engine, name: name, monitor: defaultMonitor, display: display{show: cli.Progress(c.Out)}}
	if quiet {
		w.show = func(wire.Message) error { return nil }
	}
	for {
		done, err := w.look(ctx)
		if ctx.Err() == nil && (done || err != nil) {
			return err
		}
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			if !w.converged && !quiet {
				fmt.Fprintf(c.Out, "Operation continuing in background.\nUse `sampan service ps %s` to check progress.\n", name)
			}
			return nil
		}
	}
}

// waiter follows a service.
type waiter struct {
	display
	engine    *client.Client
	name      string
	monitor   time.Duration
	view      view
	rollback  bool
	undone    string // what the daemon says of a rollback that has ended
	converged bool
	since     time.Time // when it converged
}

// view shows the tasks of a service of a kind, and reports whether they are what they shall be.
type view interface {
	update(s *wire.Service, tasks []wire.Task, up map[string]bool, rollback bool) (bool, error)
}

// look asks once for all there is to know. It reports the end.
func (w *waiter) look(ctx context.Context) (done bool, err error) {
	s, err := w.engine.ServiceInspect(ctx, w.name)
	if err != nil {
		return false, err
	}
	if u := s.Spec.UpdateConfig; u != nil && u.Monitor != 0 {
		w.monitor = u.Monitor
	}
	if w.view == nil {
		if w.view, err = newView(&s, &w.display); err != nil {
			return false, err
		}
	}
	if done, err := w.status(s.UpdateStatus); done || err != nil {
		return done, err
	}
	if w.converged && time.Since(w.since) >= w.monitor {
		w.line("verify", fmt.Sprintf("Service %s converged", w.name))
		if w.undone != "" {
			w.line("rollback", w.undone)
		}
		return true, w.failed
	}
	tasks, err := w.engine.TaskList(ctx, client.Filters{"service": {s.ID}, "_up-to-date": {"true"}})
	if err != nil {
		return false, err
	}
	up, err := nodesUp(ctx, w.engine)
	if err != nil {
		return false, err
	}
	if w.converged, err = w.view.update(&s, tasks, up, w.rollback); err != nil {
		return false, err
	}
	if w.converged && s.JobStatus != nil {
		w.line("", "job complete") // it stays so
		return true, w.failed
	}
	w.verify()
	return false, w.failed
}

// status is what the daemon says of an update.
func (w *waiter) status(u *wire.UpdateStatus) (done bool, err error) {
	if u == nil {
		return false, nil
	}
	switch u.State {
	case wire.UpdateUpdating:
		w.rollback = false
	case wire.UpdateCompleted:
		return !w.converged, nil // of a service that was so before
	case wire.UpdatePaused:
		return true, fault.New(fault.Unavailable, "service update paused: %s", u.Message)
	case wire.UpdateRollbackStarted:
		if !w.rollback && u.Message != "" {
			w.line("rollback", u.Message)
		}
		w.rollback = true
	case wire.UpdateRollbackPaused:
		return true, fault.New(fault.Unavailable, "service rollback paused: %s", u.Message)
	case wire.UpdateRollbackCompleted:
		if !w.converged {
			w.undone = u.Message
		}
		w.rollback = true
	}
	return false, nil
}

// verify tells how long tasks that are what they shall be are still watched.
func (w *waiter) verify() {
	if !w.converged {
		if !w.since.IsZero() {
			w.line("verify", "Detected task failure")
		}
		w.since = time.Time{}
		return
	}
	if w.since.IsZero() {
		w.since = time.Now()
	}
	if left := w.monitor - time.Since(w.since); left >= 0 {
		w.line("verify", fmt.Sprintf("Waiting %d seconds to verify that tasks are stable...", left/time.Second+1))
	}
}

// nodesUp are the nodes that are not down.
func nodesUp(ctx context.Context, engine *client.Client) (map[string]bool, error) {
	nodes, err := engine.NodeList(ctx, nil)
	if err != nil {
		return nil, err
	}
	up := make(map[string]bool, len(nodes))
	for _, n := range nodes {
		up[n.ID] = n.Status.State != wire.NodeDown
	}
	return up, nil
}

// display prints lines that are written over, each known by its ID. It remembers the first error.
type display struct {
	show   func(wire.Message) error
	failed error
}

func (d *display) line(id, status string) { d.print(wire.Message{ID: id, Status: status}) }

func (d *display) print(m wire.Message) {
	if err := d.show(m); d.failed == nil {
		d.failed = err
	}
}

// bar shows how far a task is.
func (d *display) bar(id string, t *wire.Task, of int64) {
	if t.Status.Err != "" {
		text := cli.Ellipsis(strings.ReplaceAll(t.Status.Err, "\n", " "), widest)
		d.line(id, text)
		return
	}
	d.print(wire.Message{ID: id, Status: fmt.Sprintf("%-*s", longestState, t.Status.State), ProgressDetail: &wire.Progress{Current: place(t.Status.State), Total: of, HideCounts: true}})
}

// widest is how many characters of an error are shown, so that a narrow terminal has room for it.
const widest = 75

// mostBars is how many tasks have lines of their own.
const mostBars = 20

// stages are the states of tasks in the order in which they come.
var stages = []string{
	wire.TaskNew, wire.TaskAllocated, wire.TaskPending, wire.TaskAssigned, wire.TaskAccepted, wire.TaskPreparing, wire.TaskReady, wire.TaskStarting,
	wire.TaskRunning, wire.TaskComplete, wire.TaskShutdown, wire.TaskFailed, wire.TaskRejected,
}

// longestState is as wide as the widest state that is shown.
const longestState = len(wire.TaskAllocated)

// place is where a state stands among the stages, from 1; 0 is none of them.
func place(state string) int64 {
	for i, s := range stages {
		if s == state {
			return int64(i + 1)
		}
	}
	return 0
}

// ended reports whether a state is one after running.
func ended(state string) bool { return place(state) > place(wire.TaskRunning) }

// newView returns what shows the tasks of a service of its mode.
func newView(s *wire.Service, d *display) (view, error) {
	switch m := s.Spec.Mode; {
	case m.Replicated != nil && m.Replicated.Replicas != nil, m.Global != nil:
		return &running{display: d, lines: map[int]int{}}, nil
	case m.ReplicatedJob != nil && m.ReplicatedJob.MaxConcurrent != nil && m.ReplicatedJob.TotalCompletions != nil, m.GlobalJob != nil:
		return &job{display: d}, nil
	}
	return nil, fault.New(fault.NotImplemented, "service %s: its mode is none that is known here", s.ID)
}

// digits is how wide a number is.
func digits(n int) int { return len(strconv.Itoa(n)) }
