package main

import (
	"net/netip"

	"github.com/sampan-project/sampan/plugins/sdk"
)

// options are what a network of this driver takes. The aliases are Docker's names.
type options struct {
	Name        string     `sampan:"name,alias=com.docker.network.bridge.name" doc:"Name of the bridge on the host, br- and 12 digits when it is not given; one that exists already is used and never deleted."`
	MTU         int        `sampan:"mtu,default=1500,min=576,max=65535,alias=com.docker.network.driver.mtu" doc:"Largest packet in bytes."`
	ICC         bool       `sampan:"icc,default=true,alias=com.docker.network.bridge.enable_icc" doc:"Whether the containers of the network reach each other."`
	Masquerade  bool       `sampan:"masquerade,default=true,alias=com.docker.network.bridge.enable_ip_masquerade" doc:"Whether packets that leave the host have its address."`
	HostBinding netip.Addr `sampan:"host_binding,alias=com.docker.network.bridge.host_binding_ipv4" doc:"Address on which ports are published when none is given."`
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
	for field, a := range map[string]netip.Addr{"host_ipv4": o.HostIPv4, "host_binding": o.HostBinding} {
		if a.IsValid() && !a.Is4() {
			return &sdk.FieldError{Field: field, Given: a.String(), Expected: "an IPv4 address"}
		}
	}
	if o.HostIPv6.IsValid() && !o.HostIPv6.Is6() {
		return &sdk.FieldError{Field: "host_ipv6", Given: o.HostIPv6.String(), Expected: "an IPv6 address"}
	}
	if n.IPv6 && o.MTU < 1280 {
		return &sdk.FieldError{Field: "mtu", Given: itoa(o.MTU), Expected: "at least 1280, the least that IPv6 works with"}
	}
	return nil
}
