package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// validName is what Docker accepts as a name.
var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

const maxName = 255

// Create makes a network.
func (m *Manager) Create(ctx context.Context, r wire.NetworkCreateRequest) (wire.NetworkCreateResponse, error) {
	var none wire.NetworkCreateResponse
	if err := validate(r); err != nil {
		return none, err
	}
	asked, err := parseSubnets(r.IPAM)
	if err != nil {
		return none, err
	}
	if r.ConfigOnly {
		return m.createConfig(r, asked)
	}
	n := row{Network: Network{
		ID: newID(), Name: r.Name, Driver: or(r.Driver, m.o.DefaultDriver), Owner: m.owner, Created: time.Now().UTC(),
		IPv4: r.EnableIPv4 == nil || *r.EnableIPv4, IPv6: wantsIPv6(r.EnableIPv6, asked),
		Internal: r.Internal, Attachable: r.Attachable,
		Options: maps.Clone(r.Options), Labels: maps.Clone(r.Labels),
	}}
	if r.IPAM != nil {
		n.IPAMOption = maps.Clone(r.IPAM.Options)
	}
	if r.ConfigFrom != nil && r.ConfigFrom.Network != "" {
		if asked, err = m.copyConfig(&n.Network, r.ConfigFrom.Network); err != nil {
			return none, err
		}
	}
	if !n.IPv4 && !n.IPv6 {
		return none, fault.New(fault.Invalid, "IPv4 or IPv6 must be enabled")
	}
	driver, leave, err := m.enter(ctx, n.Driver)
	if err != nil {
		return none, err
	}
	defer leave()
	schema, err := driver.Schema(ctx)
	if err != nil {
		return none, fmt.Errorf("network driver %s: %w", n.Driver, err)
	}
	n.Options = withDefaults(schema, n.Options, m.o.NetworkOption[n.Driver])
	if n.DriverOptions, err = driverOptions(schema, n.Options, "driver option"); err != nil {
		return none, err
	}

	m.creating.Lock()
	defer m.creating.Unlock()
	m.mu.RLock()
	exists := m.named(n.Name) != nil
	lost := n.ConfigFrom != "" && (m.named(n.ConfigFrom) == nil || !m.named(n.ConfigFrom).ConfigOnly)
	m.mu.RUnlock()
	if lost { // removed meanwhile
		return none, noConfig(n.ConfigFrom)
	}
	if exists {
		return none, fault.New(fault.Conflict, "network with name %s already exists", n.Name)
	}
	warning, err := m.plan(&n.Network, asked)
	if err != nil {
		return none, err
	}
	if err := m.commission(ctx, driver, &n); err != nil {
		return none, err
	}
	e := newEntry(n)
	e.made = true
	m.mu.Lock()
	m.entries[n.ID] = e
	m.mu.Unlock()
	m.o.Events("create", n.ID, map[string]string{"name": n.Name, "type": n.Driver})
	return wire.NetworkCreateResponse{ID: n.ID, Warning: warning}, nil
}

// commission lets the driver make a network and writes its row. A crash between the two leaves a
// network that no row knows: Reconcile of the driver removes it.
func (m *Manager) commission(ctx context.Context, driver Driver, n *row) error {
	err := create(ctx, driver, n)
	if err == nil {
		err = m.networks.Put(n.ID, *n)
	}
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if e := driver.DeleteNetwork(undo, n.forDriver()); e != nil {
			err = errors.Join(err, fmt.Errorf("remove what was made of network %s: %w", n.Name, e))
			m.again(n.Driver)
		}
		return err
	}
	return nil
}

// create calls the driver and takes over what it decided.
func create(ctx context.Context, driver Driver, n *row) error {
	answer, err := driver.CreateNetwork(ctx, n.forDriver())
	if err != nil {
		return err
	}
	n.Settings, n.PublishAddress, n.InterfacePrefix = answer.Settings, answer.PublishAddress, answer.InterfacePrefix
	n.Known = true
	return nil
}

// validate checks what needs no driver.
func validate(r wire.NetworkCreateRequest) error {
	switch {
	case r.Name == "":
		return fault.New(fault.Invalid, "invalid network name: name is empty")
	case !validName.MatchString(r.Name) || len(r.Name) > maxName:
		return fault.New(fault.Invalid, "invalid network name %q: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, and at most %d of them", shortened(r.Name), maxName)
	case slices.Contains([]string{bridgeName, hostName, noneName, "default", "container"}, r.Name):
		return fault.New(fault.Forbidden, "operation is not permitted on predefined %s network", r.Name)
	case builtin(r.Driver):
		return fault.New(fault.Forbidden, "only one instance of %q network is allowed", r.Driver)
	case r.Scope == "swarm":
		return fault.New(fault.Forbidden, "cannot create a swarm scoped network when swarm is not active")
	case r.Ingress:
		return fault.New(fault.Forbidden, "Ingress network can only be global scope network")
	case r.Driver == "overlay":
		return fault.New(fault.Forbidden, `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)
	case r.Scope != "" && r.Scope != "local":
		return &fault.Field{Field: "scope", Given: shortened(r.Scope), Expected: "local"}
	}
	return validateConfig(r)
}

// wantsIPv6: a subnet of the family says so as well, unless it was switched off.
func wantsIPv6(given *bool, asked []Subnet) bool {
	if given != nil {
		return *given
	}
	return slices.ContainsFunc(asked, func(s Subnet) bool { return s.Prefix.IsValid() && s.Prefix.Addr().Is6() })
}

// ensure lets the driver make a network that it has not made since this daemon started, as when the
// driver was not there at the daemon's start.
func (m *Manager) ensure(ctx context.Context, ref string) error {
	m.mu.RLock()
	e, err := m.find(ref)
	done := err == nil && (e.made || builtin(e.Driver))
	m.mu.RUnlock()
	if err != nil || done {
		return err
	}
	driver, leave, err := m.enter(ctx, e.Driver)
	if err != nil {
		return err
	}
	defer leave()
	return m.make(ctx, driver, e)
}

// make lets the driver make a network that has a row. The caller has passed the driver's gate.
func (m *Manager) make(ctx context.Context, driver Driver, e *entry) error {
	e.making.Lock()
	defer e.making.Unlock()
	m.mu.RLock()
	n, made := e.row, e.made
	m.mu.RUnlock()
	if made {
		return nil
	}
	if n.Default && n.DriverOptions == nil {
		schema, err := driver.Schema(ctx)
		if err != nil {
			return fmt.Errorf("network driver %s: %w", n.Driver, err)
		}
		if n.DriverOptions, err = defaultOptions(schema, n.Options); err != nil {
			return err
		}
	}
	before := n
	if err := create(ctx, driver, &n); err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	if !before.Known || !maps.Equal(before.Settings, n.Settings) || before.PublishAddress != n.PublishAddress || before.InterfacePrefix != n.InterfacePrefix {
		if err := m.networks.Put(n.ID, n); err != nil {
			return err
		}
	}
	m.mu.Lock()
	e.row, e.made = n, true
	m.mu.Unlock()
	return nil
}
