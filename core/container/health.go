package container

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/wire"
)

// Docker's defaults and bounds of health probes.
const (
	probeInterval      = 30 * time.Second
	probeTimeout       = 30 * time.Second
	probeStartInterval = 5 * time.Second
	probeRetries       = 3
	probeHistory       = 5
	probeOutput        = 4096

	starting  = "starting"
	healthy   = "healthy"
	unhealthy = "unhealthy"
)

// probed reports whether the container has a health check.
func probed(h *wire.Healthcheck) bool { return h != nil && len(h.Test) > 0 && h.Test[0] != "NONE" }

// startProbes begins the health checks of a container that runs now.
func (m *Manager) startProbes(c *Container) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.rec.Config.Healthcheck
	if !probed(h) || !c.state.live() {
		return
	}
	if c.stopProbes != nil {
		c.stopProbes()
	}
	ctx, cancel := context.WithCancel(m.ctx)
	c.stopProbes = cancel
	c.state.Health = &wire.HealthState{Status: starting, Log: []wire.HealthResult{}}
	p := &prober{m: m, c: c, check: *h, began: c.state.StartedAt}
	m.later(func() { p.run(ctx) })
}

// prober runs the health checks of one run of a container.
type prober struct {
	m     *Manager
	c     *Container
	check wire.Healthcheck
	began time.Time
}

func (p *prober) run(ctx context.Context) {
	for {
		select {
		case <-time.After(p.wait()):
		case <-ctx.Done():
			return
		}
		if _, st := p.c.snapshot(); st.Phase == paused {
			continue
		}
		op := p.m.o.Operations.Begin("health", "check", p.c.id)
		result := p.probe(ctx)
		if ctx.Err() != nil {
			return
		}
		op.End(p.failure(result))
		p.note(result)
	}
}

// failure is why a probe counts as one, nil for a success. Exit status 2 is reserved, as Docker says; it is
// a failure, and the log of the daemon has a word on it.
func (p *prober) failure(r wire.HealthResult) error {
	switch r.ExitCode {
	case 0:
		return nil
	case 2:
		p.m.log.Warn("a health check has ended with status 2, which is reserved: it counts as a failure", "container", p.c.id)
	}
	return fmt.Errorf("status %d", r.ExitCode)
}

// wait is the time to the next probe: shorter while the container is starting.
func (p *prober) wait() time.Duration {
	_, st := p.c.snapshot()
	if st.Health != nil && st.Health.Status == starting && p.inStartPeriod() {
		return cmp.Or(time.Duration(p.check.StartInterval), probeStartInterval)
	}
	return cmp.Or(time.Duration(p.check.Interval), probeInterval)
}

func (p *prober) inStartPeriod() bool {
	return time.Since(p.began) < time.Duration(p.check.StartPeriod)
}

// probe runs the command once.
func (p *prober) probe(ctx context.Context) wire.HealthResult {
	limit := cmp.Or(time.Duration(p.check.Timeout), probeTimeout)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	result := wire.HealthResult{Start: time.Now().Format(time.RFC3339Nano)}
	code, output, err := p.execute(ctx)
	result.ExitCode, result.Output = code, output
	switch {
	case ctx.Err() != nil:
		result.ExitCode, result.Output = -1, fmt.Sprintf("Health check exceeded timeout (%v)", limit)
		if output != "" {
			result.Output += ": " + output
		}
	case err != nil:
		result.ExitCode, result.Output = execExitCode(err), err.Error()
	}
	result.End = time.Now().Format(time.RFC3339Nano)
	return result
}

