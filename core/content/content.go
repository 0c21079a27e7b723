// Package content keeps blobs by digest in an OCI image layout (image-spec, "OCI Image Layout
// Specification"), so that other tools can read the store in place.
//
// A blob's life: a Writer takes its bytes into a file below ingest/, hashing and counting as they
// come; Commit compares digest and size with what was expected and renames the file to
// blobs/sha256/<hex>. From then on it never changes. Delete removes it; nobody else does. What a
// crash leaves below ingest/ is removed by Reconcile, with the blobs that no one speaks for. The
// beginning of a blob that comes from afar is kept for a day, and the next Writer that Resume gives goes on
// from there (part.go).
//
// A blob is either whole or absent: there is no state between that a reader could see. Nothing is
// synced here, because a row that names the blob does not exist before its owner called Sync.
package content

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
)

const (
	blobsDir  = "blobs/sha256"
	ingestDir = "ingest"
)

// Store is an OCI image layout in a directory. Its methods may be called in parallel.
type Store struct {
	root   string
	opened time.Time

	mu      sync.Mutex
	flights map[digest.Digest]chan struct{} // ingests in progress, closed at their end
	index   sync.Mutex
}

// Open opens the layout in root and makes it when it is missing.
func Open(root string) (*Store, error) {
	for _, dir := range []string{blobsDir, ingestDir} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			return nil, fmt.Errorf("open content store: %w", err)
		}
	}
	s := &Store{root: root, opened: time.Now(), flights: map[digest.Digest]chan struct{}{}}
	version := filepath.Join(root, ocispec.ImageLayoutFile)
	data, err := os.ReadFile(version)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
		if err == nil {
			err = s.replace(ocispec.ImageLayoutFile, data)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open content store: %w", err)
	}
	var layout ocispec.ImageLayout
	if err := json.Unmarshal(data, &layout); err != nil || layout.Version != ocispec.ImageLayoutVersion {
		return nil, fault.New(fault.Invalid, "open content store: %s: expected image layout version %s, found %q", version, ocispec.ImageLayoutVersion, layout.Version)
	}
	if _, err := os.Stat(filepath.Join(root, ocispec.ImageIndexFile)); errors.Is(err, fs.ErrNotExist) {
		return s, s.SetIndex(nil)
	}
	return s, nil
}

// Root returns the directory of the layout.
func (s *Store) Root() string { return s.root }

// path returns where the blob of d is kept. The digest is validated, because it comes from outside
// and becomes a file name.
func (s *Store) path(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return "", fault.New(fault.Invalid, "digest %q: expected sha256 and 64 hexadecimal digits", d)
	}
	return filepath.Join(s.root, blobsDir, d.Encoded()), nil
}

// Get opens the blob of d for reading, or answers fault.NotFound.
func (s *Store) Get(d digest.Digest) (io.ReadSeekCloser, error) {
	path, err := s.path(d)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "no blob %s", d)
	}
	return f, err
}

// ReadAll returns the blob of d, which must not be larger than limit.
func (s *Store) ReadAll(d digest.Digest, limit int64) ([]byte, error) {
	f, err := s.Get(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d, err)
	}
	if int64(len(data)) > limit {
		return nil, fault.New(fault.Invalid, "blob %s: expected at most %d bytes", d, limit)
	}
	return data, nil
}

// Size returns the size of the blob of d, or fault.NotFound.
func (s *Store) Size(d digest.Digest) (int64, error) {
	path, err := s.path(d)
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fault.New(fault.NotFound, "no blob %s", d)
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Has reports whether the blob of d is there.
func (s *Store) Has(d digest.Digest) bool {
	_, err := s.Size(d)
	return err == nil
}

// Delete removes the blob of d. One that is not there is no error.
func (s *Store) Delete(d digest.Digest) error {
	path, err := s.path(d)
	if err != nil {
		return err
	}
	crash.Point("blob", "before delete")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete blob: %w", err)
	}
	crash.Point("blob", "after delete")
	return nil
}

// Walk calls fn for every blob, in no order, until fn returns an error.
func (s *Store) Walk(fn func(d digest.Digest, size int64) error) error {
	dir, err := os.Open(filepath.Join(s.root, blobsDir))
	if err != nil {
		return fmt.Errorf("walk blobs: %w", err)
	}
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(512)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("walk blobs: %w", err)
		}
		for _, e := range entries {
			d := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) || d.Validate() != nil {
				continue // deleted meanwhile, or not ours
			}
			if err != nil {
				return fmt.Errorf("walk blobs: %w", err)
			}
			if err := fn(d, info.Size()); err != nil {
				return err
			}
		}
	}
}

// SetIndex writes index.json, through which other tools find the images.
func (s *Store) SetIndex(manifests []ocispec.Descriptor) error {
	if manifests == nil {
		manifests = []ocispec.Descriptor{} // the specification requires an array
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests}
	index.SchemaVersion = 2
	data, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("write image index: %w", err)
	}
	s.index.Lock()
	defer s.index.Unlock()
	if err := s.replace(ocispec.ImageIndexFile, data); err != nil {
		return fmt.Errorf("write image index: %w", err)
	}
	return nil
}

// replace writes a file of the layout so that a reader sees the old one or the new one.
func (s *Store) replace(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Join(s.root, ingestDir), name)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	crash.Point("layout file", "before rename")
	defer crash.Point("layout file", "after rename")
	return os.Rename(f.Name(), filepath.Join(s.root, name))
}

// Sync puts everything that was written to the store's filesystem on disk: one system call for an
// image of any number of blobs and files (syncfs(2)).
func (s *Store) Sync() error {
	dir, err := os.Open(s.root)
	if err != nil {
		return fmt.Errorf("sync content store: %w", err)
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync content store: %w", err)
	}
	return nil
}

// Reconcile removes unfinished ingests that cannot be resumed, and the blobs for which keep answers false. It is for the
// start of the daemon: no ingest may run.
func (s *Store) Reconcile(ctx context.Context, keep func(digest.Digest) bool) error {
	dir := filepath.Join(s.root, ingestDir)
	left, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("reconcile content store: %w", err)
	}
	for _, e := range left {
		if isPart(e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("reconcile content store: %w", err)
		}
	}
	s.expire()
	return s.Walk(func(d digest.Digest, _ int64) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if keep(d) {
			return nil
		}
		return s.Delete(d)
	})
}
