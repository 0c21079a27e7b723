package cluster

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/cluster/agent"
	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/cluster/mesh"
	"github.com/sampan-project/sampan/core/cluster/transport"
	"github.com/sampan-project/sampan/core/wire"
)

// member is this node in its swarm.
type member struct {
	m     *Manager
	log   *slog.Logger
	who   *identity.Holder
	net   *transport.Node
	agent *agent.Agent
	mesh  *mesh.Mesh

	ctx    context.Context // ends with the member
	cancel context.CancelFunc
	work   sync.WaitGroup

	role    chan string   // what the leader wants this node to be; holds the newest
	broken  chan struct{} // has one when the log of this node's seat has ended by itself
	refused chan error    // has why this node cannot be a manager, when the leader has said so
	up      chan struct{} // closed when the leader has spoken for the first time

	mu      sync.Mutex
	told    bool // local.Managers is of this life of the daemon: until then it may be old
	local   local
	seat    *seat // nil on workers, and on managers until their store is open
	trouble error // why there is no session
	upOnce  sync.Once
}

// newMember takes up the part that the state speaks of; told says that its list of managers is new. It returns when the
// node listens; the rest follows in the background.
func (m *Manager) newMember(ctx context.Context, state *local, told bool) (_ *member, err error) {
	who, err := identity.Load(filepath.Join(m.dir, certificatesDir))
	if err != nil {
		return nil, err
	}
	if who.Expired(time.Now()) {
		return nil, errExpired
	}
	p := &member{
		m: m, log: m.log.With("node", who.NodeID), who: identity.NewHolder(who), told: told, local: *state,
		role: make(chan string, 1), broken: make(chan struct{}, 1), refused: make(chan error, 1), up: make(chan struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			p.cancel()
		}
	}()
	p.net, err = transport.Listen(state.Listen, p.who, transport.Options{Allowed: p.allowed, Refused: p.answerRemoved, Logger: p.log})
	if err != nil {
		return nil, err
	}
	p.agent = agent.New(agent.Options{
		NodeID: who.NodeID, Containers: m.o.Containers, Images: m.o.Images, Events: m.o.Events, Info: m.o.Info, Logger: p.log, PreferLocal: m.o.PreferLocal,
	})
	p.mesh = mesh.New(mesh.Options{NodeID: who.NodeID, Tasks: p.agent, Dial: p.net.DialTunnel, Logger: p.log})
	p.net.Tunnels(func(ctx context.Context, conn net.Conn, _ identity.Peer) { p.mesh.Serve(ctx, conn) })
	if who.Role == wire.RoleManager {
		err = p.takeSeat(ctx, state.Phase == phaseInit)
	} else {
		err = p.forgetSeat() // of a demotion that was cut off
	}
	if err != nil {
		return nil, errors.Join(err, p.mesh.Close(), p.agent.Close(), p.net.Close())
	}
	p.net.Serve(p)
	p.work.Go(func() { p.uplink(p.ctx) })
	p.work.Go(func() { p.keepIdentity(p.ctx) })
	return p, nil
}

// allowed refuses nodes that were removed from the swarm, and the log to those that are managers no more, as far as
// this node knows them: managers do. What it knows may be old: a certificate of a later time is believed, or nobody could
// bring it up to date.
func (p *member) allowed(peer identity.Peer, protocol string) bool {
	p.mu.Lock()
	seat, alone, named := p.seat, p.local.ForceNew, p.told && isOneOf(p.local.Managers, peer.NodeID)
	p.mu.Unlock()
	log := protocol == transport.Raft
	if alone && log {
		return false // the others are out, and the state does not say so yet
	}
	if seat == nil {
		return !log || named
	}
	r := seat.store.Reader()
	c, n := r.Cluster(), r.Node(peer.NodeID)
	switch {
	case c != nil && c.HasRemoved(peer.NodeID):
		return false
	case !log || named:
		return true
	case c == nil: // it has just begun, and has its own log at most
		return seat.isManager(peer.NodeID)
	case n == nil || n.Spec.Role == wire.RoleManager:
		return true
	}
	// One that is to be a worker is needed for as long as it counts.
	return peer.Issued.After(n.UpdatedAt) || seat.isManager(peer.NodeID)
}

func isOneOf(managers []wire.SwarmPeer, id string) bool {
	return slices.ContainsFunc(managers, func(m wire.SwarmPeer) bool { return m.NodeID == id })
}

// reviewPeers ends what former managers have open of the log.
func (s *seat) reviewPeers(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(reviewEvery):
			s.member.net.Review(transport.Raft)
		}
	}
}

// managing is this node's seat, or why it has none.
func (p *member) managing() (*seat, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.seat != nil:
		return p.seat, nil
	case p.who.Current().Role == wire.RoleManager:
		return nil, errPreparing
	}
	return nil, errWorker
}

// save changes what is on the disk of this part.
func (p *member) save(change func(*local)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.local
	change(&next)
	if err := next.save(p.m.dir); err != nil {
		return err
	}
	p.local = next
	return nil
}

// state is a copy of what is on the disk.
func (p *member) state() local {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.local
	l.Managers = slices.Clone(l.Managers)
	return l
}

func (p *member) setTrouble(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trouble = err
}

// refuse notes why the leader does not take this node in as a manager: for who waits for that.
func (p *member) refuse(why error) {
	select {
	case p.refused <- why:
	default:
	}
}

// close ends the member; its containers go on.
func (p *member) close() error {
	return p.end(func() error { return p.agent.Close() })
}

// end stops all that the member does; agent says what becomes of its containers.
func (p *member) end(agent func() error) error {
	p.mu.Lock()
	seat := p.seat
	p.mu.Unlock()
	if seat != nil {
		seat.stepDown()
	}
	p.cancel()
	p.work.Wait() // nobody takes a seat from here on
	err := errors.Join(p.mesh.Close(), agent())
	p.leaveSeat()
	return errors.Join(err, p.net.Close())
}
