package container

import (
	"context"
	"strconv"
	"time"

	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/wire"
)

// exit handles the end of a container's process: what it had is let go of, those who wait are told,
// and then it is removed, or started again, or left. The end of an earlier run, which may be told
// twice, is ignored.
func (m *Manager) exit(c *Container, e monitor.Exit) {
	if c.op.lock(m.ctx) != nil {
		return // the daemon ends; the next one is told the end again
	}
	defer c.op.unlock()
	c.mu.Lock()
	// By the process and not by the time, which may be set back while the container runs.
	if c.removed || !c.state.live() || e.Pid != 0 && e.Pid != c.state.Pid || e.Pid == 0 && !e.Lost && e.At.Before(c.state.StartedAt) {
		c.mu.Unlock()
		return
	}
	rec, st := c.rec, c.state
	ran := e.At.Sub(st.StartedAt)
	st.Phase, st.Pid = exited, 0 // of its health the last word stays, as with Docker
	st.ExitCode, st.OOMKilled, st.FinishedAt = e.Code, e.OOMKilled, e.At.UTC()
	again, delay := false, time.Duration(0)
	if c.leaving == 0 && !m.closing.Load() && !st.StoppedByUser {
		policy := rec.Host.RestartPolicy
		if c.unwell {
			policy = wire.RestartPolicy{Name: "always"}
		}
		again, delay = c.restart.next(policy, e.Code, st.Restarts, ran)
	}
	c.unwell = false
	if again {
		st.Phase = restarting
		st.Restarts++
	}
	c.state, c.bound, c.account = st, false, nil
	gone := rec.Host.AutoRemove && c.leaving == 0
	if c.stopProbes != nil {
		c.stopProbes()
		c.stopProbes = nil
	}
	c.mu.Unlock()

	// Before the monitor forgets it: whenever a crash comes, one of the two knows the status.
	if err := m.store.putState(&rec, st); err != nil {
		m.log.Error("write the state of a container", "container", rec.ID, "error", err)
	}
	m.endExecs(c)
	if e.OOMKilled {
		m.emit(&rec, "oom")
	}
	m.emit(&rec, "die", "exitCode", strconv.Itoa(e.Code), "execDuration", strconv.FormatInt(int64(ran/time.Second), 10))
	if gone {
		m.letGoForever(context.WithoutCancel(m.ctx), &rec)
	} else {
		m.letGo(context.WithoutCancel(m.ctx), &rec)
	}

	c.mu.Lock()
	c.wake(wire.WaitResponse{StatusCode: int64(e.Code)}, notRunning, nextExit)
	close(c.ended)
	c.ended = nil
	c.mu.Unlock()
	switch {
	case gone:
		if err := m.remove(context.WithoutCancel(m.ctx), c, true); err != nil {
			m.log.Error("remove a container that has ended", "container", rec.ID, "error", err)
		}
	case again:
		m.restartLater(c, delay)
	}
}
