package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/wire"
)

// conn is a connection of the kernel, of which others learn the end.
type conn struct {
	net.Conn
	mu     sync.Mutex
	closed bool
	ends   []func()
	whole  atomic.Bool // its end must be said within TLS

	// Who is at the other end and what it speaks, since keep.
	peer     identity.Peer
	protocol string
}

// errCut is the end of a connection that nobody said within TLS (RFC 8446, section 6.1): of a process that
// was killed, or on purpose, to break off. crypto/tls takes it for the end of the data.
var errCut = errors.New("the connection was cut off")

// Read tells an end of the kernel's connection from that of the data, where that matters.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF && c.whole.Load() { //nolint:errorlint // it is what a net.Conn returns
		err = errCut
	}
	return n, err
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.mu.Lock()
	ends := c.ends
	c.closed, c.ends = true, nil
	c.mu.Unlock()
	for _, f := range ends {
		f()
	}
	return err
}

// atEnd has f called when the connection is closed; at once if it is.
func (c *conn) atEnd(f func()) {
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.ends = append(c.ends, f)
	}
	c.mu.Unlock()
	if closed {
		f()
	}
}

// How long the listener rests after an error.
const (
	shortPause = 10 * time.Millisecond
	longPause  = time.Second
)

// accept takes connections until the listener is closed.
func (n *Node) accept() {
	config := identity.ServerConfig(n.who, []string{HTTP, Raft, Tunnel}, n.admit)
	pause := shortPause
	for {
		raw, err := n.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			// Out of descriptors, or the other end went before it was taken: neither ends the listener.
			n.options.Logger.Warn("swarm listener", "error", err)
			select {
			case <-time.After(pause):
			case <-n.ctx.Done():
				return
			}
			pause = min(2*pause, longPause)
			continue
		}
		pause = shortPause
		c := &conn{Conn: raw}
		n.handshakes.enter(c)
		c.atEnd(func() { n.handshakes.leave(c) })
		n.work.Go(func() { n.handshake(c, tls.Server(c, config)) })
	}
}

// admit is asked in the handshake, before anything is taken from the connection.
func (n *Node) admit(peer *identity.Peer, protocol string) error {
	switch {
	case peer == nil && protocol == HTTP:
		return nil // it wants to join
	case peer == nil:
		return fmt.Errorf("%s needs a certificate", protocol)
	case protocol == Raft && peer.Role != wire.RoleManager:
		return fmt.Errorf("node %s is no manager", peer.NodeID)
	case !n.options.Allowed(*peer, protocol) && !n.told(protocol):
		return notAllowed(*peer)
	}
	return nil
}

// told says that a node that is refused is told so in an answer.
func (n *Node) told(protocol string) bool { return protocol == HTTP && n.options.Refused != nil }

func (n *Node) handshake(c *conn, t *tls.Conn) {
	ctx, cancel := context.WithTimeout(n.ctx, n.options.HandshakeTimeout)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		n.options.Logger.Debug("swarm connection refused", "from", c.RemoteAddr(), "error", err)
		return
	}
	defer n.handshakes.leave(c)
	state := t.ConnectionState()
	peer, certified := identity.PeerOf(state)
	if !certified || n.told(state.NegotiatedProtocol) && !n.options.Allowed(peer, HTTP) {
		n.welcomeStranger(ctx, c, t)
		return
	}
	if err := n.keep(c, peer, state.NegotiatedProtocol); err != nil {
		_ = t.Close()
		n.options.Logger.Warn("swarm connection refused", "from", c.RemoteAddr(), "error", err)
		return
	}
	n.handshakes.leave(c)
	switch state.NegotiatedProtocol {
	case HTTP:
		n.nodes.deliver(ctx, t)
	case Raft:
		n.deliverRaft(ctx, c, t)
	case Tunnel:
		n.serveTunnel(t, peer)
	default:
		_ = t.Close()
	}
}

// keep counts a connection with a certificate, until it ends.
func (n *Node) keep(c *conn, peer identity.Peer, protocol string) error {
	c.peer, c.protocol = peer, protocol
	if !n.peers.enter(c, peer.NodeID, protocol) {
		return errTooMany
	}
	c.whole.Store(protocol == Tunnel)
	c.atEnd(func() { n.peers.leave(c) })
	// Whoever was removed before it had its place here, where Drop would have seen it, is refused now.
	if !n.options.Allowed(peer, protocol) {
		return notAllowed(peer)
	}
	return nil
}

func notAllowed(peer identity.Peer) error {
	return fmt.Errorf("node %s is not allowed in the swarm", peer.NodeID)
}

// welcomeStranger hands on a connection without a certificate, or of a node that is told that it is refused. It ends when
// its time is over.
func (n *Node) welcomeStranger(ctx context.Context, c *conn, t *tls.Conn) {
	n.strangers.enter(c)
	c.atEnd(func() { n.strangers.leave(c) })
	n.handshakes.leave(c)
	over := time.AfterFunc(n.options.StrangerTime, func() { _ = c.Close() })
	c.atEnd(func() { over.Stop() })
	n.joining.deliver(ctx, t)
}

var errTooMany = errors.New("too many connections of the swarm")

// peers are the connections with a certificate, in both directions, by node.
type peers struct {
	max, maxPerNode int

	mu     sync.Mutex
	closed bool
	nodes  map[net.Conn]string
	counts map[string]int
}

func newPeers(most, perNode int) *peers {
	return &peers{max: most, maxPerNode: perNode, nodes: map[net.Conn]string{}, counts: map[string]int{}}
}

// enter keeps the connection until leave; it says whether there is room. There is twice as much for what is no tunnel: a
// published port that is busy must not keep the nodes from each other.
func (p *peers) enter(c net.Conn, nodeID, protocol string) bool {
	most, perNode := p.max, p.maxPerNode
	if protocol != Tunnel {
		most, perNode = 2*most, 2*perNode
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.nodes) >= most || p.counts[nodeID] >= perNode {
		return false
	}
	p.nodes[c] = nodeID
	p.counts[nodeID]++
	return true
}

func (p *peers) leave(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := p.nodes[c]
	delete(p.nodes, c)
	if p.counts[id]--; p.counts[id] <= 0 {
		delete(p.counts, id)
	}
}

func (p *peers) drop(nodeID string) { p.end(func(_ net.Conn, id string) bool { return id == nodeID }) }

func (p *peers) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.end(func(net.Conn, string) bool { return true })
}

func (p *peers) end(which func(c net.Conn, nodeID string) bool) {
	p.mu.Lock()
	var ended []net.Conn
	for c, id := range p.nodes {
		if which(c, id) {
			ended = append(ended, c)
		}
	}
	p.mu.Unlock()
	for _, c := range ended {
		_ = c.Close() // takes the lock, by leave
	}
}
