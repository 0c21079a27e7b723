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

	end := &ending{c: c, rec: rec, st: st, exit: e, ran: ran}
	if gone {
		m.vanish(end)
		return
	}
	m.rest(end)
	if again {
		m.restartLater(c, delay)
	}
}

// ending is the end of one run of a container.
type ending struct {
	c    *Container
	rec  record
	st   runState
	exit monitor.Exit
	ran  time.Duration
}

// tellEnd tells those who listen to events.
func (m *Manager) tellEnd(e *ending) {
	m.endExecs(e.c)
	if e.exit.OOMKilled {
		m.emit(&e.rec, "oom")
	}
	m.emit(&e.rec, "die", "exitCode", strconv.Itoa(e.exit.Code), "execDuration", strconv.FormatInt(int64(e.ran/time.Second), 10))
}

// over tells those who wait for the end of the run.
func (e *ending) over() {
	e.c.mu.Lock()
	defer e.c.mu.Unlock()
	e.c.wake(wire.WaitResponse{StatusCode: int64(e.exit.Code)}, notRunning, nextExit)
	close(e.c.ended)
	e.c.ended = nil
}

// rest is the end of a container that stays.
func (m *Manager) rest(e *ending) {
	// Before the monitor forgets it: whenever a crash comes, one of the two knows the status.
	m.keep(e.c)
	m.tellEnd(e)
	m.letGo(context.WithoutCancel(m.ctx), &e.rec)
	e.over()
}

// vanish is the end of a container that goes with it. It is struck first, instead of a state being written that
// nobody would read: a daemon that dies before finds its end at the monitor, and one that dies after has the note of
// what is left, while its process and its places in networks, of which no container is known, are removed
// at the next start. Then everything is let go of at once.
func (m *Manager) vanish(e *ending) {
	ctx := context.WithoutCancel(m.ctx)
	op := m.o.Operations.Begin("container", "remove", e.rec.ID)
	g, err := m.strike(e.c, true)
	if err != nil {
		m.log.Error("remove a container that has ended", "container", e.rec.ID, "error", err)
		m.rest(e)
		op.End(err)
		return
	}
	m.tellEnd(e)
	removed := make(chan error, 1)
	layers := func() { removed <- m.removeLayers(ctx, g) }
	// With its namespace of process IDs all processes have ended: nobody writes into the layer any more.
	if e.rec.Host.PidMode == "" {
		go layers()
		m.letGoForever(ctx, &e.rec)
	} else {
		m.letGoForever(ctx, &e.rec)
		layers()
	}
	err = <-removed
	e.over()
	m.bury(e.c, g, err)
	op.End(err)
}
