package content

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
)

// MaxBlob bounds a blob whose size nobody promised, such as an imported root filesystem. It is far
// above every real layer and below what would fill a disk unnoticed.
const MaxBlob = 1 << 38

// Writer takes the bytes of one blob. It belongs to one goroutine.
type Writer struct {
	store *Store
	file  *os.File
	want  ocispec.Descriptor
	limit int64
	size  int64
	hash  hash.Hash
	done  chan struct{} // this writer's flight, nil when nobody can wait for it
	had   int64         // bytes of an earlier writer that are still to be read by Earlier
	kept  bool          // by Suspend
}

// Writer begins a blob. When want has a digest the blob must have it, and its size too when that is
// above zero. While another writer takes the same digest this one waits for its end; when the
// blob is there already the answer is fault.Exists. Close it in any case.
func (s *Store) Writer(ctx context.Context, want ocispec.Descriptor) (*Writer, error) {
	w := newWriter(s, want)
	if want.Digest != "" {
		if err := s.takeOff(ctx, w); err != nil {
			return nil, err
		}
	}
	f, err := os.CreateTemp(filepath.Join(s.root, ingestDir), "blob-")
	if err != nil {
		w.land()
		return nil, fmt.Errorf("write blob: %w", err)
	}
	w.file = f
	crash.Point("blob", "begun")
	return w, nil
}

func newWriter(s *Store, want ocispec.Descriptor) *Writer {
	w := &Writer{store: s, want: want, limit: MaxBlob, hash: sha256.New()}
	if want.Size > 0 {
		w.limit = want.Size
	}
	return w
}

// takeOff makes w the one writer of its digest.
func (s *Store) takeOff(ctx context.Context, w *Writer) error {
	path, err := s.path(w.want.Digest)
	if err != nil {
		return err
	}
	for {
		s.mu.Lock()
		other, busy := s.flights[w.want.Digest]
		if !busy {
			// Looked up under the lock: the flight before this one has landed or failed by now.
			if _, err := os.Stat(path); err == nil {
				s.mu.Unlock()
				return fault.New(fault.Exists, "blob %s is there already", w.want.Digest)
			}
			w.done = make(chan struct{})
			s.flights[w.want.Digest] = w.done
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *Writer) land() {
	if w.done == nil {
		return
	}
	w.store.mu.Lock()
	delete(w.store.flights, w.want.Digest)
	w.store.mu.Unlock()
	close(w.done)
	w.done = nil
}

// Write adds bytes. More of them than were promised is an error at once, not at the end.
func (w *Writer) Write(p []byte) (int, error) {
	if w.had > 0 {
		return 0, fmt.Errorf("write %s: %d bytes of an earlier writer were not read", w.name(), w.had)
	}
	if w.size+int64(len(p)) > w.limit {
		return 0, fault.New(fault.Invalid, "%s: expected %d bytes, got more", w.name(), w.limit)
	}
	n, err := w.file.Write(p)
	w.hash.Write(p[:n])
	w.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("write blob: %w", err)
	}
	return n, nil
}

func (w *Writer) name() string {
	if w.want.Digest == "" {
		return "blob"
	}
	return "blob " + w.want.Digest.String()
}

// Size returns the number of bytes written.
func (w *Writer) Size() int64 { return w.size }

// File returns the file below ingest/ that holds the bytes written, so that an archive's entries
// can be read before it is known which of them are blobs. It is closed with the writer.
func (w *Writer) File() *os.File { return w.file }

// Digest returns the digest of the bytes written.
func (w *Writer) Digest() digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, w.hash.Sum(nil))
}

// Commit checks the blob and adds it to the store.
func (w *Writer) Commit() (ocispec.Descriptor, error) {
	got := w.want
	got.Digest, got.Size = w.Digest(), w.size
	if w.want.Digest != "" && got.Digest != w.want.Digest {
		return got, fault.New(fault.Invalid, "blob %s: content does not match: its digest is %s", w.want.Digest, got.Digest)
	}
	if w.want.Size > 0 && got.Size != w.want.Size {
		return got, fault.New(fault.Invalid, "%s: expected %d bytes, got %d", w.name(), w.want.Size, got.Size)
	}
	path, err := w.store.path(got.Digest)
	if err != nil {
		return got, err
	}
	if err := w.file.Chmod(0o600); err != nil {
		return got, fmt.Errorf("write blob: %w", err)
	}
	// Two writers of unnamed blobs may come to the same digest: the rename replaces equal by equal.
	crash.Point("blob", "before rename")
	if err := os.Rename(w.file.Name(), path); err != nil {
		return got, fmt.Errorf("write blob: %w", err)
	}
	crash.Point("blob", "after rename")
	w.land()
	return got, nil
}

// Close ends the writer; without a Commit or Suspend before it the bytes are thrown away.
func (w *Writer) Close() error {
	if w.kept {
		return nil
	}
	w.land()
	err := w.file.Close()
	if rm := os.Remove(w.file.Name()); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	return err
}

// Ingest reads r to its end into a blob; want is as for Writer. A blob that is there already is not
// read again, and is no error.
func (s *Store) Ingest(ctx context.Context, r io.Reader, want ocispec.Descriptor) (ocispec.Descriptor, error) {
	w, err := s.Writer(ctx, want)
	if fault.Is(err, fault.Exists) {
		want.Size, err = s.Size(want.Digest)
		return want, err
	}
	if err != nil {
		return want, err
	}
	defer w.Close() //nolint:errcheck // the blob's own errors are Commit's
	if _, err := io.Copy(w, contextReader{ctx, r}); err != nil {
		return want, err
	}
	return w.Commit()
}

// contextReader ends a copy when its context ends, whatever its source does between reads.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
