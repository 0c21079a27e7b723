package network

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/network/dns"
	"github.com/sampan-project/sampan/core/wire"
)

// record is a container that joined, as a row of this boot's database. It is written before the
// first driver call and deleted after the last: what it says is what a crash left to be undone.
type record struct {
	ID          string   `json:"id"` // key of the row, and owner of the ports; new with each Join
	ContainerID string   `json:"containerID"`
	SandboxID   string   `json:"sandboxID"` // as inspect shows it; of the other when the namespace is another's
	Name        string   `json:"name"`
	Hostname    string   `json:"hostname,omitempty"`
	Domainname  string   `json:"domainname,omitempty"`
	Shares      string   `json:"shares,omitempty"` // the container whose namespace it is in
	Host        bool     `json:"host,omitempty"`   // in the host's namespace
	Endpoints   []member `json:"endpoints,omitempty"`
	Ports       []Port   `json:"ports,omitempty"`   // reserved on the host
	Exposed     []string `json:"exposed,omitempty"` // "80/tcp"
	DNS         []string `json:"dns,omitempty"`
	DNSSearch   []string `json:"dnsSearch,omitempty"`
	DNSOptions  []string `json:"dnsOptions,omitempty"`
	ExtraHosts  []string `json:"extraHosts,omitempty"`
	// Resolver says that a name server runs in the namespace. It stays when the container is taken
	// off the network that needed it: the container's resolv.conf names it.
	Resolver bool `json:"resolver,omitempty"`
	// Dead says that the container left and a driver could not detach it.
	Dead bool `json:"dead,omitempty"`
}

// member is an endpoint with what the user asked for it.
type member struct {
	Endpoint
	Network  string                `json:"network"` // its name
	Default  bool                  `json:"default,omitempty"`
	Asked    wire.EndpointSettings `json:"asked"`
	Names    []string              `json:"names,omitempty"` // by which others on the network find it, in lower case
	Links    map[string]string     `json:"links,omitempty"` // names that this container alone knows, and whose they are
	Priority int                   `json:"priority,omitempty"`
}

// sandbox is a record in memory, with what is open for it.
type sandbox struct {
	op     sync.Mutex // held by Join, Leave, connect and disconnect of this container
	record            // guarded by Manager.mu

	// Guarded by op.
	ns       *os.File // nil in the host's namespace, another's, or one that is gone
	server   *dns.Server
	attached bool // a driver may have been called

	loaded bool       // of an earlier daemon, until Reconcile says whether it lives; guarded by mu
	leave  *departure // of one in Manager.leaving; guarded by mu
}

// departure is the end of a sandbox in the background.
type departure struct {
	gone  chan struct{} // closed when nothing is left
	hurry chan struct{} // closed when somebody waits for it
	once  sync.Once
}

func newDeparture() *departure {
	return &departure{gone: make(chan struct{}), hurry: make(chan struct{})}
}

// wait waits until nothing is left, and sees to it that it is soon.
func (l *departure) wait(ctx context.Context) error {
	l.once.Do(func() { close(l.hurry) })
	select {
	case <-l.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func newRecord(r JoinRequest) record {
	id := newID()
	rec := record{
		ID: id, ContainerID: r.ContainerID, SandboxID: id, Name: r.ContainerName,
		Hostname: r.Hostname, Domainname: r.Domainname,
		DNS: r.DNS, DNSSearch: r.DNSSearch, DNSOptions: r.DNSOptions, ExtraHosts: r.ExtraHosts,
	}
	for p := range r.ExposedPorts {
		rec.Exposed = append(rec.Exposed, p)
	}
	slices.Sort(rec.Exposed)
	return rec
}

// path is where other processes of the host open the namespace; it is valid as long as ns is open.
func (sb *sandbox) path() string {
	if sb.ns == nil {
		return ""
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), sb.ns.Fd())
}

// shut closes what this process has open for the container.
func (sb *sandbox) shut() {
	if sb.server != nil {
		sb.server.Close()
		sb.server = nil
	}
	if sb.ns != nil {
		sb.ns.Close()
		sb.ns = nil
	}
}

// duplicate returns the file once more, for somebody who closes it.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// assign decides through which endpoints the default routes go and which carry the published ports:
// of those on networks that lead outside the one with the highest priority, then the first by
// network name; for each address family by itself. It returns the endpoints that changed, those
// that lost a gateway first. The caller holds mu.
func (m *Manager) assign(sb *sandbox) (changed []int) {
	order := make([]int, len(sb.Endpoints))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := &sb.Endpoints[a], &sb.Endpoints[b]
		if x.Priority != y.Priority {
			return y.Priority - x.Priority
		}
		return strings.Compare(x.Network, y.Network)
	})
	type role struct {
		gateways []netip.Addr
		ports    []Port
	}
	roles := make([]role, len(sb.Endpoints))
	for _, v6 := range []bool{false, true} {
		for _, i := range order {
			gateway, ok := m.gateway(&sb.Endpoints[i], v6)
			if !ok {
				continue
			}
			roles[i].gateways = append(roles[i].gateways, gateway)
			for _, p := range sb.Ports {
				if p.HostAddress.Is6() == v6 {
					roles[i].ports = append(roles[i].ports, p)
				}
			}
			break
		}
	}
	for _, losers := range []bool{true, false} {
		for i := range sb.Endpoints {
			ep := &sb.Endpoints[i]
			if slices.Equal(ep.Gateways, roles[i].gateways) && slices.Equal(ep.Ports, roles[i].ports) {
				continue
			}
			if loses := len(roles[i].gateways) < len(ep.Gateways); loses == losers {
				ep.Gateways, ep.Ports = roles[i].gateways, roles[i].ports
				changed = append(changed, i)
			}
		}
	}
	return changed
}

// gateway returns the way out that an endpoint offers to an address family. The caller holds mu.
func (m *Manager) gateway(ep *member, v6 bool) (netip.Addr, bool) {
	e := m.entries[ep.NetworkID]
	if e == nil || e.Internal {
		return netip.Addr{}, false
	}
	for _, a := range ep.Addresses {
		if a.Addr().Is6() != v6 {
			continue
		}
		for _, s := range e.Subnets {
			if !s.Prefix.Contains(a.Addr()) {
				continue
			}
			// As Docker's bridge driver: a router of the network's own, whose address is kept free by this name.
			if other := s.Auxiliary[map[bool]string{false: "DefaultGatewayIPv4", true: "DefaultGatewayIPv6"}[v6]]; other.IsValid() {
				return other, true
			}
			if s.Gateway.IsValid() {
				return s.Gateway, true
			}
		}
	}
	return netip.Addr{}, false
}

// forDriver is the endpoint as drivers see it.
func (ep member) forDriver(ns string) Endpoint {
	e := ep.Endpoint
	e.NetNS = ns
	e.Addresses = slices.Concat(e.Addresses, e.LinkLocal)
	return e
}

// snapshot is the record of one moment, for the database and for whoever reads it without mu.
func (sb *sandbox) snapshot() record {
	r := sb.record
	r.Endpoints = slices.Clone(r.Endpoints)
	return r
}
