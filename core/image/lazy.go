package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/check"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/layer"
	"github.com/sampan-project/sampan/core/lazy"
	"github.com/sampan-project/sampan/core/registry"
)

// An image may be there before its blobs are: its layers are shown (core/lazy), while they come.
// What is shown is followed in the background until it is whole; then it is unpacked the ordinary way,
// and its blob is one of the store. Who needs the blob itself, as a push does, waits. A gzip layer that was pulled
// gets an index in the background, by which it can be shown the next time.

// rest is how long a follower waits after an error.
const rest = 2 * time.Second

// source is how layer i of a draft can be shown.
func (d *draft) source(remote *registry.Image, i int) lazy.Source {
	return lazy.Source{Chain: layer.ChainOf(d.diffs)[i], DiffID: d.diffs[i], Name: remote.Name, Blob: d.layers[i]}
}

// doubted reports whether a layer of a remote image is shown by what is not believed on its behalf: by an impostor, or above
// one, with attributes of directories from it. As the layer is there, so are those below it.
func (s *Store) doubted(remote *registry.Image, d *draft, i int) bool {
	shown := s.o.Layers.ShownLayers()
	for n := range i + 1 {
		src := d.source(remote, n)
		raw, ok := shown[src.Chain]
		if ok && s.impostor(src, raw) || !ok && s.o.Layers.IsShown(src.Chain) { // and nobody knows by what
			return true
		}
	}
	return false
}

// impostor reports whether a layer that is shown, by what is kept of it, is so by another blob or table of contents than
// src has, or told attributes that the layers below it do not have any more. Whoever made the other image has said that
// these are the files of this diff ID, and nobody can know before the blob is whole: it is not believed on behalf of
// an image of somebody else.
func (s *Store) impostor(src lazy.Source, raw json.RawMessage) bool {
	var by lazy.Source
	if json.Unmarshal(raw, &by) != nil {
		return true
	}
	told := map[string]layer.Attributes{}
	for dir, a := range by.Attributes {
		told[dir] = layer.Attributes(a)
	}
	return by.Blob.Digest != src.Blob.Digest || by.Blob.Size != src.Blob.Size || by.Blob.MediaType != src.Blob.MediaType ||
		!maps.Equal(by.Blob.Annotations, src.Blob.Annotations) || s.o.Layers.Misled(src.Chain, told)
}

// show makes a layer that is shown instead of fetched, and reports whether it could. One that is shown
// already gets a fresh login. Whatever stands in the way, the layer is fetched as always.
func (s *Store) show(ctx context.Context, d *draft, remote *registry.Image, i int, there bool) (*layer.Staged, bool) {
	if s.o.Lazy == nil || s.o.Content.Has(d.layers[i].Digest) {
		return nil, false
	}
	src := d.source(remote, i)
	if there && !s.o.Layers.IsShown(src.Chain) || !there && !s.o.Lazy.Can(src) {
		return nil, false
	}
	opened, err := s.o.Lazy.Open(ctx, src, d.auth)
	if err != nil {
		s.o.Logger.Info("layer is not shown before it is there", "blob", src.Blob.Digest, "error", err)
		return nil, false
	}
	if there {
		s.o.Lazy.Close(src.Chain)
		return nil, true
	}
	staged, err := s.o.Layers.StageShown(layer.Shown{
		DiffID: src.DiffID, Size: opened.Size, At: s.o.Lazy.At(src.Chain), Implied: opened.Implied,
		Settle: func(ctx context.Context, chain digest.Digest, attributes map[string]layer.Attributes) (json.RawMessage, error) {
			src.Attributes = map[string]lazy.Attributes{}
			for dir, a := range attributes {
				src.Attributes[dir] = lazy.Attributes(a)
			}
			if err := s.o.Lazy.Settle(ctx, chain, src.Attributes); err != nil {
				return nil, err
			}
			return json.Marshal(src)
		},
		Release: func() { s.o.Lazy.Close(src.Chain) },
	})
	if err != nil {
		s.o.Lazy.Close(src.Chain)
		s.o.Logger.Info("layer is not shown before it is there", "blob", src.Blob.Digest, "error", err)
		return nil, false
	}
	return staged, true
}

