package cluster

import (
	"context"
	"net"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

const twoManagers = `WARNING: Running Swarm in a two-manager configuration. This configuration provides
         no fault tolerance, and poses a high risk to lose control over the cluster.
         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the
         Swarm for fault-tolerance.`

// Info is this node's part, for GET /info.
func (m *Manager) Info(context.Context) wire.InfoSwarm {
	part, pending, failed := m.part()
	if part == nil {
		i := wire.InfoSwarm{LocalNodeState: wire.SwarmInactive}
		switch {
		case failed != nil && !pending:
			i.LocalNodeState, i.Error = wire.SwarmError, failed.Error()
		case failed != nil:
			i.LocalNodeState, i.Error = wire.SwarmPending, failed.Error()
		case pending:
			i.LocalNodeState = wire.SwarmPending
		}
		return i
	}
	return part.info()
}

func (p *member) info() wire.InfoSwarm {
	p.mu.Lock()
	seat, state, trouble := p.seat, p.local, p.trouble
	p.mu.Unlock()
	i := wire.InfoSwarm{NodeID: p.who.Current().NodeID, LocalNodeState: wire.SwarmActive, RemoteManagers: slices.Clone(state.Managers)}
	i.NodeAddr, _, _ = net.SplitHostPort(state.Advertise)
	if trouble != nil {
		i.Error = trouble.Error()
	}
	select {
	case <-p.up:
	default:
		i.LocalNodeState = wire.SwarmPending
	}
	if seat == nil {
		return i
	}
	if c := seat.store.Reader().Cluster(); c != nil {
		i.LocalNodeState, i.ControlAvailable = wire.SwarmActive, true
		info := c.SwarmInfo
		i.Cluster = &info
	}
	managers := seat.store.Managers()
	i.Nodes, i.Managers = len(seat.store.Reader().Nodes()), len(managers)
	i.RemoteManagers = peersOf(managers)
	// One that was removed has no leader either.
	if id, _ := seat.store.Leader(); id == "" && !fault.Is(trouble, fault.Forbidden) {
		i.Error = errNoLeader.Error()
	}
	if i.Managers == 2 {
		i.Warnings = []string{twoManagers}
	}
	return i
}

func peersOf(managers []store.Manager) []wire.SwarmPeer {
	list := []wire.SwarmPeer{}
	for _, m := range managers {
		list = append(list, wire.SwarmPeer{NodeID: m.ID, Addr: m.Addr})
	}
	slices.SortFunc(list, func(a, b wire.SwarmPeer) int { return strings.Compare(a.NodeID, b.NodeID) })
	return list
}

// Status is the state and the role of this node, for the header of pings.
func (m *Manager) Status() string {
	i := m.Info(context.Background())
	switch {
	case i.LocalNodeState != wire.SwarmActive:
		return i.LocalNodeState
	case i.ControlAvailable:
		return i.LocalNodeState + "/" + wire.RoleManager
	}
	return i.LocalNodeState + "/" + wire.RoleWorker
}
