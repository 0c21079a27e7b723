package container

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"syscall"
	"time"

	"github.com/moby/sys/signal"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

const (
	// defaultGrace is how long a container may take to end after its stop signal.
	defaultGrace = 10 * time.Second
	// killWait is how long the kernel may take to end a killed container, and we to clean up.
	killWait = 30 * time.Second
	// lastSignal is SIGRTMAX; see signal(7).
	lastSignal syscall.Signal = 64
)

// Stop sends the stop signal, and SIGKILL when the grace is over. signalName and seconds override what
// the container says; a negative number of seconds waits for ever. A container that does not run is
// fault.NotModified.
func (m *Manager) Stop(ctx context.Context, ref, signalName string, seconds *int) error {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	abandoned := m.abandonRestart(c)
	if abandoned {
		// A restart that had begun ignores that, and may come through: then there is one to stop.
		if err := c.op.lock(ctx); err != nil {
			return err
		}
		c.op.unlock()
	}
	rec, st := c.snapshot()
	if abandoned && !st.live() {
		return nil
	}
	if !st.live() {
		return fault.New(fault.NotModified, "container %s is already stopped", rec.Name)
	}
	sig, err := stopSignal(&rec, signalName)
	if err != nil {
		return err
	}
	c.telling.RLock()
	defer c.telling.RUnlock()
	op := m.o.Operations.Begin("container", "stop", rec.ID)
	err = m.stop(ctx, c, sig, grace(&rec, seconds), true)
	op.End(err)
	if err != nil {
		return fmt.Errorf("cannot stop container: %s: %w", ref, err)
	}
	m.abandonRestart(c) // decided upon before we said that it is to stop
	m.emit(&rec, "stop")
	return nil
}

func stopSignal(rec *record, given string) (syscall.Signal, error) {
	if given == "" {
		given = rec.Config.StopSignal
	}
	if given == "" {
		return syscall.SIGTERM, nil
	}
	return parseSignal(given)
}

func parseSignal(given string) (syscall.Signal, error) {
	sig, err := signal.ParseSignal(given)
	if err != nil || sig < 1 {
		return 0, fault.New(fault.Invalid, "invalid signal: %s", shortened(given))
	}
	if sig > lastSignal {
		return 0, fault.New(fault.Invalid, "The linux daemon does not support signal %d", sig)
	}
	return sig, nil
}

func grace(rec *record, given *int) time.Duration {
	if given == nil {
		given = rec.Config.StopTimeout
	}
	if given == nil {
		return defaultGrace
	}
	if int64(*given) > int64(math.MaxInt64/time.Second) {
		return math.MaxInt64 // for ever
	}
	return time.Duration(*given) * time.Second
}

// stop ends a container that runs: the signal, the grace, SIGKILL. byUser says that a user meant it,
// so that policies leave it alone.
func (m *Manager) stop(ctx context.Context, c *Container, sig syscall.Signal, grace time.Duration, byUser bool) error {
	ended := c.running()
	if ended == nil {
		return nil
	}
	if byUser {
		m.markStopped(c)
	}
	if err := m.signal(ctx, c, sig, true); err != nil {
		m.log.Warn("signal a container", "container", c.id, "signal", sig, "error", err)
	}
	var over <-chan time.Time
	if grace >= 0 {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-over:
	}
	return m.kill(ctx, c, ended)
}

// kill sends SIGKILL and waits for the end.
func (m *Manager) kill(ctx context.Context, c *Container, ended <-chan struct{}) error {
	err := m.signal(ctx, c, syscall.SIGKILL, true)
	timer := time.NewTimer(killWait)
	defer timer.Stop()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
	}
	if err != nil {
		return err
	}
	return fault.New(fault.Internal, "tried to kill container, but did not receive an exit event")
}

// running returns the channel that is closed at the end of the present run, or nil.
func (c *Container) running() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// markStopped notes that a user stopped the container.
func (m *Manager) markStopped(c *Container) {
	c.mu.Lock()
	c.state.StoppedByUser = true
	c.mu.Unlock()
	m.keep(c)
}

// abandonRestart ends the wait for a restart; it reports whether there was one.
func (m *Manager) abandonRestart(c *Container) bool {
	c.mu.Lock()
	if c.state.Phase != restarting {
		c.mu.Unlock()
		return false
	}
	if c.restart.pending != nil {
		c.restart.pending()
	}
	c.restart = restarter{}
	c.state.Phase, c.state.StoppedByUser = exited, true
	c.wake(wire.WaitResponse{StatusCode: int64(c.state.ExitCode)}, notRunning, nextExit)
	c.mu.Unlock()
	m.keep(c)
	return true
}

// signal sends a signal, and with wakeup lets a frozen container run, which sees it only then.
func (m *Manager) signal(ctx context.Context, c *Container, sig syscall.Signal, wakeup bool) error {
	rec, st := c.snapshot()
	if err := m.o.Monitor.Kill(ctx, rec.ID, int(sig), false); err != nil && !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
		return err
	}
	m.emit(&rec, "kill", "signal", strconv.Itoa(int(sig)))
	if wakeup && st.Phase == paused {
		return m.resume(ctx, c)
	}
	return nil
}

// Kill sends a signal, SIGKILL when none is named, to a container that runs. After SIGKILL it waits
// for the end.
func (m *Manager) Kill(ctx context.Context, ref, signalName string) error {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	sig := syscall.SIGKILL
	if signalName != "" {
		if sig, err = parseSignal(signalName); err != nil {
			return err
		}
	}
	rec, st := c.snapshot()
	ended := c.running()
	if !st.live() || ended == nil {
		return notRunningError(&rec)
	}
	stop, _ := stopSignal(&rec, "") //nolint:errcheck // validated when it was created
	last := sig == syscall.SIGKILL || sig == stop
	c.telling.RLock()
	defer c.telling.RUnlock()
	if last {
		m.markStopped(c)
	}
	if sig != syscall.SIGKILL {
		err = m.signal(ctx, c, sig, last)
	} else {
		err = m.kill(ctx, c, ended)
	}
	return err
}

// Restart stops the container when it runs, and starts it.
func (m *Manager) Restart(ctx context.Context, ref, signalName string, seconds *int) error {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	rec, _ := c.snapshot()
	sig, err := stopSignal(&rec, signalName)
	if err != nil {
		return err
	}
	c.leave(1) // neither removed nor started by a policy at its end
	m.abandonRestart(c)
	err = m.stop(ctx, c, sig, grace(&rec, seconds), false)
	c.leave(-1) // when its start fails, it goes as at any other
	if err != nil {
		return fmt.Errorf("Cannot restart container %s: %w", ref, err)
	}
	if err := m.Start(ctx, rec.ID); err != nil && !fault.Is(err, fault.NotModified) {
		return fmt.Errorf("Cannot restart container %s: %w", ref, err)
	}
	m.emit(&rec, "restart")
	return nil
}

// leave counts those who end the container to do something with it afterwards.
func (c *Container) leave(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving += n
}
