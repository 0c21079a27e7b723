package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/fault"
)

const (
	dialTimeout = 10 * time.Second
	// idle is how long an unused connection is kept.
	idle = 90 * time.Second
	// parallelDials is how many connections to one address are made at once: the other end takes no more handshakes of
	// one address than it can do.
	parallelDials   = 64
	maxResponseHead = 64 << 10
)

// dial makes a connection to the node with the ID, or to AnyManager, as who this node is now.
func (n *Node) dial(ctx context.Context, name, addr, protocol string) (*tls.Conn, error) {
	config, err := identity.ClientConfig(n.who, name, protocol)
	if err != nil {
		return nil, err
	}
	leave, err := n.dialing.enter(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer leave()
	t, err := dialTLS(ctx, addr, config, n.options.HandshakeTimeout)
	if err != nil {
		return nil, err
	}
	peer, _ := identity.PeerOf(t.ConnectionState()) // the handshake has verified it
	if err := n.keep(t.NetConn().(*conn), peer, protocol); err != nil {
		_ = t.Close()
		return nil, fault.New(fault.Unavailable, "swarm connection to %s: %w", addr, err)
	}
	return t, nil
}

func dialTLS(ctx context.Context, addr string, config *tls.Config, timeout time.Duration) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout+timeout)
	defer cancel()
	dialer := net.Dialer{Timeout: dialTimeout}
	raw, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fault.As(fault.Unavailable, err)
	}
	t := tls.Client(&conn{Conn: raw}, config)
	if err := t.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fault.New(fault.Unavailable, "swarm connection to %s: %w", addr, err)
	}
	return t, nil
}

// DialTunnel connects to the tunnels of the node with the ID, which listens at the address. The connection has CloseWrite.
// That the other end refuses this node shows when it is read from.
func (n *Node) DialTunnel(ctx context.Context, nodeID, addr string) (net.Conn, error) {
	return asConn(n.dial(ctx, nodeID, addr, Tunnel))
}

// asConn keeps a nil *tls.Conn from being a net.Conn that is not nil.
func asConn(t *tls.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Client sends requests to managers, https://host:port/..., over connections that are kept and shared. Who has them
// answered is some manager, whichever listens at the address. Bodies stream both ways. After a change of this
// node's certificate requests use connections that are made with the new one.
func (n *Node) Client() *http.Client { return newClient(&n.managers) }

// NodeClient sends requests to the node with the ID, which listens at the address, whatever host a request names.
// Who has made one calls CloseIdleConnections in the end.
func (n *Node) NodeClient(nodeID, addr string) *http.Client {
	return newClient(newTransport(func(ctx context.Context, _ string) (*tls.Conn, error) {
		return n.dial(ctx, nodeID, addr, HTTP)
	}))
}

// JoinClient sends requests of a node that has no certificate to managers of the swarm whose root has the digest, as a
// token says it. Nothing is sent to anybody else: a request to another swarm, or to a worker, fails with an error of the
// handshake (identity.ErrOtherRoot). Who has made one calls CloseIdleConnections in the end.
func JoinClient(digest string) *http.Client {
	return newClient(newTransport(func(ctx context.Context, addr string) (*tls.Conn, error) {
		return dialTLS(ctx, addr, identity.JoinConfig(digest, HTTP), dialTimeout)
	}))
}

func newClient(t http.RoundTripper) *http.Client {
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// encrypted is a transport that has no other way to anybody than its dial function.
type encrypted struct{ *http.Transport }

func newTransport(dial func(ctx context.Context, addr string) (*tls.Conn, error)) encrypted {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	return encrypted{&http.Transport{
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return asConn(dial(ctx, addr))
		},
		Protocols:              &protocols,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: silence, PingTimeout: pingAnswer, WriteByteTimeout: silence + pingAnswer},
		IdleConnTimeout:        idle,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxResponseHead,
	}}
}

func (e encrypted) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, &fault.Field{Field: "swarm request", Given: r.URL.Redacted(), Expected: "a URL that begins with https://"}
	}
	return e.Transport.RoundTrip(r)
}

// managerClient is the transport to managers, and another one after each change of the identity: those of HTTP/2 use a
// connection for as long as it lives, so requests would go on to show the certificate it was made with.
type managerClient struct {
	node *Node

	mu        sync.Mutex
	as        *identity.Identity
	transport encrypted
	closed    bool
}

func (m *managerClient) RoundTrip(r *http.Request) (*http.Response, error) {
	t, err := m.current()
	if err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	return t.RoundTrip(r)
}

func (m *managerClient) current() (encrypted, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return encrypted{}, fault.As(fault.Unavailable, errors.New("the swarm's connections are closed"))
	}
	if now := m.node.who.Current(); m.transport.Transport == nil || now != m.as {
		m.closeIdle()
		m.as = now
		m.transport = newTransport(func(ctx context.Context, addr string) (*tls.Conn, error) {
			return m.node.dial(ctx, identity.AnyManager, addr, HTTP)
		})
	}
	return m.transport, nil
}

// CloseIdleConnections is what http.Client passes on.
func (m *managerClient) CloseIdleConnections() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closeIdle()
}

// closeIdle ends the connections that nobody uses. Those with a stream end when they have been idle.
func (m *managerClient) closeIdle() {
	if m.transport.Transport != nil {
		m.transport.CloseIdleConnections()
	}
}

func (m *managerClient) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.closeIdle()
}

// gates let a bounded number through for each address at a time.
type gates struct {
	mu sync.Mutex
	by map[string]*gate
}

type gate struct {
	places chan struct{}
	users  int
}

// enter waits for a place, which leave gives back.
func (g *gates) enter(ctx context.Context, addr string) (leave func(), err error) {
	g.mu.Lock()
	if g.by == nil {
		g.by = map[string]*gate{}
	}
	one := g.by[addr]
	if one == nil {
		one = &gate{places: make(chan struct{}, parallelDials)}
		g.by[addr] = one
	}
	one.users++
	g.mu.Unlock()

	forget := func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(g.by, addr)
		}
	}
	select {
	case one.places <- struct{}{}:
		return func() { <-one.places; forget() }, nil
	case <-ctx.Done():
		forget()
		return nil, ctx.Err()
	}
}
