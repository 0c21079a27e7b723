package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"

	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Remove removes the container, with Force also one that runs, and with Volumes its anonymous volumes.
func (m *Manager) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	if o.Link {
		return m.removeLink(ctx, ref)
	}
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	if !o.Force {
		if _, st := c.snapshot(); st.live() || st.Phase == restarting {
			return stillThere(ref, &st)
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
					return fmt.Errorf("cannot remove container %q: could not kill: %w", ref, err)
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
	_, st := c.snapshot()
	if c.isRemoved() {
		if o.Force {
			return nil // somebody was faster, and the wish is fulfilled
		}
		return noSuch(ref)
	}
	if st.live() {
		return stillThere(ref, &st)
	}
	return m.remove(context.WithoutCancel(ctx), c, o.Volumes)
}

func stillThere(ref string, st *runState) error {
	return fault.New(fault.Conflict, "cannot remove container %q: container is %s%s", ref, st.Phase, removeAdvice[st.Phase])
}

var removeAdvice = map[phase]string{
	running:    ": stop the container before removing or force remove",
	restarting: ": stop the container before removing or force remove",
	paused:     " and must be unpaused first",
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
	if c.isRemoved() {
		return nil
	}
	g, err := m.strike(c, volumes)
	if err != nil {
		return err
	}
	m.bury(c, g, m.removeLayers(ctx, g))
	return nil
}

// strike takes a container out of the database, and notes there what is left to delete: from here on a crash
// removes it.
func (m *Manager) strike(c *Container, volumes bool) (garbage, error) {
	c.mu.Lock()
	before := c.state.Phase
	c.state.Phase = removing
	rec := c.rec
	c.mu.Unlock()
	g := garbage{ID: rec.ID, Holds: slices.Sorted(maps.Keys(holds(&rec)))}
	for _, p := range rec.Mounts {
		if p.Anonymous && volumes {
			g.Volumes = append(g.Volumes, p.Name)
		}
	}
	c.keeping.Lock()
	err := m.store.remove(&rec, g)
	c.struck = err == nil
	c.keeping.Unlock()
	if err != nil {
		c.mu.Lock()
		c.state.Phase = before
		c.mu.Unlock()
		return g, fmt.Errorf("remove container %s: %w", rec.Name, err)
	}
	return g, nil
}

// bury makes a container that is struck, and whose layers are removed, gone for everybody.
func (m *Manager) bury(c *Container, g garbage, failed error) {
	c.mu.Lock()
	c.removed = true
	rec, st := c.rec, c.state
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
	failed = errors.Join(failed, m.removeVolumes(context.WithoutCancel(m.ctx), g.Volumes))
	// Who waits for that need not wait for the directory, which nobody sees.
	c.telling.Lock()
	m.emit(&rec, "destroy")
	c.telling.Unlock()
	c.mu.Lock()
	c.wake(wire.WaitResponse{StatusCode: int64(st.ExitCode)}, notRunning, nextExit, whenGone)
	c.mu.Unlock()
	runtime.Gosched() // they go first: what follows waits for the disk
	if err := m.sweepDirectory(g, failed); err != nil {
		m.log.Error("clean up after a removed container", "container", rec.ID, "error", err) // the next start of the daemon tries again
	}
}

// sweep deletes what a removed container left, and then the note of it.
func (m *Manager) sweep(ctx context.Context, g garbage) error {
	return m.sweepDirectory(g, errors.Join(m.removeLayers(ctx, g), m.removeVolumes(ctx, g.Volumes)))
}

// removeLayers deletes the layer of a removed container, and what holds those that it had mounted.
func (m *Manager) removeLayers(ctx context.Context, g garbage) error {
	var errs []error
	for _, key := range append([]string{g.ID}, g.Holds...) {
		if err := m.o.Layers.Remove(ctx, key); !fault.Is(err, fault.NotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// sweepDirectory deletes the directory of a removed container, and the note of it unless something failed before.
func (m *Manager) sweepDirectory(g garbage, failed error) error {
	err := errors.Join(failed, os.RemoveAll(m.directory(g.ID)))
	crash.Point("container directory", "removed")
	if err != nil {
		return err
	}
	return m.store.swept(g.ID)
}
