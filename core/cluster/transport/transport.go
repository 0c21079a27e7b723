// Package transport is how the nodes of a swarm reach one another: one TLS listener on each, and what connects there says by
// ALPN what it wants to speak.
//
//	HTTP     requests, streams both ways; also of nodes that have no certificate yet, within narrow bounds
//	Raft     the managers' log: managers alone
//	Tunnel   bytes, for published ports
//
//	Listen                 the listener, bounded against whoever finds the port (crowd.go, admit.go)
//	Node.Serve, Raft, Tunnels       what is done with each protocol (serve.go)
//	Node.Client, NodeClient, DialTunnel, JoinClient    the other direction (dial.go)
//	Node.Drop              ends what a node that was removed has open
//
// Who may connect is decided here; what a peer may do there is the handler's (identity.PeerOf of the request's TLS).
package transport

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/fault"
)

// The protocols, as names of ALPN (RFC 7301).
const (
	HTTP   = "h2"
	Raft   = "sampan-raft/1"
	Tunnel = "sampan-tunnel/1"
)

// Options of a Node. What is zero has the value in parentheses.
type Options struct {
	// Allowed is asked for each connection with a valid certificate, in both directions, after the handshake: a
	// certificate is good until it expires, but a node can be removed or lose its role before that (all are allowed).
	// It must not wait for the network.
	Allowed func(peer identity.Peer, protocol string) bool
	// Refused answers the requests of a node that Allowed refuses, so that it learns why; nobody else does, and its
	// connections are bounded like those of strangers (none: they are refused in the handshake).
	Refused http.HandlerFunc
	Logger  *slog.Logger // (discarded)

	HandshakeTimeout time.Duration // (10 s)
	// StrangerTime is how long a connection without a certificate may last (60 s).
	StrangerTime time.Duration
	// MaxBody is the size of a request's body without a certificate (64 KiB).
	MaxBody int64

	// Handshakes under way, in all and of one address (1024, 256).
	Handshakes, HandshakesPerAddress int
	// Strangers are connections without a certificate, in all and of one address (128, 16).
	Strangers, StrangersPerAddress int
	// Connections with a certificate, in both directions, in all and of one node, until no tunnel is taken any more
	// (16384, 4096); twice as many, until nothing is.
	Connections, ConnectionsPerNode int
}

func (o *Options) defaults() {
	if o.Allowed == nil {
		o.Allowed = func(identity.Peer, string) bool { return true }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&o.HandshakeTimeout, 10 * time.Second}, {&o.StrangerTime, time.Minute}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	for _, d := range []struct {
		field *int
		value int
	}{
		{&o.Handshakes, 1024}, {&o.HandshakesPerAddress, 256},
		{&o.Strangers, 128}, {&o.StrangersPerAddress, 16}, {&o.Connections, 16384}, {&o.ConnectionsPerNode, 4096},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if o.MaxBody <= 0 {
		o.MaxBody = 64 << 10
	}
}

// Node is this node's end of all connections of the swarm.
type Node struct {
	who      identity.Source
	options  Options
	listener net.Listener

	ctx    context.Context // ends with the node
	cancel context.CancelFunc
	work   sync.WaitGroup

	handshakes *crowd // connections that are not through yet
	strangers  *crowd // those without a certificate
	peers      *peers // those with one

	nodes   *httpSide // requests of nodes
	joining *httpSide // requests without a certificate
	raft    atomic.Pointer[raftLayer]
	tunnels atomic.Pointer[func(context.Context, net.Conn, identity.Peer)]

	managers managerClient
	dialing  gates
}

// Listen begins to accept connections at the address. A connection waits for Serve for as long as a handshake may last;
// of Raft and Tunnels what nobody has asked for is refused.
func Listen(addr string, who identity.Source, o Options) (*Node, error) {
	o.defaults()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "swarm listen address: %w", err)
	}
	n := &Node{
		who: who, options: o, listener: l,
		handshakes: newCrowd(o.Handshakes, o.HandshakesPerAddress),
		strangers:  newCrowd(o.Strangers, o.StrangersPerAddress),
		peers:      newPeers(o.Connections, o.ConnectionsPerNode),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.managers.node = n
	n.nodes, n.joining = n.newNodeSide(), n.newJoiningSide()
	n.work.Go(n.accept)
	return n, nil
}

// Addr is where the node listens.
func (n *Node) Addr() net.Addr { return n.listener.Addr() }

// Drop ends every connection from and to the node. Who removes a node from the swarm first has Options.Allowed
// refuse it.
func (n *Node) Drop(nodeID string) { n.peers.drop(nodeID) }

// Review ends the connections of a protocol that Options.Allowed refuses by now.
func (n *Node) Review(protocol string) {
	n.peers.end(func(c net.Conn, _ string) bool {
		k, ok := c.(*conn)
		return ok && k.protocol == protocol && !n.options.Allowed(k.peer, protocol)
	})
}

// Close ends the listener, every connection and the contexts of handlers. It does not wait for them: one of them may have
// called it.
func (n *Node) Close() error {
	err := n.listener.Close()
	// Connections before contexts, which end the handshakes: a handler that is called off must not end an answer as if it
	// were whole.
	n.strangers.close()
	n.peers.close()
	n.cancel()
	n.nodes.close()
	n.joining.close()
	n.managers.close()
	n.work.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Serve has the handler answer requests; the first call counts. A request without a certificate comes here too: identity.PeerOf of
// its TLS says who asks. Its body is bounded then, and so is its time.
func (n *Node) Serve(h http.Handler) {
	n.nodes.serve(h)
	n.joining.serve(bounded(n.strangersOnly(h), n.options.MaxBody))
}
