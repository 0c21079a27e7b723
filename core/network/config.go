package network

import (
	"maps"
	"slices"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// A configuration-only network is a row that no driver sees and no container joins: options, subnets and
// labels that other networks copy at their creation (`network create --config-from`).

// validateConfig checks the requests that make one or copy one; the words are Docker's.
func validateConfig(r wire.NetworkCreateRequest) error {
	from := r.ConfigFrom != nil && r.ConfigFrom.Network != ""
	switch {
	case r.ConfigOnly && (r.Ingress || r.Internal || r.Attachable || r.Scope != ""):
		return fault.New(fault.Forbidden, "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.")
	case r.ConfigOnly && from:
		return fault.New(fault.Forbidden, "a configuration network cannot depend on another configuration network")
	case from && (r.EnableIPv4 != nil && !*r.EnableIPv4 || r.EnableIPv6 != nil && *r.EnableIPv6 || len(r.Labels) > 0 ||
		r.IPAM != nil && (len(r.IPAM.Options) > 0 || len(r.IPAM.Config) > 0)):
		return fault.New(fault.Forbidden, "user specified configurations are not supported if the network depends on a configuration network")
	case from && len(r.Options) > 0:
		return fault.New(fault.Forbidden, "network driver options are not supported if the network depends on a configuration network")
	}
	return nil
}

// createConfig makes a configuration-only network. What its options mean is asked when it is copied: until
// then nobody knows for which driver.
func (m *Manager) createConfig(r wire.NetworkCreateRequest, asked []Subnet) (wire.NetworkCreateResponse, error) {
	n := row{Network: Network{
		ID: newID(), Name: r.Name, Driver: nullDriver, Owner: m.owner, Created: time.Now().UTC(), ConfigOnly: true,
		IPv4: r.EnableIPv4 == nil || *r.EnableIPv4, IPv6: wantsIPv6(r.EnableIPv6, asked),
		Subnets: asked, Options: maps.Clone(r.Options), Labels: maps.Clone(r.Labels),
	}}
	if r.IPAM != nil {
		n.IPAMOption = maps.Clone(r.IPAM.Options)
	}
	m.creating.Lock()
	defer m.creating.Unlock()
	m.mu.RLock()
	exists := m.named(n.Name) != nil
	m.mu.RUnlock()
	if exists {
		return wire.NetworkCreateResponse{}, fault.New(fault.Conflict, "network with name %s already exists", n.Name)
	}
	if err := m.networks.Put(n.ID, n); err != nil {
		return wire.NetworkCreateResponse{}, err
	}
	m.mu.Lock()
	m.entries[n.ID] = newEntry(n)
	m.mu.Unlock()
	m.o.Events("create", n.ID, map[string]string{"name": n.Name, "type": n.Driver})
	return wire.NetworkCreateResponse{ID: n.ID}, nil
}

// copyConfig makes the network as the configuration-only one says, and returns its subnets.
func (m *Manager) copyConfig(n *Network, name string) ([]Subnet, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := m.named(name)
	if c == nil || !c.ConfigOnly {
		return nil, noConfig(name)
	}
	n.ConfigFrom = c.Name
	n.IPv4, n.IPv6 = c.IPv4, c.IPv6
	n.Options, n.Labels, n.IPAMOption = maps.Clone(c.Options), maps.Clone(c.Labels), maps.Clone(c.IPAMOption)
	return slices.Clone(c.Subnets), nil
}

func noConfig(name string) error {
	return fault.New(fault.NotFound, "configuration network %q does not exist", shortened(name))
}

// copies are the networks that copied a configuration-only one. The caller holds mu.
func (m *Manager) copies(name string) (list []string) {
	for _, e := range m.entries {
		if e.ConfigFrom == name {
			list = append(list, e.Name)
		}
	}
	slices.Sort(list)
	return list
}
