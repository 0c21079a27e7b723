package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"
)

// Reconcile is called once after the start of the daemon with the containers that live and the
// process ID of their init. It takes over the endpoints of these, has every driver remove what
// belongs to nobody any more, and starts the name servers again. What fails for one driver or
// container does not keep it from the others; the error tells all.
func (m *Manager) Reconcile(ctx context.Context, running map[string]int) error {
	alive := m.adopt(running)
	var steps []func() error
	for _, name := range m.driversInUse() {
		steps = append(steps, func() error {
			err := m.reconcileDriver(ctx, name)
			if err != nil {
				m.again(name)
			}
			return err
		})
	}
	// The name servers need no driver.
	steps = append(steps, func() error { return m.serveAll(alive) },
		// And those on no network of a driver have nothing to be removed.
		func() error { return m.bury("") })
	return parallel(steps)
}

// adopt sorts the containers of an earlier daemon into those that live and the dead.
func (m *Manager) adopt(running map[string]int) (alive []*sandbox) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, sb := range m.joined {
		if !sb.loaded {
			continue
		}
		sb.loaded = false
		pid, lives := running[id]
		if lives && sb.Shares == "" && !sb.Host {
			ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
			if err != nil {
				m.log.Warn("container ended before its network could be taken over", "container", id, "error", err)
				lives = false
			}
			sb.ns = ns
		}
		if !lives {
			delete(m.joined, id)
			sb.Dead = true
			m.dead = append(m.dead, sb)
			continue
		}
		alive = append(alive, sb)
	}
	for id := range running {
		if m.joined[id] == nil {
			m.log.Warn("running container has no record of its network", "container", id)
		}
	}
	return alive
}

// driversInUse are those that may have made something in this boot, and those of the networks.
func (m *Manager) driversInUse() []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	names := map[string]bool{}
	for name, g := range m.gates {
		if g.used {
			names[name] = true
		}
	}
	for _, e := range m.entries {
		if !builtin(e.Driver) {
			names[e.Driver] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// restarted is told of a driver whose process died and was started again. What the driver made
// stands in the kernel, but not what it was making.
func (m *Manager) restarted(driver string) {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return
	}
	m.background.Add(1)
	m.mu.Unlock()
	defer m.background.Done()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := m.reconcileDriver(ctx, driver); err != nil {
		m.log.Error("network driver started again and could not be reconciled", "driver", driver, "error", err)
		m.again(driver)
	}
}

// Waits before a driver that failed is told again all that should exist: it is back in a moment when its
// process has died, and what it refuses it may refuse for long.
const (
	firstAgain   = 100 * time.Millisecond
	longestAgain = 5 * time.Minute
)

// again has a driver told all that should exist, in the background and until it has done so: something that
// it was to take away is left, or something that it was to leave may be gone.
func (m *Manager) again(driver string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if driver == "" || m.closed { // without its network nobody has it; and what is left the next daemon does
		return
	}
	m.owed[driver]++
	if m.owed[driver] == 1 {
		m.background.Go(func() { m.pay(driver) })
	}
}

// pay does what again has promised.
func (m *Manager) pay(driver string) {
	for wait := firstAgain; ; wait = min(2*wait, longestAgain) {
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(wait):
		}
		m.mu.RLock()
		asked := m.owed[driver]
		m.mu.RUnlock()
		ctx, cancel := context.WithTimeout(m.ctx, patience)
		err := m.reconcileDriver(ctx, driver)
		cancel()
		m.mu.Lock()
		done := err == nil && m.owed[driver] == asked // what was asked for meanwhile it may have missed
		if done {
			delete(m.owed, driver)
		}
		m.mu.Unlock()
		if done {
			m.log.Info("network driver was told again what should be", "driver", driver)
			return
		}
		if err != nil {
			m.log.Debug("network driver cannot be told what should be", "driver", driver, "error", err, "next", min(2*wait, longestAgain))
		}
	}
}

