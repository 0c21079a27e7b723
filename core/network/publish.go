package network

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/network/port"
	"github.com/sampan-project/sampan/core/wire"
)

// maxPorts bounds how many ports one container may publish: each is a socket.
const maxPorts = 4096

// publication is one port that a container wants to be published.
type publication struct {
	protocol  string
	container uint16
	hostIP    netip.Addr // zero: wherever the network publishes
	host      port.Range // zero: any free port
}

// publish reserves the host's ports and notes them in the record.
func (m *Manager) publish(ctx context.Context, sb *sandbox, r JoinRequest) (hold []*os.File, err error) {
	wanted, err := publications(r)
	if err != nil || len(wanted) == 0 {
		return nil, err
	}
	m.mu.Lock()
	m.assign(sb)
	out := m.outlets(sb)
	m.mu.Unlock()
	if len(out) == 0 {
		// none, host, or internal networks only: nothing can be published, and Docker says so at
		// the container's creation.
		return nil, nil
	}
	var reserved []Port
	defer func() {
		if err != nil {
			closeAll(hold)
			hold = nil
		}
	}()
	for _, p := range wanted {
		addresses, err := out.choose(p.protocol, p.hostIP)
		if err != nil {
			return hold, err
		}
		var got uint16
		var files []*os.File
		if bound := slices.DeleteFunc(slices.Clone(addresses), out.routed); len(bound) > 0 {
			got, files, err = m.ports.Reserve(p.protocol, bound, p.host, sb.ID)
			if fault.Is(err, fault.Conflict) && m.drain(ctx) {
				got, files, err = m.ports.Reserve(p.protocol, bound, p.host, sb.ID)
			}
		}
		if err != nil {
			return hold, fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w", sb.Name, out[0].endpoint, err)
		}
		hold = append(hold, files...)
		for _, a := range addresses {
			at := Port{Protocol: p.protocol, HostAddress: a, HostPort: got, ContainerPort: p.container}
			if out.routed(a) {
				at.HostPort = 0
			}
			reserved = append(reserved, at)
		}
	}
	m.mu.Lock()
	sb.Ports = reserved
	m.mu.Unlock()
	return hold, nil
}

// outlet is an endpoint that packets from outside reach, for one address family.
type outlet struct {
	endpoint string
	v6       bool
	routed   bool       // by the container's own address: no port of the host is taken
	publish  netip.Addr // the network's own address to publish on, or zero
}

// The gateway modes of a network, by the name that the bridge driver and Docker's have for the option.
const (
	modeRouted   = "routed"
	modeIsolated = "isolated"
)

// mode is how packets of a family leave and reach the network; a driver that has no such option says nothing.
func mode(n Network, v6 bool) string {
	name := map[bool]string{false: "gateway_mode_ipv4", true: "gateway_mode_ipv6"}[v6]
	return cmp.Or(n.Settings[name], n.Options["com.docker.network.bridge."+name], n.Options[name])
}

// routed reports whether ports on the address are those of the container itself.
func (list outlets) routed(a netip.Addr) bool {
	return slices.ContainsFunc(list, func(o outlet) bool { return o.routed && o.v6 == a.Is6() })
}

type outlets []outlet

// outlets are where assign put the gateways. The caller holds mu.
func (m *Manager) outlets(sb *sandbox) (list outlets) {
	for _, v6 := range []bool{false, true} {
		for _, ep := range sb.Endpoints {
			if slices.ContainsFunc(ep.Gateways, func(a netip.Addr) bool { return a.Is6() == v6 }) {
				e := m.entries[ep.NetworkID]
				list = append(list, outlet{ep.ID, v6, mode(e.Network, v6) == modeRouted, e.PublishAddress})
			}
		}
	}
	return list
}

// choose returns the host's addresses for a publication: the one that was given, that of the
// network, or all of the families that lead to the container. From IPv6 that is every container: the
// monitor forwards what the kernel cannot translate.
func (list outlets) choose(protocol string, given netip.Addr) ([]netip.Addr, error) {
	forwarded := protocol != "sctp" && !slices.ContainsFunc(list, func(o outlet) bool { return o.v6 })
	if given.IsValid() {
		for _, o := range list {
			if o.v6 == given.Is6() || given.Is6() && forwarded {
				return []netip.Addr{given}, nil
			}
		}
		return nil, fault.New(fault.Invalid, "cannot publish on %s: the container has no IPv%d address that is reached from outside", given, map[bool]int{false: 4, true: 6}[given.Is6()])
	}
	var addresses []netip.Addr
	for _, o := range list {
		switch {
		case !o.publish.IsValid() || o.publish == netip.IPv4Unspecified():
			addresses = append(addresses, map[bool]netip.Addr{false: netip.IPv4Unspecified(), true: netip.IPv6Unspecified()}[o.v6])
			if forwarded && !o.routed && port.HostHasIPv6() {
				addresses = append(addresses, netip.IPv6Unspecified())
			}
		case o.publish.Is6() == o.v6:
			addresses = append(addresses, o.publish)
		}
	}
	if len(addresses) == 0 {
		return nil, fault.New(fault.Invalid, "cannot publish on %s: the container has no address of its family", list[0].publish)
	}
	return addresses, nil
}

