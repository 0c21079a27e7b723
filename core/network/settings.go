package network

import (
	"net/netip"
	"strconv"

	"github.com/sampan-project/sampan/core/wire"
)

// Settings are what inspect shows of a container that joined; zero for one that did not.
func (m *Manager) Settings(containerID string) wire.NetworkSettings {
	m.mu.RLock()
	defer m.mu.RUnlock()
	sb := m.joined[containerID]
	if sb == nil {
		return wire.NetworkSettings{}
	}
	return settings(sb.record)
}

// Ports are those of Settings alone. A list of a thousand containers asks for no more.
func (m *Manager) Ports(containerID string) map[string][]wire.PortBinding {
	m.mu.RLock()
	defer m.mu.RUnlock()
	sb := m.joined[containerID]
	if sb == nil || len(sb.record.Ports)+len(sb.record.Exposed) == 0 {
		return nil
	}
	return portMap(sb.record)
}

func settings(rec record) wire.NetworkSettings {
	s := wire.NetworkSettings{
		SandboxID: rec.SandboxID,
		Ports:     portMap(rec),
		Networks:  map[string]*wire.EndpointSettings{},
	}
	for _, ep := range rec.Endpoints {
		shown := endpointSettings(ep)
		s.Networks[ep.Network] = shown
		if ep.Network == bridgeName && ep.Default {
			// The fields of the time when there was one network.
			s.EndpointID, s.Gateway, s.IPAddress, s.IPPrefixLen = shown.EndpointID, shown.Gateway, shown.IPAddress, shown.IPPrefixLen
			s.IPv6Gateway, s.GlobalIPv6Address, s.GlobalIPv6PrefixLen = shown.IPv6Gateway, shown.GlobalIPv6Address, shown.GlobalIPv6PrefixLen
			s.MacAddress = shown.MacAddress
		}
	}
	return s
}

// endpointSettings is what was asked for with what came of it.
func endpointSettings(ep member) *wire.EndpointSettings {
	s := ep.Asked
	s.NetworkID, s.EndpointID, s.MacAddress = ep.NetworkID, ep.ID, ep.MAC
	if len(ep.Names) > 0 {
		s.DNSNames = ep.Names
	}
	for _, a := range ep.Addresses {
		if a.Addr().Is4() {
			s.IPAddress, s.IPPrefixLen = a.Addr().String(), a.Bits()
		} else {
			s.GlobalIPv6Address, s.GlobalIPv6PrefixLen = a.Addr().String(), a.Bits()
		}
	}
	s.Gateway, s.IPv6Gateway = familyText(ep.Gateways, false), familyText(ep.Gateways, true)
	return &s
}

// familyText returns the first address of the family as text.
func familyText(list []netip.Addr, v6 bool) string {
	for _, a := range list {
		if a.Is6() == v6 {
			return a.String()
		}
	}
	return ""
}

// hostPort is empty of a port that is the container's alone, as Docker shows it.
func hostPort(p Port) string {
	if p.HostPort == 0 {
		return ""
	}
	return strconv.Itoa(int(p.HostPort))
}

// portMap has the published ports with their bindings, and those that are only exposed with none.
func portMap(rec record) map[string][]wire.PortBinding {
	ports := map[string][]wire.PortBinding{}
	if rec.Shares != "" || rec.Host {
		return ports
	}
	for _, spec := range rec.Exposed {
		if number, protocol, err := parsePort(spec); err == nil {
			ports[strconv.Itoa(int(number))+"/"+protocol] = nil
		}
	}
	for _, p := range rec.Ports {
		key := strconv.Itoa(int(p.ContainerPort)) + "/" + p.Protocol
		ports[key] = append(ports[key], wire.PortBinding{HostIP: p.HostAddress.String(), HostPort: hostPort(p)})
	}
	return ports
}
