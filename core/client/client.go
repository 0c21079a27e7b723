// Package client is the Go client of both HTTP APIs: Docker's Engine API and /sampan/v1.
//
// A Client is made once per process by New and is safe for use by many goroutines. It dials when the
// first request needs it: a unix socket, TCP with or without TLS, or the standard streams of an ssh
// program. Each method is one request of the API and has its name; the bodies are the types of
// core/wire. A stream that the server takes over ("hijacks", for attach and exec) comes back as
// Hijacked; a progress stream is a callback per message.
//
// An error of the server carries the class that its status means (core/fault) and the server's own
// words; StatusError says that it came from there. That nobody listens is class Unavailable.
//
// The API version needs no round trip of its own: the newest is tried, and a server that is older
// says its own in the Api-Version header of the refusal, with which the request is sent once more.
//
// Source: Docker Engine API v1.50 reference, docs.docker.com/reference/api/engine/version/v1.50.
package client

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// DefaultHost is where sampand listens unless it is told otherwise.
const DefaultHost = "unix:///run/sampan.sock"

// Options say how to reach the daemon.
type Options struct {
	// Host is unix:///PATH, tcp://HOST:PORT, http(s)://HOST:PORT or ssh://[USER@]HOST[:PORT].
	// "" is DefaultHost.
	Host string
	// TLS is used on tcp; nil is plain.
	TLS *TLS
	// Version pins the API version, such as "1.41"; "" negotiates.
	Version string
	// UserAgent is sent with each request; "" is Sampan-Client/VERSION.
	UserAgent string
	// Headers are sent with each request.
	Headers map[string]string
	// Start is called once when nothing listens on a unix socket; after it returns nil the socket is
	// dialled again. nil: no daemon is started.
	Start func(context.Context) error
}

// TLS names the files of a TLS connection.
type TLS struct {
	CA, Cert, Key string // PEM files; "" is none
	Verify        bool   // check the server's certificate against CA, or the system's authorities
}

// Client speaks to one daemon.
type Client struct {
	dialer    *dialer
	http      *http.Client
	userAgent string
	headers   map[string]string
	pinned    bool
	version   atomic.Pointer[string] // what requests carry
	agreed    atomic.Bool            // a server has accepted version
}

// New returns a client. It reads the TLS files but does not connect.
func New(o Options) (*Client, error) {
	d, err := newDialer(o)
	if err != nil {
		return nil, err
	}
	version := o.Version
	if version == "" {
		version = wire.APIVersion
	}
	if _, _, ok := parseVersion(version); !ok {
		return nil, &fault.Field{Field: "API version", Given: version, Expected: "a version such as " + wire.APIVersion}
	}
	agent := o.UserAgent
	if agent == "" {
		agent = "Sampan-Client/" + wire.Release + " (linux)"
	}
	c := &Client{dialer: d, userAgent: agent, headers: o.Headers, pinned: o.Version != ""}
	c.version.Store(&version)
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return d.dial(ctx) },
			DisableCompression: true,
			MaxIdleConns:       6,
			IdleConnTimeout:    30 * time.Second,
		},
		// The API never redirects; following one would send a request, with its registry password, elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Host returns the address as it was given, such as unix:///run/sampan.sock.
func (c *Client) Host() string { return c.dialer.host }

// Version returns the API version that requests carry: the newest until a server said otherwise.
func (c *Client) Version() string { return *c.version.Load() }

// Ahead has n connections opened beside the next one, for the requests after its: each of them begins with the
// request and not with its connection.
func (c *Client) Ahead(n int) { c.dialer.wanted.Store(int32(min(n, maxSpare))) }

// Close closes idle connections.
func (c *Client) Close() error {
	c.dialer.dropSpare()
	c.http.CloseIdleConnections()
	return nil
}
