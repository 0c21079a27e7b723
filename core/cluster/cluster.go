// Package cluster is this node's part in a swarm: several daemons that act as one (Docker's swarm mode).
//
// The rooms below it know one thing each: identity (who is who), transport (how nodes reach each other), store
// (what the managers agree on), orchestrator (what follows from it), agent and mesh (what a node does of it). Here they
// are put together:
//
//	Manager      the backend of the API: the part that this node has, if any, and its beginning and end
//	member       the part: a listener, an agent, a mesh and a session with the leader. Every node has one
//	seat         a manager's place in the council: the store. Whoever leads runs orchestrator and dispatcher
//	dispatcher   the leader's end of all sessions
//
// The files:
//
//	cluster.go, state.go, address.go   Manager; what is on the disk; addresses
//	init.go, join.go, leave.go         into a swarm and out of it
//	member.go, uplink.go, renew.go     a node's part, its session, its certificate
//	seat.go, enrol.go                  a manager's part; certificates and seats for others
//	dispatcher.go, wanted.go           what nodes report and are told
//	peer.go, forward.go                requests of other nodes; requests of clients that the leader has to answer
//	swarm.go, node.go, service.go, task.go, logs.go, filter.go, info.go, event.go   what the API asks
//
// Everything of it is in one directory (state.go), and whatever is cut off there is taken back or gone on with by the
// next daemon.
package cluster

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/cluster/agent"
	"github.com/sampan-project/sampan/core/event"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// What a node answers that cannot act for the swarm, in the words that clients know.
var (
	errNoManager = fault.New(fault.Unavailable, `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)
	errWorker    = fault.New(fault.Unavailable, "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.")
	errPreparing = fault.New(fault.Unavailable, "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.")
	errExpired   = fault.New(fault.Unavailable, "Swarm certificates have expired. To replace them, leave the swarm and join again.")
	errNoSwarm   = fault.New(fault.Unavailable, "This node is not part of a swarm")
	errExists    = fault.New(fault.Unavailable, `This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.`)
	errNoLeader  = fault.New(fault.Unavailable, "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.")
	errJoinTime  = fault.New(fault.Unavailable, `Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the "docker info" command to see the current swarm status of your node.`)
)

// Options are what a Manager is made of.
type Options struct {
	Root   string // of the daemon's data; ours is Root/swarm
	Logger *slog.Logger

	Containers agent.Containers
	Images     agent.Images
	Events     *event.Log
	// Info is what GET /info says of this daemon without its swarm.
	Info func(ctx context.Context) (wire.Info, error)
	// Networks are the engine's own, for their names and addresses.
	Networks func(ctx context.Context) ([]wire.NetworkInspect, error)
	// Digest asks a registry for the digest of an image. It may be nil.
	Digest func(ctx context.Context, image, auth string) (string, error)
	// AdvertiseAddr is that of InitSwarm and JoinSwarm when they are given none: an address or an interface.
	AdvertiseAddr string
	// PreferLocal is agent.Options.PreferLocal.
	PreferLocal bool
}

// Manager is this node's part in a swarm, if it has one. Its methods may be called in parallel.
type Manager struct {
	o   Options
	dir string
	log *slog.Logger

	// api answers requests that another manager passes on; see forward.go.
	api http.Handler

	life context.Context // ends with Close
	end  context.CancelFunc

	change sync.Mutex // init, join, leave, start, close: one at a time

	mu      sync.Mutex
	member  *member
	pending bool  // a part is being taken up, at the start
	failed  error // why there is none though there should be
	cancel  context.CancelFunc
	starts  sync.WaitGroup
}

// New returns a Manager. Start takes up what a former daemon was part of.
func New(o Options) *Manager {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Manager{o: o, dir: filepath.Join(o.Root, "swarm"), log: o.Logger, cancel: func() {}}
	m.life, m.end = context.WithCancel(context.Background())
	return m
}

// Start goes on with this node's part in a swarm, in the background. api answers requests of Docker's API that another
// manager passes on to this one.
func (m *Manager) Start(api http.Handler) {
	m.api = api
	state, err := loadLocal(m.dir)
	if err == nil && state == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.mu.Lock()
	m.cancel = cancel
	m.pending, m.failed = err == nil, err
	m.mu.Unlock()
	if err != nil {
		m.log.Error("swarm", "error", err)
		return
	}
	m.starts.Go(func() { m.resume(ctx, state) })
}

// resume takes up a part, or takes back one that was not whole. A port that is taken or an address that is not there yet
// is tried again.
func (m *Manager) resume(ctx context.Context, state *local) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		err := m.resumeOnce(ctx, state)
		m.mu.Lock()
		m.failed = err
		again := err != nil && m.member == nil
		m.pending = again && !errors.Is(err, errExpired) // the clock may be wrong
		m.mu.Unlock()
		if err != nil {
			m.log.Error("this node's part in its swarm is not taken up", "error", err)
		}
		if !again {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (m *Manager) resumeOnce(ctx context.Context, state *local) error {
	m.change.Lock()
	defer m.change.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch state.Phase {
	case phaseInit, phaseJoin:
		return forget(m.dir)
	case phaseLeave:
		return m.finishLeave(ctx, state)
	}
	member, err := m.newMember(ctx, state, false)
	if err != nil {
		return err
	}
	m.set(member)
	return nil
}

// living is a context that ends with the daemon, too: Close waits for whoever changes something.
func (m *Manager) living(ctx context.Context) (_ context.Context, release func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(m.life, cancel)
	return ctx, func() { stop(); cancel() }
}

func (m *Manager) set(member *member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.member, m.pending, m.failed = member, false, nil
}

// part is this node's part; nil when there is none, and then why.
func (m *Manager) part() (part *member, pending bool, failed error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.member, m.pending, m.failed
}

// Close ends this node's part for this daemon: its swarm calls the node down, and the containers are left as they are.
// It comes before the containers are stopped.
func (m *Manager) Close() error {
	m.end()
	m.mu.Lock()
	m.cancel()
	m.mu.Unlock()
	m.starts.Wait()
	m.change.Lock()
	defer m.change.Unlock()
	m.mu.Lock()
	member := m.member
	m.member = nil
	m.mu.Unlock()
	if member == nil {
		return nil
	}
	return member.close()
}

// leading is this manager's seat, for requests that the leader answers. Forward has seen to it that this manager
// leads; it may have ended since, and then whoever changes something learns it from the store.
func (m *Manager) leading() (*seat, error) {
	part, pending, failed := m.part()
	switch {
	case errors.Is(failed, errExpired):
		return nil, errExpired
	case part == nil && (pending || failed != nil):
		return nil, errPreparing
	case part == nil:
		return nil, errNoManager
	}
	return part.managing()
}

// ours reports whether an address is in one of the engine's own networks.
func (m *Manager) ours(ctx context.Context) func(netip.Addr) bool {
	var subnets []netip.Prefix
	if m.o.Networks != nil {
		list, err := m.o.Networks(ctx)
		if err != nil {
			m.log.Warn("list networks", "error", err)
		}
		for _, n := range list {
			for _, c := range n.IPAM.Config {
				if p, err := netip.ParsePrefix(c.Subnet); err == nil {
					subnets = append(subnets, p.Masked())
				}
			}
		}
	}
	return func(ip netip.Addr) bool {
		for _, p := range subnets {
			if p.Contains(ip) {
				return true
			}
		}
		return false
	}
}
