package network

import (
	"errors"

	"github.com/sampan-project/sampan/core/fault"
)

// share lets the container into the namespace of another one.
func (m *Manager) share(r JoinRequest, otherID string) (*Sandbox, error) {
	m.mu.RLock()
	other := m.joined[otherID]
	for range maxEndpoints { // the other may itself be in the namespace of a third
		if other == nil || other.Shares == "" {
			break
		}
		other = m.joined[other.Shares]
	}
	m.mu.RUnlock()
	if other == nil {
		return nil, fault.New(fault.Conflict, "cannot join network of a non running container: %s", shortened(otherID))
	}
	// Waits for a Join of the other that is not done, and keeps a Leave of it from closing the file.
	other.op.Lock()
	defer other.op.Unlock()
	m.mu.Lock()
	rec := other.snapshot()
	alive := m.joined[rec.ContainerID] == other && (other.ns != nil || rec.Host)
	m.mu.Unlock()
	if !alive {
		return nil, fault.New(fault.Conflict, "cannot join network of a non running container: %s", shortened(otherID))
	}
	hosts, err := m.hosts(rec)
	if err != nil {
		return nil, err
	}
	own := newRecord(r)
	own.Shares, own.SandboxID = rec.ContainerID, rec.SandboxID
	if err := m.sandboxes.Put(own.ID, own); err != nil {
		return nil, err
	}
	shared := &Sandbox{Hosts: hosts, ResolvConf: m.resolvConf(rec), Settings: settings(own)}
	if other.ns != nil {
		if shared.NetNS, err = duplicate(other.ns); err != nil {
			return nil, errors.Join(err, m.sandboxes.Delete(own.ID))
		}
	}
	m.mu.Lock()
	m.joined[own.ContainerID] = &sandbox{record: own}
	m.mu.Unlock()
	return shared, nil
}
