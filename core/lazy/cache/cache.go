// Package cache keeps those parts of a blob that have been fetched, in a sparse file at the places
// that they have in the blob, so that in the end the file is the blob.
//
//	<directory>/blob    the bytes
//	<directory>/spans   which of them are there: 16 bytes each, begin and end, in the order in which they came
//
// A span is noted after its bytes were written. Nothing is synced: what survives a killed process is
// right, and what a loss of power leaves is found out when a part does not have its digest, by the
// reader of the part, who calls Forget.
package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
)

// Fetch opens a part of the blob at its source.
type Fetch func(ctx context.Context, at, n int64) (io.ReadCloser, error)

const (
	// stride is how much is asked for at once when the whole blob is fetched. It is small enough
	// that little comes twice when a reader asks for a part of it meanwhile.
	stride = 8 << 20
	// step is how often what has come is noted.
	step = 256 << 10
	// near is how far apart missing parts may be to be fetched with one request.
	near = 32 << 10
	// ahead is how much is asked for at least, as far as it is missing: the files of a directory lie behind
	// one another, and a request costs more than the bytes.
	ahead = 128 << 10
)

// Blob is a blob, of which parts are there. Its methods may be called in parallel.
type Blob struct {
	dir  string
	size int64
	data *os.File
	note *os.File

	mu      sync.Mutex
	have    spans
	fetch   Fetch
	flights map[*flight]bool
}

