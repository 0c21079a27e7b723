package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/layer"
	"github.com/sampan-project/sampan/core/wire"
)

// draft is an image on its way in: what becomes a row when its blobs and layers are there.
type draft struct {
	config   []byte
	diffs    []digest.Digest // of the configuration
	layers   []ocispec.Descriptor
	manifest []byte // nil: one is made of config and layers
	kind     string // media type of manifest
	platform ocispec.Platform
	parent   digest.Digest
	tags     []string // canonical
	digests  []string // canonical

	signatures []wire.Signature
	auth       *wire.AuthConfig // for layers that are fetched later
}

// stager brings layer i into the stores: its blob, and, unless the layer is there already, its files.
type stager func(ctx context.Context, i int, there bool) (*layer.Staged, error)

// unpack makes the layers of the diff IDs, several at a time where they are missing, and returns
// nothing but an error: the chain IDs follow from the diff IDs.
func (s *Store) unpack(ctx context.Context, l *lease, diffs []digest.Digest, parallel int, stage stager, done func(i int)) error {
	chains := layer.ChainOf(diffs)
	l.chain(chains...)
	type result struct {
		staged *layer.Staged
		there  bool
	}
	results := make([]chan result, len(diffs))
	for i := range results {
		results[i] = make(chan result, 1)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel + 1) // and the one that starts them
	var claims claims
	defer func() { claims.end(s) }()
	group.Go(func() error {
		for i, chain := range chains {
			group.Go(func() error {
				there, err := claims.take(gctx, s, chain)
				if err != nil {
					return err
				}
				staged, err := stage(gctx, i, there)
				if err != nil {
					return err
				}
				results[i] <- result{staged, there}
				return nil
			})
		}
		return nil
	})
	// A layer becomes part of the store after those below it, in whatever order they were read.
	err := func() error {
		var parent digest.Digest
		for i, chain := range chains {
			var r result
			select {
			case r = <-results[i]:
			case <-gctx.Done():
				if err := group.Wait(); err != nil {
					return err
				}
				return context.Cause(ctx)
			}
			if !r.there || r.staged != nil { // or there, and not what it should be
				if err := commit(ctx, r.staged, parent, diffs[i]); err != nil {
					return err
				}
			}
			claims.drop(s, chain)
			parent = chain
			done(i)
		}
		return nil
	}()
	if err != nil {
		cancel() // the rest is of no use
	}
	if werr := group.Wait(); err == nil {
		err = werr
	}
	for _, c := range results {
		select {
		case r := <-c:
			if r.staged != nil {
				r.staged.Discard()
			}
		default:
		}
	}
	return err
}

// commit checks a staged layer and makes it one of the store.
func commit(ctx context.Context, staged *layer.Staged, parent, diff digest.Digest) error {
	if staged.DiffID != diff {
		staged.Discard()
		return fault.New(fault.Invalid, "layer %s: content does not match the image configuration: its digest is %s", diff, staged.DiffID)
	}
	_, err := staged.Commit(ctx, parent)
	return err
}

// unpackers is how many layers are unpacked at once.
func unpackers() int { return min(max(runtime.GOMAXPROCS(0), 2), 4) }

// add makes the draft an image: one transaction, and one sync of the filesystem later (durable.go). Its blobs and
// layers are there, under the lease. An image that exists keeps what it is and gets the names.
func (s *Store) add(ctx context.Context, l *lease, d draft) (*entry, error) {
	id, err := s.putBlob(ctx, l, d.config, ocispec.MediaTypeImageConfig)
	if err != nil {
		return nil, err
	}
	r := record{ID: id.Digest, Parent: d.parent, Signatures: d.signatures}
	chains := layer.ChainOf(d.diffs)
	for i, blob := range d.layers {
		r.Layers = append(r.Layers, layerRecord{chains[i], ocispec.Descriptor{MediaType: blob.MediaType, Digest: blob.Digest, Size: blob.Size}})
	}
	if d.manifest == nil {
		if d.manifest, err = makeManifest(id, r.Layers); err != nil {
			return nil, err
		}
		d.kind = ocispec.MediaTypeImageManifest
	}
	if r.Manifest, err = s.putBlob(ctx, l, d.manifest, d.kind); err != nil {
		return nil, err
	}
	s.change.Lock()
	defer s.change.Unlock()
	r.Boot = s.boot
	var replaced []digest.Digest
	if old := s.byID(r.ID); old != nil {
		r.Tags, r.Digests, r.Tagged = old.Tags, old.record.Digests, old.Tagged
		if r.Parent == "" {
			r.Parent = old.record.Parent
		}
		r.Signatures = mergeSignatures(r.Signatures, old.Signatures)
		if len(d.digests) == 0 { // a registry's manifest is worth more than one that was made here
			r.Manifest, r.Layers = old.Manifest, old.Layers
		} else {
			replaced = old.blobs()
		}
	}
	losers, err := s.rename(r, d.tags, d.digests)
	if err != nil {
		return nil, err
	}
	s.written(r.ID)
	s.sweep(replaced, nil)
	for _, e := range losers {
		s.o.Logger.Debug("image lost its name", "image", e.record.ID)
	}
	return s.byID(r.ID), nil
}

// putBlob stores a small blob.
func (s *Store) putBlob(ctx context.Context, l *lease, data []byte, kind string) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: kind, Digest: digest.FromBytes(data), Size: int64(len(data))}
	l.blob(d.Digest)
	_, err := s.o.Content.Ingest(ctx, bytes.NewReader(data), d)
	return d, err
}

func makeManifest(config ocispec.Descriptor, layers []layerRecord) ([]byte, error) {
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{}}
	for _, l := range layers {
		m.Layers = append(m.Layers, l.Blob)
	}
	return json.Marshal(m)
}

// checkLayers compares the numbers of layers that a configuration and a manifest tell.
func checkLayers(diffs, blobs int) error {
	if diffs != blobs {
		return fault.New(fault.Invalid, "image configuration has %d layers, its manifest has %d", diffs, blobs)
	}
	return nil
}

// stageBlob unpacks a blob of the content store; read is told of bytes as they are read.
func (s *Store) stageBlob(ctx context.Context, d digest.Digest, read func(n int)) (*layer.Staged, error) {
	f, err := s.o.Content.Get(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	staged, err := s.stage(ctx, countingReader{f, read})
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", d, err)
	}
	return staged, nil
}

// stage unpacks a stream in any compression.
func (s *Store) stage(ctx context.Context, r io.Reader) (*layer.Staged, error) {
	plain, kind, err := decompress(r)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	if kind.mediaType() == "" {
		return nil, fault.New(fault.Invalid, "expected a tar, plain or compressed by gzip or zstd")
	}
	return s.o.Layers.Stage(ctx, plain)
}

// countingReader tells of what was read.
type countingReader struct {
	io.Reader
	read func(n int)
}

func (c countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read(n)
	return n, err
}
