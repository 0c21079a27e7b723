package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Blobs is where the blobs of an image that is pushed are read from.
type Blobs interface {
	Get(d digest.Digest) (io.ReadSeekCloser, error)
}

// PushRequest is an image to be pushed: its manifest as it is stored, and its blobs.
type PushRequest struct {
	Raw       []byte
	MediaType string
	Blobs     Blobs
	// Sources returns repositories ("registry.example/team/app") that may have a blob, so that the registry can
	// mount it from there (distribution-spec, "Mounting a blob from another repository"); nil: none.
	Sources func(d digest.Digest) []string
}

// uploads is how many blobs are pushed at once, as Docker's max-concurrent-uploads.
const uploads = 5

// Push uploads what the registry has not yet and then the manifest under ref. It tells progress the
// states of each layer in Docker's words.
func (c *Client) Push(ctx context.Context, ref string, r PushRequest, auth *wire.AuthConfig, progress func(wire.Message)) (ocispec.Descriptor, error) {
	named, err := parse(ref)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, ok := named.(reference.Digested); ok {
		return ocispec.Descriptor{}, fault.New(fault.Invalid, "cannot push a digest reference")
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(r.Raw, &manifest); err != nil {
		return ocispec.Descriptor{}, fault.New(fault.Invalid, "push %s: manifest: %w", ref, err)
	}
	endpoints, err := c.endpoints(ctx, named, auth)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	at := endpoints[len(endpoints)-1] // mirrors are for reading
	repo, err := c.connect(ctx, named, at, transport.PushScope)
	if err != nil {
		return ocispec.Descriptor{}, pushError(named, at, err)
	}
	p := pusher{repo: repo, blobs: r.Blobs, sources: r.Sources, progress: progress}
	if progress == nil {
		p.progress = func(wire.Message) {}
	}
	d, err := p.push(ctx, manifest, r)
	if err != nil {
		return d, pushError(named, at, err)
	}
	tag := identifier(named)
	p.tell(wire.Message{Status: fmt.Sprintf("%s: digest: %s size: %d", tag, d.Digest, d.Size)})
	p.tell(wire.Message{Aux: map[string]any{"Tag": tag, "Digest": d.Digest.String(), "Size": d.Size}})
	return d, nil
}

type pusher struct {
	repo    *repository
	blobs   Blobs
	sources func(d digest.Digest) []string

	mu       sync.Mutex
	progress func(wire.Message)
}

func (p *pusher) tell(m wire.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress(m)
}

func (p *pusher) push(ctx context.Context, m ocispec.Manifest, r PushRequest) (ocispec.Descriptor, error) {
	remotes, err := remote.NewPusher(remote.WithTransport(p.repo.round), remote.WithContext(ctx))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	seen := map[digest.Digest]bool{}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(p.repo.uploads)
	for _, d := range slices.Concat(m.Layers, []ocispec.Descriptor{m.Config}) {
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		isLayer := d.Digest != m.Config.Digest
		if isLayer {
			p.tell(wire.Message{ID: shortID(d.Digest), Status: "Preparing", ProgressDetail: &wire.Progress{}})
		}
		group.Go(func() error { return p.upload(gctx, remotes, d, isLayer) })
	}
	if err := group.Wait(); err != nil {
		return ocispec.Descriptor{}, err
	}
	t := taggable{raw: r.Raw, mediaType: types.MediaType(r.MediaType)}
	if err := remotes.Push(ctx, p.repo.name.Tag(identifier(p.repo.named)), t); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: r.MediaType, Digest: digest.FromBytes(r.Raw), Size: int64(len(r.Raw))}, nil
}

