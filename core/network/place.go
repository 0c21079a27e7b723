package network

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/network/ipam"
	"github.com/sampan-project/sampan/core/wire"
)

// maxEndpoints bounds how many networks a container may be in.
const maxEndpoints = 128

// wish is a network that a container wants to be in.
type wish struct {
	ref   string
	asked wire.EndpointSettings
}

func (m *Manager) admitRetrying(ctx context.Context, sb *sandbox, wanted []wish) error {
	if len(wanted) > maxEndpoints {
		return fault.New(fault.Invalid, "a container can be in %d networks at most, not in %d", maxEndpoints, len(wanted))
	}
	for _, w := range wanted {
		if err := m.ensure(ctx, w.ref); err != nil {
			return err
		}
	}
	err := m.admit(sb, wanted)
	if err != nil && m.drain(ctx) {
		err = m.admit(sb, wanted)
	}
	return err
}

// admit gives the container its places in the networks, all or none, and makes it known.
func (m *Manager) admit(sb *sandbox, wanted []wish) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	had := len(sb.Endpoints)
	defer func() {
		if err != nil {
			for _, ep := range sb.Endpoints[had:] {
				m.release(ep)
			}
			sb.Endpoints = sb.Endpoints[:had]
		}
	}()
	for _, w := range wanted {
		e, err := m.find(w.ref)
		if err != nil {
			return err
		}
		if e.ConfigOnly {
			return fault.New(fault.Forbidden, "cannot create endpoint on configuration-only network %s", e.Name)
		}
		if e.removing {
			return fault.New(fault.NotFound, "network %s not found: it is being removed", e.Name)
		}
		ep, err := m.place(sb, e, w.asked)
		if err != nil {
			return err
		}
		sb.Endpoints = append(sb.Endpoints, ep)
	}
	m.joined[sb.ContainerID] = sb
	return nil
}

// place makes an endpoint of the container in the network. The caller holds mu.
func (m *Manager) place(sb *sandbox, e *entry, asked wire.EndpointSettings) (_ member, err error) {
	for _, ep := range sb.Endpoints {
		if ep.NetworkID == e.ID {
			return member{}, fault.New(fault.Forbidden, "endpoint with name %s already exists in network %s", sb.Name, e.Name)
		}
	}
	ep := member{
		Endpoint: Endpoint{ID: newID(), NetworkID: e.ID, ContainerID: sb.ContainerID, Options: asked.DriverOpts},
		Network:  e.Name, Default: e.Default, Asked: asked, Priority: asked.GwPriority,
	}
	if err := checkAsked(e, asked); err != nil {
		return member{}, err
	}
	if builtin(e.Driver) {
		return ep, nil
	}
	if !e.Default {
		ep.Names = dnsNames(sb.record, asked.Aliases)
	}
	if ep.LinkLocal, err = linkLocal(asked.IPAMConfig); err != nil {
		return member{}, err
	}
	if ep.Links, err = parseLinks(asked.Links); err != nil {
		return member{}, err
	}
	if err := address(&ep, e, asked.IPAMConfig); err != nil {
		return member{}, err
	}
	if err := identify(&ep, e, sb, asked); err != nil {
		m.release(ep)
		return member{}, err
	}
	return ep, nil
}

// checkAsked refuses what only networks that users made can do; the words are Docker's.
func checkAsked(e *entry, asked wire.EndpointSettings) error {
	static := asked.IPAMConfig != nil && (asked.IPAMConfig.IPv4Address != "" || asked.IPAMConfig.IPv6Address != "")
	switch {
	case len(asked.Links) > 0 && e.Default:
		return fault.New(fault.Invalid, "network-scoped links are supported only for containers in user defined networks")
	case static && e.Default:
		return fault.New(fault.Invalid, "user specified IP address is supported on user defined networks only")
	case static && !slices.ContainsFunc(e.Subnets, func(s Subnet) bool { return s.Asked }):
		return fault.New(fault.Invalid, "user specified IP address is supported only when connecting to networks with user configured subnets")
	case len(asked.Aliases) > 0 && e.Default:
		return fault.New(fault.Invalid, "network-scoped alias is supported only for containers in user defined networks")
	}
	return nil
}

// maxLinkLocal and maxLinks bound what one endpoint may ask for.
const (
	maxLinkLocal = 16
	maxLinks     = 128
)

