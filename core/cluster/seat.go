package cluster

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/cluster/orchestrator"
	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

const (
	// requestTime bounds what a request of a client waits for the managers to agree, as dockerd's.
	requestTime = 20 * time.Second
	// settleTime is how long a manager that is about to end waits for another one to lead.
	settleTime = 5 * time.Second
	// roleEvery is how often the leader looks again whether the managers are those that shall be.
	roleEvery = 5 * time.Second
	// reviewEvery is how often a manager looks whether all that speak of the log still may.
	reviewEvery = time.Second
)

// seat is a manager's place among the managers.
type seat struct {
	member     *member
	store      *store.Store
	dispatcher *dispatcher
	log        *slog.Logger

	told    *store.Cluster  // the last that dropRemoved has seen; run's alone
	dropped map[string]bool // which of its Removed have no connections any more

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// takeSeat opens the store. bootstrap begins the log of a new swarm; else the manager asks the others to take it in,
// unless it is known that they did.
func (p *member) takeSeat(ctx context.Context, bootstrap bool) error {
	state, who := p.state(), p.who.Current()
	o := store.Options{
		Dir: p.raftDir(), NodeID: who.NodeID, Addr: state.Advertise, Layer: p.net.Raft(), Logger: p.log,
	}
	if state.ForceNew {
		if err := store.Recover(o); err != nil {
			return errors.Join(err, o.Layer.Close())
		}
	}
	opened, err := store.Open(o)
	if err != nil {
		return err
	}
	s := &seat{member: p, store: opened, log: p.log}
	s.ctx, s.cancel = context.WithCancel(p.ctx)
	s.dispatcher = newDispatcher(opened, s.peers, p.log)
	if bootstrap {
		if err := opened.Bootstrap(ctx); err != nil {
			s.cancel()
			return errors.Join(err, opened.Close())
		}
	}
	p.mu.Lock()
	p.seat = s
	p.mu.Unlock()
	s.work.Go(func() { s.run(s.ctx) })
	s.work.Go(func() { s.reviewPeers(s.ctx) })
	if !bootstrap {
		s.work.Go(func() { s.claim(s.ctx) })
	}
	return nil
}

// leaveSeat closes the store.
func (p *member) leaveSeat() {
	p.mu.Lock()
	s := p.seat
	p.seat = nil
	p.mu.Unlock()
	if s == nil {
		return
	}
	s.cancel()
	s.work.Wait()
	if err := s.store.Close(); err != nil {
		p.log.Warn("close the swarm's log", "error", err)
	}
}

// forgetSeat removes what a manager that is none any more has of the others' state.
func (p *member) forgetSeat() error { return os.RemoveAll(p.raftDir()) }

func (p *member) raftDir() string { return filepath.Join(p.m.dir, raftDir) }

// leads reports whether this manager leads.
func (s *seat) leads() bool { return s.store.IsLeader() }

// peers are the managers, for nodes to find them again.
func (s *seat) peers() []wire.SwarmPeer {
	list := []wire.SwarmPeer{}
	for _, m := range s.store.Managers() {
		list = append(list, wire.SwarmPeer{NodeID: m.ID, Addr: m.Addr})
	}
	return list
}

// stepDown has another manager lead, if there is one, before this one ends.
func (s *seat) stepDown() {
	if !s.leads() || len(s.store.Managers()) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	if err := s.store.StepDown(ctx); err != nil {
		s.log.Warn("hand over the leadership of the swarm", "error", err)
	}
}

// update changes the state, for a request of a client.
func (s *seat) update(ctx context.Context, fn func(store.Writer) error) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	return s.store.Update(ctx, fn)
}

// run follows the state: it leads when this manager leads, and tells of what changes.
func (s *seat) run(ctx context.Context) {
	office := office{seat: s}
	defer office.end()
	var last moment
	for {
		changed := s.store.Changed()
		office.follow(ctx, s.leads())
		s.dropRemoved()
		last = s.announce(last)
		select {
		case <-ctx.Done():
			return
		case <-s.store.Done():
			s.log.Error("the swarm's log has ended, and is opened again", "error", s.store.Err())
			select { // keepIdentity does it
			case s.member.broken <- struct{}{}:
			default:
			}
			return
		case <-changed:
		}
	}
}

