package image

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
)

// lease keeps blobs and layers from being removed while an image is made of them, or written out.
// What it names is taken before it is looked for, so that nothing that was found vanishes. It
// belongs to one operation, which may use it from several goroutines.
type lease struct {
	s             *Store
	blobs, chains []digest.Digest // guarded by s.mu
}

func (s *Store) lease() *lease { return &lease{s: s} }

func (l *lease) blob(list ...digest.Digest) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	for _, d := range list {
		l.s.blobs[d]++
		l.blobs = append(l.blobs, d)
	}
}

func (l *lease) chain(list ...digest.Digest) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	for _, c := range list {
		l.s.chains[c]++
		l.chains = append(l.chains, c)
		l.s.o.Layers.Keep(c)
	}
}

// end gives the lease back. What no image has made its own goes.
func (l *lease) end() {
	s := l.s
	s.mu.Lock()
	for _, d := range l.blobs {
		if s.blobs[d]--; s.blobs[d] == 0 {
			delete(s.blobs, d)
		}
	}
	for _, c := range l.chains {
		if s.chains[c]--; s.chains[c] == 0 {
			delete(s.chains, c)
		}
	}
	s.mu.Unlock()
	slices.Reverse(l.chains) // the top was taken last
	s.sweep(l.blobs, l.chains)
	l.blobs, l.chains = nil, nil
}

// referenced returns the blobs and chains of all images, also of damaged ones.
func (s *Store) referenced() (blobs, chains map[digest.Digest]bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.referencedLocked()
}

func (s *Store) referencedLocked() (blobs, chains map[digest.Digest]bool) {
	blobs, chains = map[digest.Digest]bool{}, map[digest.Digest]bool{}
	for _, e := range s.images {
		for _, d := range e.blobs() {
			blobs[d] = true
		}
		for _, l := range e.Layers {
			chains[l.Chain] = true
		}
	}
	for _, d := range s.damaged {
		if d.torn {
			continue
		}
		for _, b := range d.blobs() {
			blobs[b] = true
		}
		for _, l := range d.Layers {
			chains[l.Chain] = true
		}
	}
	return blobs, chains
}

// sweep removes those of the blobs and chains, the top first, for which nobody speaks, and returns
// the chains that are gone. A layer with a container on it goes when the container does.
func (s *Store) sweep(blobs, chains []digest.Digest) (gone []digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	needed, standing := s.referencedLocked()
	for _, d := range blobs {
		if needed[d] || s.blobs[d] > 0 {
			continue
		}
		if err := s.o.Content.Delete(d); err != nil {
			s.o.Logger.Warn("remove blob", "digest", d, "error", err)
		}
	}
	for _, c := range chains {
		if standing[c] || s.chains[c] > 0 {
			continue
		}
		err := s.o.Layers.Release(context.Background(), c)
		switch {
		case err == nil:
			gone = append(gone, c)
		case fault.Is(err, fault.NotFound), fault.Is(err, fault.Conflict):
		default:
			s.o.Logger.Warn("remove layer", "layer", c, "error", err)
		}
	}
	return gone
}