// linkLocal reads the addresses that are the interface's alone (RFC 3927, RFC 4291 section 2.5.6).
func linkLocal(asked *wire.EndpointIPAM) (list []netip.Prefix, err error) {
	if asked == nil {
		return nil, nil
	}
	if len(asked.LinkLocalIPs) > maxLinkLocal {
		return nil, &fault.Field{Field: "link-local-ip", Given: strconv.Itoa(len(asked.LinkLocalIPs)) + " addresses", Expected: "at most " + strconv.Itoa(maxLinkLocal)}
	}
	for _, text := range asked.LinkLocalIPs {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || !a.IsLinkLocalUnicast() {
			return nil, &fault.Field{Field: "link-local-ip", Given: shortened(text), Expected: "an address such as 169.254.34.68 or fe80::1234"}
		}
		list = append(list, netip.PrefixFrom(a, map[bool]int{true: 16, false: 64}[a.Is4()]))
	}
	return list, nil
}

// parseLinks reads "container:alias" or "container": further names of others that this container alone knows.
func parseLinks(texts []string) (map[string]string, error) {
	if len(texts) > maxLinks {
		return nil, &fault.Field{Field: "link", Given: strconv.Itoa(len(texts)) + " links", Expected: "at most " + strconv.Itoa(maxLinks)}
	}
	links := map[string]string{}
	for _, text := range texts {
		name, alias, has := strings.Cut(strings.TrimPrefix(text, "/"), ":")
		if !has {
			alias = name
		}
		if name == "" || alias == "" || strings.Contains(alias, ":") {
			return nil, &fault.Field{Field: "link", Given: shortened(text), Expected: "CONTAINER or CONTAINER:ALIAS"}
		}
		links[strings.ToLower(alias)] = strings.ToLower(name)
	}
	return links, nil
}

// address takes an address of each family that the network has.
func address(ep *member, e *entry, asked *wire.EndpointIPAM) (err error) {
	if asked == nil {
		asked = &wire.EndpointIPAM{}
	}
	defer func() {
		if err != nil {
			for _, a := range ep.Addresses {
				e.space.Release(a.Addr())
			}
			ep.Addresses = nil
		}
	}()
	for _, family := range []struct {
		on, v6 bool
		asked  string
	}{{e.IPv4, false, asked.IPv4Address}, {e.IPv6, true, asked.IPv6Address}} {
		var p netip.Prefix
		switch {
		case family.asked != "":
			a, err := netip.ParseAddr(family.asked)
			if err != nil || a.Is6() != family.v6 || a.Zone() != "" {
				return fault.New(fault.Invalid, "invalid IPv%d address: %s", map[bool]int{false: 4, true: 6}[family.v6], shortened(family.asked))
			}
			if p, err = e.space.Reserve(a); err != nil {
				return err
			}
		case family.on:
			if p, err = e.space.Take(family.v6); err != nil {
				return err
			}
		default:
			continue
		}
		ep.Addresses = append(ep.Addresses, p)
	}
	return nil
}

// interfaceOption is Docker's option of an endpoint for the name of its interface.
const interfaceOption = "com.docker.network.endpoint.ifname"

// identify gives the endpoint its hardware address and the name of its interface.
func identify(ep *member, e *entry, sb *sandbox, asked wire.EndpointSettings) error {
	if asked.MacAddress != "" {
		mac, err := net.ParseMAC(asked.MacAddress)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return &fault.Field{Field: "mac-address", Given: shortened(asked.MacAddress), Expected: "a unicast address such as 02:42:ac:11:00:02"}
		}
		ep.MAC = mac.String()
	} else {
		mac := ipam.MAC(ep.Addresses[0].Addr())
		ep.MAC = net.HardwareAddr(mac[:]).String()
	}
	used := func(name string) bool {
		return slices.ContainsFunc(sb.Endpoints, func(o member) bool { return o.Interface == name })
	}
	if name := asked.DriverOpts[interfaceOption]; name != "" {
		const longest = 15 // IFNAMSIZ without its final zero, netdevice(7)
		if len(name) > longest || name == "." || name == ".." || name == "lo" || strings.ContainsAny(name, "/: \t\n") || used(name) {
			return &fault.Field{Field: interfaceOption, Given: shortened(name), Expected: "a name of at most 15 letters that no other interface of the container has"}
		}
		ep.Interface = name
		return nil
	}
	prefix := or(e.InterfacePrefix, "eth")
	for i := 0; ; i++ {
		if name := prefix + strconv.Itoa(i); !used(name) {
			ep.Interface = name
			return nil
		}
	}
}

// release gives an endpoint's addresses back. The caller holds mu.
func (m *Manager) release(ep member) {
	if e := m.entries[ep.NetworkID]; e != nil {
		for _, a := range ep.Addresses {
			e.space.Release(a.Addr())
		}
	}
}
