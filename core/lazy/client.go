package lazy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/lazy/toc"
	"github.com/sampan-project/sampan/core/monitor/protocol"
	"github.com/sampan-project/sampan/core/wire"
)

// Options say which process is meant and how it is started.
type Options struct {
	Dir     string // of the process, below the exec-root: socket, mounts, log
	Cache   string // directory of the parts of layers, below the data-root
	Indexes string // directory of the indexes of gzip layers, below the data-root
	Program string // path of sampan-lazy; "" when there is none
	// Enabled says whether layers that are pulled from now on may be shown. Those of before are, in any case.
	Enabled bool
	// Registries returns how registries are reached, as registry.Options.
	Registries func() (insecure []string, mirrors map[string][]string)
	// Lost is called when the process has ended though it had something to show.
	Lost   func()
	Logger *slog.Logger
}

// Client speaks with the process. Its methods may be called in parallel.
type Client struct {
	o    Options
	http *http.Client

	ensuring sync.Mutex

	mu     sync.Mutex
	users  map[digest.Digest]int
	watch  *watch // of the process that answers; nil: none
	closed bool
}

// watch is a request that has an answer only when the process ends.
type watch struct{ cancel context.CancelFunc }

// New returns a client. Nothing is started before something is opened.
func New(o Options) *Client {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{o: o, users: map[digest.Digest]int{}}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:         func(context.Context, string, string) (net.Conn, error) { return dial(c.socket()) },
		MaxIdleConnsPerHost: 1,
	}}
	return c
}

func dial(socket string) (net.Conn, error) {
	conn, err := protocol.Dial(socket)
	if err != nil {
		return nil, err
	}
	return conn.Unix(), nil
}

func (c *Client) socket() string { return filepath.Join(c.o.Dir, "lazy.sock") }

func (c *Client) cacheOf(chain digest.Digest) string {
	return filepath.Join(c.o.Cache, chain.Encoded())
}

// At returns where the layer of a chain is shown.
func (c *Client) At(chain digest.Digest) string { return MountOf(c.o.Dir, chain) }

// Can reports whether a layer that is to be pulled may be shown.
func (c *Client) Can(s Source) bool {
	return c.able() && (toc.Has(s.Blob) || c.hasIndex(s.Blob))
}

// able reports whether layers may be shown.
func (c *Client) able() bool {
	if !c.o.Enabled || c.o.Program == "" {
		return false
	}
	_, err := os.Stat(device)
	return err == nil
}

// device is what a filesystem of a process needs, fuse(4); a variable for tests.
var device = "/dev/fuse"

// Open shows a layer. Each Open takes one Close; the files stay until the last.
func (c *Client) Open(ctx context.Context, s Source, auth *wire.AuthConfig) (Opened, error) {
	var o Opened
	if err := c.ensure(ctx); err != nil {
		return o, err
	}
	r := OpenRequest{Source: s, At: c.At(s.Chain), Cache: c.cacheOf(s.Chain), Auth: auth}
	if indexed(s.Blob) {
		r.Index = c.indexOf(s.Blob.Digest)
	}
	if c.o.Registries != nil {
		r.Insecure, r.Mirrors = c.o.Registries()
	}
	c.mu.Lock()
	c.users[s.Chain]++
	c.mu.Unlock()
	err := c.call(ctx, VerbOpen, r, &o)
	if err != nil {
		c.drop(s.Chain)
		c.rest()
	}
	return o, err
}

// Keep shows a layer that is part of the store already, again or still: however often it is called, one Close
// gives the layer back.
func (c *Client) Keep(ctx context.Context, s Source) error {
	_, err := c.Open(ctx, s, nil)
	if err == nil {
		c.mu.Lock()
		if c.users[s.Chain] > 1 {
			c.users[s.Chain]--
		}
		c.mu.Unlock()
	}
	return err
}

// drop takes a user away and reports whether it was the last.
func (c *Client) drop(chain digest.Digest) (last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users[chain]--; c.users[chain] > 0 {
		return false
	}
	delete(c.users, chain)
	return true
}

