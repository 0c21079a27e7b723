package network

import (
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// The networks that always exist. The drivers of the last two are names only.
const (
	bridgeName = "bridge"
	hostName   = "host"
	noneName   = "none"
	hostDriver = "host"
	nullDriver = "null"
)

// bridgeOption is Docker's name for the option that names the bridge on the host.
const bridgeOption = "com.docker.network.bridge.name"

// builtin reports whether a driver is one that does nothing.
func builtin(driver string) bool { return driver == hostDriver || driver == nullDriver }

// loadDefaults makes the rows that are missing, and that of the default bridge anew when the
// daemon's options say something else than at the last start.
func (m *Manager) loadDefaults() error {
	for name, driver := range map[string]string{hostName: hostDriver, noneName: nullDriver} {
		if m.named(name) == nil {
			if err := m.keep(row{Network: m.defaultNetwork(name, driver)}); err != nil {
				return err
			}
		}
	}
	want := m.defaultNetwork(bridgeName, m.o.DefaultDriver)
	want.IPv4 = true
	want.Options = map[string]string{bridgeOption: m.o.DefaultBridge}
	maps.Copy(want.Options, m.o.DefaultOption)
	subnet, err := parseBIP(m.o.BIP)
	if err != nil {
		return err
	}
	if m.o.FixedCIDR != "" {
		part, err := netip.ParsePrefix(m.o.FixedCIDR)
		if err != nil || part.Bits() < subnet.Prefix.Bits() || !subnet.Prefix.Contains(part.Addr()) {
			return &fault.Field{Field: "fixed-cidr", Given: shortened(m.o.FixedCIDR), Expected: "a part of the default bridge's subnet " + m.o.BIP}
		}
		subnet.Range = part.Masked()
	}
	if old := m.named(bridgeName); old != nil {
		if m.same(old.Network, want, subnet) {
			return nil
		}
		if m.lives(old.ID) {
			m.log.Warn("the default network keeps its old options while containers are on it", "bridge", old.Options[bridgeOption], "subnet", old.Subnets)
			return nil
		}
		if err := m.networks.Delete(old.ID); err != nil {
			return err
		}
		delete(m.entries, old.ID)
	}
	if !subnet.Prefix.IsValid() {
		if subnet.Prefix, err = m.chooseSubnet(false); err != nil {
			return fmt.Errorf("default network: %w", err)
		}
	}
	if err := chooseGateway(&subnet); err != nil {
		return fmt.Errorf("default network: %w", err)
	}
	want.Subnets = []Subnet{subnet}
	return m.keep(row{Network: want})
}

// same reports whether the default network is as the daemon's options want it, and its subnet, when
// it was chosen, still free: since the last boot somebody else may have taken it.
func (m *Manager) same(old, want Network, asked Subnet) bool {
	if old.Driver != want.Driver || !maps.Equal(old.Options, want.Options) || len(old.Subnets) != 1 {
		return false
	}
	had := old.Subnets[0]
	if asked.Asked || had.Asked {
		return had.Asked == asked.Asked && had.Prefix == asked.Prefix && had.Range == asked.Range && had.Gateway == asked.Gateway
	}
	for _, p := range hostRoutes(m.o.DefaultBridge) {
		if p.Overlaps(had.Prefix) {
			return false
		}
	}
	return true
}

func (m *Manager) defaultNetwork(name, driver string) Network {
	return Network{ID: newID(), Name: name, Driver: driver, Owner: m.owner, Created: time.Now().UTC(), Default: true}
}

// keep writes the network to disk and memory.
func (m *Manager) keep(r row) error {
	if err := m.networks.Put(r.ID, r); err != nil {
		return err
	}
	m.entries[r.ID] = newEntry(r)
	return nil
}

// lives reports whether rows of this boot say that a container is on the network.
func (m *Manager) lives(networkID string) bool {
	records, err := m.sandboxes.List()
	if err != nil {
		return true
	}
	for _, r := range records {
		for _, ep := range r.Endpoints {
			if ep.NetworkID == networkID {
				return true
			}
		}
	}
	return false
}

// defaultOptions are the default network's options by the names of its driver's schema. The name of
// the bridge is a wish of the daemon: a driver that makes no bridge has no such option.
func defaultOptions(schema wire.Schema, options map[string]string) (map[string]string, error) {
	if attribute(schema, bridgeOption) == nil {
		options = maps.Clone(options)
		delete(options, bridgeOption)
	}
	return driverOptions(schema, options, "option of the default network")
}

// parseBIP reads "172.26.0.1/24": a subnet with the bridge's address in it.
func parseBIP(text string) (Subnet, error) {
	if text == "" {
		return Subnet{}, nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is4() || p.Bits() > 30 {
		return Subnet{}, &fault.Field{Field: "bip", Given: shortened(text), Expected: "an IPv4 address with prefix length, such as 172.26.0.1/24"}
	}
	s := Subnet{Prefix: p.Masked(), Asked: true}
	if p.Addr() != s.Prefix.Addr() {
		s.Gateway = p.Addr()
	}
	return s, chooseGateway(&s)
}
