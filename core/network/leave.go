package network

import (
	"context"
	"errors"
	"fmt"
)

// Leave disconnects a container that ended, or whose start failed. It may be called twice. The
// container is out of the networks when it returns; what drivers made for it they take away in
// the background, and until then its addresses and ports are not given to others.
func (m *Manager) Leave(ctx context.Context, containerID string) error {
	m.mu.Lock()
	sb := m.joined[containerID]
	if sb == nil {
		m.mu.Unlock()
		return nil
	}
	delete(m.joined, containerID)
	sb.gone = make(chan struct{})
	m.leaving[containerID] = sb
	closed := m.closed
	rec := sb.snapshot()
	work := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		sb.op.Lock()
		defer sb.op.Unlock()
		err := m.withdraw(ctx, sb)
		m.mu.Lock()
		delete(m.leaving, containerID)
		m.mu.Unlock()
		close(sb.gone)
		if err != nil {
			m.log.Error("container could not be taken off its networks; it is tried again when the driver or the daemon starts", "container", containerID, "error", err)
		}
	}
	if !closed {
		m.background.Go(work)
	}
	m.mu.Unlock()
	if closed {
		work()
	}
	for _, ep := range rec.Endpoints {
		m.tell("disconnect", containerID, ep)
	}
	return nil
}

// abandon takes back what Join has done until its error. The caller holds op.
func (m *Manager) abandon(ctx context.Context, sb *sandbox) error {
	m.mu.Lock()
	if m.joined[sb.ContainerID] != sb {
		// A Leave that came meanwhile withdraws it, or it was never admitted.
		known := m.leaving[sb.ContainerID] == sb
		m.mu.Unlock()
		if !known {
			sb.shut()
			m.ports.Release(sb.ID)
		}
		return nil
	}
	delete(m.joined, sb.ContainerID)
	sb.gone = make(chan struct{})
	m.leaving[sb.ContainerID] = sb
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	err := m.withdraw(ctx, sb)
	m.mu.Lock()
	delete(m.leaving, sb.ContainerID)
	m.mu.Unlock()
	close(sb.gone)
	return err
}

// withdraw undoes all that was done for the container, which nobody finds any more. What a driver
// does not undo stays with the dead, with its row. The caller holds op.
func (m *Manager) withdraw(ctx context.Context, sb *sandbox) error {
	m.mu.RLock()
	endpoints := sb.snapshot().Endpoints
	m.mu.RUnlock()
	var errs []error
	if sb.attached {
		var steps []func() error
		for _, ep := range endpoints {
			steps = append(steps, func() error { return m.detach(ctx, sb, ep) })
		}
		if err := parallel(steps); err != nil {
			errs = append(errs, err)
		}
	}
	sb.shut()
	if len(errs) == 0 {
		if err := m.sandboxes.Delete(sb.ID); err != nil {
			errs = append(errs, err)
		}
	}
	m.mu.Lock()
	if len(errs) == 0 {
		m.forget(sb)
		m.mu.Unlock()
		return nil
	}
	sb.Dead = true
	rec := sb.snapshot()
	m.dead = append(m.dead, sb)
	m.mu.Unlock()
	return errors.Join(append(errs, m.sandboxes.Put(rec.ID, rec))...)
}

// forget gives addresses and ports back. The caller holds mu.
func (m *Manager) forget(sb *sandbox) {
	for _, ep := range sb.Endpoints {
		m.release(ep)
	}
	m.ports.Release(sb.ID)
}

// detach calls the driver of one endpoint. The caller holds op.
func (m *Manager) detach(ctx context.Context, sb *sandbox, ep member) error {
	m.mu.RLock()
	e := m.entries[ep.NetworkID]
	var n row
	if e != nil {
		n = e.row
	}
	m.mu.RUnlock()
	if e == nil || builtin(n.Driver) {
		return nil
	}
	driver, leave, err := m.enter(ctx, n.Driver)
	if err != nil {
		return err
	}
	defer leave()
	old := ep.Endpoint
	old.NetNS = sb.path()
	if err := driver.Detach(ctx, n.forDriver(), old); err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	return nil
}
