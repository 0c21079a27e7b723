package registry

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Parts fetches parts of blobs of one repository. Nothing is asked before the first of them is, and the
// registry may be away for a while. What it returns is not verified: a part has no digest here.
type Parts struct {
	client *Client
	named  reference.Named
	auth   *wire.AuthConfig

	mu   sync.Mutex
	repo *repository // the endpoint that answered last
	from int         // the endpoint that is asked first: not the one that broke off last
}

// Parts returns the parts of the blobs in the repository name ("docker.io/library/busybox").
func (c *Client) Parts(name string, auth *wire.AuthConfig) (*Parts, error) {
	named, err := parse(name)
	if err != nil {
		return nil, err
	}
	return &Parts{client: c, named: named, auth: auth}, nil
}

// Open opens n bytes of a blob from the place at (RFC 9110, section 14.2). A registry that has no
// ranges is fault.NotImplemented. A connection that is silent for a minute is cut.
func (p *Parts) Open(ctx context.Context, d ocispec.Descriptor, at, n int64) (io.ReadCloser, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fault.New(fault.Invalid, "digest %q: %w", d.Digest, err)
	}
	p.mu.Lock()
	repo, from := p.repo, p.from
	p.mu.Unlock()
	if repo != nil {
		if r, err := p.open(ctx, repo, from, d, at, n); err == nil {
			return r, nil
		}
		// A token may have run out, or the endpoint be gone: from the beginning.
	}
	endpoints, err := p.client.endpoints(ctx, p.named, p.auth)
	if err != nil {
		return nil, err
	}
	var own error // the registry's, not a mirror's
	for i := range endpoints {
		number := (from + i) % len(endpoints)
		e := endpoints[number]
		repo, err = p.client.connect(ctx, p.named, e, transport.PullScope)
		var r io.ReadCloser
		if err == nil {
			r, err = p.open(ctx, repo, number, d, at, n)
		}
		if err == nil {
			p.mu.Lock()
			p.repo = repo
			p.mu.Unlock()
			return r, nil
		}
		if err = pullError(p.named, e, err); !e.mirror {
			own = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, cmp.Or(own, err)
}

// open opens a part at the numbered endpoint. If that breaks it off, the one behind it is asked the next time.
func (p *Parts) open(ctx context.Context, repo *repository, number int, d ocispec.Descriptor, at, n int64) (io.ReadCloser, error) {
	r, err := repo.part(ctx, d, at, n)
	if err != nil {
		return nil, err
	}
	r.left, r.broken = n, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.repo == repo {
			p.repo, p.from = nil, number+1
		}
	}
	return r, nil
}

func (r *repository) part(ctx context.Context, d ocispec.Descriptor, at, n int64) (*part, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	watch := time.AfterFunc(stalled, func() { cancel(errStalled) })
	header := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", at, at+n-1)}}
	resp, err := r.do(forBlob(ctx), http.MethodGet, r.url("blobs", d.Digest.String()), header, http.StatusPartialContent, http.StatusOK)
	if err == nil && resp.StatusCode != http.StatusPartialContent {
		resp.Body.Close()
		err = fault.New(fault.NotImplemented, "registry %s sends blobs only as a whole", r.host)
	}
	if want := fmt.Sprintf("bytes %d-%d/%d", at, at+n-1, d.Size); err == nil && resp.Header.Get("Content-Range") != want {
		got := resp.Header.Get("Content-Range")
		resp.Body.Close()
		err = fault.New(fault.Invalid, "blob %s: registry %s sends range %q: expected %q", d.Digest, r.host, got, want)
	}
	if err != nil {
		watch.Stop()
		cancel(nil)
		return nil, err
	}
	return &part{body: resp.Body, watch: watch, cancel: cancel}, nil
}

// part is the body of an answer that must not be silent.
type part struct {
	body   io.ReadCloser
	watch  *time.Timer
	cancel context.CancelCauseFunc
	left   int64
	broken func() // told when it ends before its end
}

func (p *part) Read(b []byte) (int, error) {
	p.watch.Reset(stalled)
	n, err := p.body.Read(b)
	p.watch.Stop()
	if p.left -= int64(n); err != nil && p.left > 0 {
		p.broken()
	}
	return n, err
}

func (p *part) Close() error {
	p.watch.Stop()
	p.cancel(nil)
	return p.body.Close()
}
