package client

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/sampan-project/sampan/core/wire"
)

// Ping is what a server says of itself before anything else.
type Ping struct {
	APIVersion     string
	OSType         string
	BuilderVersion string
	Experimental   bool
}

// Ping asks whether the server is there, and agrees on the API version.
func (c *Client) Ping(ctx context.Context) (Ping, error) {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: "/_ping", plain: true})
	if err != nil {
		return Ping{}, err
	}
	defer drain(resp)
	p := Ping{
		APIVersion:     resp.Header.Get("Api-Version"),
		OSType:         resp.Header.Get("Ostype"),
		BuilderVersion: resp.Header.Get("Builder-Version"),
		Experimental:   resp.Header.Get("Docker-Experimental") == "true",
	}
	c.lower(p.APIVersion, c.Version())
	return p, nil
}

// ServerVersion asks for the server's version and that of its parts.
func (c *Client) ServerVersion(ctx context.Context) (wire.Version, error) {
	return get[wire.Version](ctx, c, "/version", nil)
}

// Info asks for the state of the whole server.
func (c *Client) Info(ctx context.Context) (wire.Info, error) {
	return get[wire.Info](ctx, c, "/info", nil)
}

// DiskUsage asks what the stores hold; types may be container, image, volume and build-cache.
func (c *Client) DiskUsage(ctx context.Context, types ...string) (wire.DiskUsage, error) {
	q := url.Values{}
	for _, t := range types {
		q.Add("type", t)
	}
	return get[wire.DiskUsage](ctx, c, "/system/df", q)
}

// EventsOptions bound a stream of events; times are seconds since 1970 with a fraction, or RFC 3339.
type EventsOptions struct {
	Since, Until string
	Filters      Filters
}

// Events calls each with every event until the stream ends, ctx is done or each fails.
func (c *Client) Events(ctx context.Context, o EventsOptions, each func(wire.Event) error) error {
	q := url.Values{}
	if o.Since != "" {
		q.Set("since", o.Since)
	}
	if o.Until != "" {
		q.Set("until", o.Until)
	}
	if err := setFilters(q, o.Filters); err != nil {
		return err
	}
	resp, err := c.send(ctx, request{method: http.MethodGet, path: "/events", query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return lines(ctx, resp.Body, each)
}

// RegistryLogin asks a registry, through the server, whether auth is good.
func (c *Client) RegistryLogin(ctx context.Context, auth wire.AuthConfig) (wire.AuthResponse, error) {
	return post[wire.AuthResponse](ctx, c, "/auth", nil, auth)
}

// BuildPrune removes records of the build cache: those that are not used, or all; keep spares that many
// bytes of them.
func (c *Client) BuildPrune(ctx context.Context, all bool, keep int64, f Filters) (wire.BuildPrune, error) {
	q := url.Values{}
	setBool(q, "all", all)
	if keep > 0 {
		q.Set("keep-storage", strconv.FormatInt(keep, 10))
	}
	if err := setFilters(q, f); err != nil {
		return wire.BuildPrune{}, err
	}
	return post[wire.BuildPrune](ctx, c, "/build/prune", q, nil)
}

// HalfCloser is a connection of which one direction can be ended.
type HalfCloser interface{ CloseWrite() error }

// Dial opens a connection to the server on which nothing was said yet.
func (c *Client) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := c.dialer.dial(ctx)
	if err != nil {
		return nil, transportError(ctx, err)
	}
	return conn, nil
}