// Close gives a layer back. What still runs on it keeps its files.
func (c *Client) Close(chain digest.Digest) {
	if !c.drop(chain) {
		return
	}
	c.discard(chain)
	c.rest()
}

// rest lets the process end when nothing is shown: it waits only for its clients.
func (c *Client) rest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.users) > 0 {
		return
	}
	c.unwatch()
	c.http.CloseIdleConnections()
}

// unwatch ends the watch. The caller holds mu.
func (c *Client) unwatch() {
	if c.watch != nil {
		c.watch.cancel()
		c.watch = nil
	}
}

func (c *Client) discard(chain digest.Digest) {
	err := c.call(context.Background(), VerbClose, Named{chain}, nil)
	if fault.Is(err, fault.Unavailable) {
		// Nobody shows it: what is left of it is a dead mount and what it had fetched.
		err = errors.Join(clear(c.At(chain)), os.RemoveAll(c.cacheOf(chain)))
	}
	if err != nil {
		c.o.Logger.Warn("give back a layer that was shown before it was there", "layer", chain, "error", err)
	}
}

// Settle gives the directories that a layer does not describe their attributes.
func (c *Client) Settle(ctx context.Context, chain digest.Digest, attributes map[string]Attributes) error {
	return c.call(ctx, VerbSettle, SettleRequest{chain, attributes}, nil)
}

// Wait returns the file with the layer's blob when it is whole and has its digest.
func (c *Client) Wait(ctx context.Context, chain digest.Digest) (string, error) {
	var w Whole
	err := c.call(ctx, VerbWait, Named{chain}, &w)
	return w.Path, err
}

// List returns what the process shows; nothing when there is none.
func (c *Client) List(ctx context.Context) ([]Status, error) {
	var list []Status
	err := c.call(ctx, VerbList, nil, &list)
	if fault.Is(err, fault.Unavailable) {
		return nil, nil
	}
	return list, err
}

// Shutdown unmounts everything and ends the process. What was fetched stays for the next one.
func (c *Client) Shutdown(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	c.unwatch()
	c.mu.Unlock()
	err := c.call(ctx, VerbShutdown, nil, nil)
	if fault.Is(err, fault.Unavailable) {
		return clearAll(c.o.Dir)
	}
	return err
}

// Disconnect ends the client. The process goes on.
func (c *Client) Disconnect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.unwatch()
	c.http.CloseIdleConnections()
}

// Sweep removes what an earlier daemon left of layers that nobody shows any more.
func (c *Client) Sweep(ctx context.Context) error {
	list, err := c.List(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	keep := map[string]bool{}
	for chain := range c.users {
		keep[chain.Encoded()] = true
	}
	c.mu.Unlock()
	for _, s := range list {
		if !keep[s.Chain.Encoded()] && !s.Closed {
			c.discard(s.Chain)
		}
		keep[s.Chain.Encoded()] = true
	}
	err = c.sweepIndexes()
	entries, rerr := os.ReadDir(c.o.Cache)
	if !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			err = errors.Join(err, clear(filepath.Join(c.o.Dir, "layers", e.Name())), os.RemoveAll(filepath.Join(c.o.Cache, e.Name())))
		}
	}
	return err
}

// call sends a request. A process that is not there is fault.Unavailable.
func (c *Client) call(ctx context.Context, verb string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://lazy"+verb, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fault.New(fault.Unavailable, "sampan-lazy at %s: %w", c.socket(), errors.Unwrap(err))
	}
	defer resp.Body.Close()
	d := json.NewDecoder(io.LimitReader(resp.Body, 1<<28))
	if resp.StatusCode != http.StatusOK {
		var e protocol.Error
		if err := d.Decode(&e); err != nil {
			return fmt.Errorf("sampan-lazy: %s: %w", resp.Status, err)
		}
		return e.Err()
	}
	if out == nil {
		return nil
	}
	return d.Decode(out)
}
