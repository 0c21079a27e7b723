package sdk

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	networkv1 "github.com/sampan-project/sampan/proto/sampan/network/v1"
)

// NetworkDriver makes networks in the kernel. Options is the author's struct of options, see
// [Schema]: when a method is called they are decoded and valid.
//
// Every method may be called again with the same arguments and then changes nothing. After a crash
// anywhere inside, the same call, its counterpart or Reconcile makes things right. Methods are
// called in parallel, with a context that ends at the engine's deadline. The driver keeps nothing:
// what it needs comes with each call, and what it makes it marks with Network.Owner.
type NetworkDriver[Options any] interface {
	// CreateNetwork makes the network, or makes the one that exists so.
	CreateNetwork(ctx context.Context, n Network[Options]) (Created, error)
	// DeleteNetwork removes it, or finds that it is not there.
	DeleteNetwork(ctx context.Context, n Network[Options]) error
	// Attach puts an interface into the endpoint's namespace, with addresses, routes and ports. IPv6 is off there for
	// interfaces that come (net.ipv6.conf.default.disable_ipv6 is 1, as in Docker's sandbox): a driver that gives an
	// interface an IPv6 address first writes 0 to net.ipv6.conf.INTERFACE.disable_ipv6 in the namespace, or the kernel
	// refuses the address (EACCES).
	Attach(ctx context.Context, n Network[Options], e Endpoint) (Attachment, error)
	// Detach takes it away, also when the namespace is gone or it was never there.
	Detach(ctx context.Context, n Network[Options], e Endpoint) error
	// Reconcile makes all of these so and removes whatever else has the owner's mark.
	Reconcile(ctx context.Context, owner string, networks []Network[Options], endpoints []Endpoint) error
	// Health says why the driver cannot work, if it cannot.
	Health(ctx context.Context) error
}

// Network is one network. Its values have been checked: the ID is hexadecimal, a gateway is in its
// subnet.
type Network[Options any] struct {
	ID       string // 64 hexadecimal digits
	Name     string
	Owner    string // 12 hexadecimal digits: the engine
	IPv4     bool
	IPv6     bool
	Internal bool
	Subnets  []Subnet
	Labels   map[string]string
	Options  Options
}

// Subnet is one range of addresses; Gateway is the host's address in it, or invalid for none.
type Subnet struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
}

// Endpoint is a container's place in a network.
type Endpoint struct {
	ID          string // 64 hexadecimal digits
	NetworkID   string
	ContainerID string
	NetNS       string // path of the namespace; "" when it is gone
	Interface   string // name inside of it
	MAC         net.HardwareAddr
	Addresses   []netip.Prefix // with the length of the subnet
	Gateways    []netip.Addr   // of the default routes; none: no default route by this endpoint
	Ports       []Port
	Options     map[string]string
}

// Port is a published port. The engine has bound it on the host already. With HostPort 0 it is none of the
// host's: packets for the container's own address and port are let in (gateway mode "routed").
type Port struct {
	Protocol      string // tcp, udp or sctp
	HostAddress   netip.Addr
	HostPort      uint16
	ContainerPort uint16
}

// Created is what a driver says of a network it made.
type Created struct {
	PublishAddress  netip.Addr // where ports are published when the user gives no address; invalid: everywhere
	InterfacePrefix string     // "" is eth
}

// Attachment is what a driver says of an endpoint it made.
type Attachment struct {
	HostInterface string
	MAC           net.HardwareAddr
}

// Limits on what the engine sends, so that a mistake there does not become a flood here.
const (
	maxPorts     = 1 << 16
	maxAddresses = 64
)

func parseNetwork[O any](p *networkv1.Network, s *Schema) (Network[O], map[string]string, error) {
	n := Network[O]{
		ID: p.GetId(), Name: p.GetName(), Owner: p.GetOwner(), IPv4: p.GetIpv4(), IPv6: p.GetIpv6(),
		Internal: p.GetInternal(), Labels: p.GetLabels(),
	}
	if err := checkHex("network id", n.ID, 64); err != nil {
		return n, nil, err
	}
	if err := checkHex("owner", n.Owner, 12); err != nil {
		return n, nil, err
	}
	if len(p.GetSubnets()) > maxAddresses {
		return n, nil, &FieldError{Field: "subnets", Given: fmt.Sprint(len(p.GetSubnets())), Expected: fmt.Sprintf("at most %d", maxAddresses)}
	}
	for _, sub := range p.GetSubnets() {
		parsed, err := parseSubnet(sub)
		if err != nil {
			return n, nil, err
		}
		n.Subnets = append(n.Subnets, parsed)
	}
	settings, err := s.Decode(p.GetOptions(), &n.Options)
	return n, settings, err
}

