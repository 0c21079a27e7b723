package transport

import (
	"context"
	"crypto/tls"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/sampan-project/sampan/core/cluster/identity"
)

// What a vanished node is known by: a ping of HTTP/2 after a silence, and how long its answer may take.
const (
	silence    = 10 * time.Second
	pingAnswer = 10 * time.Second
)

// httpSide is a server whose connections come through the node's one listener, with the handshake behind them.
type httpSide struct {
	queue
	server *http.Server
	once   sync.Once
}

// newNodeSide is the server for nodes: streams last for as long as they are needed.
func (n *Node) newNodeSide() *httpSide {
	s := n.newSide()
	// A stream whose handler does not read must not hold up the others of the connection, so it gets a small part.
	s.server.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams:          250,
		MaxReceiveBufferPerConnection: 4<<20 - 1, MaxReceiveBufferPerStream: 256 << 10,
		SendPingTimeout: silence, PingTimeout: pingAnswer, WriteByteTimeout: silence + pingAnswer,
	}
	return s
}

// newJoiningSide is the server for who has no certificate: a few small requests.
func (n *Node) newJoiningSide() *httpSide {
	s := n.newSide()
	s.server.ReadTimeout, s.server.WriteTimeout = n.options.StrangerTime, n.options.StrangerTime
	s.server.IdleTimeout = n.options.HandshakeTimeout
	s.server.MaxHeaderBytes = 16 << 10
	s.server.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams:          4,
		MaxReceiveBufferPerConnection: 64 << 10, MaxReceiveBufferPerStream: 64 << 10,
		WriteByteTimeout: silence,
	}
	return s
}

func (n *Node) newSide() *httpSide {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	return &httpSide{
		queue: queue{conns: make(chan net.Conn), done: n.ctx.Done(), addr: n.listener.Addr()},
		server: &http.Server{
			Protocols:   &protocols,
			BaseContext: func(net.Listener) context.Context { return n.ctx },
			ErrorLog:    log.New(logWriter{n.options.Logger}, "", 0),
		},
	}
}

// serve starts the server with the handler.
func (s *httpSide) serve(h http.Handler) {
	s.once.Do(func() {
		s.server.Handler = h
		go func() { _ = s.server.Serve(&s.queue) }() // always ErrServerClosed or the queue's net.ErrClosed
	})
}

func (s *httpSide) close() { _ = s.server.Close() }

// bounded is the handler for who has no certificate.
func bounded(h http.Handler, size int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, size)
		h.ServeHTTP(w, r)
	})
}

// strangersOnly keeps from the handler the nodes that have a certificate and are refused.
func (n *Node) strangersOnly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, certified := identity.PeerOf(*r.TLS); certified {
			n.options.Refused(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// logWriter takes the lines that net/http writes about connections: what others do wrong is not the daemon's error.
type logWriter struct{ logger *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.logger.Debug("swarm requests", "message", strings.TrimSpace(string(p)))
	return len(p), nil
}

// queue is a net.Listener of connections that were accepted elsewhere.
type queue struct {
	conns chan net.Conn
	done  <-chan struct{}
	addr  net.Addr
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error   { return nil }
func (q *queue) Addr() net.Addr { return q.addr }

// deliver waits until somebody takes the connection, and closes it if that takes too long.
func (q *queue) deliver(ctx context.Context, c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.done:
		c.Close()
	case <-ctx.Done():
		c.Close()
	}
}

// raftLayer is the managers' log's way to the others.
type raftLayer struct {
	queue
	node *Node
	ctx  context.Context
	end  context.CancelFunc
}

// Raft returns what the managers' log speaks through: only managers of this swarm come in, and are dialled. There is one
// layer at a time: one that was there before is closed. Closing a layer ends the connections it accepted, and the
// node goes on.
func (n *Node) Raft() raft.StreamLayer {
	l := &raftLayer{node: n}
	l.ctx, l.end = context.WithCancel(n.ctx)
	l.queue = queue{conns: make(chan net.Conn), done: l.ctx.Done(), addr: n.listener.Addr()}
	if old := n.raft.Swap(l); old != nil {
		old.end()
	}
	return l
}

// Close refuses what comes, and ends what the layer has accepted.
func (l *raftLayer) Close() error {
	l.end()
	return nil
}

// Dial connects to another manager.
func (l *raftLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if l.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	ctx, cancel := context.WithTimeout(l.ctx, timeout)
	defer cancel()
	return asConn(l.node.dial(ctx, identity.AnyManager, string(address), Raft))
}

func (n *Node) deliverRaft(ctx context.Context, c *conn, t *tls.Conn) {
	l := n.raft.Load()
	if l == nil {
		_ = t.Close()
		return
	}
	stop := context.AfterFunc(l.ctx, func() { _ = c.Close() })
	c.atEnd(func() { stop() })
	l.deliver(ctx, t)
}

// Tunnels has the handler take tunnels of other nodes, from now on. The connection has CloseWrite, and is closed when the
// handler returns. ctx ends with the node.
func (n *Node) Tunnels(handler func(ctx context.Context, conn net.Conn, peer identity.Peer)) {
	n.tunnels.Store(&handler)
}

func (n *Node) serveTunnel(t *tls.Conn, peer identity.Peer) {
	handler := n.tunnels.Load()
	if handler == nil {
		_ = t.Close()
		return
	}
	go func() {
		defer func() { _ = t.Close() }()
		(*handler)(n.ctx, t, peer)
	}()
}
