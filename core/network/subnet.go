package network

import (
	"encoding/hex"
	"fmt"
	"net/netip"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/network/ipam"
	"github.com/sampan-project/sampan/core/wire"
)

// maxSubnets bounds what one request may ask for.
const maxSubnets = 64

// parseSubnets reads the address plan of a request; the messages are Docker's.
func parseSubnets(plan *wire.IPAM) ([]Subnet, error) {
	if plan == nil {
		return nil, nil
	}
	if plan.Driver != "" && plan.Driver != "default" {
		return nil, fault.New(fault.Invalid, "could not resolve IPAM driver %q: there is only the one called default", shortened(plan.Driver))
	}
	if len(plan.Config) > maxSubnets {
		return nil, fault.New(fault.Invalid, "invalid network config: %d subnets: expected at most %d", len(plan.Config), maxSubnets)
	}
	var list []Subnet
	for _, c := range plan.Config {
		s, err := parseSubnet(c)
		if err != nil {
			return nil, fault.New(fault.Invalid, "invalid network config: %w", err)
		}
		for _, other := range list {
			if s.Prefix.IsValid() && other.Prefix.Overlaps(s.Prefix) {
				return nil, fault.New(fault.Forbidden, "invalid pool request: Pool overlaps with other one on this address space: %s and %s", s.Prefix, other.Prefix)
			}
		}
		list = append(list, s)
	}
	return list, nil
}

func parseSubnet(c wire.IPAMConfig) (Subnet, error) {
	var s Subnet
	var err error
	if c.Subnet == "" {
		if c.IPRange != "" || len(c.AuxiliaryAddresses) > 0 || c.Gateway != "" {
			return s, fmt.Errorf("ip-range, gateway and auxiliary addresses need a subnet: expected one such as 172.28.0.0/16")
		}
		return s, nil
	}
	if s.Prefix, err = parsePrefix("subnet", c.Subnet); err != nil {
		return s, err
	}
	s.Asked = true
	if c.IPRange != "" {
		if s.Range, err = parsePrefix("ip-range", c.IPRange); err != nil {
			return s, err
		}
		if s.Range.Bits() < s.Prefix.Bits() || !s.Prefix.Contains(s.Range.Addr()) {
			return s, fmt.Errorf("invalid ip-range %s: parent subnet %s doesn't contain ip-range", s.Range, s.Prefix)
		}
	}
	if c.Gateway != "" {
		if s.Gateway, err = parseWithin("gateway", c.Gateway, s.Prefix); err != nil {
			return s, err
		}
	}
	for name, text := range c.AuxiliaryAddresses {
		a, err := parseWithin("auxiliary address", text, s.Prefix)
		if err != nil {
			return s, err
		}
		if s.Auxiliary == nil {
			s.Auxiliary = map[string]netip.Addr{}
		}
		s.Auxiliary[name] = a
	}
	return s, nil
}

func parsePrefix(what, text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return p, fmt.Errorf("invalid %s %s: invalid CIDR block notation", what, shortened(text))
	}
	if p.Masked() != p {
		return p, fmt.Errorf("invalid %s %s: it should be %s", what, p, p.Masked())
	}
	return p, nil
}

func parseWithin(what, text string, parent netip.Prefix) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil || a.Zone() != "":
		return a, fmt.Errorf("invalid %s %s: invalid address", what, shortened(text))
	case a.Is4() != parent.Addr().Is4():
		return a, fmt.Errorf("invalid %s %s: parent subnet is an IPv%d block", what, a, map[bool]int{true: 4, false: 6}[parent.Addr().Is4()])
	case !parent.Contains(a):
		return a, fmt.Errorf("invalid %s %s: parent subnet %s doesn't contain this address", what, a, parent)
	}
	return a, nil
}

// plan fills in what the request left open: a subnet of each family that is on, and gateways. The
// caller holds creating, or is alone.
func (m *Manager) plan(n *Network, asked []Subnet) (warning string, err error) {
	has := map[bool]bool{} // by: is IPv6
	for _, s := range asked {
		if !s.Prefix.IsValid() {
			continue
		}
		v6 := s.Prefix.Addr().Is6()
		if on := map[bool]bool{false: n.IPv4, true: n.IPv6}[v6]; !on {
			warning = fmt.Sprintf("subnet %s is not used: its address family is disabled on this network", s.Prefix)
			continue
		}
		if err := m.overlaps(s.Prefix); err != nil {
			return "", err
		}
		has[v6] = true
		n.Subnets = append(n.Subnets, s)
	}
	for _, family := range []struct{ on, v6 bool }{{n.IPv4, false}, {n.IPv6, true}} {
		if !family.on || has[family.v6] {
			continue
		}
		p, err := m.chooseSubnet(family.v6)
		if err != nil {
			return "", err
		}
		n.Subnets = append(n.Subnets, Subnet{Prefix: p})
	}
	for i := range n.Subnets {
		if mode(*n, n.Subnets[i].Prefix.Addr().Is6()) == modeIsolated && !n.Subnets[i].Gateway.IsValid() {
			continue // the host has no address there
		}
		if err := chooseGateway(&n.Subnets[i]); err != nil {
			return "", err
		}
	}
	return warning, nil
}

// overlaps refuses a subnet that another network of ours has.
func (m *Manager) overlaps(p netip.Prefix) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, e := range m.entries {
		for _, s := range e.Subnets {
			if !e.ConfigOnly && s.Prefix.Overlaps(p) {
				return fault.New(fault.Forbidden, "invalid pool request: Pool overlaps with other one on this address space: %s of this network and %s of network %s", p, s.Prefix, e.Name)
			}
		}
	}
	return nil
}

// chooseSubnet returns a subnet of the pools that neither our networks nor the host's routes have.
func (m *Manager) chooseSubnet(v6 bool) (netip.Prefix, error) {
	taken := hostRoutes("")
	m.mu.RLock()
	for _, e := range m.entries {
		for _, s := range e.Subnets {
			if !e.ConfigOnly {
				taken = append(taken, s.Prefix)
			}
		}
	}
	m.mu.RUnlock()
	var pools []ipam.Pool
	for _, p := range m.o.Pools {
		if p.Base.Addr().Is6() == v6 {
			pools = append(pools, p)
		}
	}
	if v6 && len(pools) == 0 {
		var seed [5]byte
		// The owner is 12 random digits, which is what RFC 4193, 3.2 asks of a global ID.
		_, _ = hex.Decode(seed[:], []byte(m.owner[:10]))
		pools = []ipam.Pool{ipam.LocalPool(seed)}
	}
	return ipam.Choose(pools, taken)
}

// chooseGateway takes the first address of the subnet when none was asked for.
func chooseGateway(s *Subnet) error {
	if s.Gateway.IsValid() {
		return nil
	}
	space := ipam.NewSpace([]ipam.Subnet{{Prefix: s.Prefix, Range: s.Range}})
	for _, a := range s.Auxiliary {
		space.Mark(a)
	}
	p, err := space.Take(s.Prefix.Addr().Is6())
	if err != nil {
		return fmt.Errorf("gateway of subnet %s: %w", s.Prefix, err)
	}
	s.Gateway = p.Addr()
	return nil
}
