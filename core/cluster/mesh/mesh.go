// Package mesh is the swarm's ingress on one node: it listens on each port that a service publishes in ingress
// mode, and carries each connection to a running task of the service, on whatever node that is.
//
//	Update    which ports there are, and which tasks are behind them: what the leader says (port.go)
//	carry     one connection: a task is chosen in turn, the next one where that cannot be reached (carry.go)
//	tunnel    to a task of another node, through its cluster listener; Serve is the other end (tunnel.go)
//	join      bytes both ways, half-closed as the ends do it, until both are done or idle for long (join.go)
//
// It is done by the daemon itself, as nodes have no network of containers in common. A task therefore sees its
// node's address and not the client's, and connections end with the daemon.
package mesh

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/wire"
)

// Tasks are the node's own tasks; agent.Agent fits.
type Tasks interface {
	// Endpoint returns where a running task of this node serves a port that its service publishes in ingress mode.
	Endpoint(ctx context.Context, taskID string, targetPort uint32) (netip.AddrPort, error)
}

// Options are what a Mesh is made of.
type Options struct {
	NodeID string
	Tasks  Tasks
	// Dial opens a tunnel to the cluster listener of another node; transport.Node.DialTunnel fits.
	Dial func(ctx context.Context, nodeID, addr string) (net.Conn, error)
	// Listen listens on a published port of this node; nil: on all addresses.
	Listen func(port uint16) (net.Listener, error)
	Logger *slog.Logger
	// MaxConns bounds the connections carried at once, each way; 0: by the number of files that may be open.
	MaxConns int
	// Idle ends connections over which nothing has come for so long; 0: an hour. When one end has said that it sends
	// nothing more it is a quarter of that.
	Idle time.Duration
	// DialTimeout is how long one task may take to be reached; 0: five seconds.
	DialTimeout time.Duration
}

// Mesh carries connections to published ports. Its methods may be called in parallel.
type Mesh struct {
	o   Options
	log *slog.Logger
	out chan struct{} // a place for each connection that came to a port of this node
	in  chan struct{} // and for each that came from another node's mesh

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu    sync.Mutex
	ports map[uint16]*port
	pairs map[*pair]struct{}
	shy   map[string]time.Time // tasks that could not be reached, and until when they come last
}

// New returns a Mesh without ports.
func New(o Options) *Mesh {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Listen == nil {
		o.Listen = listen
	}
	if o.MaxConns == 0 {
		o.MaxConns = places()
	}
	if o.Idle == 0 {
		o.Idle = time.Hour
	}
	if o.DialTimeout == 0 {
		o.DialTimeout = 5 * time.Second
	}
	m := &Mesh{o: o, log: o.Logger, out: make(chan struct{}, o.MaxConns), in: make(chan struct{}, o.MaxConns),
		ports: map[uint16]*port{}, pairs: map[*pair]struct{}{}, shy: map[string]time.Time{}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.work.Go(m.sweep)
	return m
}

// places is how many connections may be carried each way: one takes two descriptors, and up to four more while the
// kernel moves its bytes through pipes.
func places() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 64
	}
	return int(min(max(limit.Cur/16, 64), 4096))
}

// listen listens on all addresses of both families.
func listen(number uint16) (net.Listener, error) {
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	return c.Listen(context.Background(), "tcp", netip.AddrPortFrom(netip.IPv6Unspecified(), number).String())
}

// Update makes the ports those of the routes. It returns at once. The routes are kept: the caller must not change
// them afterwards.
func (m *Mesh) Update(routes []session.Route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return
	}
	wanted := map[uint16]bool{}
	for i := range routes {
		r := &routes[i]
		if !carried(&r.Port) {
			m.log.Debug("a published port is of no kind that is carried", "service", r.Service, "port", r.Port.PublishedPort, "protocol", r.Port.Protocol)
			continue
		}
		number := uint16(r.Port.PublishedPort)
		if wanted[number] {
			m.log.Debug("a published port is that of two services", "service", r.Service, "port", number)
			continue
		}
		wanted[number] = true
		if p := m.ports[number]; p != nil {
			p.route.Store(r)
			continue
		}
		p := newPort(m, number, r)
		m.ports[number] = p
		m.work.Go(p.run)
	}
	for number, p := range m.ports {
		if !wanted[number] {
			delete(m.ports, number)
			p.close()
		}
	}
}

func carried(p *wire.ServicePort) bool {
	valid := func(n uint32) bool { return 0 < n && n < 1<<16 }
	return p.PublishMode != wire.PublishHost && (p.Protocol == "" || p.Protocol == "tcp") && valid(p.PublishedPort) && valid(p.TargetPort)
}

// Close ends all ports and connections.
func (m *Mesh) Close() error {
	m.mu.Lock()
	m.cancel()
	for _, p := range m.ports {
		p.close()
	}
	for p := range m.pairs {
		p.abort()
	}
	m.mu.Unlock()
	m.work.Wait()
	return nil
}