// upload sends one blob, unless the registry has it.
func (p *pusher) upload(ctx context.Context, remotes *remote.Pusher, d ocispec.Descriptor, isLayer bool) error {
	state := func(m wire.Message) {
		if isLayer {
			m.ID = shortID(d.Digest)
			p.tell(m)
		}
	}
	if p.has(ctx, d) {
		state(wire.Message{Status: "Layer already exists"})
		return nil
	}
	b, err := newLocalBlob(p.blobs, d, func(n int64) {
		state(wire.Message{Status: "Pushing", ProgressDetail: &wire.Progress{Current: n, Total: d.Size}})
	})
	if err != nil {
		return err
	}
	source, mountable := p.source(d.Digest)
	if !mountable {
		err = remotes.Upload(ctx, p.repo.name, b)
	} else {
		err = remotes.Upload(ctx, p.repo.name, &remote.MountableLayer{Layer: b, Reference: source.Tag("latest")})
	}
	switch {
	case err != nil:
		return err
	case mountable && !b.opened.Load():
		state(wire.Message{Status: "Mounted from " + source.RepositoryStr()})
	default:
		state(wire.Message{Status: "Pushed"})
	}
	return nil
}

// source finds another repository of the same registry that may have the blob.
func (p *pusher) source(d digest.Digest) (name.Repository, bool) {
	if p.sources == nil {
		return name.Repository{}, false
	}
	for _, given := range p.sources(d) {
		named, err := reference.ParseNormalizedNamed(given)
		if err != nil || reference.Domain(named) != reference.Domain(p.repo.named) || reference.Path(named) == reference.Path(p.repo.named) {
			continue
		}
		if repo, err := repositoryName(named, p.repo.endpoint); err == nil {
			return repo, true
		}
	}
	return name.Repository{}, false
}

// has reports whether the registry has the blob. An error is no: the upload says what is wrong.
func (p *pusher) has(ctx context.Context, d ocispec.Descriptor) bool {
	resp, err := p.repo.do(ctx, http.MethodHead, p.repo.url("blobs", d.Digest.String()), nil, http.StatusOK)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return true
}

// localBlob is a stored blob as go-containerregistry wants layers.
type localBlob struct {
	blobs Blobs
	d     ocispec.Descriptor
	hash  v1.Hash
	sent  func(int64)
	// opened says that its bytes were asked for.
	opened atomic.Bool
}

func newLocalBlob(blobs Blobs, d ocispec.Descriptor, sent func(int64)) (*localBlob, error) {
	h, err := v1.NewHash(d.Digest.String())
	if err != nil {
		return nil, fault.New(fault.Invalid, "digest %q: %w", d.Digest, err)
	}
	return &localBlob{blobs: blobs, d: d, hash: h, sent: sent}, nil
}

func (b *localBlob) Digest() (v1.Hash, error)             { return b.hash, nil }
func (b *localBlob) DiffID() (v1.Hash, error)             { return b.hash, nil }
func (b *localBlob) Size() (int64, error)                 { return b.d.Size, nil }
func (b *localBlob) MediaType() (types.MediaType, error)  { return types.MediaType(b.d.MediaType), nil }
func (b *localBlob) Uncompressed() (io.ReadCloser, error) { return b.Compressed() }

// Compressed opens the blob as it is stored; an upload that is tried again opens it again.
func (b *localBlob) Compressed() (io.ReadCloser, error) {
	b.opened.Store(true)
	r, err := b.blobs.Get(b.d.Digest)
	if err != nil {
		return nil, err
	}
	return &counted{r, 0, 0, b.sent}, nil
}

// counted tells how far the reading has come, at most a hundred or so times per blob.
type counted struct {
	io.ReadCloser
	read, told int64
	sent       func(int64)
}

const tellEvery = 512 << 10

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.read += int64(n)
	if c.read-c.told >= tellEvery {
		c.told = c.read
		c.sent(c.read)
	}
	return n, err
}

// taggable is a manifest that was made before.
type taggable struct {
	raw       []byte
	mediaType types.MediaType
}

func (t taggable) RawManifest() ([]byte, error)        { return bytes.Clone(t.raw), nil }
func (t taggable) MediaType() (types.MediaType, error) { return t.mediaType, nil }

// shortID is how Docker shows a layer.
func shortID(d digest.Digest) string {
	hex := d.Encoded()
	return hex[:min(len(hex), 12)]
}
