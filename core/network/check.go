package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/check"
	"github.com/sampan-project/sampan/core/network/netns"
)

// Check compares networks and endpoints with their rows, with the containers that live, and with the
// interfaces in their namespaces. What drivers have on the host is theirs to compare: Mend asks them.
func (m *Manager) Check(ctx context.Context, running map[string]int) (found []check.Finding, err error) {
	rows, err := m.sandboxes.All()
	if err != nil {
		return nil, fmt.Errorf("check networks: %w", err)
	}
	networks, err := m.networks.All()
	if err != nil {
		return nil, fmt.Errorf("check networks: %w", err)
	}
	inTable := maps.Collect(networks)
	m.mu.RLock()
	var joined, dead []record
	for _, sb := range m.joined {
		joined = append(joined, sb.snapshot())
	}
	for _, sb := range m.dead {
		dead = append(dead, sb.snapshot())
	}
	known := map[string]bool{}
	for _, sb := range m.leaving {
		known[sb.ID] = true
	}
	for _, e := range m.entries {
		if _, there := inTable[e.ID]; !there && !e.removing && !builtin(e.Driver) {
			r := e.row
			found = append(found, check.Finding{Kind: "network", Subject: e.Name, Problem: "the database does not have it", Did: "wrote its row",
				Mend: func(context.Context) error { return m.networks.Put(r.ID, r) }})
		}
	}
	m.mu.RUnlock()
	for _, r := range append(slices.Clone(joined), dead...) {
		known[r.ID] = true
	}
	for id, r := range rows {
		if !known[id] {
			found = append(found, check.Finding{Kind: "endpoint", Subject: r.ContainerID, Problem: "the database has a row of a container that left", Did: "removed it",
				Mend: func(context.Context) error { return m.sandboxes.Delete(id) }})
		}
	}
	for _, r := range dead {
		found = append(found, m.unburied(r))
	}
	for _, r := range joined {
		pid, lives := running[r.ContainerID]
		if !lives {
			found = append(found, check.Finding{Kind: "endpoint", Subject: r.ContainerID, Problem: "its container does not run", Did: "took it off its networks",
				Mend: func(ctx context.Context) error { return m.Leave(ctx, r.ContainerID) }})
			continue
		}
		found = append(found, m.checkInterfaces(r, pid)...)
	}
	links, err := m.strangeLinks()
	return append(found, links...), errors.Join(err, ctx.Err())
}

// linkAliases is where the kernel shows what drivers have written on links (sysfs-class-net, ifalias).
const linkAliases = "/sys/class/net/*/ifalias"

// strangeLinks looks for links of the host with this daemon's mark on which no network or endpoint of ours
// stands. A driver writes Network.Owner and the id of the network or endpoint on each link that it makes.
func (m *Manager) strangeLinks() (found []check.Finding, err error) {
	paths, err := filepath.Glob(linkAliases)
	if err != nil {
		return nil, err
	}
	m.mu.RLock()
	var ids []string
	for id := range m.entries {
		ids = append(ids, id)
	}
	for _, group := range []map[string]*sandbox{m.joined, m.leaving} {
		for _, sb := range group {
			for _, ep := range sb.Endpoints {
				ids = append(ids, ep.ID)
			}
		}
	}
	m.mu.RUnlock()
	for _, path := range paths {
		alias, err := os.ReadFile(path)
		if err != nil { // the link has gone
			continue
		}
		words := strings.Fields(string(alias))
		if !slices.Contains(words, m.owner) || slices.ContainsFunc(words, func(w string) bool { return isIDOf(w, ids) }) {
			continue
		}
		found = append(found, check.Finding{Kind: "link", Subject: filepath.Base(filepath.Dir(path)), Problem: "it is of a network or endpoint that is no more",
			Did: "had its driver remove it", Mend: m.Restore})
	}
	return found, nil
}

// isIDOf reports whether the word is one of the IDs, or the beginning of one as drivers shorten them.
func isIDOf(word string, ids []string) bool {
	return len(word) >= 12 && slices.ContainsFunc(ids, func(id string) bool { return strings.HasPrefix(id, word) })
}

// unburied is a container that left and a driver could not detach.
func (m *Manager) unburied(r record) check.Finding {
	return check.Finding{Kind: "endpoint", Subject: r.ContainerID, Problem: "its driver could not take it off", Did: "had its driver remove it",
		Mend: func(ctx context.Context) error {
			return errors.Join(m.Restore(ctx), m.bury(""))
		}}
}

// checkInterfaces looks whether each endpoint has its interface in the namespace of the process.
func (m *Manager) checkInterfaces(r record, pid int) (found []check.Finding) {
	if r.Host || r.Shares != "" {
		return nil
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is ending
	}
	var there []net.Interface
	if err == nil {
		defer ns.Close()
		err = netns.Do(ns, func() (err error) { there, err = net.Interfaces(); return err })
	}
	if err != nil {
		return []check.Finding{{Kind: "endpoint", Subject: r.ContainerID, Problem: fmt.Sprintf("its namespace cannot be looked at: %v", err), Advice: "restart the container"}}
	}
	for _, ep := range r.Endpoints {
		if ep.Interface != "" && !slices.ContainsFunc(there, func(i net.Interface) bool { return i.Name == ep.Interface }) {
			found = append(found, check.Finding{Kind: "endpoint", Subject: r.ContainerID, Advice: "disconnect it from the network and connect it again",
				Problem: fmt.Sprintf("its interface %s on network %s is missing", ep.Interface, ep.Network)})
		}
	}
	return found
}

// Restore has every driver make the networks and endpoints that should be, and remove the rest.
func (m *Manager) Restore(ctx context.Context) error {
	var errs []error
	for _, name := range m.driversInUse() {
		errs = append(errs, m.reconcileDriver(ctx, name))
	}
	return errors.Join(errs...)
}
