// Package store keeps a registry's blobs, manifests and tags in a directory:
//
//	blobs/sha256/ab/abcd…                              what was pushed, once, whoever pushed it
//	repositories/NAME/_blobs/sha256/abcd…              an empty file: the repository has this blob
//	repositories/NAME/_manifests/sha256/abcd…          the same of a manifest; the file has its media type
//	repositories/NAME/_tags/latest                     the digest of the tag's manifest
//	repositories/NAME/_referrers/sha256-abcd…/sha256-ef…  the descriptor of a manifest whose subject is abcd…
//	uploads/ID                                         what is being pushed
//	lock                                               held by the process that has the store open
//
// A component of a repository's name never begins with "_", so the names cannot meet. Content is whole or not
// there: it is written to uploads, verified, synced and renamed. A blob is visible in a repository only
// through its link, so that knowing a digest opens nothing. Nothing is removed from blobs but by Collect.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	// The algorithms that digests may name.
	_ "crypto/sha256"
	_ "crypto/sha512"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// Errors that the server gives the codes of the distribution specification.
var (
	ErrBlobUnknown     = errors.New("blob unknown to registry")
	ErrManifestUnknown = errors.New("manifest unknown")
	ErrNameUnknown     = errors.New("repository name not known to registry")
	ErrUploadUnknown   = errors.New("blob upload unknown to registry")
	ErrDigest          = errors.New("provided digest did not match uploaded content")
	ErrRange           = errors.New("chunk is not the next one of the upload")
	ErrTooMany         = errors.New("too many uploads at a time: try again later")
)

// Store is an open directory. Its methods may be called in parallel.
type Store struct {
	root string
	lock *os.File

	// using is held for reading by what adds content, and for writing while Collect removes some.
	using   sync.RWMutex
	mu      sync.Mutex
	uploads map[string]*upload
}

// Open opens a directory and makes it if it is not there. It is for one process at a time.
func Open(root string) (*Store, error) {
	for _, dir := range []string{"blobs", "repositories", "uploads"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			return nil, err
		}
	}
	lock, err := os.OpenFile(filepath.Join(root, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fault.New(fault.Conflict, "the store %s is in use by another sampan-registry", root)
		}
		return nil, fmt.Errorf("lock %s: %w", root, err)
	}
	// An upload lives in the process that took it.
	if err := empty(filepath.Join(root, "uploads")); err != nil {
		lock.Close()
		return nil, err
	}
	return &Store{root: root, lock: lock, uploads: map[string]*upload{}}, nil
}

// Check reports what is no directory of a registry, for those who do not mean to make one, as Open does.
func Check(root string) error {
	for _, name := range []string{"blobs", "repositories", "lock"} {
		info, err := os.Stat(filepath.Join(root, name))
		if err == nil && info.IsDir() == (name == "lock") {
			err = fmt.Errorf("%s is something else", filepath.Join(root, name))
		}
		if err != nil {
			return fault.New(fault.NotFound, "root %q: expected the directory of a registry: %w", root, err)
		}
	}
	return nil
}

// Close ends the uploads and lets another process have the directory.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, u := range s.uploads {
		u.discard()
		delete(s.uploads, id)
	}
	s.lock.Close()
}

func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// The grammars of the distribution specification, "Pulling manifests".
var (
	namePattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// maxName bounds a repository's name: with a host it must fit into 255 bytes.
const maxName = 200

// ValidName reports whether name can be a repository's.
func ValidName(name string) bool { return len(name) <= maxName && namePattern.MatchString(name) }

// ValidTag reports whether tag can be one.
func ValidTag(tag string) bool { return tagPattern.MatchString(tag) }

func (s *Store) blobPath(d digest.Digest) string {
	return filepath.Join(s.root, "blobs", d.Algorithm().String(), d.Encoded()[:2], d.Encoded())
}

func (s *Store) repository(name string, parts ...string) string {
	return filepath.Join(append([]string{s.root, "repositories", filepath.FromSlash(name)}, parts...)...)
}

func (s *Store) link(name, kind string, d digest.Digest) string {
	return s.repository(name, kind, d.Algorithm().String(), d.Encoded())
}

// Known reports whether there is a repository: something was pushed to it.
func (s *Store) Known(name string) bool {
	for _, kind := range []string{"_manifests", "_blobs"} {
		if _, err := os.Stat(s.repository(name, kind)); err == nil {
			return true
		}
	}
	return false
}

// put writes a small file in one step.
func (s *Store) put(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Join(s.root, "uploads"), "put-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// touch makes a link young again: what is in use is not collected.
func touch(path string) {
	now := time.Now()
	_ = os.Chtimes(path, now, now) // a store on a read-only file system collects nothing either
}

// entries are the digests of the links of one kind.
func (s *Store) entries(name, kind string) ([]digest.Digest, error) {
	var found []digest.Digest
	algorithms, err := os.ReadDir(s.repository(name, kind))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, a := range algorithms {
		links, err := os.ReadDir(s.repository(name, kind, a.Name()))
		if err != nil {
			return nil, err
		}
		for _, l := range links {
			if d := digest.Digest(a.Name() + ":" + l.Name()); d.Validate() == nil {
				found = append(found, d)
			}
		}
	}
	return found, nil
}

// Repositories returns the names of all repositories that have a manifest, sorted.
func (s *Store) Repositories() ([]string, error) {
	top := filepath.Join(s.root, "repositories")
	return s.walk(top, func(name string) bool {
		list, err := s.entries(name, "_manifests")
		return err == nil && len(list) > 0
	})
}

// walk returns the repositories of which ok is true, in the order of their names.
func (s *Store) walk(top string, ok func(name string) bool) ([]string, error) {
	found := []string{}
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed meanwhile
		case err != nil:
			return err
		case !e.IsDir():
			return nil
		case strings.HasPrefix(e.Name(), "_"):
			return fs.SkipDir
		}
		if name, err := filepath.Rel(top, path); err == nil && name != "." && ok(filepath.ToSlash(name)) {
			found = append(found, filepath.ToSlash(name))
		}
		return nil
	})
	return found, err
}
