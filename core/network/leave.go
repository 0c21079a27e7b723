package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// lull is how long after a Leave the drivers are called, unless somebody waits for it. Whoever
// removes an interface holds the kernel's one lock for all interfaces for 10 ms, and the next
// container, which starts at this moment more often than not, needs it for its own. Meanwhile the
// kernel removes the interface itself, with the namespace that it ends in.
const lull = 30 * time.Millisecond

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
	m.depart(sb)
	closed := m.closed
	rec := sb.snapshot()
	shared := false
	for _, other := range m.joined {
		shared = shared || other.Shares == containerID
	}
	work := func() {
		// With published ports at once: packets to them go nowhere until the driver is done.
		m.finish(context.WithoutCancel(ctx), sb, shared, len(rec.Ports) == 0 && !closed)
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

// depart moves the sandbox from those that joined to those that leave. The caller holds mu.
func (m *Manager) depart(sb *sandbox) {
	delete(m.joined, sb.ContainerID)
	sb.leave = newDeparture()
	m.leaving[sb.ContainerID] = sb
}

// finish ends a sandbox that departed.
func (m *Manager) finish(ctx context.Context, sb *sandbox, shared, calm bool) {
	sb.op.Lock()
	defer sb.op.Unlock()
	if !shared {
		// The namespace ends here, but for its processes. One that others are in stays open for
		// the driver, which has to take the interface out of it.
		sb.shut()
	}
	if calm && sb.attached {
		select {
		case <-time.After(lull):
		case <-sb.leave.hurry:
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := m.withdraw(ctx, sb); err != nil {
		m.log.Error("container could not be taken off its networks; it is tried again", "container", sb.ContainerID, "error", err)
	}
	m.departed(sb)
}

// departed ends what depart began.
func (m *Manager) departed(sb *sandbox) {
	m.mu.Lock()
	delete(m.leaving, sb.ContainerID)
	m.mu.Unlock()
	close(sb.leave.gone)
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
	m.depart(sb)
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	err := m.withdraw(ctx, sb)
	m.departed(sb)
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
	m.mu.Unlock()
	// Before it is among the dead: a burial of these deletes the row.
	errs = append(errs, m.sandboxes.Put(rec.ID, rec))
	m.mu.Lock()
	m.dead = append(m.dead, sb)
	m.mu.Unlock()
	for _, driver := range m.driversOf(rec.Endpoints) {
		m.again(driver)
	}
	return errors.Join(errs...)
}

// driverOf is the name of an endpoint's driver; "" if its network is no more.
func (m *Manager) driverOf(ep member) string {
	if n := m.networkOf(ep); n != nil {
		return n.Driver
	}
	return ""
}

// driversOf are the drivers of the endpoints, without those that are the engine itself.
func (m *Manager) driversOf(endpoints []member) (names []string) {
	for _, ep := range endpoints {
		if name := m.driverOf(ep); name != "" && !builtin(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// inter has the drivers take away what they still have of a container that comes back: its interfaces'
// names, its addresses and its ports.
func (m *Manager) inter(ctx context.Context, containerID string) {
	var endpoints []member
	m.mu.RLock()
	for _, sb := range m.dead {
		if sb.ContainerID == containerID {
			endpoints = append(endpoints, sb.Endpoints...)
		}
	}
	m.mu.RUnlock()
	for _, driver := range m.driversOf(endpoints) {
		if err := m.reconcileDriver(ctx, driver); err != nil {
			m.log.Warn("what is left of a container on its networks cannot be removed yet", "container", containerID, "driver", driver, "error", err)
		}
	}
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
	defer m.pass(m.driverOf(ep))()
	return m.detachWithin(ctx, sb, ep)
}

// detachWithin is detach for a caller who has passed the driver's gate.
func (m *Manager) detachWithin(ctx context.Context, sb *sandbox, ep member) error {
	n := m.networkOf(ep)
	if n == nil || builtin(n.Driver) {
		return nil
	}
	driver, err := m.use(ctx, n.Driver)
	if err == nil {
		err = driver.Detach(ctx, n.forDriver(), ep.forDriver(sb.path()))
	}
	if err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	return nil
}

// networkOf is the network of an endpoint; nil if it is no more.
func (m *Manager) networkOf(ep member) *row {
	m.mu.RLock()
	defer m.mu.RUnlock()
	e := m.entries[ep.NetworkID]
	if e == nil {
		return nil
	}
	n := e.row
	return &n
}