func (p *prober) execute(ctx context.Context) (code int, output string, err error) {
	rec, st := p.c.snapshot()
	config := wire.ExecConfig{Cmd: p.check.Test[1:]}
	if p.check.Test[0] == "CMD-SHELL" {
		shell := rec.Config.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		config.Cmd = append(slices.Clone(shell), p.check.Test[1:]...)
	}
	process, err := p.m.execProcess(p.c, &rec, &st, &config)
	if err != nil {
		return 0, "", err
	}
	id := newID()
	// As of an exec that somebody else starts.
	p.m.emit(&rec, "exec_create: "+commandLine(config.Cmd), "execID", id)
	p.m.emit(&rec, "exec_start: "+commandLine(config.Cmd), "execID", id)
	defer func() {
		status := code
		switch {
		case ctx.Err() != nil:
			status = 137 // see below
		case err != nil:
			status = execExitCode(err)
		}
		p.m.emit(&rec, "exec_die", "execID", id, "exitCode", strconv.Itoa(status))
	}()
	_, f, err := p.m.o.Monitor.ExecAttach(ctx, p.c.id, monitor.ExecConfig{ID: id, Process: process}, monitor.AttachConfig{Stdout: true, Stderr: true})
	if err != nil {
		return 0, "", err
	}
	defer p.m.o.Monitor.DeleteExec(context.WithoutCancel(ctx), p.c.id, id) //nolint:errcheck // the monitor forgets old ones itself
	stop := context.AfterFunc(ctx, func() {
		// A probe that is late is over: the next must not find it still running, nor a hundred of them.
		p.m.o.Monitor.KillExec(context.WithoutCancel(ctx), p.c.id, id, 9) //nolint:errcheck // it may have ended with its container
		f.Close()
	})
	defer stop()
	defer f.Close()
	var out bytes.Buffer
	defer func() {
		if out.Len() == probeOutput {
			output += "..." // as Docker shows that there was more
		}
	}()
	err = demultiplex(f, limited(&out, probeOutput), limited(&out, probeOutput))
	if err != nil {
		return 0, out.String(), err
	}
	exit, err := p.m.o.Monitor.Wait(ctx, p.c.id, id)
	return exit.Code, out.String(), err
}

// note adds a result to the container's health.
func (p *prober) note(result wire.HealthResult) {
	c := p.c
	c.mu.Lock()
	before := c.state.Health
	if before == nil || !c.state.live() {
		c.mu.Unlock()
		return
	}
	now := *before // snapshots of the state share the old one
	now.Log = append(slices.Clone(before.Log), result)
	now.Log = now.Log[max(0, len(now.Log)-probeHistory):]
	switch {
	case result.ExitCode == 0:
		now.FailingStreak, now.Status = 0, healthy
	case before.Status == starting && p.inStartPeriod():
		// Failures while it starts do not count.
	default:
		now.FailingStreak++
		if now.FailingStreak >= cmp.Or(p.check.Retries, probeRetries) {
			now.Status = unhealthy
		}
	}
	c.state.Health = &now
	rec := c.rec
	c.mu.Unlock()
	if now.Status == before.Status {
		return
	}
	p.m.emit(&rec, "health_status: "+now.Status)
	if now.Status == unhealthy {
		p.m.later(func() { p.m.treat(c, p.check.OnFailure) })
	}
}

// treat does what is to happen to a container that has become unhealthy. A restart waits as one by policy
// does, so that a check that never succeeds does not become a loop.
func (m *Manager) treat(c *Container, action string) {
	ctx, rec := m.ctx, c.record()
	var err error
	switch action {
	case "stop":
		err = m.Stop(ctx, c.id, "", nil)
	case "kill":
		err = m.Kill(ctx, c.id, "KILL")
	case "restart":
		c.mu.Lock()
		c.unwell = c.state.live() // and not if it has ended by itself
		c.mu.Unlock()
		var sig syscall.Signal
		if sig, err = stopSignal(&rec, ""); err == nil {
			err = m.stop(ctx, c, sig, grace(&rec, nil), false)
		}
	}
	if err != nil && ctx.Err() == nil && !fault.Is(err, fault.NotModified) {
		m.log.Warn("treat an unhealthy container", "container", c.id, "action", action, "error", err)
	}
}

func (c *Container) record() record {
	rec, _ := c.snapshot()
	return rec
}

// limited writes what fits into the buffer, and takes the rest without keeping it.
func limited(b *bytes.Buffer, n int) io.Writer { return &limitedWriter{b, n} }

type limitedWriter struct {
	b *bytes.Buffer
	n int
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if room := w.n - w.b.Len(); room > 0 {
		w.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// frameHeader is the length of a frame's header: stream, 0, 0, 0, length.
const frameHeader = 8

// demultiplex takes the monitor's frames apart until the stream ends.
func demultiplex(r io.Reader, stdout, stderr io.Writer) error {
	var header [frameHeader]byte
	for {
		switch _, err := io.ReadFull(r, header[:]); {
		case err == io.EOF: //nolint:errorlint // io.ReadFull returns it bare
			return nil
		case err != nil:
			return err
		}
		to := stdout
		if header[0] == 2 {
			to = stderr
		}
		if _, err := io.CopyN(to, r, int64(binary.BigEndian.Uint32(header[4:]))); err != nil {
			return err
		}
	}
}
