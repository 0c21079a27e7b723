package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/network/dns"
	"github.com/sampan-project/sampan/core/network/ipam"
	"github.com/sampan-project/sampan/core/wire"
)

// JoinRequest says how a container that is about to start wants to be connected.
type JoinRequest struct {
	ContainerID   string
	ContainerName string // without the slash
	Hostname      string
	Domainname    string
	Mode          string                            // bridge or default, none, host, container:ID (a full ID), or a network's name or ID
	Endpoints     map[string]*wire.EndpointSettings // by network; empty: the one that Mode names
	Ports         map[string][]wire.PortBinding     // "80/tcp"
	ExposedPorts  map[string]struct{}
	PublishAll    bool
	DNS           []string
	DNSSearch     []string
	DNSOptions    []string
	ExtraHosts    []string // name:address
}

// Sandbox is a container's network as Join made it.
type Sandbox struct {
	NetNS *os.File // nil for host; the caller closes it when the monitor has it
	// Hold are the sockets that reserve the published ports: they go to the monitor, and the
	// caller closes its own.
	Hold       []*os.File
	Settings   wire.NetworkSettings
	ResolvConf []byte // contents for /etc/resolv.conf and /etc/hosts of the container
	Hosts      []byte
}

// maxEndpoints bounds how many networks a container may be in.
const maxEndpoints = 128

// wish is a network that a container wants to be in.
type wish struct {
	ref   string
	asked wire.EndpointSettings
}

// Join connects a container that is about to start. On an error nothing is left. When a driver
// could not take back what it made, the row stays and the next Reconcile does.
func (m *Manager) Join(ctx context.Context, r JoinRequest) (_ *Sandbox, err error) {
	if err := m.settle(ctx, r.ContainerID); err != nil {
		return nil, err
	}
	if other, ok := strings.CutPrefix(r.Mode, "container:"); ok {
		return m.share(r, other)
	}
	sb := &sandbox{record: newRecord(r)}
	sb.op.Lock()
	defer sb.op.Unlock()
	var hold []*os.File
	defer func() {
		if err != nil {
			closeAll(hold)
			err = errors.Join(err, m.abandon(ctx, sb))
		}
	}()
	if sb.Host = r.Mode == hostName; !sb.Host {
		if sb.ns, err = m.pool.Take(); err != nil {
			return nil, err
		}
	}
	if err := m.admitRetrying(ctx, sb, m.wishes(r)); err != nil {
		return nil, err
	}
	if hold, err = m.publish(ctx, sb, r); err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.assign(sb)
	m.needResolver(sb)
	rec := sb.snapshot()
	m.mu.Unlock()
	hosts, err := m.hosts(rec)
	if err != nil {
		return nil, err
	}
	if err := m.sandboxes.Put(rec.ID, rec); err != nil {
		return nil, err
	}
	if err := m.bringUp(ctx, sb, rec); err != nil {
		return nil, err
	}
	joined := &Sandbox{Hold: hold, Hosts: hosts, ResolvConf: m.resolvConf(rec), Settings: m.Settings(rec.ContainerID)}
	if sb.ns != nil {
		if joined.NetNS, err = duplicate(sb.ns); err != nil {
			return nil, err
		}
	}
	for _, ep := range rec.Endpoints {
		m.tell("connect", rec.ContainerID, ep)
	}
	return joined, nil
}

// wishes are the networks of a request, the one that Mode names first.
func (m *Manager) wishes(r JoinRequest) []wish {
	mode := m.key(r)
	switch mode {
	case hostName, noneName:
		w := wish{ref: mode}
		if asked := r.Endpoints[mode]; asked != nil {
			w.asked = *asked
		}
		return []wish{w}
	}
	var list []wish
	add := func(ref string, asked *wire.EndpointSettings) {
		w := wish{ref: ref}
		if asked != nil {
			w.asked = *asked
		}
		list = append(list, w)
	}
	_, named := r.Endpoints[mode]
	isDefault := mode == "default" || mode == bridgeName
	// As in Docker: a list of networks replaces the default one.
	if named || !isDefault || len(r.Endpoints) == 0 {
		add(mode, r.Endpoints[mode])
	}
	for _, ref := range slices.Sorted(maps.Keys(r.Endpoints)) {
		if ref != mode {
			add(ref, r.Endpoints[ref])
		}
	}
	return list
}