// learn has indexes made of the layers of an image that has been pulled.
func (s *Store) learn(remote *registry.Image, d *draft) {
	if s.o.Lazy == nil {
		return
	}
	var list []lazy.Source
	for i, l := range d.layers {
		if src := d.source(remote, i); s.o.Lazy.Indexable(src) && s.o.Content.Has(l.Digest) {
			list = append(list, src)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(list) == 0 || s.following.Err() != nil {
		return
	}
	s.background.Go(func() {
		for _, src := range list {
			blob := src.Blob.Digest
			path := filepath.Join(s.o.Content.Root(), ocispec.ImageBlobsDir, blob.Algorithm().String(), blob.Encoded())
			if err := s.o.Lazy.Index(s.following, src, path); err != nil && s.following.Err() == nil {
				s.o.Logger.Info("layer has no index", "blob", blob, "error", err)
			}
		}
	})
}

// Reshow shows again what an earlier daemon, or an earlier process of core/lazy, had shown, and follows it.
// It is for the start, after Reconcile, and for the loss of that process.
func (s *Store) Reshow(ctx context.Context) {
	if s.o.Lazy == nil {
		return
	}
	for chain, raw := range s.o.Layers.ShownLayers() {
		if err := s.reshow(ctx, raw); err != nil {
			s.o.Logger.Error("layer is not there yet and cannot be shown: pull its image again", "layer", chain, "error", err)
		}
		s.follow(chain, raw)
	}
}

func (s *Store) reshow(ctx context.Context, raw json.RawMessage) error {
	var src lazy.Source
	if err := json.Unmarshal(raw, &src); err != nil {
		return err
	}
	return s.o.Lazy.Keep(ctx, src)
}

// followShown follows the layers of an image that are shown.
func (s *Store) followShown() {
	if s.o.Lazy == nil {
		return
	}
	for chain, raw := range s.o.Layers.ShownLayers() {
		s.follow(chain, raw)
	}
}

// follow unpacks a layer that is shown when it is whole, in the background.
func (s *Store) follow(chain digest.Digest, raw json.RawMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.followed[chain]; ok || s.following.Err() != nil {
		return
	}
	done := make(chan struct{})
	s.followed[chain] = done
	s.background.Go(func() {
		defer func() {
			s.mu.Lock()
			delete(s.followed, chain)
			s.mu.Unlock()
			close(done)
		}()
		for s.following.Err() == nil && s.o.Layers.IsShown(chain) {
			err := s.complete(s.following, chain, raw)
			if err == nil || s.following.Err() != nil {
				continue
			}
			if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Unavailable) { // the process is another one
				err = s.reshow(s.following, raw)
			}
			if err != nil {
				s.o.Logger.Warn("unpack a layer that is shown", "layer", chain, "error", err)
			}
			select {
			case <-time.After(rest):
			case <-s.following.Done():
			}
		}
	})
}

// complete waits for the blob of a layer and unpacks it.
func (s *Store) complete(ctx context.Context, chain digest.Digest, raw json.RawMessage) error {
	var src lazy.Source
	if err := json.Unmarshal(raw, &src); err != nil {
		return err
	}
	l := s.lease()
	defer l.end()
	l.blob(src.Blob.Digest)
	var staged *layer.Staged
	var err error
	if s.o.Content.Has(src.Blob.Digest) {
		staged, err = s.stageBlob(ctx, src.Blob.Digest, func(int) {})
	} else {
		staged, err = s.takeWhole(ctx, chain, src.Blob)
	}
	if err != nil || staged == nil {
		return err
	}
	if staged.DiffID != src.DiffID {
		staged.Discard()
		return fault.New(fault.Invalid, "layer %s: content does not match the image configuration: its digest is %s", src.DiffID, staged.DiffID)
	}
	if err := s.o.Layers.Replace(ctx, chain, staged); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	s.o.Logger.Debug("layer that was shown is unpacked", "layer", chain)
	return nil
}

// takeWhole brings a blob that was fetched behind a layer into the content store, and unpacks it. Without
// a layer the blob came otherwise, meanwhile.
func (s *Store) takeWhole(ctx context.Context, chain digest.Digest, d ocispec.Descriptor) (*layer.Staged, error) {
	path, err := s.o.Lazy.Wait(ctx, chain)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	w, err := s.o.Content.Writer(ctx, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
	if fault.Is(err, fault.Exists) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer w.Close() //nolint:errcheck // the blob's own errors are Commit's
	in := io.TeeReader(f, w)
	staged, err := s.stage(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	_, err = io.Copy(io.Discard, in)
	if err == nil {
		_, err = w.Commit()
	}
	if err != nil {
		staged.Discard()
		return nil, err
	}
	return staged, nil
}

// whole waits until none of an image's layers is only shown.
func (s *Store) whole(ctx context.Context, e *entry) error {
	if s.o.Lazy == nil {
		return nil
	}
	for _, l := range e.Layers {
		if err := s.unpacked(ctx, l.Chain); err != nil {
			return err
		}
	}
	return nil
}

// Whole waits until none of a chain's layers is only shown.
func (s *Store) Whole(ctx context.Context, chain digest.Digest) error {
	list, err := s.o.Layers.Chain(chain)
	for _, l := range list {
		if err := s.unpacked(ctx, l.ChainID); err != nil {
			return err
		}
	}
	return err
}

func (s *Store) unpacked(ctx context.Context, chain digest.Digest) error {
	for s.o.Layers.IsShown(chain) {
		s.mu.RLock()
		done := s.followed[chain]
		s.mu.RUnlock()
		if done == nil {
			return fault.New(fault.Unavailable, "layer %s is not there yet, and nobody fetches it: pull its image again", chain)
		}
		select {
		case <-done:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.following.Done():
			return fault.New(fault.Unavailable, "layer %s is not there yet, and the engine is ending", chain)
		}
	}
	return nil
}

// isShown reports whether the blob of a layer may be missing because the layer is shown.
func (s *Store) isShown(l layerRecord) bool { return s.o.Lazy != nil && s.o.Layers.IsShown(l.Chain) }

// absent returns the blobs of an image that are not there and should be.
func (s *Store) absent(r *record) (list []digest.Digest) {
	comes := map[digest.Digest]bool{}
	for _, d := range r.blobs() {
		if s.o.Content.Has(d) {
			continue
		}
		if len(comes) == 0 {
			for _, l := range r.Layers {
				comes[l.Blob.Digest] = s.isShown(l)
			}
		}
		// Looked for again: a layer may have been unpacked meanwhile.
		if !comes[d] && !s.o.Content.Has(d) {
			list = append(list, d)
		}
	}
	return list
}

// checkShown looks whether layers that are not there yet are shown.
func (s *Store) checkShown(ctx context.Context) (found []check.Finding, err error) {
	if s.o.Lazy == nil {
		return nil, nil
	}
	list, err := s.o.Lazy.List(ctx)
	served := map[digest.Digest]bool{}
	for _, l := range list {
		served[l.Chain] = served[l.Chain] || !l.Closed
	}
	for chain, raw := range s.o.Layers.ShownLayers() {
		if served[chain] {
			continue
		}
		found = append(found, check.Finding{Kind: "layer", Subject: chain.String(), Problem: "it is not there yet, and nobody shows its files", Did: "showed it again",
			Advice: "pull its image again",
			Mend: func(ctx context.Context) error {
				err := s.reshow(ctx, raw)
				s.follow(chain, raw)
				return err
			}})
	}
	if err != nil {
		err = fmt.Errorf("check layers that are shown: %w", err)
	}
	damaged, derr := s.o.Lazy.DamagedIndexes(ctx)
	for _, d := range damaged {
		found = append(found, check.Finding{Kind: "layer index", Subject: d.String(), Problem: "it is damaged", Did: "removed it", Advice: "it is made again by the next pull",
			Mend: func(context.Context) error {
				return s.o.Lazy.ForgetIndexes(func(blob digest.Digest) bool { return blob != d })
			}})
	}
	return found, errors.Join(err, derr)
}
