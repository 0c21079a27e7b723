package driver

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/grpc"

	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/network"
	"github.com/sampan-project/sampan/core/plugin"
	"github.com/sampan-project/sampan/core/wire"
	networkv1 "github.com/sampan-project/sampan/proto/sampan/network/v1"
)

const networkKind = "network"

// Network returns the network driver of a name. Its plugin is not started before the first call.
func (s *Set) Network(_ context.Context, name string) (network.Driver, error) {
	p, err := s.host.Plugin(networkKind, name)
	if err != nil {
		return nil, err
	}
	return &networkDriver{p}, nil
}

// NetworkNames returns the sorted names of the network drivers.
func (s *Set) NetworkNames() []string { return s.host.Names(networkKind) }

// OnRestart has fn called when a network driver runs again after it ended.
func (s *Set) OnRestart(fn func(driver string)) {
	s.host.OnRestart(func(kind, name string) {
		if kind == networkKind {
			fn(name)
		}
	})
}

// networkDriver is a network.Driver on the other side of a connection.
type networkDriver struct{ plugin *plugin.Plugin }

// Deadlines. An Attach takes a few milliseconds; what is allowed here is a machine in trouble.
const (
	endpointTimeout  = 20 * time.Second
	networkTimeout   = 20 * time.Second
	reconcileTimeout = 2 * time.Minute
)

func (d *networkDriver) call(ctx context.Context, what string, timeout time.Duration, fn func(context.Context, networkv1.NetworkDriverClient) error) error {
	crash.Point("driver before", what)
	defer crash.Point("driver after", what)
	return d.plugin.Call(ctx, what, timeout, func(ctx context.Context, c grpc.ClientConnInterface) error {
		return fn(ctx, networkv1.NewNetworkDriverClient(c))
	})
}

// Schema describes the options that CreateNetwork takes.
func (d *networkDriver) Schema(ctx context.Context) (wire.Schema, error) {
	described, err := d.plugin.Describe(ctx)
	if err != nil {
		return wire.Schema{}, err
	}
	return schema(described), nil
}

// CreateNetwork makes the network.
func (d *networkDriver) CreateNetwork(ctx context.Context, n network.Network) (network.Network, error) {
	err := d.call(ctx, "CreateNetwork", networkTimeout, func(ctx context.Context, c networkv1.NetworkDriverClient) error {
		r, err := c.CreateNetwork(ctx, &networkv1.CreateNetworkRequest{Network: toNetwork(n)})
		if err != nil {
			return err
		}
		n.Settings, n.InterfacePrefix, n.PublishAddress = r.GetSettings(), r.GetInterfacePrefix(), netip.Addr{}
		if a := r.GetPublishAddress(); a != "" {
			if n.PublishAddress, err = netip.ParseAddr(a); err != nil {
				return fmt.Errorf("%s answered the publish address %q: expected an IP address", d.plugin, a)
			}
		}
		return nil
	})
	return n, err
}

// DeleteNetwork removes the network.
func (d *networkDriver) DeleteNetwork(ctx context.Context, n network.Network) error {
	return d.call(ctx, "DeleteNetwork", networkTimeout, func(ctx context.Context, c networkv1.NetworkDriverClient) error {
		_, err := c.DeleteNetwork(ctx, &networkv1.DeleteNetworkRequest{Network: toNetwork(n)})
		return err
	})
}

// Attach puts an interface into the endpoint's namespace.
func (d *networkDriver) Attach(ctx context.Context, n network.Network, e network.Endpoint) (network.Attachment, error) {
	var a network.Attachment
	err := d.call(ctx, "Attach", endpointTimeout, func(ctx context.Context, c networkv1.NetworkDriverClient) error {
		r, err := c.Attach(ctx, &networkv1.AttachRequest{Network: toNetwork(n), Endpoint: toEndpoint(e)})
		a = network.Attachment{HostInterface: r.GetHostInterface(), MAC: r.GetMac()}
		return err
	})
	return a, err
}

// Detach takes the interface and the published ports away.
func (d *networkDriver) Detach(ctx context.Context, n network.Network, e network.Endpoint) error {
	return d.call(ctx, "Detach", endpointTimeout, func(ctx context.Context, c networkv1.NetworkDriverClient) error {
		_, err := c.Detach(ctx, &networkv1.DetachRequest{Network: toNetwork(n), Endpoint: toEndpoint(e)})
		return err
	})
}

// Reconcile makes these networks and endpoints so, and removes the rest.
func (d *networkDriver) Reconcile(ctx context.Context, owner string, networks []network.Network, endpoints []network.Endpoint) error {
	r := &networkv1.ReconcileRequest{Owner: owner}
	for _, n := range networks {
		r.Networks = append(r.Networks, toNetwork(n))
	}
	for _, e := range endpoints {
		r.Endpoints = append(r.Endpoints, toEndpoint(e))
	}
	return d.call(ctx, "Reconcile", reconcileTimeout, func(ctx context.Context, c networkv1.NetworkDriverClient) error {
		_, err := c.Reconcile(ctx, r)
		return err
	})
}

func toNetwork(n network.Network) *networkv1.Network {
	out := &networkv1.Network{
		Id: n.ID, Name: n.Name, Owner: n.Owner, Ipv4: n.IPv4, Ipv6: n.IPv6, Internal: n.Internal,
		Options: n.Options, Labels: n.Labels,
	}
	for _, s := range n.Subnets {
		p := &networkv1.Subnet{Prefix: s.Prefix.String()}
		if s.Gateway.IsValid() {
			p.Gateway = s.Gateway.String()
		}
		out.Subnets = append(out.Subnets, p)
	}
	return out
}

func toEndpoint(e network.Endpoint) *networkv1.Endpoint {
	out := &networkv1.Endpoint{
		Id: e.ID, NetworkId: e.NetworkID, ContainerId: e.ContainerID, Netns: e.NetNS, Interface: e.Interface,
		Mac: e.MAC, Options: e.Options,
	}
	for _, a := range e.Addresses {
		out.Addresses = append(out.Addresses, a.String())
	}
	for _, g := range e.Gateways {
		out.Gateways = append(out.Gateways, g.String())
	}
	for _, p := range e.Ports {
		out.Ports = append(out.Ports, &networkv1.Port{
			Protocol: p.Protocol, HostAddress: p.HostAddress.String(),
			HostPort: uint32(p.HostPort), ContainerPort: uint32(p.ContainerPort),
		})
	}
	return out
}
