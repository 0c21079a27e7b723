package cluster

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/cluster/orchestrator"
	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func nodeID(n *wire.Node) string { return n.ID }

func nodeName(n *wire.Node) string { return n.Description.Hostname }

// Nodes lists the nodes that pass the filters.
func (m *Manager) Nodes(_ context.Context, filters map[string][]string) ([]wire.Node, error) {
	s, err := m.leading()
	if err != nil {
		return nil, err
	}
	managers := s.store.Managers()
	var list []wire.Node
	for _, n := range s.store.Reader().Nodes() {
		if anyPrefix(n.ID, filters["id"]) && anyPrefix(nodeName(n), filters["name"]) && anyOf(n.Spec.Role, filters["role"]) &&
			anyOf("accepted", filters["membership"]) &&
			hasLabels(n.Description.Engine.Labels, filters["label"]) && hasLabels(n.Spec.Labels, filters["node.label"]) {
			list = append(list, shownNode(n, managers))
		}
	}
	return list, nil
}

// Node is one node.
func (m *Manager) Node(_ context.Context, ref string) (wire.Node, error) {
	s, err := m.leading()
	if err != nil {
		return wire.Node{}, err
	}
	n, err := s.node(s.store.Reader(), ref)
	if err != nil {
		return wire.Node{}, err
	}
	return shownNode(n, s.store.Managers()), nil
}

// node finds a node; "self" is the client's word, and never comes here.
func (s *seat) node(r store.Reader, ref string) (*wire.Node, error) {
	return find("node", ref, r.Nodes(), nodeID, nodeName)
}

// shownNode is a node with what the managers' log knows of it.
func shownNode(n *wire.Node, managers []store.Manager) wire.Node {
	shown := *n
	if shown.Spec.Labels == nil {
		shown.Spec.Labels = map[string]string{} // clients write into it
	}
	shown.ManagerStatus = nil
	for _, m := range managers {
		if m.ID == n.ID {
			shown.ManagerStatus = &wire.ManagerStatus{Leader: m.Leader, Reachability: wire.ReachabilityUnreachable, Addr: m.Addr}
			if m.Reachable {
				shown.ManagerStatus.Reachability = wire.ReachabilityReachable
			}
		}
	}
	return shown
}

// UpdateNode changes what users decide of a node: its role, its availability, its labels.
func (m *Manager) UpdateNode(ctx context.Context, ref string, version uint64, spec wire.NodeSpec) error {
	s, err := m.leading()
	if err != nil {
		return err
	}
	if err := checkNodeSpec(spec); err != nil {
		return err
	}
	return s.update(ctx, func(w store.Writer) error {
		n, err := s.node(w, ref)
		if err != nil {
			return err
		}
		if err := outOfSequence(version, n.Version.Index); err != nil {
			return err
		}
		if n.Spec.Role == wire.RoleManager && spec.Role == wire.RoleWorker {
			if err := s.mayDemote(w, n); err != nil {
				return err
			}
		}
		changed := *n
		changed.Spec = spec
		w.PutNode(&changed)
		return nil
	})
}

func checkNodeSpec(spec wire.NodeSpec) error {
	switch spec.Role {
	case wire.RoleWorker, wire.RoleManager:
	default:
		return fault.New(fault.Invalid, "invalid Role: %q: expected worker or manager", spec.Role)
	}
	return checkAvailability(spec.Availability)
}

func checkAvailability(given string) error {
	switch given {
	case wire.AvailabilityActive, wire.AvailabilityPause, wire.AvailabilityDrain:
		return nil
	}
	return fault.New(fault.Invalid, "invalid Availability: %q: expected active, pause or drain", given)
}

// mayDemote refuses what would leave the swarm without managers that agree.
func (s *seat) mayDemote(r store.Reader, n *wire.Node) error {
	wanted := 0
	for _, other := range r.Nodes() {
		if other.Spec.Role == wire.RoleManager {
			wanted++
		}
	}
	if wanted <= 1 {
		return fault.New(fault.Invalid, "attempting to demote the last manager of the swarm")
	}
	reachable, others := 0, 0
	for _, m := range s.store.Managers() {
		if m.ID != n.ID {
			others++
			if m.Reachable {
				reachable++
			}
		}
	}
	if reachable < others/2+1 {
		return fault.New(fault.Invalid, "can't remove member from the raft: this would result in a loss of quorum")
	}
	return nil
}

// RemoveNode takes a node out of the swarm: its certificate is good for nothing from then on.
func (m *Manager) RemoveNode(ctx context.Context, ref string, force bool) error {
	s, err := m.leading()
	if err != nil {
		return err
	}
	var removed string
	err = s.update(ctx, func(w store.Writer) error {
		n, err := s.node(w, ref)
		if err != nil {
			return err
		}
		removed = n.ID
		isMember := slices.ContainsFunc(s.store.Managers(), func(m store.Manager) bool { return m.ID == n.ID })
		switch {
		case isMember:
			return fault.New(fault.Invalid, "node %s is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal", n.ID)
		case !force && n.Status.State == wire.NodeReady:
			return fault.New(fault.Invalid, "node %s is not down and can't be removed", n.ID)
		}
		expel(w, n.ID, time.Now())
		return nil
	})
	if err != nil {
		return err
	}
	s.dispatcher.forget(removed)
	s.member.net.Drop(removed)
	return nil
}

// expel takes a node out of the state. It may not come back, and nobody counts on what it runs.
func expel(w store.Writer, id string, now time.Time) {
	c := *w.Cluster()
	c.Removed = slices.DeleteFunc(slices.Clone(c.Removed), func(f store.Former) bool { return now.After(f.Until) })
	c.Removed = append(c.Removed, store.Former{ID: id, Until: now.Add(longestCert(&c) + identity.Skew).UTC()})
	w.PutCluster(&c)
	for _, t := range w.TasksOn(id) {
		if w.Full() {
			break // the orchestrator does the rest
		}
		if !orchestrator.Ended(t.Status.State) {
			orphan := *t
			orphan.Status = wire.TaskStatus{Timestamp: now, State: wire.TaskOrphaned, Message: "Task belonged to a node that has been deleted"}
			w.PutTask(&orphan)
		}
	}
	w.DeleteNode(id)
}

// longestCert is for how long a certificate of now or of before may be good.
func longestCert(c *store.Cluster) time.Duration {
	return max(c.LongestCert, c.Spec.CAConfig.NodeCertExpiry)
}

// newNode is the object of a node that has been given a certificate and has not been heard of.
func newNode(id, role, availability, hostname, addr string) *wire.Node {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		addr = host
	}
	return &wire.Node{
		ID:          id,
		Spec:        wire.NodeSpec{Annotations: wire.Annotations{Labels: map[string]string{}}, Role: role, Availability: availability},
		Description: wire.NodeDescription{Hostname: hostname},
		Status:      wire.NodeStatus{State: wire.NodeUnknown, Addr: addr},
	}
}
