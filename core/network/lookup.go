package network

import (
	"strings"

	"github.com/sampan-project/sampan/core/fault"
)

// Resolve returns the network that a name, ID or prefix of an ID means, as fault.NotFound says when
// there is none, so that a container can be refused at its creation.
func (m *Manager) Resolve(ref string) (Network, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	e, err := m.find(ref)
	if err != nil {
		return Network{}, err
	}
	return e.Network, nil
}

// find looks for an ID, then a name, then a prefix of an ID. The caller holds mu.
func (m *Manager) find(ref string) (*entry, error) {
	if e := m.entries[ref]; e != nil {
		return e, nil
	}
	if e := m.named(ref); e != nil {
		return e, nil
	}
	var found []*entry
	if ref != "" {
		for id, e := range m.entries {
			if strings.HasPrefix(id, ref) {
				found = append(found, e)
			}
		}
	}
	switch len(found) {
	case 0:
		return nil, fault.New(fault.NotFound, "network %s not found", shortened(ref))
	case 1:
		return found[0], nil
	}
	return nil, fault.New(fault.Invalid, "network %s is ambiguous (%d matches found on ID prefix)", shortened(ref), len(found))
}

// named returns the network of the name or nil. The caller holds mu.
func (m *Manager) named(name string) *entry {
	if name == "default" {
		name = bridgeName
	}
	for _, e := range m.entries {
		if e.Name == name {
			return e
		}
	}
	return nil
}

// shortened cuts what a user wrote to a length that fits into a message.
func shortened(s string) string {
	const most = 128
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
