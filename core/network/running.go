package network

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// ConnectRunning connects a running container to one more network. The Sandbox has the new
// Settings, Hosts and ResolvConf, and neither namespace nor sockets.
func (m *Manager) ConnectRunning(ctx context.Context, ref, containerID string, pid int, e *wire.EndpointSettings) (_ *Sandbox, err error) {
	sb, err := m.running(containerID, pid)
	if err != nil {
		return nil, err
	}
	defer sb.op.Unlock()
	w := wish{ref: ref}
	if e != nil {
		w.asked = *e
	}
	if err := m.connectable(sb, ref); err != nil {
		return nil, err
	}
	m.inter(ctx, containerID)
	if err := m.admitRetrying(ctx, sb, []wish{w}); err != nil {
		return nil, err
	}
	m.mu.Lock()
	changed := m.assign(sb)
	m.needResolver(sb)
	rec := sb.snapshot()
	m.mu.Unlock()
	added := len(rec.Endpoints) - 1
	defer func() {
		if err != nil {
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			defer cancel()
			if e := m.takeOff(undo, sb, rec.Endpoints[added].ID, true); e != nil {
				m.log.Error("take back a connection that failed; it is tried again", "container", containerID, "error", e)
			}
		}
	}()
	if err := m.sandboxes.Put(rec.ID, rec); err != nil {
		return nil, err
	}
	if rec.Resolver {
		if err := m.serve(sb, rec); err != nil {
			return nil, err
		}
	}
	if !slices.Contains(changed, added) {
		changed = append(changed, added)
	}
	if err := m.attachAll(ctx, sb, rec, changed); err != nil {
		return nil, err
	}
	told, err := m.contents(rec)
	if err != nil {
		return nil, err
	}
	m.tell("connect", containerID, rec.Endpoints[added])
	return told, nil
}

// DisconnectRunning takes a running container off a network; the Sandbox is as ConnectRunning's.
func (m *Manager) DisconnectRunning(ctx context.Context, ref, containerID string, pid int) (*Sandbox, error) {
	sb, err := m.running(containerID, pid)
	if err != nil {
		return nil, err
	}
	defer sb.op.Unlock()
	m.mu.RLock()
	e, err := m.find(ref)
	var found *member
	if err == nil {
		for _, ep := range sb.Endpoints {
			if ep.NetworkID == e.ID {
				found = &ep
			}
		}
	}
	isHost := sb.Host
	m.mu.RUnlock()
	switch {
	case err != nil:
		return nil, err
	case isHost:
		return nil, fault.New(fault.Forbidden, "container cannot be disconnected from host network or connected to host network")
	case found == nil:
		return nil, fault.New(fault.Forbidden, "container %s is not connected to network %s", containerID, e.Name)
	}
	if err := m.takeOff(ctx, sb, found.ID, false); err != nil {
		return nil, err
	}
	m.tell("disconnect", containerID, *found)
	m.mu.RLock()
	rec := sb.snapshot()
	m.mu.RUnlock()
	return m.contents(rec)
}

// running returns the sandbox of a container, with op locked.
func (m *Manager) running(containerID string, pid int) (*sandbox, error) {
	m.mu.RLock()
	sb := m.joined[containerID]
	m.mu.RUnlock()
	if sb != nil {
		sb.op.Lock()
		m.mu.Lock()
		defer m.mu.Unlock()
		switch {
		case m.joined[containerID] != sb: // it left meanwhile
			sb.op.Unlock()
			sb = nil
		case sb.Shares != "":
			sb.op.Unlock()
			return nil, fault.New(fault.Forbidden, "container sharing network namespace with another container or host cannot be connected to any other network")
		case sb.ns == nil && !sb.Host:
			ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
			if err != nil {
				sb.op.Unlock()
				return nil, fault.New(fault.Conflict, "network namespace of container %s: %w", containerID, err)
			}
			sb.ns = ns
		}
	}
	if sb == nil {
		return nil, fault.New(fault.Conflict, "container %s is not running", containerID)
	}
	return sb, nil
}

