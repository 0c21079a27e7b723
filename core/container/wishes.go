package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sampan-project/sampan/core/check"
	"github.com/sampan-project/sampan/core/network"
)

// A connect or disconnect of a running container changes two databases: what it has now, and what it is
// to have at each start. A crash between the two leaves them at odds; what the record says holds, for
// nobody was told of the rest.

// unlike is a network in which a running container is and should not be, or the reverse.
type unlike struct {
	network string
	missing bool
}

func (u unlike) String() string {
	if u.missing {
		return "it is not on network " + u.network + ", as its record says"
	}
	return "it is on network " + u.network + ", of which its record does not know"
}

// differences compares the networks of a running container with those of its record.
func (m *Manager) differences(rec *record) (list []unlike) {
	if !ownNetworks(rec.Host.NetworkMode) {
		return nil
	}
	has := m.o.Network.Settings(rec.ID)
	if has.SandboxID == "" {
		return nil // the networks know nothing of it
	}
	wanted := map[string]bool{}
	for ref := range rec.Wanted {
		if n, err := m.o.Network.Resolve(ref); err == nil {
			wanted[n.ID] = true
		}
	}
	joined := map[string]bool{}
	for name, e := range has.Networks {
		joined[e.NetworkID] = true
		// Without any it is in none, which is not a network that somebody asked for.
		if !wanted[e.NetworkID] && name != "none" {
			list = append(list, unlike{name, false})
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(rec.Wanted)) {
		if n, err := m.o.Network.Resolve(ref); err == nil && !joined[n.ID] {
			list = append(list, unlike{ref, true})
		}
	}
	return list
}

// restoreNetworks makes the networks of a running container what its record says.
func (m *Manager) restoreNetworks(ctx context.Context, c *Container) error {
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	defer c.op.unlock()
	return m.conform(ctx, c)
}

// conform is restoreNetworks for a caller that holds the op lock.
func (m *Manager) conform(ctx context.Context, c *Container) error {
	rec, st := c.snapshot()
	if !st.live() {
		return nil
	}
	var errs []error
	for _, u := range m.differences(&rec) {
		var s *network.Sandbox
		var err error
		if u.missing {
			s, err = m.o.Network.ConnectRunning(ctx, u.network, rec.ID, st.Pid, rec.Wanted[u.network])
		} else {
			s, err = m.o.Network.DisconnectRunning(ctx, u.network, rec.ID, st.Pid)
		}
		if err == nil {
			err = m.writeNetworkFiles(rec.ID, s)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// restoreAllNetworks is for the start of the daemon, when the networks know who lives.
func (m *Manager) restoreAllNetworks(ctx context.Context) {
	for _, c := range m.all() {
		if rec, st := c.snapshot(); !st.live() || len(m.differences(&rec)) == 0 {
			continue
		}
		if err := m.restoreNetworks(ctx, c); err != nil {
			m.log.Error("make the networks of a container what its record says", "container", c.id, "error", err)
		}
	}
}

// checkNetworks tells the differences.
func (m *Manager) checkNetworks(c *Container, rec *record) (found []check.Finding) {
	for _, u := range m.differences(rec) {
		found = append(found, check.Finding{Kind: "container", Subject: rec.ID, Problem: fmt.Sprint(u), Did: "made it what its record says",
			Mend: func(ctx context.Context) error { return m.restoreNetworks(ctx, c) }})
	}
	return found
}
