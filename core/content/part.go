package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
)

const (
	partPrefix = "part-"
	// partAge is how long the beginning of a blob waits for its rest.
	partAge = 24 * time.Hour
)

func isPart(name string) bool { return strings.HasPrefix(name, partPrefix) }

// Resume is Writer for a blob with a digest and a size that comes over a network. The writer has what an
// earlier one was given before its process ended, or it was suspended: Size tells how many bytes that
// are, and they must be read by Earlier before the first Write.
func (s *Store) Resume(ctx context.Context, want ocispec.Descriptor) (*Writer, error) {
	if want.Digest == "" || want.Size < 0 {
		return nil, fault.New(fault.Invalid, "resume a blob: expected its digest and size")
	}
	s.expire()
	w := newWriter(s, want)
	if err := s.takeOff(ctx, w); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.partPath(want), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		w.land()
		return nil, fmt.Errorf("write blob: %w", err)
	}
	w.file = f
	if w.size, err = f.Seek(0, io.SeekEnd); err == nil && w.size > want.Size {
		err = w.Restart()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write blob: %w", err), w.Close())
	}
	w.had = w.size
	crash.Point("blob", "begun")
	return w, nil
}

func (s *Store) partPath(want ocispec.Descriptor) string {
	return filepath.Join(s.root, ingestDir, partPrefix+want.Digest.Encoded())
}

// Earlier reads what the writer was begun with.
func (w *Writer) Earlier() io.Reader {
	return &earlier{w, io.NewSectionReader(w.file, w.size-w.had, w.had)}
}

// earlier hashes what it reads, as Write does with what is new.
type earlier struct {
	w *Writer
	r io.Reader
}

func (e *earlier) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.w.hash.Write(p[:n])
	e.w.had -= int64(n)
	return n, err
}

// Restart throws away what was written, and what the writer was begun with.
func (w *Writer) Restart() error {
	if err := w.file.Truncate(0); err != nil {
		return fmt.Errorf("write blob: %w", err)
	}
	if _, err := w.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("write blob: %w", err)
	}
	w.size, w.had = 0, 0
	w.hash.Reset()
	return nil
}

// Suspend ends a writer that Resume gave, and keeps its bytes for the next one.
func (w *Writer) Suspend() error {
	if w.size == 0 || w.kept {
		return w.Close()
	}
	w.kept = true
	w.land()
	return w.file.Close()
}

// expire removes what nobody has resumed for long.
func (s *Store) expire() {
	entries, err := os.ReadDir(filepath.Join(s.root, ingestDir))
	if err != nil {
		return
	}
	for _, e := range entries {
		// What is being written is not old.
		if info, err := e.Info(); err == nil && isPart(e.Name()) && time.Since(info.ModTime()) > partAge {
			os.Remove(filepath.Join(s.root, ingestDir, e.Name()))
		}
	}
}
