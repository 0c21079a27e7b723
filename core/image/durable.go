package image

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// An image is there for everybody as soon as its row is written. That its files are on disk is waited
// for in the background: until then its row has the id of this boot. A daemon that dies leaves the
// files in the kernel's hands, and the next one has them synced. A machine that goes down does not: rows
// of another boot are of images that may be half written, and are taken back with their layers.

// bootID returns the id of this boot, random(4).
func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}

// mayBeTorn reports whether the machine went down before the files of the image were on disk.
func (s *Store) mayBeTorn(r record) bool { return r.Boot != "" && r.Boot != s.boot }

// distrust has the layer store forget the layers that only torn images have. Their blobs are those of
// no image, and go with Reconcile.
func (s *Store) distrust(torn []record) {
	_, trusted := s.referenced()
	var chains []digest.Digest
	for _, r := range torn {
		for _, l := range slices.Backward(r.Layers) { // the top first
			if !trusted[l.Chain] && !slices.Contains(chains, l.Chain) {
				chains = append(chains, l.Chain)
			}
		}
	}
	s.o.Layers.Distrust(chains)
}

// written notes that the files of an image were written, and starts to have them synced.
func (s *Store) written(id digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	s.unsynced[id] = s.writes
	if !s.syncing {
		s.syncing = true
		s.background.Go(s.syncAll)
	}
}

// syncAll syncs until nothing is left to be synced. A failure leaves the marks to the next write, or start.
func (s *Store) syncAll() {
	for {
		s.mu.Lock()
		marks := maps.Clone(s.unsynced)
		s.syncing = len(marks) > 0
		s.mu.Unlock()
		if len(marks) == 0 {
			return
		}
		err := s.o.Content.Sync()
		if err == nil {
			err = s.unmark(marks)
		}
		if err != nil {
			s.o.Logger.Warn("sync images", "error", err)
			s.mu.Lock()
			s.syncing = false
			s.mu.Unlock()
			return
		}
	}
}

// unmark writes that images are on disk, all but those that were written again meanwhile.
func (s *Store) unmark(marks map[digest.Digest]uint64) error {
	s.change.Lock()
	defer s.change.Unlock()
	s.mu.Lock()
	var rows []*entry
	for id, mark := range marks {
		if s.unsynced[id] != mark {
			continue
		}
		delete(s.unsynced, id)
		if e := s.images[id]; e != nil && e.Boot != "" {
			r := e.record
			r.Boot = ""
			rows = append(rows, e.with(r))
		}
	}
	s.mu.Unlock()
	if len(rows) == 0 {
		return nil
	}
	return s.write(rows)
}

// Close waits for what goes on in the background.
func (s *Store) Close() error {
	s.unfollow()
	s.background.Wait()
	return nil
}