// office is the leader's work, while this manager leads.
type office struct {
	seat *seat
	stop context.CancelFunc // nil while it does not lead
	work sync.WaitGroup
}

func (o *office) follow(ctx context.Context, leads bool) {
	switch {
	case leads && o.stop == nil:
		ctx, o.stop = context.WithCancel(ctx)
		o.work.Go(func() { o.seat.lead(ctx) })
		o.seat.log.Info("this manager leads the swarm")
	case !leads && o.stop != nil:
		o.end()
		o.seat.log.Info("this manager leads the swarm no more")
	}
}

func (o *office) end() {
	if o.stop != nil {
		o.stop()
		o.work.Wait()
		o.stop = nil
	}
}

// lead does what the leader does, until ctx ends.
func (s *seat) lead(ctx context.Context) {
	// Before it knows all that was agreed on it would have nodes remove what they run.
	for {
		err := s.store.Barrier(ctx)
		if err == nil {
			break
		}
		s.log.Debug("lead the swarm", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(firstPause):
		}
	}
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { s.dispatcher.run(ctx) })
	work.Go(func() { orchestrator.Run(ctx, s.store, orchestrator.Options{NewID: identity.NewID, Logger: s.log}) })
	work.Go(func() { s.keepManagers(ctx) })
}

// dropRemoved ends connections of nodes that are no part of the swarm any more.
func (s *seat) dropRemoved() {
	c := s.store.Reader().Cluster()
	if c == nil || c == s.told {
		return
	}
	dropped := make(map[string]bool, len(c.Removed))
	for _, former := range c.Removed {
		if !s.dropped[former.ID] {
			s.member.net.Drop(former.ID)
		}
		dropped[former.ID] = true
	}
	s.told, s.dropped = c, dropped
}

// keepManagers takes those out of the managers who shall be workers.
func (s *seat) keepManagers(ctx context.Context) {
	for {
		changed := s.store.Changed()
		s.demote(ctx)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(roleEvery):
		}
	}
}

func (s *seat) demote(ctx context.Context) {
	r := s.store.Reader()
	if r.Cluster() == nil {
		return // it is being made
	}
	me := s.member.who.Current().NodeID
	for _, m := range s.store.Managers() {
		if n := r.Node(m.ID); n != nil && n.Spec.Role == wire.RoleManager {
			continue
		}
		var err error
		if m.ID == me {
			err = s.store.StepDown(ctx) // who leads then does it
		} else {
			err = s.store.RemoveManager(ctx, m.ID)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("take a node out of the swarm's managers", "manager", m.ID, "error", err)
		}
		if m.ID == me {
			return
		}
	}
}

// claim asks the leader to count this manager among the managers, until it does.
func (s *seat) claim(ctx context.Context) {
	me := s.member.who.Current().NodeID
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		if slices.ContainsFunc(s.store.Managers(), func(m store.Manager) bool { return m.ID == me }) {
			return
		}
		if err := s.askForSeat(ctx, me); err == nil {
			return
		} else if ctx.Err() == nil {
			if fault.Is(err, fault.Invalid) {
				s.member.refuse(err)
			}
			s.member.setTrouble(err)
			s.log.Debug("ask for a seat among the managers", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (s *seat) askForSeat(ctx context.Context, me string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	state := s.member.state()
	err := errNoLeader
	for _, m := range state.Managers {
		if m.NodeID == me {
			continue
		}
		if err = ask(ctx, s.member.net.Client(), m.Addr, "/v1/manager", seatRequest{state.Advertise}, &struct{}{}); err == nil || fault.Is(err, fault.Invalid) {
			break // the leader says no to whoever asks for it
		}
	}
	return err
}