// reconcileDriver tells a driver all that should exist, and forgets the dead when it has done so.
func (m *Manager) reconcileDriver(ctx context.Context, name string) error {
	driver, leave, err := m.enter(ctx, name) // notes that it is in use
	if err != nil {
		return err
	}
	leave()
	m.mu.Lock()
	g := m.gate(name)
	m.mu.Unlock()
	g.Lock()
	defer g.Unlock()
	errs := m.makeNew(ctx, driver, name)
	entries, networks, endpoints := m.wanted(name)
	if err := driver.Reconcile(ctx, m.owner, networks, endpoints); err != nil {
		return errors.Join(append(errs, fmt.Errorf("network driver %s: reconcile: %w", name, err))...)
	}
	m.mu.Lock()
	for _, e := range entries {
		e.made = true
	}
	m.mu.Unlock()
	return errors.Join(append(errs, m.bury(name))...)
}

// makeNew has the driver make the networks that it never made: the default one at the first start.
func (m *Manager) makeNew(ctx context.Context, driver Driver, name string) (errs []error) {
	m.mu.RLock()
	var list []*entry
	for _, e := range m.entries {
		if e.Driver == name && !e.Known {
			list = append(list, e)
		}
	}
	m.mu.RUnlock()
	for _, e := range list {
		if err := m.make(ctx, driver, e); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// wanted are the networks and endpoints of a driver.
func (m *Manager) wanted(driver string) (entries []*entry, networks []Network, endpoints []Endpoint) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, e := range m.entries {
		if e.Driver == driver && e.Known && !e.removing {
			entries, networks = append(entries, e), append(networks, e.forDriver())
		}
	}
	for _, sb := range m.joined {
		for _, ep := range sb.Endpoints {
			if e := m.entries[ep.NetworkID]; e != nil && e.Driver == driver && sb.ns != nil {
				endpoints = append(endpoints, ep.forDriver(sb.path()))
			}
		}
	}
	return entries, networks, endpoints
}

// bury forgets what the dead had of a driver that has removed it.
func (m *Manager) bury(driver string) error {
	m.burying.Lock() // the rows of one of the dead are written by one driver after the other
	defer m.burying.Unlock()
	m.mu.Lock()
	var done, changed []record
	m.dead = slices.DeleteFunc(m.dead, func(sb *sandbox) bool {
		var rest []member
		for _, ep := range sb.Endpoints {
			if e := m.entries[ep.NetworkID]; e != nil && e.Driver != driver && !builtin(e.Driver) {
				rest = append(rest, ep)
			} else {
				m.release(ep)
			}
		}
		fewer := len(rest) < len(sb.Endpoints)
		sb.Endpoints = rest
		if len(rest) > 0 {
			if fewer {
				changed = append(changed, sb.snapshot())
			}
			return false
		}
		m.ports.Release(sb.ID)
		done = append(done, sb.snapshot())
		return true
	})
	m.mu.Unlock()
	var errs []error
	for _, rec := range changed {
		errs = append(errs, m.sandboxes.Put(rec.ID, rec))
	}
	for _, rec := range done {
		errs = append(errs, m.sandboxes.Delete(rec.ID))
	}
	return errors.Join(errs...)
}

// serveAll starts the name servers of the containers that have one, some at a time.
func (m *Manager) serveAll(alive []*sandbox) error {
	const atOnce = 8
	slots := make(chan struct{}, atOnce)
	var steps []func() error
	for _, sb := range alive {
		steps = append(steps, func() error {
			slots <- struct{}{}
			defer func() { <-slots }()
			sb.op.Lock()
			defer sb.op.Unlock()
			m.mu.RLock()
			rec := sb.snapshot()
			here := m.joined[rec.ContainerID] == sb
			m.mu.RUnlock()
			if !here || !rec.Resolver {
				return nil
			}
			if err := m.serve(sb, rec); err != nil {
				return fmt.Errorf("container %s: %w", rec.Name, err)
			}
			return nil
		})
	}
	return parallel(steps)
}