// key returns the mode as the key that the endpoints have for it: clients mix names and IDs.
func (m *Manager) key(r JoinRequest) string {
	mode := or(r.Mode, "default")
	if _, ok := r.Endpoints[mode]; ok || len(r.Endpoints) == 0 {
		return mode
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	wanted, err := m.find(mode)
	if err != nil {
		return mode
	}
	for ref := range r.Endpoints {
		if e, err := m.find(ref); err == nil && e == wanted {
			return ref
		}
	}
	return mode
}

// settle waits until nothing is left of an earlier life of the container.
func (m *Manager) settle(ctx context.Context, containerID string) error {
	for {
		m.mu.RLock()
		joined, leaving := m.joined[containerID], m.leaving[containerID]
		m.mu.RUnlock()
		switch {
		case leaving != nil:
			select {
			case <-leaving.gone:
			case <-ctx.Done():
				return ctx.Err()
			}
		case joined != nil:
			if err := m.Leave(ctx, containerID); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// drain waits for the leaves that are under way and reports whether there were any: an address or
// port that seems to be taken may be one of theirs.
func (m *Manager) drain(ctx context.Context) bool {
	m.mu.RLock()
	var waits []<-chan struct{}
	for _, sb := range m.leaving {
		waits = append(waits, sb.gone)
	}
	m.mu.RUnlock()
	for _, wait := range waits {
		select {
		case <-wait:
		case <-ctx.Done():
			return false
		}
	}
	return len(waits) > 0
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
func (m *Manager) place(sb *sandbox, e *entry, asked wire.EndpointSettings) (member, error) {
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
	case asked.IPAMConfig != nil && len(asked.IPAMConfig.LinkLocalIPs) > 0:
		return fault.New(fault.NotImplemented, "link-local addresses of an endpoint are not supported")
	case len(asked.Links) > 0:
		return fault.New(fault.NotImplemented, "links are not supported: containers on a network of your own know each other by name")
	case static && e.Default:
		return fault.New(fault.Invalid, "user specified IP address is supported on user defined networks only")
	case static && !slices.ContainsFunc(e.Subnets, func(s Subnet) bool { return s.Asked }):
		return fault.New(fault.Invalid, "user specified IP address is supported only when connecting to networks with user configured subnets")
	case len(asked.Aliases) > 0 && e.Default:
		return fault.New(fault.Invalid, "network-scoped alias is supported only for containers in user defined networks")
	}
	return nil
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

// needResolver notes that the container gets a name server of ours: on networks that users made, for
// the names there; elsewhere when all resolvers of the host are on its loopback interface, where
// the container does not reach them. The caller holds mu.
func (m *Manager) needResolver(sb *sandbox) {
	connected := false
	for _, ep := range sb.Endpoints {
		if len(ep.Addresses) == 0 {
			continue
		}
		connected = true
		if !ep.Default {
			sb.Resolver = true
		}
	}
	if connected && !sb.Resolver && len(m.askedServers(sb.record)) == 0 {
		servers := m.hostResolver().servers
		sb.Resolver = len(servers) > 0 && !slices.ContainsFunc(servers, func(a netip.Addr) bool { return !a.IsLoopback() })
	}
}

// bringUp calls the drivers, and starts the name server meanwhile. The caller holds op.
func (m *Manager) bringUp(ctx context.Context, sb *sandbox, rec record) error {
	sb.attached = true
	var steps []func() error
	if rec.Resolver {
		steps = append(steps, func() error { return m.serve(sb, rec) })
	}
	for _, ep := range rec.Endpoints {
		steps = append(steps, func() error { return m.attach(ctx, sb, ep) })
	}
	return parallel(steps)
}

// serve starts the name server in the namespace. The caller holds op.
func (m *Manager) serve(sb *sandbox, rec record) error {
	if sb.server != nil || sb.ns == nil {
		return nil
	}
	s, err := dns.Serve(sb.ns, view{m, rec.ContainerID}, m.log)
	if err != nil {
		return err
	}
	sb.server = s
	return nil
}

// attach calls the driver of one endpoint. The caller holds op.
func (m *Manager) attach(ctx context.Context, sb *sandbox, ep member) error {
	m.mu.RLock()
	e := m.entries[ep.NetworkID]
	var n row
	if e != nil {
		n = e.row
	}
	m.mu.RUnlock()
	if e == nil {
		return fault.New(fault.NotFound, "network %s not found", ep.Network)
	}
	if builtin(n.Driver) {
		return nil
	}
	driver, leave, err := m.enter(ctx, n.Driver)
	if err != nil {
		return err
	}
	defer leave()
	wanted := ep.Endpoint
	wanted.NetNS = sb.path()
	made, err := driver.Attach(ctx, n.forDriver(), wanted)
	if err != nil {
		return fmt.Errorf("failed to set up container networking: network %s: %w", n.Name, err)
	}
	if made.MAC == "" || made.MAC == ep.MAC {
		return nil
	}
	m.mu.Lock()
	for i := range sb.Endpoints {
		if sb.Endpoints[i].ID == ep.ID {
			sb.Endpoints[i].MAC = made.MAC
		}
	}
	rec := sb.snapshot()
	m.mu.Unlock()
	return m.sandboxes.Put(rec.ID, rec)
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

// share lets the container into the namespace of another one.
func (m *Manager) share(r JoinRequest, otherID string) (*Sandbox, error) {
	m.mu.RLock()
	other := m.joined[otherID]
	for range maxEndpoints { // the other may itself be in the namespace of a third
		if other == nil || other.Shares == "" {
			break
		}
		other = m.joined[other.Shares]
	}
	m.mu.RUnlock()
	if other == nil {
		return nil, fault.New(fault.Conflict, "cannot join network of a non running container: %s", shortened(otherID))
	}
	// Waits for a Join of the other that is not done, and keeps a Leave of it from closing the file.
	other.op.Lock()
	defer other.op.Unlock()
	m.mu.Lock()
	rec := other.snapshot()
	alive := m.joined[rec.ContainerID] == other && (other.ns != nil || rec.Host)
	m.mu.Unlock()
	if !alive {
		return nil, fault.New(fault.Conflict, "cannot join network of a non running container: %s", shortened(otherID))
	}
	hosts, err := m.hosts(rec)
	if err != nil {
		return nil, err
	}
	own := newRecord(r)
	own.Shares, own.SandboxID = rec.ContainerID, rec.SandboxID
	if err := m.sandboxes.Put(own.ID, own); err != nil {
		return nil, err
	}
	shared := &Sandbox{Hosts: hosts, ResolvConf: m.resolvConf(rec), Settings: settings(own)}
	if other.ns != nil {
		if shared.NetNS, err = duplicate(other.ns); err != nil {
			return nil, errors.Join(err, m.sandboxes.Delete(own.ID))
		}
	}
	m.mu.Lock()
	m.joined[own.ContainerID] = &sandbox{record: own}
	m.mu.Unlock()
	return shared, nil
}

// dnsNames are the names by which an endpoint is found: the container's, its aliases, the short ID
// and the host name, each once.
func dnsNames(rec record, aliases []string) []string {
	var names []string
	for _, n := range append([]string{rec.Name}, append(slices.Clone(aliases), rec.ContainerID[:min(12, len(rec.ContainerID))], rec.Hostname)...) {
		n = strings.ToLower(strings.TrimSuffix(n, "."))
		if n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// tell reports what happened to an endpoint.
func (m *Manager) tell(action, containerID string, ep member) {
	m.mu.RLock()
	kind := ""
	if e := m.entries[ep.NetworkID]; e != nil {
		kind = e.Driver
	}
	m.mu.RUnlock()
	m.o.Events(action, ep.NetworkID, map[string]string{"container": containerID, "name": ep.Network, "type": kind})
}

// parallel runs the steps and returns all their errors. One step runs in the caller's goroutine.
func parallel(steps []func() error) error {
	if len(steps) == 0 {
		return nil
	}
	errs := make(chan error, len(steps))
	for _, step := range steps[1:] {
		go func() { errs <- step() }()
	}
	all := []error{steps[0]()}
	for range steps[1:] {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
