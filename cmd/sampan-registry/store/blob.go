package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Blob opens a blob of a repository.
func (s *Store) Blob(name string, d digest.Digest) (*os.File, error) {
	link := s.link(name, "_blobs", d)
	if _, err := os.Stat(link); err != nil {
		return nil, missing(err, ErrBlobUnknown)
	}
	touch(link) // a client that finds the blob does not push it again before its manifest
	f, err := os.Open(s.blobPath(d))
	return f, missing(err, ErrBlobUnknown)
}

func missing(err, unknown error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return unknown
	}
	return err
}

// HasBlob reports whether the repository has the blob.
func (s *Store) HasBlob(name string, d digest.Digest) bool {
	_, err := os.Stat(s.link(name, "_blobs", d))
	return err == nil
}

// DeleteBlob takes a blob from a repository.
func (s *Store) DeleteBlob(name string, d digest.Digest) error {
	return missing(os.Remove(s.link(name, "_blobs", d)), ErrBlobUnknown)
}

// Mount gives a repository a blob that another one has.
func (s *Store) Mount(name, from string, d digest.Digest) error {
	s.using.RLock()
	defer s.using.RUnlock()
	if !s.HasBlob(from, d) {
		return ErrBlobUnknown
	}
	return s.put(s.link(name, "_blobs", d), nil)
}

const (
	// idle is how long an upload may wait for its next chunk.
	idle = time.Hour
	// maxUploads bounds the uploads at a time: each has an open file, and a client may begin them without end.
	maxUploads = 512
)

// upload is a blob that comes in chunks.
type upload struct {
	mu   sync.Mutex // one chunk at a time
	name string
	file *os.File
	hash hash.Hash // of what has come, SHA-256
	size int64
	used time.Time
}

func (u *upload) discard() {
	u.file.Close()
	os.Remove(u.file.Name())
}

// Begin makes an upload and returns its name.
func (s *Store) Begin(name string) (id string, err error) {
	s.mu.Lock()
	full := len(s.uploads) >= maxUploads
	s.mu.Unlock()
	if full {
		return "", ErrTooMany
	}
	id = rand.Text()
	f, err := os.OpenFile(filepath.Join(s.root, "uploads", id), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uploads[id] = &upload{name: name, file: f, hash: digest.Canonical.Hash(), used: time.Now()}
	return id, nil
}

func (s *Store) upload(name, id string) (*upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uploads[id]
	if u == nil || u.name != name {
		return nil, ErrUploadUnknown
	}
	return u, nil
}

// Append adds what r has to an upload and returns its size then. A chunk that does not begin where the last one
// ended is refused; from -1 is whatever comes next.
func (s *Store) Append(name, id string, from int64, r io.Reader) (int64, error) {
	u, err := s.upload(name, id)
	if err != nil {
		return 0, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if from >= 0 && from != u.size {
		return u.size, ErrRange
	}
	n, err := io.Copy(io.MultiWriter(u.file, u.hash), r)
	u.size += n
	u.used = time.Now()
	if err != nil && !u.sound() {
		// A full disk: what the hash has seen is not what the file has, so nobody can go on with it.
		if _, gone := s.take(name, id); gone == nil {
			u.discard()
		}
	}
	return u.size, err
}

// sound reports whether the file has what the hash has seen.
func (u *upload) sound() bool {
	info, err := u.file.Stat()
	return err == nil && info.Size() == u.size
}

// Partial opens what has come of an upload, for reading beside who writes it.
func (s *Store) Partial(name, id string) (*os.File, error) {
	u, err := s.upload(name, id)
	if err != nil {
		return nil, err
	}
	return os.Open(u.file.Name())
}

// Size is how much of an upload has come.
func (s *Store) Size(name, id string) (int64, error) {
	u, err := s.upload(name, id)
	if err != nil {
		return 0, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.size, nil
}

// Cancel ends an upload.
func (s *Store) Cancel(name, id string) error {
	u, err := s.take(name, id)
	if err == nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.discard()
	}
	return err
}

// take forgets an upload, which is the caller's then.
func (s *Store) take(name, id string) (*upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uploads[id]
	if u == nil || u.name != name {
		return nil, ErrUploadUnknown
	}
	delete(s.uploads, id)
	return u, nil
}

// Commit makes an upload a blob of its repository. Content that has another digest is thrown away.
func (s *Store) Commit(name, id string, d digest.Digest) error {
	u, err := s.take(name, id)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	defer u.discard()
	if err := u.verify(d); err != nil {
		return err
	}
	if err := u.file.Sync(); err != nil {
		return err
	}
	s.using.RLock()
	defer s.using.RUnlock()
	return s.keep(name, u.file.Name(), d)
}

func (u *upload) verify(d digest.Digest) error {
	got := digest.NewDigest(digest.Canonical, u.hash)
	if d.Algorithm() != digest.Canonical {
		if _, err := u.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		h := d.Algorithm().Hash()
		if _, err := io.Copy(h, u.file); err != nil {
			return err
		}
		got = digest.NewDigest(d.Algorithm(), h)
	}
	if got != d {
		return fmt.Errorf("%w: expected %s, the content has %s", ErrDigest, d, got)
	}
	return nil
}

// keep moves a verified file to the blobs and links it.
func (s *Store) keep(name, file string, d digest.Digest) error {
	path := s.blobPath(d)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.Rename(file, path); err != nil {
		return err
	}
	return s.put(s.link(name, "_blobs", d), nil)
}

// Tidy ends the uploads that nobody goes on with.
func (s *Store) Tidy() {
	before := time.Now().Add(-idle)
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, u := range s.uploads {
		if u.mu.TryLock() { // not in the middle of a chunk
			if u.used.Before(before) {
				u.discard()
				delete(s.uploads, id)
			}
			u.mu.Unlock()
		}
	}
}
