package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/network/dns"
	"github.com/sampan-project/sampan/core/network/netns"
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
	UserNS        *os.File // the container's user namespace, to which its network namespace belongs; nil: the host's
}

// Sandbox is a container's network as Join made it.
type Sandbox struct {
	NetNS *os.File // nil for host; the caller closes it when the monitor has it
	// Hold are the sockets that reserve the published ports: they go to the monitor, and the
	// caller closes its own.
	Hold []*os.File
	// Forward is, for each of Hold, whither the monitor carries what reaches the socket itself, as no
	// rule of the kernel does: the zero is nowhere. It changes with the networks of the container.
	Forward    []netip.AddrPort
	Settings   wire.NetworkSettings
	ResolvConf []byte // contents for /etc/resolv.conf and /etc/hosts of the container
	Hosts      []byte
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
		if r.UserNS != nil {
			sb.ns, err = netns.CreateIn(r.UserNS)
		} else {
			sb.ns, err = m.pool.Take()
		}
		if err != nil {
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
	joined := &Sandbox{Hold: hold, Forward: forwards(rec), Hosts: hosts, ResolvConf: m.resolvConf(rec), Settings: m.Settings(rec.ContainerID)}
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
			if err := leaving.leave.wait(ctx); err != nil {
				return err
			}
		case joined != nil:
			if err := m.Leave(ctx, containerID); err != nil {
				return err
			}
		default:
			m.inter(ctx, containerID)
			return nil
		}
	}
}

// drain waits for the leaves that are under way and reports whether there were any: an address or
// port that seems to be taken may be one of theirs.
func (m *Manager) drain(ctx context.Context) bool {
	m.mu.RLock()
	var leaves []*departure
	for _, sb := range m.leaving {
		leaves = append(leaves, sb.leave)
	}
	m.mu.RUnlock()
	for _, l := range leaves {
		if l.wait(ctx) != nil {
			return false
		}
	}
	return len(leaves) > 0
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
	n := m.networkOf(ep)
	if n == nil {
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
	made, err := driver.Attach(ctx, n.forDriver(), ep.forDriver(sb.path()))
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
