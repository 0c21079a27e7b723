package network

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
)

// dnsPort is where resolvers listen; resolv.conf has no other.
const dnsPort = 53

// view is the names that one container sees: those on the networks it is in. It is the dns.Names of
// the container's name server.
type view struct {
	m         *Manager
	container string
}

// Lookup finds "db" and "db.front", front being a network.
func (v view) Lookup(name string) (addresses []netip.Addr, found bool) {
	v.m.mu.RLock()
	defer v.m.mu.RUnlock()
	name = v.linked(name)
	for _, ep := range v.neighbours() {
		if !slices.Contains(ep.Names, name) {
			host, ok := strings.CutSuffix(name, "."+strings.ToLower(ep.Network))
			if !ok || !slices.Contains(ep.Names, host) {
				continue
			}
		}
		found = true
		for _, a := range ep.Addresses {
			addresses = append(addresses, a.Addr())
		}
	}
	return addresses, found
}

// linked is the name that a link of the container stands for, or the name itself. The caller holds mu.
func (v view) linked(name string) string {
	if sb := v.m.joined[v.container]; sb != nil {
		for _, ep := range sb.Endpoints {
			if to, ok := ep.Links[strings.TrimSuffix(name, "."+strings.ToLower(ep.Network))]; ok {
				return to
			}
		}
	}
	return name
}

// Reverse answers with the container's name on the network, "db.front".
func (v view) Reverse(a netip.Addr) []string {
	v.m.mu.RLock()
	defer v.m.mu.RUnlock()
	for _, ep := range v.neighbours() {
		if len(ep.Names) > 0 && slices.ContainsFunc(ep.Addresses, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return []string{ep.Names[0] + "." + ep.Network}
		}
	}
	return nil
}

// Upstreams are none when no network of the container leads outside.
func (v view) Upstreams() (list []netip.AddrPort) {
	v.m.mu.RLock()
	sb := v.m.joined[v.container]
	var rec record
	outside := false
	if sb != nil {
		rec = sb.snapshot()
		for _, ep := range rec.Endpoints {
			e := v.m.entries[ep.NetworkID]
			outside = outside || e != nil && !e.Internal
		}
	}
	v.m.mu.RUnlock()
	if !outside {
		return nil
	}
	servers := v.m.askedServers(rec)
	if len(servers) == 0 {
		servers = v.m.hostResolver().servers
	}
	for _, s := range servers {
		list = append(list, netip.AddrPortFrom(s, dnsPort))
	}
	return list
}

// neighbours are the endpoints on the container's networks of users, its own too. The caller holds mu.
func (v view) neighbours() (list []*member) {
	sb := v.m.joined[v.container]
	if sb == nil {
		return nil
	}
	var networks []string
	for _, ep := range sb.Endpoints {
		if !ep.Default {
			networks = append(networks, ep.NetworkID)
		}
	}
	for _, other := range v.m.joined {
		for i := range other.Endpoints {
			if slices.Contains(networks, other.Endpoints[i].NetworkID) {
				list = append(list, &other.Endpoints[i])
			}
		}
	}
	return list
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

// Rename gives a container another name on its networks. One that has not joined is no error.
func (m *Manager) Rename(_ context.Context, containerID, name string) error {
	m.mu.Lock()
	sb := m.joined[containerID]
	if sb == nil {
		m.mu.Unlock()
		return nil
	}
	sb.Name = name
	for i := range sb.Endpoints {
		if ep := &sb.Endpoints[i]; !ep.Default {
			ep.Names = dnsNames(sb.record, ep.Asked.Aliases)
		}
	}
	rec := sb.snapshot()
	m.mu.Unlock()
	if err := m.sandboxes.Put(rec.ID, rec); err != nil {
		return fault.New(fault.Internal, "rename %s on its networks: %w", name, err)
	}
	return nil
}