// Open opens the cache of a blob of size bytes in dir, and makes it when it is missing.
func Open(dir string, size int64) (_ *Blob, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	b := &Blob{dir: dir, size: size, flights: map[*flight]bool{}, fetch: func(context.Context, int64, int64) (io.ReadCloser, error) {
		return nil, fault.New(fault.Unavailable, "nobody said where the layer comes from")
	}}
	defer func() {
		if err != nil {
			b.Close() //nolint:errcheck // the error is that of the opening
		}
	}()
	if b.data, err = os.OpenFile(b.Path(), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	if b.note, err = os.OpenFile(filepath.Join(dir, "spans"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	return b, b.load()
}

// load reads the notes. What was half written at the end is cut off; what says more than the file has,
// which a loss of power may leave, is not believed.
func (b *Blob) load() error {
	info, err := b.data.Stat()
	if err != nil {
		return fmt.Errorf("open cache: %w", err)
	}
	raw, err := io.ReadAll(io.LimitReader(b.note, 1<<28))
	if err != nil {
		return fmt.Errorf("open cache: %w", err)
	}
	whole := len(raw) / 16 * 16
	if whole != len(raw) {
		if err := b.note.Truncate(int64(whole)); err != nil {
			return fmt.Errorf("open cache: %w", err)
		}
	}
	for i := 0; i < whole; i += 16 {
		s := span{int64(binary.BigEndian.Uint64(raw[i:])), int64(binary.BigEndian.Uint64(raw[i+8:]))}
		if s.At >= 0 && s.At < s.End && s.End <= min(b.size, info.Size()) {
			b.have = b.have.add(s)
		}
	}
	return nil
}

// Path is the file with the bytes.
func (b *Blob) Path() string { return filepath.Join(b.dir, "blob") }

// SetFetch says where missing parts come from, from now on.
func (b *Blob) SetFetch(f Fetch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fetch = f
}

// Close closes the files.
func (b *Blob) Close() error {
	var errs []error
	for _, f := range []*os.File{b.data, b.note} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Remove closes the cache and removes it.
func (b *Blob) Remove() error { return errors.Join(b.Close(), b.Unlink()) }

// Unlink removes the names of the cache; what is open goes on to work until Close.
func (b *Blob) Unlink() error { return os.RemoveAll(b.dir) }

// Have returns how many bytes are there.
func (b *Blob) Have() (n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.have {
		n += s.End - s.At
	}
	return n
}

// Read fills p from the place at, after having fetched what is missing.
func (b *Blob) Read(ctx context.Context, p []byte, at int64) error {
	if at < 0 || int64(len(p)) > b.size-at {
		return fault.New(fault.Invalid, "%d bytes at %d: expected a part of %d bytes", len(p), at, b.size)
	}
	if err := b.ensure(ctx, span{at, at + int64(len(p))}); err != nil {
		return err
	}
	_, err := b.data.ReadAt(p, at)
	return err
}

// At returns a reader of the blob for a context.
func (b *Blob) At(ctx context.Context) io.ReaderAt { return readerAt{ctx, b} }

type readerAt struct {
	ctx context.Context //nolint:containedctx // io.ReaderAt has none
	b   *Blob
}

func (r readerAt) ReadAt(p []byte, at int64) (int, error) {
	if err := r.b.Read(r.ctx, p, at); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Forget gives up a part whose content turned out to be wrong.
func (b *Blob) Forget(at, end int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.have = b.have.remove(span{at, end})
	return b.rewrite()
}

// rewrite writes all notes anew. The caller holds mu.
func (b *Blob) rewrite() error {
	if err := b.note.Truncate(0); err != nil {
		return err
	}
	for _, s := range b.have {
		if err := b.write(s); err != nil {
			return err
		}
	}
	return nil
}

func (b *Blob) write(s span) error {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:], uint64(s.At))
	binary.BigEndian.PutUint64(raw[8:], uint64(s.End))
	_, err := b.note.Write(raw[:])
	return err
}

// missing returns the parts to be fetched for s; such as are near each other in one.
func (b *Blob) missing(s span) (holes spans, fetch Fetch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.have.holes(s) {
		if n := len(holes); n > 0 && h.At-holes[n-1].End <= near {
			holes[n-1].End = h.End
			continue
		}
		holes = append(holes, h)
	}
	return holes, b.fetch
}

// ensure fetches what is missing of s. What another reader is fetching is waited for, and not fetched
// twice; Fill is not waited for, as it may be about to fetch much more.
func (b *Blob) ensure(ctx context.Context, s span) error {
	for {
		f, wait := b.board(s)
		switch {
		case f == nil:
			return nil
		case wait:
			select {
			case <-f.landed:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		default:
			err := b.take(ctx, f.fetch, f.span)
			b.land(f)
			if err != nil {
				return err
			}
		}
	}
}

// flight is a part that a reader is fetching.
type flight struct {
	span
	fetch  Fetch
	landed chan struct{}
}

// board returns the flight for the first part that is missing of s, nil when nothing is; wait says that it
// is another reader's.
func (b *Blob) board(s span) (f *flight, wait bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	holes := b.have.holes(s)
	if len(holes) == 0 {
		return nil, false
	}
	// All of s in one request where what is there lies between; and more behind it where that is missing too.
	want := span{holes[0].At, holes[0].End}
	for _, h := range holes[1:] {
		if h.At-want.End > near {
			break
		}
		want.End = h.End
	}
	if want.End == s.End {
		more := b.have.holes(span{want.At, min(b.size, max(want.End, want.At+ahead))})
		want.End = max(want.End, more[0].End)
	}
	for other := range b.flights {
		switch {
		case other.At <= want.At && want.At < other.End:
			return other, true
		case want.At < other.At && other.At < want.End:
			want.End = other.At
		}
	}
	f = &flight{span: want, fetch: b.fetch, landed: make(chan struct{})}
	b.flights[f] = true
	return f, false
}

func (b *Blob) land(f *flight) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.flights, f)
	close(f.landed)
}

// take fetches a part and notes what has come, also when it breaks off.
func (b *Blob) take(ctx context.Context, fetch Fetch, s span) error {
	r, err := fetch(ctx, s.At, s.End-s.At)
	if err != nil {
		return err
	}
	defer r.Close()
	buf := make([]byte, min(step, s.End-s.At))
	for s.At < s.End {
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), s.End-s.At)])
		if n > 0 {
			if werr := b.put(buf[:n], s.At); werr != nil {
				return werr
			}
			s.At += int64(n)
		}
		if err != nil && s.At < s.End {
			return fmt.Errorf("the layer broke off at byte %d: %w", s.At, err)
		}
	}
	return nil
}

func (b *Blob) put(p []byte, at int64) error {
	if _, err := b.data.WriteAt(p, at); err != nil {
		return fmt.Errorf("write cache: %w", err)
	}
	s := span{at, at + int64(len(p))}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.have = b.have.add(s)
	if err := b.write(s); err != nil {
		return fmt.Errorf("write cache: %w", err)
	}
	return nil
}

// Fill fetches all that is missing, and verifies the whole. A blob that has another digest than want
// is given up, all of it: fault.Invalid.
func (b *Blob) Fill(ctx context.Context, want digest.Digest) error {
	for {
		holes, fetch := b.missing(span{0, b.size})
		if len(holes) == 0 {
			break
		}
		h := holes[0]
		h.End = min(h.End, h.At+stride)
		if err := b.take(ctx, fetch, h); err != nil {
			return err
		}
	}
	hash := want.Algorithm().Digester()
	if _, err := io.Copy(hash.Hash(), io.NewSectionReader(b.data, 0, b.size)); err != nil {
		return fmt.Errorf("read cache: %w", err)
	}
	if got := hash.Digest(); got != want {
		return errors.Join(fault.New(fault.Invalid, "layer %s: what the registry sent has digest %s", want, got), b.Forget(0, b.size))
	}
	return nil
}