// parseOldNetwork is for what takes away: a network that was made by another version of the driver
// may have options that this one does not know, and must be removable all the same.
func parseOldNetwork[O any](p *networkv1.Network, s *Schema) (Network[O], error) {
	n, _, err := parseNetwork[O](p, s)
	var field *FieldError
	if !errors.As(err, &field) || checkHex("", n.ID, 64) != nil || checkHex("", n.Owner, 12) != nil {
		return n, err
	}
	s.decodeKnown(p.GetOptions(), &n.Options)
	return n, nil
}

func parseSubnet(p *networkv1.Subnet) (Subnet, error) {
	prefix, err := netip.ParsePrefix(p.GetPrefix())
	if err != nil {
		return Subnet{}, &FieldError{Field: "subnet", Given: p.GetPrefix(), Expected: "a prefix such as 172.18.0.0/16"}
	}
	s := Subnet{Prefix: prefix.Masked()}
	if p.GetGateway() == "" {
		return s, nil
	}
	s.Gateway, err = netip.ParseAddr(p.GetGateway())
	if err != nil || !s.Prefix.Contains(s.Gateway) {
		return Subnet{}, &FieldError{Field: "gateway", Given: p.GetGateway(), Expected: "an address in " + s.Prefix.String()}
	}
	return s, nil
}

func parseEndpoint(p *networkv1.Endpoint) (Endpoint, error) {
	e := Endpoint{
		ID: p.GetId(), NetworkID: p.GetNetworkId(), ContainerID: p.GetContainerId(),
		NetNS: p.GetNetns(), Interface: p.GetInterface(), Options: p.GetOptions(),
	}
	if err := checkHex("endpoint id", e.ID, 64); err != nil {
		return e, err
	}
	// The kernel's limit, IFNAMSIZ, and the characters that it refuses.
	if len(e.Interface) > 15 || e.Interface == "." || e.Interface == ".." || containsAny(e.Interface, "/: \t\n") {
		return e, &FieldError{Field: "interface", Given: e.Interface, Expected: "a name of at most 15 letters without / : or space"}
	}
	if len(p.GetPorts()) > maxPorts || len(p.GetAddresses()) > maxAddresses || len(p.GetGateways()) > maxAddresses {
		return e, &FieldError{Field: "endpoint", Given: e.ID[:12], Expected: fmt.Sprintf("at most %d ports and %d addresses", maxPorts, maxAddresses)}
	}
	var err error
	if p.GetMac() != "" {
		if e.MAC, err = net.ParseMAC(p.GetMac()); err != nil || len(e.MAC) != 6 {
			return e, &FieldError{Field: "mac", Given: p.GetMac(), Expected: "six bytes such as 02:42:ac:12:00:02"}
		}
	}
	for _, a := range p.GetAddresses() {
		prefix, err := netip.ParsePrefix(a)
		if err != nil {
			return e, &FieldError{Field: "address", Given: a, Expected: "an address with prefix length such as 172.18.0.2/16"}
		}
		e.Addresses = append(e.Addresses, prefix)
	}
	for _, g := range p.GetGateways() {
		a, err := netip.ParseAddr(g)
		if err != nil {
			return e, &FieldError{Field: "gateway", Given: g, Expected: "an IP address"}
		}
		e.Gateways = append(e.Gateways, a)
	}
	for _, port := range p.GetPorts() {
		parsed, err := parsePort(port)
		if err != nil {
			return e, err
		}
		e.Ports = append(e.Ports, parsed)
	}
	return e, nil
}

func parsePort(p *networkv1.Port) (Port, error) {
	out := Port{Protocol: p.GetProtocol(), HostPort: uint16(p.GetHostPort()), ContainerPort: uint16(p.GetContainerPort())}
	switch out.Protocol {
	case "tcp", "udp", "sctp":
	default:
		return out, &FieldError{Field: "protocol", Given: out.Protocol, Expected: "tcp, udp or sctp"}
	}
	if n := p.GetContainerPort(); n == 0 || n > 65535 {
		return out, &FieldError{Field: "port", Given: fmt.Sprint(n), Expected: "a number from 1 to 65535"}
	}
	if n := p.GetHostPort(); n > 65535 {
		return out, &FieldError{Field: "host port", Given: fmt.Sprint(n), Expected: "a number from 1 to 65535, or 0 for none"}
	}
	var err error
	if out.HostAddress, err = netip.ParseAddr(p.GetHostAddress()); err != nil {
		return out, &FieldError{Field: "host address", Given: p.GetHostAddress(), Expected: "an IP address"}
	}
	return out, nil
}

// checkHex guards what becomes part of names in the kernel.
func checkHex(field, value string, length int) error {
	ok := len(value) == length
	for i := 0; ok && i < len(value); i++ {
		ok = value[i] >= '0' && value[i] <= '9' || value[i] >= 'a' && value[i] <= 'f'
	}
	if ok {
		return nil
	}
	return &FieldError{Field: field, Given: value, Expected: fmt.Sprintf("%d hexadecimal digits in lower case", length)}
}

func containsAny(s, chars string) bool {
	for _, c := range s {
		for _, no := range chars {
			if c == no || c < ' ' {
				return true
			}
		}
	}
	return false
}