// connectable refuses the pairs that exclude each other; the words are Docker's.
func (m *Manager) connectable(sb *sandbox, ref string) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	e, err := m.find(ref)
	if err != nil {
		return err
	}
	if sb.Host || e.Driver == hostDriver {
		return fault.New(fault.Forbidden, "container cannot be disconnected from host network or connected to host network")
	}
	for _, ep := range sb.Endpoints {
		if other := m.entries[ep.NetworkID]; other != nil && other.Driver == nullDriver || e.Driver == nullDriver {
			return fault.New(fault.Forbidden, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
		}
	}
	return nil
}

// takeOff takes one endpoint away, and gives its gateways and ports to another. When the driver refuses, the
// endpoint stays; with insist it goes all the same, to the dead, and the error says only that the driver still
// has to remove it. The caller holds op.
func (m *Manager) takeOff(ctx context.Context, sb *sandbox, endpointID string, insist bool) error {
	m.mu.RLock()
	i := slices.IndexFunc(sb.Endpoints, func(ep member) bool { return ep.ID == endpointID })
	if i < 0 {
		m.mu.RUnlock()
		return nil
	}
	ep := sb.Endpoints[i]
	m.mu.RUnlock()
	driver := m.driverOf(ep)
	leave := m.pass(driver)
	// Out of the record before the driver detaches, and what becomes of it said before the gate is open for a
	// Reconcile: that must neither make again what goes nor remove what stays.
	m.mu.Lock()
	sb.Endpoints = slices.Delete(slices.Clone(sb.Endpoints), i, i+1)
	m.mu.Unlock()
	err := m.detachWithin(ctx, sb, ep)
	m.mu.Lock()
	rows := []*sandbox{sb}
	switch {
	case err == nil:
		m.release(ep)
	case insist:
		rows = append(rows, m.dig(sb, ep))
	default:
		sb.Endpoints = slices.Insert(sb.Endpoints, i, ep)
		m.mu.Unlock()
		leave()
		m.again(driver)
		return err
	}
	changed := m.assign(sb)
	rec := sb.snapshot()
	m.mu.Unlock()
	// The container's row first, so that at no moment two have the endpoint's addresses.
	for _, row := range rows {
		m.note(row)
	}
	leave()
	if err != nil {
		m.again(driver)
	}
	m.move(ctx, sb, rec, changed)
	return err
}

// dig puts one endpoint of a container that lives among the dead. The caller holds mu.
func (m *Manager) dig(sb *sandbox, ep member) *sandbox {
	grave := &sandbox{record: record{
		ID: newID(), ContainerID: sb.ContainerID, SandboxID: sb.SandboxID, Name: sb.Name, Dead: true, Endpoints: []member{ep},
	}}
	m.dead = append(m.dead, grave)
	return grave
}

// note writes the row of what is done already.
func (m *Manager) note(sb *sandbox) {
	m.mu.RLock()
	rec := sb.snapshot()
	m.mu.RUnlock()
	if err := m.sandboxes.Put(rec.ID, rec); err != nil {
		m.log.Error("write which networks a container is on", "container", rec.ContainerID, "error", err)
	}
}

// move has the drivers give the gateways and ports of an endpoint that left to others. That it left holds,
// whatever fails here. The caller holds op.
func (m *Manager) move(ctx context.Context, sb *sandbox, rec record, changed []int) {
	for _, i := range changed {
		ep := rec.Endpoints[i]
		if err := m.attach(ctx, sb, ep); err != nil {
			m.log.Error("default route and ports of a container could not be moved; it is tried again", "container", rec.ContainerID, "network", ep.Network, "error", err)
			m.again(m.driverOf(ep))
		}
	}
}

// attachAll calls the drivers of the endpoints one after the other: one must have given up a
// gateway before the next takes it. The caller holds op.
func (m *Manager) attachAll(ctx context.Context, sb *sandbox, rec record, which []int) error {
	for _, i := range which {
		if err := m.attach(ctx, sb, rec.Endpoints[i]); err != nil {
			return err
		}
	}
	return nil
}

// contents is what a container that runs is told of a change.
func (m *Manager) contents(rec record) (*Sandbox, error) {
	hosts, err := m.hosts(rec)
	if err != nil {
		return nil, err
	}
	return &Sandbox{Forward: forwards(rec), Settings: m.Settings(rec.ContainerID), Hosts: hosts, ResolvConf: m.resolvConf(rec)}, nil
}
