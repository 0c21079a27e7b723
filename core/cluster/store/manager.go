package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/sampan-project/sampan/core/fault"
)

// Manager is one of the managers, as this one knows them.
type Manager struct {
	ID, Addr string
	Leader   bool
	// Reachable is what the leader has found of the others. On another manager it is true for all, and that there
	// is no leader says that something is wrong.
	Reachable bool
}

// IsLeader reports whether this manager is the leader, as far as it knows.
func (s *Store) IsLeader() bool { return s.raft.State() == raft.Leader }

// Leader is the leader's node ID and address, empty when there is none or it is not known.
func (s *Store) Leader() (id, addr string) {
	a, i := s.raft.LeaderWithID()
	return string(i), string(a)
}

// Managers lists the managers by ID. One that has been removed itself, or has not been added yet, is not in its list.
func (s *Store) Managers() []Manager {
	leader, _ := s.Leader()
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Manager
	for _, server := range s.servers() {
		if server.Suffrage == raft.Voter {
			list = append(list, Manager{string(server.ID), string(server.Address), string(server.ID) == leader, !s.down[server.ID]})
		}
	}
	slices.SortFunc(list, func(a, b Manager) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// Bootstrap makes this node the first manager of a new swarm, and returns when it leads. The store must be
// empty.
func (s *Store) Bootstrap(ctx context.Context) error {
	if s.raft.LastIndex() == 0 && s.raft.CurrentTerm() == 1 {
		// A crash within the two writes of an earlier Bootstrap has left the first.
		if err := s.logs.Set([]byte("CurrentTerm"), number(0)); err != nil {
			return err
		}
	}
	first := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(s.id), Address: raft.ServerAddress(s.addr)}}}
	err := s.call(ctx, func() error { return s.raft.BootstrapCluster(first).Error() }, func() {})
	switch {
	case errors.Is(err, raft.ErrCantBootstrap):
		return fault.New(fault.Conflict, "the swarm's log %s is of another swarm: a new one needs an empty directory", s.logs.path)
	case err != nil:
		return fmt.Errorf("begin the swarm's log: %w", err)
	}
	if err := s.trans.campaign(s.closing); err != nil {
		return fmt.Errorf("begin the swarm's log: %w", err)
	}
	for {
		changed := s.Changed()
		err := s.Barrier(ctx)
		if !errors.Is(err, ErrNotLeader) {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// AddManager makes a node that has opened its store a manager, or tells the managers a manager's new address. It
// returns when the node has all of the state: one that cannot be reached is not added, and costs no majority.
func (s *Store) AddManager(ctx context.Context, id, addr string) error {
	if id == "" || addr == "" {
		return &fault.Field{Field: "manager", Given: id + "@" + addr, Expected: "an ID and an address"}
	}
	if err := s.Barrier(ctx); err != nil {
		return err
	}
	server, address := raft.ServerID(id), raft.ServerAddress(addr)
	release, err := s.occupy(ctx, server)
	if err != nil {
		return err
	}
	defer release()
	known := s.find(server)
	if known != nil && known.Suffrage == raft.Voter {
		if known.Address == address {
			return nil
		}
		return s.reconfigure(ctx, func() raft.IndexFuture { return s.raft.AddVoter(server, address, 0, 0) })
	}
	s.trans.match(server, 0)
	if err := s.reconfigure(ctx, func() raft.IndexFuture { return s.raft.AddNonvoter(server, address, 0, 0) }); err != nil {
		return err
	}
	if err := s.follows(ctx, server, s.raft.AppliedIndex()); err != nil {
		forget := s.reconfigure(context.WithoutCancel(ctx), func() raft.IndexFuture { return s.raft.RemoveServer(server, 0, 0) })
		if forget != nil {
			s.log.Warn("a node that did not become a manager stays listed", "node", id, "err", forget)
		}
		return fault.New(fault.ClassOf(err), "manager %s at %s does not follow the swarm's log: %w", id, addr, err)
	}
	return s.reconfigure(ctx, func() raft.IndexFuture { return s.raft.AddVoter(server, address, 0, 0) })
}

// occupy waits until nobody else changes a node's seat.
func (s *Store) occupy(ctx context.Context, id raft.ServerID) (release func(), err error) {
	for {
		s.mu.Lock()
		other := s.busy[id]
		if other == nil {
			mine := make(chan struct{})
			s.busy[id] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				delete(s.busy, id)
				s.mu.Unlock()
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-s.closing:
			return nil, s.gone()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tidy takes those out of the log who have no vote, at the beginning of a leadership: a leader before this one was about to
// make them managers, and ended before they were. Whoever still wants to be one asks again.
func (s *Store) tidy() {
	for _, server := range s.servers() {
		if server.Suffrage != raft.Voter {
			s.takeOut(server.ID)
		}
	}
}

func (s *Store) takeOut(id raft.ServerID) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	release, err := s.occupy(ctx, id)
	if err != nil {
		return // it is about to be a manager
	}
	defer release()
	if known := s.find(id); known == nil || known.Suffrage == raft.Voter {
		return
	}
	if err := s.reconfigure(ctx, func() raft.IndexFuture { return s.raft.RemoveServer(id, 0, 0) }); err != nil {
		s.log.Warn("a node that did not become a manager stays listed", "node", id, "err", err)
	}
}

// follows waits until a server has the entries up to index.
func (s *Store) follows(ctx context.Context, id raft.ServerID, index uint64) error {
	for {
		has, moved := s.trans.following(id)
		changed := s.Changed()
		switch {
		case has >= index:
			return nil
		case !s.IsLeader():
			return s.notLeading()
		}
		select {
		case <-moved:
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// RemoveManager takes a manager out of the managers. The node of the last manager cannot be taken out, nor one whose
// loss would leave no majority that can be reached (fault.Conflict). A node that is none is no error.
//
// When it is the leader's own ID the leadership is handed over first, and the error is ErrNotLeader: the new leader
// has to be asked.
func (s *Store) RemoveManager(ctx context.Context, id string) error {
	if err := s.Barrier(ctx); err != nil {
		return err
	}
	server := raft.ServerID(id)
	known := s.find(server)
	if known == nil {
		return nil
	}
	if known.Suffrage == raft.Voter {
		if err := s.spares(id); err != nil {
			return err
		}
	}
	if id == s.id {
		if err := s.StepDown(ctx); err != nil {
			return err
		}
		return ErrNotLeader
	}
	return s.reconfigure(ctx, func() raft.IndexFuture { return s.raft.RemoveServer(server, 0, 0) })
}

// spares says whether the managers can go on without one of them.
func (s *Store) spares(id string) error {
	rest, reachable := 0, 0
	for _, m := range s.Managers() {
		if m.ID == id {
			continue
		}
		if rest++; m.Reachable {
			reachable++
		}
	}
	switch {
	case rest == 0:
		return fault.New(fault.Conflict, "manager %s is the last one of the swarm", id)
	case reachable < rest/2+1:
		return fault.New(fault.Conflict, "without manager %s there would be no majority: %d of the other %d managers can be reached", id, reachable, rest)
	}
	return nil
}

// StepDown hands the leadership to another manager: what a leader does before it leaves. On a manager that does not
// lead it is ErrNotLeader.
func (s *Store) StepDown(ctx context.Context) error {
	if !s.IsLeader() {
		return s.notLeading()
	}
	err := s.call(ctx, func() error { return s.raft.LeadershipTransfer().Error() }, func() {})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		return ErrNotLeader
	case errors.Is(err, raft.ErrRaftShutdown):
		return s.gone()
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fault.New(fault.Unavailable, "no other manager takes the leadership over: %w", err)
}

func (s *Store) find(id raft.ServerID) *raft.Server {
	servers := s.servers()
	i := slices.IndexFunc(servers, func(server raft.Server) bool { return server.ID == id })
	if i < 0 {
		return nil
	}
	return &servers[i]
}

// reconfigure changes the managers and waits until that is agreed on.
func (s *Store) reconfigure(ctx context.Context, change func() raft.IndexFuture) error {
	err := s.call(ctx, func() error { return change().Error() }, func() {})
	switch {
	case err == nil, notLeader(err), errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return s.judge(err)
	}
	return fault.New(fault.Conflict, "change the managers: %w", err) // such as an address that another one has
}

// Recover makes this node the only manager of its swarm with all that its directory has, when the others are lost:
// --force-new-cluster. It is called before Open, and does not use the Layer. Changes that were not agreed on before
// may come to be. The other managers must not come back with their directories.
func Recover(o Options) (err error) {
	if err := prepare(o.Dir); err != nil {
		return err
	}
	o.fill()
	var broken error
	fail := func(err error) { broken = errors.Join(broken, err) }
	l, err := openLogs(o.Dir, fail)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(o.Dir, 1, newLogger(o.Logger))
	if err != nil {
		return fmt.Errorf("open the swarm's snapshots: %w", err)
	}
	m := &machine{board: newBoard(newState()), failed: fail}
	_, trans := raft.NewInmemTransport(raft.ServerAddress(o.Addr)) // it encodes addresses, and connects nobody
	only := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(o.NodeID), Address: raft.ServerAddress(o.Addr)}}}
	err = apart(func() error {
		return raft.RecoverCluster(o.config(), m, l, l, snapshots, trans, only)
	})
	if err = errors.Join(err, broken); err != nil {
		return m.why(fmt.Errorf("recover the swarm's state in %s: %w", o.Dir, err))
	}
	return nil
}
