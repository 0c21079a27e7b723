package agent

import (
	"context"
	"slices"
	"time"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/wire"
)

// task is a task of the node, with the goroutine that drives it.
type task struct {
	a  *Agent
	id string

	// Of the agent's mutex.
	want     session.Task
	unwanted bool // the leader does not know it any more
	changed  chan struct{}
	halt     context.CancelFunc // ends what is done for a task that shall run
	status   wire.TaskStatus

	// Of the goroutine.
	refusals int       // how often in a row the engine said that it cannot now
	began    time.Time // when the container was started that an earlier life of the daemon left; zero: there was none
}

// newTask returns a task that begins with what the leader knows of it.
func newTask(a *Agent, want session.Task, unwanted bool) *task {
	return &task{a: a, id: want.ID, want: want, unwanted: unwanted, changed: make(chan struct{}), status: want.Status, halt: func() {}}
}

// order has the states as they come; what is not in it is no state.
var order = []string{wire.TaskNew, wire.TaskAllocated, wire.TaskPending, wire.TaskAssigned, wire.TaskAccepted, wire.TaskPreparing,
	wire.TaskReady, wire.TaskStarting, wire.TaskRunning, wire.TaskComplete, wire.TaskShutdown, wire.TaskFailed, wire.TaskRejected,
	wire.TaskRemove, wire.TaskOrphaned}

func rank(state string) int { return slices.Index(order, state) }

var ( // ranks that are compared with
	accepted = rank(wire.TaskAccepted)
	ready    = rank(wire.TaskReady)
	starting = rank(wire.TaskStarting)
	complete = rank(wire.TaskComplete)
)

// ended reports whether nothing follows a state.
func ended(state string) bool { return rank(state) >= complete }

// The goals of a task.
type goal int

const (
	toRun goal = iota
	toStop
	toRemove
)

// goalOf says what shall become of a task. A state that nobody knows leaves it as it is.
func goalOf(want *session.Task, unwanted bool) goal {
	switch want.DesiredState {
	case wire.TaskRemove, wire.TaskOrphaned:
		return toRemove
	case wire.TaskShutdown, wire.TaskFailed, wire.TaskRejected:
		if !unwanted {
			return toStop
		}
	}
	switch {
	case unwanted:
		return toRemove
	case want.Status.State == wire.TaskOrphaned: // given up by the leader while this node was away
		return toStop
	}
	return toRun
}

// wish is what the leader wants of the task now. The agent's mutex is held.
func (t *task) wish(want session.Task, unwanted bool) {
	t.want, t.unwanted = want, unwanted
	if goalOf(&want, unwanted) != toRun {
		t.halt()
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

// look returns what is wanted now, how it is told that it has changed, and a context that ends when the task
// shall not run any more.
func (t *task) look() (want session.Task, g goal, changed <-chan struct{}, running context.Context) {
	t.a.mu.Lock()
	defer t.a.mu.Unlock()
	t.halt()
	running, t.halt = context.WithCancel(t.a.ctx)
	return t.want, goalOf(&t.want, t.unwanted), t.changed, running
}

// run drives the task until nothing is left of it, or the agent ends.
func (t *task) run() {
	defer func() {
		t.a.mu.Lock()
		t.halt()
		t.a.mu.Unlock()
	}()
	t.adopt()
	for wait := t.a.o.Patience; ; {
		want, g, changed, running := t.look()
		var more bool
		var err error
		switch g {
		case toRun:
			more, err = t.forward(running, &want)
		case toStop:
			err = t.stop(t.a.ctx, &want)
		case toRemove:
			if err = t.remove(t.a.ctx, &want); err == nil && t.a.forget(t) {
				return
			}
		}
		switch {
		case t.a.ctx.Err() != nil:
			return
		case running.Err() != nil || err == nil && more:
			wait = t.a.o.Patience
			continue
		case err == nil:
			wait = t.a.o.Patience
			if !t.a.pause(0, changed) {
				return
			}
		default:
			t.a.log.Warn("a task is tried again later", "task", t.id, "state", t.status.State, "wait", wait, "error", err)
			if !t.a.pause(wait, changed) {
				return
			}
			wait = longer(wait)
		}
	}
}

// adopt has the task go on from its container, when there is one that was started, and not from the beginning,
// which the leader has heard before.
func (t *task) adopt() {
	want, g, _, ctx := t.look()
	if g != toRun || rank(t.status.State) >= starting {
		return
	}
	c, err := t.find(ctx, &want)
	if err != nil || c.State.Status == "created" {
		return
	}
	if began, err := time.Parse(time.RFC3339Nano, c.State.StartedAt); err == nil {
		t.began = began
	}
	t.a.mu.Lock()
	defer t.a.mu.Unlock()
	t.status.State, t.status.Message = wire.TaskStarting, "starting"
}

// become notes a new status of the task, for the leader.
func (t *task) become(s wire.TaskStatus) {
	s.Timestamp = time.Now().UTC()
	if s.State == wire.TaskRunning && !t.began.IsZero() {
		s.Timestamp = t.began.UTC()
	}
	s.Err = shortened(s.Err, maxError)
	t.a.mu.Lock()
	defer t.a.mu.Unlock()
	t.a.log.Debug("task", "task", t.id, "state", s.State, "message", s.Message, "error", s.Err)
	t.status = s
	t.a.news.tell(t.id, word{status: s})
}

// gone notes that nothing of the task is left.
func (t *task) gone() {
	t.a.mu.Lock()
	defer t.a.mu.Unlock()
	if w := t.a.news.words[t.id]; !w.gone {
		t.a.news.tell(t.id, word{gone: true})
	}
}

// shortened cuts text at a character.
func shortened(s string, most int) string {
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && s[cut]&0xC0 == 0x80 {
		cut--
	}
	return s[:cut]
}
