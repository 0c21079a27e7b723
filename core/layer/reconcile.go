package layer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
)

// Keep takes back a Release that is waiting for the last user of a layer.
func (s *Store) Keep(chain digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.layers[chain]; ok {
		l.released = false
	}
}

// unuse takes one user from a chain. A layer that was released before and has no user left goes,
// and with it those below it that wait for the same.
func (s *Store) unuse(chain digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropUser(chain)
}

func (s *Store) dropUser(chain digest.Digest) {
	for {
		s.use(chain, -1)
		l, ok := s.layers[chain]
		if !ok || chain == "" || !l.released || l.users > 0 {
			return
		}
		if err := s.drop(l); err != nil {
			s.log.Warn("remove layer", "layer", chain, "error", err)
			return
		}
		chain = l.Parent
	}
}

// drop removes a layer without users; the user that it is of its parent is the caller's to take away.
func (s *Store) drop(l *layerState) error {
	shown := isShown(s.dir(l.ChainID))
	if err := s.discard(s.dir(l.ChainID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove layer %s: %w", l.ChainID, err)
	}
	s.unlink(l.Link)
	delete(s.links, l.Link)
	delete(s.layers, l.ChainID)
	if release := s.release; shown && release != nil {
		s.removals.Go(func() { release(l.ChainID) })
	}
	return nil
}

// Release removes the layer of a chain ID. While a layer or a snapshot stands on it the answer is
// fault.Conflict, and the layer goes with the last of them unless Keep or a Commit of the same layer
// comes before. A layer that is not there is fault.NotFound.
func (s *Store) Release(_ context.Context, chain digest.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.get(chain)
	if err != nil || chain == "" {
		return err
	}
	if l.users > 0 {
		l.released = true
		return fault.New(fault.Conflict, "layer %s is used by %d others", chain, l.users)
	}
	if err := s.drop(l); err != nil {
		return err
	}
	s.dropUser(l.Parent)
	return nil
}

// Distrust forgets layers whose files may not be whole, whoever stands on them, and leaves their directories to
// Reconcile. A snapshot on one of them has no layer below it until the same layer is made again. It is for
// the start of the daemon.
func (s *Store) Distrust(chains []digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, chain := range chains {
		l, ok := s.layers[chain]
		if !ok || chain == "" {
			continue
		}
		s.log.Warn("layer may not be whole and is left out", "layer", chain)
		s.use(l.Parent, -1)
		s.unlink(l.Link)
		delete(s.links, l.Link)
		delete(s.layers, chain)
		s.garbage = append(s.garbage, chain.Encoded())
	}
}

// Reconcile removes what nobody speaks for: snapshots whose key is not in keys, layers that are not
// in one of the chains and not below a kept snapshot, and what a crash left. It is for the start of
// the daemon, before the first Stage and Prepare. It goes on after an error. Of layers that were shown nobody is told
// (OnRelease): those who do it sweep by themselves at the start, and what they are told later they would take for the same
// layer when it is shown anew.
func (s *Store) Reconcile(ctx context.Context, keys []string, chains []digest.Digest) error {
	s.mu.Lock()
	release := s.release
	s.release = nil
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.release = release
	}()
	keep := map[string]bool{}
	for _, key := range keys {
		if name, err := snapshotDir(key); err == nil {
			keep[name] = true
		}
	}
	errs := []error{s.clean(), s.dropSnapshots(ctx, keep), s.dropLayers(ctx, chains), s.dropLinks()}
	s.awaitSnapshots(chains)
	errs = append(errs, s.resettleAbove(""))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reconcile layer store: %w", err)
	}
	return nil
}

// clean removes what is in tmp/, and directories that are neither layers nor snapshots.
func (s *Store) clean() error {
	var errs []error
	s.mu.Lock()
	garbage := s.garbage
	s.garbage = nil
	s.mu.Unlock()
	for _, name := range garbage {
		if err := s.discard(filepath.Join(s.root, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	left, err := os.ReadDir(filepath.Join(s.root, tmpDir))
	errs = append(errs, err)
	s.removals.Go(func() {
		for _, e := range left {
			if err := os.RemoveAll(filepath.Join(s.root, tmpDir, e.Name())); err != nil {
				s.log.Warn("remove directory", "path", e.Name(), "error", err)
			}
		}
	})
	return errors.Join(errs...)
}

func (s *Store) dropSnapshots(ctx context.Context, keep map[string]bool) error {
	var gone []string
	s.mu.Lock()
	for name := range s.snapshots {
		if !keep[name] {
			gone = append(gone, name)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, name := range gone {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.log.Info("remove a snapshot without an owner", "snapshot", name)
		if err := s.discard(filepath.Join(s.root, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		s.forget(name)
	}
	return errors.Join(errs...)
}

// awaitSnapshots releases again what an earlier daemon had released and a snapshot stands on: it goes with the last.
func (s *Store) awaitSnapshots(chains []digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := s.standing(chains)
	for chain, l := range s.layers {
		l.released = l.released || chain != "" && !wanted[chain]
	}
}

// standing are the layers of chains with all below them.
func (s *Store) standing(chains []digest.Digest) map[digest.Digest]bool {
	wanted := map[digest.Digest]bool{}
	for _, chain := range chains {
		for chain != "" && !wanted[chain] {
			l, ok := s.layers[chain]
			if !ok {
				break
			}
			wanted[chain] = true
			chain = l.Parent
		}
	}
	return wanted
}

// Orphans returns the layers that are in none of the chains and not below a snapshot, in no order.
func (s *Store) Orphans(chains []digest.Digest) []Layer {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := s.standing(slices.AppendSeq(slices.Clone(chains), maps.Values(s.snapshots)))
	var gone []Layer
	for chain, l := range s.layers {
		if chain != "" && !wanted[chain] {
			gone = append(gone, l.Layer)
		}
	}
	return gone
}

func (s *Store) dropLayers(ctx context.Context, chains []digest.Digest) error {
	gone := s.Orphans(chains)
	// A layer goes before the one that it stands on; releasing twice what is left does no harm.
	var errs []error
	for len(gone) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		before := len(gone)
		gone = slices.DeleteFunc(gone, func(l Layer) bool {
			err := s.Release(ctx, l.ChainID)
			if fault.Is(err, fault.Conflict) {
				return false
			}
			if err != nil && !fault.Is(err, fault.NotFound) {
				errs = append(errs, err)
			}
			return true
		})
		if len(gone) == before {
			break // the rest stands on what could not be removed
		}
	}
	return errors.Join(errs...)
}

// dropLinks removes short names of layers that are no more.
func (s *Store) dropLinks() error {
	dir := filepath.Join(s.root, linkDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		name := e.Name()
		if n := len(name); name[n-1] == 'i' {
			name = name[:n-1]
		}
		if !s.links[name] {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	return nil
}
