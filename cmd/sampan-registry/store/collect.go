package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Collection is what Collect is to do.
type Collection struct {
	// Untagged also removes manifests that no tag, no index and no living subject leads to.
	Untagged bool
	// Grace spares what is younger: a push uploads blobs before the manifest that names them.
	Grace time.Duration
	// Older removes the manifests that have not been asked for since then; a cache forgets so. Zero removes none.
	Older time.Time
	// DryRun only tells.
	DryRun bool
}

// Collected is what Collect removed.
type Collected struct {
	Manifests, Blobs int
	Bytes            int64
}

// Collect removes what nothing leads to. Reading goes on meanwhile; what adds content waits.
func (s *Store) Collect(o Collection) (Collected, error) {
	now := time.Now()
	s.using.Lock()
	defer s.using.Unlock()
	c := collector{store: s, options: o, young: now.Add(-o.Grace), live: map[digest.Digest]bool{}}
	names, err := s.walk(filepath.Join(s.root, "repositories"), s.Known)
	if err != nil {
		return c.done, err
	}
	for _, name := range names {
		if err := c.repository(name); err != nil {
			return c.done, err
		}
	}
	return c.done, c.sweep()
}

type collector struct {
	store   *Store
	options Collection
	young   time.Time
	live    map[digest.Digest]bool // in blobs, over all repositories
	done    Collected
}

// repository removes from one repository and marks what stays.
func (c *collector) repository(name string) error {
	manifests, err := c.manifests(name)
	if err != nil {
		return err
	}
	named := map[digest.Digest]bool{}
	for d, m := range manifests {
		c.live[d] = true
		for _, r := range m.references() {
			named[r.Digest] = true
		}
	}
	blobs, err := c.store.entries(name, "_blobs")
	if err != nil {
		return err
	}
	for _, d := range blobs {
		link := c.store.link(name, "_blobs", d)
		if named[d] || !c.old(link) {
			c.live[d] = true
			continue
		}
		if !c.options.DryRun {
			if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// manifests returns those of a repository that stay.
func (c *collector) manifests(name string) (map[digest.Digest]contents, error) {
	list, err := c.store.entries(name, "_manifests")
	if err != nil {
		return nil, err
	}
	all := map[digest.Digest]contents{}
	for _, d := range list {
		m, err := c.store.Manifest(name, d)
		if err != nil && !errors.Is(err, ErrManifestUnknown) {
			return nil, err
		}
		// A manifest that cannot be read is kept by its link and names nothing.
		all[d], _ = parse(m.MediaType, m.Content)
	}
	for d := range all {
		if link := c.store.link(name, "_manifests", d); !c.options.Older.IsZero() && before(link, c.options.Older) {
			if err := c.remove(name, d, all); err != nil {
				return nil, err
			}
		}
	}
	if !c.options.Untagged {
		return all, nil
	}
	reached, err := c.reached(name, all)
	if err != nil {
		return nil, err
	}
	for d := range all {
		if !reached[d] && c.old(c.store.link(name, "_manifests", d)) {
			if err := c.remove(name, d, all); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// reached are the manifests that tags lead to, over indexes, and those that refer to them.
func (c *collector) reached(name string, all map[digest.Digest]contents) (map[digest.Digest]bool, error) {
	tags, err := c.store.Tags(name)
	if err != nil && !errors.Is(err, ErrNameUnknown) {
		return nil, err
	}
	var todo []digest.Digest
	for _, tag := range tags {
		d, err := c.store.Resolve(name, tag)
		if err != nil && !errors.Is(err, ErrManifestUnknown) {
			return nil, err
		}
		todo = append(todo, d)
	}
	referrers := map[digest.Digest][]digest.Digest{}
	for d, m := range all {
		if m.Subject != nil {
			referrers[m.Subject.Digest] = append(referrers[m.Subject.Digest], d)
		}
	}
	reached := map[digest.Digest]bool{}
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if reached[d] {
			continue
		}
		reached[d] = true
		for _, child := range all[d].Manifests {
			todo = append(todo, child.Digest)
		}
		todo = append(todo, referrers[d]...)
	}
	return reached, nil
}

func (c *collector) remove(name string, d digest.Digest, all map[digest.Digest]contents) error {
	delete(all, d)
	c.done.Manifests++
	if c.options.DryRun {
		return nil
	}
	err := c.store.deleteManifest(name, d)
	if errors.Is(err, ErrManifestUnknown) { // its content is lost; its link is what is left
		err = os.Remove(c.store.link(name, "_manifests", d))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (c *collector) old(path string) bool { return before(path, c.young) }

func before(path string, t time.Time) bool {
	info, err := os.Stat(path)
	return err == nil && !info.ModTime().After(t)
}

// sweep removes the blobs that no repository has.
func (c *collector) sweep() error {
	top := filepath.Join(c.store.root, "blobs")
	return filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		relative, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		parts := strings.Split(relative, string(filepath.Separator)) // algorithm, first two digits, digest
		if len(parts) != 3 || c.live[digest.Digest(parts[0]+":"+parts[2])] {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		c.done.Blobs++
		c.done.Bytes += info.Size()
		if c.options.DryRun {
			return nil
		}
		return os.Remove(path)
	})
}

// Use says that a manifest was asked for; a cache keeps what is in use.
func (s *Store) Use(name string, d digest.Digest) { touch(s.link(name, "_manifests", d)) }