// forwards are, for each of the record's ports, whither what no rule translates is carried: from an
// IPv6 address of the host to the container's of that family, or else to its IPv4 address.
func forwards(rec record) []netip.AddrPort {
	carried := func(p Port) bool { return p.HostAddress.Is6() && p.HostPort != 0 && p.Protocol != "sctp" }
	if !slices.ContainsFunc(rec.Ports, carried) {
		return nil
	}
	to := reachedAt(rec, true)
	if !to.IsValid() {
		to = reachedAt(rec, false)
	}
	var targets []netip.AddrPort // as long as there are sockets
	for _, p := range rec.Ports {
		switch {
		case p.HostPort == 0:
		case carried(p) && to.IsValid():
			targets = append(targets, netip.AddrPortFrom(to, p.ContainerPort))
		default:
			targets = append(targets, netip.AddrPort{})
		}
	}
	return targets
}

// reachedAt is the container's address behind the family's published ports.
func reachedAt(rec record, v6 bool) netip.Addr {
	of := func(a netip.Addr) bool { return a.Is6() == v6 }
	for _, ep := range rec.Endpoints {
		if !slices.ContainsFunc(ep.Gateways, of) {
			continue
		}
		for _, a := range ep.Addresses {
			if of(a.Addr()) {
				return a.Addr()
			}
		}
	}
	return netip.Addr{}
}

// publications reads the ports of a request: those that name a host port first, so that none of
// these is given to one that takes any.
func publications(r JoinRequest) ([]publication, error) {
	var fixed, free []publication
	for _, spec := range slices.SortedFunc(maps.Keys(r.Ports), byNumber) {
		container, protocol, err := parsePort(spec)
		if err != nil {
			return nil, err
		}
		bindings := r.Ports[spec]
		if len(bindings) == 0 {
			continue
		}
		for _, b := range bindings {
			p := publication{protocol: protocol, container: container}
			if err := p.bind(spec, b); err != nil {
				return nil, err
			}
			if p.host == (port.Range{}) {
				free = append(free, p)
			} else {
				fixed = append(fixed, p)
			}
		}
	}
	if r.PublishAll {
		for _, spec := range slices.SortedFunc(maps.Keys(r.ExposedPorts), byNumber) {
			container, protocol, err := parsePort(spec)
			if err != nil {
				return nil, err
			}
			if len(r.Ports[spec]) == 0 {
				free = append(free, publication{protocol: protocol, container: container})
			}
		}
	}
	all := append(fixed, free...)
	if len(all) > maxPorts {
		return nil, fault.New(fault.Invalid, "a container can publish %d ports at most, not %d", maxPorts, len(all))
	}
	return all, nil
}

// bind reads the host's side of a publication.
func (p *publication) bind(spec string, b wire.PortBinding) (err error) {
	if b.HostIP != "" {
		if p.hostIP, err = netip.ParseAddr(b.HostIP); err != nil || p.hostIP.Zone() != "" {
			return &fault.Field{Field: "host address of port " + spec, Given: shortened(b.HostIP), Expected: "an IP address"}
		}
		p.hostIP = p.hostIP.Unmap()
	}
	if b.HostPort == "" || b.HostPort == "0" {
		return nil
	}
	low, high, isRange := strings.Cut(b.HostPort, "-")
	if !isRange {
		high = low
	}
	first, err1 := strconv.ParseUint(low, 10, 16)
	last, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil || first == 0 || first > last {
		return &fault.Field{Field: "host port of port " + spec, Given: shortened(b.HostPort), Expected: "a number from 1 to 65535, or a range such as 8000-8010"}
	}
	p.host = port.Range{Low: uint16(first), High: uint16(last)}
	return nil
}

// parsePort reads "80/tcp" or "80".
func parsePort(spec string) (number uint16, protocol string, err error) {
	text, protocol, has := strings.Cut(spec, "/")
	if !has {
		protocol = "tcp"
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || !port.Supported(protocol) {
		return 0, "", fault.New(fault.Invalid, "invalid port specification: %q", shortened(spec))
	}
	return uint16(n), protocol, nil
}

// byNumber orders "80/tcp" before "443/tcp".
func byNumber(a, b string) int {
	x, p, _ := parsePort(a)
	y, q, _ := parsePort(b)
	if x != y {
		return int(x) - int(y)
	}
	return strings.Compare(p, q)
}
