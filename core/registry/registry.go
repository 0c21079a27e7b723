package registry

import "log/slog"

// Options say how registries are reached.
type Options struct {
	// Insecure are hosts, host:port pairs or CIDR blocks that may be spoken to in plain HTTP, or in
	// TLS with any certificate. Loopback addresses always may.
	Insecure []string
	// Mirrors are base URLs to be tried before a registry, by its host ("docker.io").
	Mirrors map[string][]string
	Logger  *slog.Logger
}

// Client talks to registries.
type Client struct{ o Options }

// New returns a client.
func New(o Options) *Client { return &Client{o: o} }
