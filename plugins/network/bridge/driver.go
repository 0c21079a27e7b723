package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/plugins/sdk"
)

// driver keeps open sockets and nothing else.
type driver struct {
	host rtnl
	nft  nft
	// One call at a time for each endpoint and each network, by a digit of the ID: an Attach that
	// the engine gave up may still be under way when its Detach comes.
	locks [256]sync.Mutex
	// warned has the warnings that were given, so that each is given once.
	warned sync.Map
}

func newDriver() *driver { return &driver{} }

func (d *driver) lock(id string) *sync.Mutex {
	l := &d.locks[macOf(id)[5]]
	l.Lock()
	return l
}

// CreateNetwork makes the bridge, its addresses, the kernel's settings and the table.
func (d *driver) CreateNetwork(ctx context.Context, n bridgeNetwork) (sdk.Created, error) {
	if err := checkOptions(n); err != nil {
		return sdk.Created{}, err
	}
	defer d.lock(n.ID).Unlock()
	return sdk.Created{PublishAddress: n.Options.HostBinding, InterfacePrefix: n.Options.Prefix}, d.ensureNetwork(ctx, n)
}

func (d *driver) ensureNetwork(ctx context.Context, n bridgeNetwork) error {
	l, err := d.ensureBridge(n)
	if err != nil {
		return err
	}
	// Before the addresses: disable_ipv6 would take them away again.
	if err := setKernel(n); err != nil {
		return err
	}
	if err := d.setBridgeAddresses(n, l); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.setRules(n); err != nil {
		return err
	}
	return d.passForeign(n)
}

// DeleteNetwork removes the table, and the bridge when it is ours.
func (d *driver) DeleteNetwork(_ context.Context, n bridgeNetwork) error {
	defer d.lock(n.ID).Unlock()
	if err := d.dropTable(n.ID); err != nil {
		return err
	}
	if err := d.unpassForeign(networkMark(n)); err != nil {
		return err
	}
	l, err := d.host.linkByName(bridgeName(n))
	if err != nil || l == nil {
		return err
	}
	if m, ok := parseMark(l.alias); !ok || m != networkMark(n) {
		return nil
	}
	return d.host.do(deleteLink(l.name))
}

// Attach makes the veth pair, configures its end in the namespace and publishes the ports.
func (d *driver) Attach(ctx context.Context, n bridgeNetwork, e sdk.Endpoint) (sdk.Attachment, error) {
	defer d.lock(e.ID).Unlock()
	if err := d.attach(ctx, n, e); err != nil {
		return sdk.Attachment{}, err
	}
	return sdk.Attachment{HostInterface: hostInterface(e.ID), MAC: macFor(e)}, nil
}

func (d *driver) attach(ctx context.Context, n bridgeNetwork, e sdk.Endpoint) error {
	bridge, err := d.bridge(n)
	if err != nil {
		return err
	}
	ns, err := openNamespace(e.NetNS)
	if err != nil {
		return err
	}
	defer ns.Close()
	fresh, err := d.pair(n, e, bridge, ns)
	if err != nil {
		return err
	}
	if err := configure(e, ns, fresh); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.publish(n, e, fresh); err != nil {
		return err
	}
	if err := d.passForeign(n); err != nil {
		return err
	}
	return d.host.waitReady(hostInterface(e.ID), bridge.name)
}

// publish gives the endpoint its ports; one that may have had some loses those it should not have.
func (d *driver) publish(n bridgeNetwork, e sdk.Endpoint, fresh bool) error {
	var err error
	if fresh {
		err = d.addPorts(n, e)
	} else {
		err = d.changePorts(n.ID, func(o element) bool { return o.endpoint != e.ID[:12] }, elements(n, e))
	}
	if err == nil {
		forgetUnpublished(e)
	}
	return err
}

// bridge finds the network's bridge, which must be ours or nobody's.
func (d *driver) bridge(n bridgeNetwork) (*link, error) {
	name := bridgeName(n)
	l, err := d.host.linkByName(name)
	if err != nil {
		return nil, err
	}
	if l == nil {
		return nil, sdk.Errorf(sdk.NotFound, "network %s has no bridge %s: it was not created or was taken away", n.Name, name)
	}
	if m, ok := parseMark(l.alias); ok && m != networkMark(n) {
		return nil, sdk.Errorf(sdk.Conflict, "bridge %s belongs to network %s of the engine %s", name, m.id, m.owner)
	}
	return l, nil
}

func openNamespace(path string) (*os.File, error) {
	ns, err := os.Open(path)
	if err != nil {
		return nil, sdk.Errorf(sdk.Invalid, "network namespace: %w", err)
	}
	// A namespace of another kind would give an error much later, or none.
	kind, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		ns.Close()
		return nil, &sdk.FieldError{Field: "netns", Given: path, Expected: "the path of a network namespace"}
	}
	return ns, nil
}

// Detach takes the ports away and then the interface: whoever calls the port in between is refused.
func (d *driver) Detach(_ context.Context, n bridgeNetwork, e sdk.Endpoint) error {
	defer d.lock(e.ID).Unlock()
	if err := d.dropPorts(n, e); err != nil {
		return err
	}
	l, err := d.host.linkByName(hostInterface(e.ID))
	if err != nil {
		return err
	}
	if l != nil {
		if m, ok := parseMark(l.alias); ok && m != endpointMark(n, e) {
			return sdk.Errorf(sdk.Conflict, "interface %s has the mark %q: it is another's", l.name, l.alias)
		}
		if err := d.host.do(deleteLink(l.name)); err != nil {
			return err
		}
	}
	d.forgetEndpoint(n, e)
	return nil
}

// Health makes sure of what the driver cannot do without.
func (d *driver) Health(context.Context) error {
	if _, err := d.host.linkByName("lo"); err != nil {
		return fmt.Errorf("rtnetlink: %w", err)
	}
	err := d.nft.check()
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("nf_tables: %w: the driver needs CAP_NET_ADMIN", err)
	case err != nil:
		return fmt.Errorf("nf_tables: %w: the kernel needs CONFIG_NF_TABLES", err)
	}
	return nil
}
