package main

import (
	"net/netip"
	"strings"

	"github.com/sampan-project/sampan/plugins/sdk"
)

// options are what a network of this driver takes. The aliases are Docker's names.
type options struct {
	Name        string     `sampan:"name,alias=com.docker.network.bridge.name" doc:"Name of the bridge on the host, br- and 12 digits when it is not given; one that exists already is used and never deleted."`
	MTU         int        `sampan:"mtu,default=1500,min=576,max=65535,alias=com.docker.network.driver.mtu" doc:"Largest packet in bytes."`
	ICC         bool       `sampan:"icc,default=true,alias=com.docker.network.bridge.enable_icc" doc:"Whether the containers of the network reach each other."`
	Masquerade  bool       `sampan:"masquerade,default=true,alias=com.docker.network.bridge.enable_ip_masquerade" doc:"Whether packets that leave the host have its address."`
	Gateway4    string     `sampan:"gateway_mode_ipv4,default=nat,enum=nat|nat-unprotected|routed|isolated,alias=com.docker.network.bridge.gateway_mode_ipv4" doc:"How IPv4 packets leave and come in: with the host's address and to published ports (nat), also to every port of a container (nat-unprotected), with the container's own address and to published ports of it (routed); isolated: the host has no address in an internal network."`
	Gateway6    string     `sampan:"gateway_mode_ipv6,default=nat,enum=nat|nat-unprotected|routed|isolated,alias=com.docker.network.bridge.gateway_mode_ipv6" doc:"The same for IPv6."`
	InhibitIPv4 bool       `sampan:"inhibit_ipv4,default=false,alias=com.docker.network.bridge.inhibit_ipv4" doc:"Whether the bridge gets no IPv4 address."`
	Trusted     string     `sampan:"trusted_host_interfaces,alias=com.docker.network.bridge.trusted_host_interfaces" doc:"Interfaces of the host, separated by colons, from which published ports are reached at the containers' own addresses."`
	HostBinding netip.Addr `sampan:"host_binding,alias=com.docker.network.bridge.host_binding_ipv4" doc:"Address on which ports are published when none is given; despite the name also an IPv6 address."`
	HostIPv4    netip.Addr `sampan:"host_ipv4,alias=com.docker.network.host_ipv4" doc:"Source address of IPv4 packets that leave the host, instead of the one that the route gives."`
	HostIPv6    netip.Addr `sampan:"host_ipv6,alias=com.docker.network.host_ipv6" doc:"The same for IPv6."`
	Prefix      string     `sampan:"interface_prefix,default=eth,min=1,max=10,alias=com.docker.network.container_iface_prefix" doc:"What the names of interfaces in containers begin with."`
}

type bridgeNetwork = sdk.Network[options]

// bridgeName is the name of the network's bridge on the host.
func bridgeName(n bridgeNetwork) string {
	if n.Options.Name != "" {
		return n.Options.Name
	}
	return "br-" + n.ID[:12]
}

// hostInterface is the name of the host's end of the endpoint's veth pair: the same each time, so
// that Detach finds it.
func hostInterface(endpointID string) string { return "veth" + endpointID[:11] }

// The gateway modes.
const (
	modeUnprotected = "nat-unprotected"
	modeRouted      = "routed"
	modeIsolated    = "isolated"
)

// mode is the gateway mode of an address family.
func mode(n bridgeNetwork, v4 bool) string {
	if v4 {
		return n.Options.Gateway4
	}
	return n.Options.Gateway6
}

// trusted are the interfaces from which containers are reached at their own addresses.
func trusted(n bridgeNetwork) []string {
	if n.Options.Trusted == "" {
		return nil
	}
	return strings.Split(n.Options.Trusted, ":")
}

func checkOptions(n bridgeNetwork) error {
	o := n.Options
	if len(o.Name) > 15 {
		return &sdk.FieldError{Field: "name", Given: o.Name, Expected: "at most 15 letters"}
	}
	for _, c := range o.Name {
		if c <= ' ' || c == '/' || c == ':' || c > '~' {
			return &sdk.FieldError{Field: "name", Given: o.Name, Expected: "letters, digits, dots and dashes"}
		}
	}
	for field, a := range map[string]netip.Addr{"host_ipv4": o.HostIPv4} {
		if a.IsValid() && !a.Is4() {
			return &sdk.FieldError{Field: field, Given: a.String(), Expected: "an IPv4 address"}
		}
	}
	if o.HostIPv6.IsValid() && !o.HostIPv6.Is6() {
		return &sdk.FieldError{Field: "host_ipv6", Given: o.HostIPv6.String(), Expected: "an IPv6 address"}
	}
	for field, mode := range map[string]string{"gateway_mode_ipv4": o.Gateway4, "gateway_mode_ipv6": o.Gateway6} {
		if mode == modeIsolated && !n.Internal {
			return &sdk.FieldError{Field: field, Given: mode, Expected: "an internal network: isolated can only be used with --internal"}
		}
	}
	for _, name := range trusted(n) {
		if name == "" || len(name) > 15 || strings.ContainsAny(name, "/ \t\n") {
			return &sdk.FieldError{Field: "trusted_host_interfaces", Given: o.Trusted, Expected: "names of interfaces such as eth3:vxlan.1"}
		}
	}
	if n.IPv6 && o.MTU < 1280 {
		return &sdk.FieldError{Field: "mtu", Given: itoa(o.MTU), Expected: "at least 1280, the least that IPv6 works with"}
	}
	return nil
}
