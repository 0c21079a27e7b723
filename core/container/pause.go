package container

import (
	"context"

	"github.com/sampan-project/sampan/core/fault"
)

// Pause freezes the processes of the container.
func (m *Manager) Pause(ctx context.Context, ref string) error {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	defer c.op.unlock()
	rec, st := c.snapshot()
	switch st.Phase {
	case paused:
		return fault.New(fault.Conflict, "Container %s is already paused", rec.ID)
	case running:
	case restarting:
		return fault.New(fault.Conflict, "Container %s is restarting, wait until the container is running", rec.ID)
	default:
		return notRunningError(&rec)
	}
	if err := m.o.Monitor.Pause(ctx, rec.ID); err != nil {
		return err
	}
	m.setPhase(c, running, paused)
	m.emit(&rec, "pause")
	return nil
}

// Unpause ends Pause.
func (m *Manager) Unpause(ctx context.Context, ref string) error {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	if rec, st := c.snapshot(); st.Phase != paused {
		return fault.New(fault.Conflict, "Container %s is not paused", rec.ID)
	}
	return m.resume(ctx, c)
}

func (m *Manager) resume(ctx context.Context, c *Container) error {
	rec, _ := c.snapshot()
	if err := m.o.Monitor.Resume(ctx, rec.ID); err != nil && !fault.Is(err, fault.Conflict) {
		return err
	}
	m.setPhase(c, paused, running)
	m.emit(&rec, "unpause")
	return nil
}

// setForCommit notes who pauses the container, before it is paused.
func (m *Manager) setForCommit(c *Container, yes bool) {
	c.mu.Lock()
	c.state.ForCommit = yes
	c.mu.Unlock()
	m.keep(c)
}

// setPhase changes one phase to another, unless it is something else by now.
func (m *Manager) setPhase(c *Container, from, to phase) {
	c.mu.Lock()
	if c.state.Phase != from {
		c.mu.Unlock()
		return
	}
	c.state.Phase = to
	c.mu.Unlock()
	m.keep(c)
}

// notRunningError is the answer to what only a running container can do.
func notRunningError(rec *record) error {
	return fault.New(fault.Conflict, "container %s is not running", rec.ID)
}
