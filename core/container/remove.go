package container

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Remove removes the container, with Force also one that runs, and with Volumes its anonymous volumes.
func (m *Manager) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	if o.Link {
		return m.removeLink(ref)
	}
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	if !o.Force {
		if rec, st := c.snapshot(); st.live() || st.Phase == restarting {
			return stillThere(&rec, &st)
		}
	} else {
		c.leave(1)
		defer c.leave(-1)
	}
	// A start that was under way when it was looked at may have come through meanwhile: then again.
	for {
		if o.Force {
			m.abandonRestart(c)
			if ended := c.running(); ended != nil {
				m.markStopped(c)
				if err := m.kill(ctx, c, ended); err != nil {
					return fmt.Errorf("cannot remove container %q: could not kill: %w", "/"+c.name(), err)
				}
			}
		}
		if err := c.op.lock(ctx); err != nil {
			return err
		}
		if _, st := c.snapshot(); !o.Force || !st.live() || c.isRemoved() {
			break
		}
		c.op.unlock()
	}
	defer c.op.unlock()
	rec, st := c.snapshot()
	if c.isRemoved() {
		if o.Force {
			return nil // somebody was faster, and the wish is fulfilled
		}
		return noSuch(ref)
	}
	if st.live() {
		return stillThere(&rec, &st)
	}
	return m.remove(context.WithoutCancel(ctx), c, o.Volumes)
}

func stillThere(rec *record, st *runState) error {
	return fault.New(fault.Conflict, "cannot remove container %q: container is %s: %s", "/"+rec.Name, st.Phase, removeAdvice[st.Phase])
}

func (c *Container) name() string {
	rec, _ := c.snapshot()
	return rec.Name
}

var removeAdvice = map[phase]string{
	running:    "stop the container before removing or force remove",
	restarting: "stop the container before removing or force remove",
	paused:     "unpause and stop the container before removing or force remove",
}

func (c *Container) isRemoved() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.removed
}

// remove removes a container that does not run. The op lock is held.
func (m *Manager) remove(ctx context.Context, c *Container, volumes bool) (err error) {
	op := m.o.Operations.Begin("container", "remove", c.id)
	defer func() { op.End(err) }()
	c.mu.Lock()
	if c.removed {
		c.mu.Unlock()
		return nil
	}
	before := c.state.Phase
	c.state.Phase = removing
	rec, st := c.rec, c.state
	c.mu.Unlock()
	g := garbage{ID: rec.ID}
	for _, p := range rec.Mounts {
		if p.Anonymous && volumes {
			g.Volumes = append(g.Volumes, p.Name)
		}
	}
	if err := m.store.remove(&rec, g); err != nil {
		c.mu.Lock()
		c.state.Phase = before
		c.mu.Unlock()
		return fmt.Errorf("remove container %s: %w", rec.Name, err)
	}
	c.mu.Lock()
	c.removed = true
	streams := c.streams
	c.streams = nil
	if c.restart.pending != nil {
		c.restart.pending()
	}
	c.mu.Unlock()
	for _, s := range streams {
		s.bind(nil, nil)
	}
	m.release(c)
	if err := m.sweep(ctx, g); err != nil {
		// For everybody it is gone; the next start of the daemon tries again.
		m.log.Error("clean up after a removed container", "container", rec.ID, "error", err)
	}
	m.emit(&rec, "destroy")
	c.mu.Lock()
	c.wake(wire.WaitResponse{StatusCode: int64(st.ExitCode)}, notRunning, nextExit, whenGone)
	c.mu.Unlock()
	return nil
}

// sweep deletes what a removed container left, and then the note of it.
func (m *Manager) sweep(ctx context.Context, g garbage) error {
	err := m.o.Layers.Remove(ctx, g.ID)
	if fault.Is(err, fault.NotFound) {
		err = nil
	}
	err = errors.Join(err, os.RemoveAll(m.directory(g.ID)))
	crash.Point("container directory", "removed")
	err = errors.Join(err, m.removeVolumes(ctx, g.Volumes))
	if err != nil {
		return err
	}
	return m.store.swept(g.ID)
}
