package container

import (
	"context"
	"slices"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// The conditions of Wait.
const (
	notRunning = "not-running"
	nextExit   = "next-exit"
	whenGone   = "removed"
)

// waiter is one Wait that has not come true yet.
type waiter struct {
	condition string
	result    chan wire.WaitResponse // of one element
}

// Wait returns a channel that gets one answer when the condition is true: "not-running", which is the
// default, "next-exit" or "removed". The waiter is registered when Wait returns. When ctx ends the
// channel is closed without an answer.
func (m *Manager) Wait(ctx context.Context, ref, condition string) (<-chan wire.WaitResponse, error) {
	if condition == "" {
		condition = notRunning
	}
	if !slices.Contains([]string{notRunning, nextExit, whenGone}, condition) {
		return nil, fault.New(fault.Invalid, "invalid condition: %q: expected not-running, next-exit or removed", shortened(condition))
	}
	c, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	w := &waiter{condition, make(chan wire.WaitResponse, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.removed {
		return nil, noSuch(ref)
	}
	if condition == notRunning && !c.state.live() && c.state.Phase != restarting && c.ended == nil {
		w.result <- wire.WaitResponse{StatusCode: int64(c.state.ExitCode)}
		return w.result, nil
	}
	c.waiters = append(c.waiters, w)
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if i := slices.Index(c.waiters, w); i >= 0 {
			c.waiters = slices.Delete(c.waiters, i, i+1)
			close(w.result)
		}
	})
	_ = stop // it is dropped with ctx
	return w.result, nil
}

// wake answers those who wait for one of the conditions. The container's mutex is held.
func (c *Container) wake(answer wire.WaitResponse, conditions ...string) {
	c.waiters = slices.DeleteFunc(c.waiters, func(w *waiter) bool {
		if !slices.Contains(conditions, w.condition) {
			return false
		}
		w.result <- answer
		return true
	})
}
