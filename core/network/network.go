// Package network keeps networks and the endpoints by which containers are in them.
//
// The core decides: names, addresses (core/network/ipam), host ports (core/network/port), names on
// the network (core/network/dns), and namespaces (core/network/netns). A Driver does: it makes the
// links, routes and rules in the kernel, in one call each, and is found by name through Drivers.
//
// The life of an endpoint:
//
//	Join       a prepared namespace is taken, addresses and host ports are reserved, the endpoint's
//	           row is written, and then the driver attaches. What the row says is what a crash
//	           between any two of these steps has to take back.
//	           The sandbox that Join returns goes to the monitor: namespace and port sockets.
//	Connect,   further networks of a running container.
//	Disconnect
//	Leave      the container is out at once; in the background the driver detaches, the row goes,
//	           and then the addresses and ports are free.
//	Reconcile  after a start of the daemon: endpoints of containers that live are made so again,
//	           endpoints of the dead are detached, and drivers remove what they do not know.
//
// Networks are rows of the durable database; endpoints are rows of this boot's database, because a
// reboot takes their namespaces away. The networks bridge, host and none always exist; host and
// none have no driver.
package network

import (
	"context"
	"net/netip"
	"time"

	"github.com/sampan-project/sampan/core/wire"
)

// Driver makes networks in the kernel. Every method may be called twice with the same arguments,
// and then changes nothing the second time; after a crash at any point inside, the same call or
// its counterpart makes things right. Methods are called in parallel.
//
// Errors have a class of core/fault; those about an option are a *fault.Field with the option's
// name. What a method that failed has made is removed by DeleteNetwork or Detach, which the
// manager calls.
type Driver interface {
	// Schema describes the options that CreateNetwork takes.
	Schema(ctx context.Context) (wire.Schema, error)
	// CreateNetwork makes the network and answers it with what the driver decided filled in:
	// Settings, PublishAddress, InterfacePrefix.
	CreateNetwork(ctx context.Context, n Network) (Network, error)
	// DeleteNetwork removes the network. One that is not there is no error.
	DeleteNetwork(ctx context.Context, n Network) error
	// Attach puts an interface into the endpoint's namespace with addresses, routes and
	// published ports. Called again with other gateways or ports it changes these.
	Attach(ctx context.Context, n Network, e Endpoint) (Attachment, error)
	// Detach takes the interface and the published ports away. The namespace may be gone.
	Detach(ctx context.Context, n Network, e Endpoint) error
	// Reconcile makes these networks and endpoints so, all of them, and removes everything else
	// that has the owner's mark.
	Reconcile(ctx context.Context, owner string, networks []Network, endpoints []Endpoint) error
}

// Drivers finds drivers. An unknown name is fault.NotFound, and the error names the nearest.
type Drivers interface {
	Network(ctx context.Context, name string) (Driver, error)
	NetworkNames() []string
}

// Restarts is an optional ability of Drivers: fn is called, in a goroutine of its own, when a
// driver's process has been started again after it died, so that the manager can reconcile.
type Restarts interface {
	OnRestart(fn func(driver string))
}

// Network is one network as drivers see it and as it is stored.
type Network struct {
	ID         string            `json:"id"` // 64 hexadecimal digits
	Name       string            `json:"name"`
	Driver     string            `json:"driver"`
	Owner      string            `json:"owner"` // the mark of this daemon on what a driver makes
	Created    time.Time         `json:"created"`
	IPv4       bool              `json:"ipv4"`
	IPv6       bool              `json:"ipv6"`
	Internal   bool              `json:"internal,omitempty"`
	Attachable bool              `json:"attachable,omitempty"`
	Default    bool              `json:"default,omitempty"`    // bridge, host or none
	ConfigOnly bool              `json:"configOnly,omitempty"` // nothing in the kernel: other networks copy it
	ConfigFrom string            `json:"configFrom,omitempty"` // name of the one that this copied
	Subnets    []Subnet          `json:"subnets,omitempty"`
	Options    map[string]string `json:"options,omitempty"` // as given; drivers see them by the names of their schema
	Labels     map[string]string `json:"labels,omitempty"`
	IPAMOption map[string]string `json:"ipamOptions,omitempty"`

	// What the driver answered.
	Settings        map[string]string `json:"settings,omitempty"`        // options with defaults, by schema name
	PublishAddress  netip.Addr        `json:"publishAddress,omitzero"`   // where ports are published when no address is given
	InterfacePrefix string            `json:"interfacePrefix,omitempty"` // "eth"
}

// Subnet is one range of addresses of a network.
type Subnet struct {
	Prefix    netip.Prefix          `json:"prefix"`
	Range     netip.Prefix          `json:"range,omitzero"` // where addresses are taken from, when it is less than Prefix
	Gateway   netip.Addr            `json:"gateway,omitzero"`
	Auxiliary map[string]netip.Addr `json:"auxiliary,omitempty"` // taken by others, never given out
	// Asked says that the user gave this subnet; otherwise it came from the default pools.
	Asked bool `json:"asked,omitempty"`
}

// Endpoint is a container's place in one network.
type Endpoint struct {
	ID          string         `json:"id"` // 64 hexadecimal digits
	NetworkID   string         `json:"networkID"`
	ContainerID string         `json:"containerID"`
	NetNS       string         `json:"-"`         // path of the namespace, "" when it is gone
	Interface   string         `json:"interface"` // its name in the namespace, such as eth0
	MAC         string         `json:"mac"`
	Addresses   []netip.Prefix `json:"addresses"`
	// LinkLocal are further addresses, not of the network's subnets. Drivers see them among Addresses.
	LinkLocal []netip.Prefix `json:"linkLocal,omitempty"`
	// Gateways are those through which the default routes go; empty when another endpoint of the
	// container has them, or on an internal network.
	Gateways []netip.Addr      `json:"gateways,omitempty"`
	Ports    []Port            `json:"ports,omitempty"`
	Options  map[string]string `json:"options,omitempty"`
}

// Port is one published port. Its socket on the host is bound already when a driver sees it. With HostPort
// 0 there is none: the network leads packets to the container's own address, and lets those for the port in.
type Port struct {
	Protocol      string     `json:"protocol"` // tcp, udp, sctp
	HostAddress   netip.Addr `json:"hostAddress"`
	HostPort      uint16     `json:"hostPort"`
	ContainerPort uint16     `json:"containerPort"`
}

// Attachment is what a driver says of an endpoint that it made.
type Attachment struct {
	HostInterface string // the host's end, when there is one
	MAC           string
}
