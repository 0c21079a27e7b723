package container

import (
	"context"
	"time"

	"github.com/sampan-project/sampan/core/wire"
)

const (
	// firstDelay is the wait before the first restart; each further one doubles it.
	firstDelay = 100 * time.Millisecond
	maxDelay   = time.Minute
	// steadyRun is how long a container must have run for its next delay to be the first again.
	steadyRun = 10 * time.Second
)

// restarter decides about restarts by policy. It is guarded by its container's mutex.
type restarter struct {
	delay   time.Duration
	pending context.CancelFunc // ends the wait for a restart
}

// next says whether the policy starts a container that has ended again, and when.
func (r *restarter) next(p wire.RestartPolicy, code, restarts int, ran time.Duration) (bool, time.Duration) {
	if !policyWants(p, code, restarts) {
		return false, 0
	}
	if ran >= steadyRun || r.delay == 0 {
		r.delay = firstDelay
	} else {
		r.delay = min(2*r.delay, maxDelay)
	}
	return true, r.delay
}

// policyWants leaves aside who stopped the container.
func policyWants(p wire.RestartPolicy, code, restarts int) bool {
	switch p.Name {
	case "always", "unless-stopped":
		return true
	case "on-failure":
		return code != 0 && (p.MaximumRetryCount == 0 || restarts < p.MaximumRetryCount)
	}
	return false
}

// cancelRestart ends the wait for a restart, and begins a new count: a user takes over.
func (c *Container) cancelRestart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.restart.pending != nil {
		c.restart.pending()
	}
	c.restart = restarter{}
	c.state.Restarts = 0
}

// restartLater starts the container when the delay is over, unless somebody cancels it.
func (m *Manager) restartLater(c *Container, delay time.Duration) {
	ctx, cancel := context.WithCancel(m.ctx)
	c.mu.Lock()
	c.restart.pending = cancel
	c.mu.Unlock()
	m.later(func() {
		defer cancel()
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return
		}
		select {
		case m.restartGate <- struct{}{}:
			defer func() { <-m.restartGate }()
		case <-ctx.Done():
			return
		}
		m.restartNow(ctx, c)
	})
}

// restartNow is a restart by policy. One that fails is tried again as if the container had run and
// failed.
func (m *Manager) restartNow(ctx context.Context, c *Container) {
	if c.op.lock(ctx) != nil {
		return
	}
	defer c.op.unlock()
	rec, st := c.snapshot()
	if ctx.Err() != nil || st.Phase != restarting || m.closing.Load() {
		return
	}
	err := m.start(context.WithoutCancel(ctx), c)
	if err == nil {
		return
	}
	m.log.Warn("restart of a container failed", "container", rec.ID, "error", err)
	c.mu.Lock()
	again, delay := c.restart.next(rec.Host.RestartPolicy, c.state.ExitCode, c.state.Restarts, 0)
	if again = again && !c.removed && c.leaving == 0; again {
		c.state.Phase = restarting
		c.state.Restarts++
	}
	c.mu.Unlock()
	if again {
		m.keep(c)
		m.restartLater(c, delay)
	}
}
