// Package registry talks to image registries: it resolves a reference to the manifest of a platform,
// fetches blobs as streams that are verified while they are read, pushes images and checks logins
// (OCI distribution-spec; Docker's token authentication). Nothing that a registry answers is trusted:
// manifests are bounded, blobs have the size and digest that the manifest promised or end in an error.
//
//	found, err := client.Resolve(ctx, "busybox:1.36", platform, auth)
//	config, err := found.ReadBlob(ctx, found.Manifest.Config, limit)
//	stream, err := found.Blob(ctx, found.Manifest.Layers[0])
//
// connect.go makes the HTTP client of one repository (mirrors, plain HTTP, authentication), tokens.go asks the
// servers that give out tokens, platform.go chooses from an index, blob.go resumes broken downloads, fallback.go
// behind a mirror that breaks them off, push.go uploads, login.go and search.go ask the rest, patience.go
// waits for whoever was asked too often, errors.go has the words.
package registry

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distribution/reference"

	"github.com/sampan-project/sampan/core/fault"
)

// Options say how registries are reached.
type Options struct {
	// Insecure are hosts, host:port pairs or CIDR blocks that may be spoken to in plain HTTP, or in
	// TLS with any certificate. Loopback addresses always may.
	Insecure []string
	// Mirrors are base URLs to be tried before a registry, by its host ("docker.io").
	Mirrors map[string][]string
	// Uploads is how many blobs of an image are pushed at once, Attempts how often a download that broke
	// off is tried; 0 is Docker's number, five of both.
	Uploads, Attempts int
	Logger            *slog.Logger
}

// Client talks to registries. Its methods may be called in parallel.
type Client struct {
	rules    atomic.Pointer[rules]
	log      *slog.Logger
	verified http.RoundTripper
	trusting http.RoundTripper // of insecure registries: any certificate will do
	signing  sync.Mutex        // held while signatures beside an image are changed
}

// rules are what Reload replaces.
type rules struct {
	mirrors  map[string][]mirror
	hosts    map[string]bool // insecure, by host or host:port
	blocks   []netip.Prefix  // insecure, by address
	uploads  int
	attempts int
	stalled  time.Duration
	wait     time.Duration
}

// mirror is a registry that has another one's images.
type mirror struct {
	host  string
	plain bool // its URL says http
}

// New returns a client. Options that Validate refuses are logged and left out.
func New(o Options) *Client {
	c := &Client{log: o.Logger, verified: newTransport(false), trusting: newTransport(true)}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.Reload(o)
	return c
}

// Reload replaces the options, all but the logger, for what is asked from now on.
func (c *Client) Reload(o Options) {
	r := &rules{mirrors: map[string][]mirror{}, hosts: map[string]bool{}, uploads: cmp.Or(o.Uploads, uploads), attempts: cmp.Or(o.Attempts, attempts), stalled: stalled, wait: firstWait}
	for _, given := range o.Insecure {
		host, block, err := parseInsecure(given)
		switch {
		case err != nil:
			c.log.Warn("insecure registry is left out", "error", err)
		case host != "":
			r.hosts[host] = true
		default:
			r.blocks = append(r.blocks, block)
		}
	}
	for registry, urls := range o.Mirrors {
		for _, given := range urls {
			m, err := parseMirror(given)
			if err != nil {
				c.log.Warn("registry mirror is left out", "error", err)
				continue
			}
			r.mirrors[registry] = append(r.mirrors[registry], m)
		}
	}
	c.rules.Store(r)
}

// Validate returns the first mistake in the options.
func (o Options) Validate() error {
	for _, given := range o.Insecure {
		if _, _, err := parseInsecure(given); err != nil {
			return err
		}
	}
	for _, urls := range o.Mirrors {
		for _, given := range urls {
			if _, err := parseMirror(given); err != nil {
				return err
			}
		}
	}
	return nil
}

func parseInsecure(given string) (host string, block netip.Prefix, err error) {
	if block, err = netip.ParsePrefix(given); err == nil {
		return "", block.Masked(), nil
	}
	host = strings.ToLower(given)
	if host == "" || strings.ContainsAny(host, "/?#@ \t") {
		return "", block, &fault.Field{Field: "insecure-registry", Given: given, Expected: "a host, host:port or CIDR block, without a scheme"}
	}
	return host, block, nil
}

func parseMirror(given string) (mirror, error) {
	u, err := url.Parse(given)
	ok := err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil &&
		strings.Trim(u.Path, "/") == "" && u.RawQuery == "" && u.Fragment == ""
	if !ok {
		return mirror{}, &fault.Field{Field: "registry-mirror", Given: given, Expected: "an http or https URL of a host, without a path"}
	}
	return mirror{u.Host, u.Scheme == "http"}, nil
}

// IsInsecure reports whether the registry at host may be spoken to in plain HTTP.
func (c *Client) IsInsecure(ctx context.Context, host string) bool {
	host = strings.ToLower(host)
	u := url.URL{Host: host}
	bare, r := u.Hostname(), c.rules.Load()
	if r.hosts[host] || r.hosts[bare] || bare == "localhost" {
		return true
	}
	permitted := func(a netip.Addr) bool {
		a = a.Unmap()
		return a.IsLoopback() || slices.ContainsFunc(r.blocks, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	if a, err := netip.ParseAddr(bare); err == nil {
		return permitted(a)
	}
	if len(r.blocks) == 0 {
		return false
	}
	// All addresses: a name that leads to one place outside of the blocks is as good as outside.
	addresses, err := lookup(ctx, bare)
	return err == nil && len(addresses) > 0 && !slices.ContainsFunc(addresses, func(a netip.Addr) bool { return !permitted(a) })
}

// parse reads a reference as a user writes it; no tag and no digest is the tag latest.
func parse(ref string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fault.New(fault.Invalid, "invalid reference format: %q", ref)
	}
	return reference.TagNameOnly(named), nil
}

// identifier is what a manifest is asked for by: the digest where there is one.
func identifier(named reference.Named) string {
	if d, ok := named.(reference.Digested); ok {
		return d.Digest().String()
	}
	if t, ok := named.(reference.Tagged); ok {
		return t.Tag()
	}
	return "latest"
}
