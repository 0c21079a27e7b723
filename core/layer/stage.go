package layer

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
)

// Staged is a layer's files in a temporary directory, not yet part of the store. Commit or Discard it.
type Staged struct {
	DiffID digest.Digest
	Size   int64

	store *Store
	dir   string // below tmp/, with diff/ in it
	// What the layers below must decide, see settle.go.
	implied  map[string]bool   // directories that the tar did not describe
	borrowed map[string]string // hard links to files that are not in this layer: name to target
	hideRoot bool              // the root directory is opaque
	times    []dirTime         // of its directories, when settling will make something in them

	shown       *Shown // its files are elsewhere, see lazy.go
	provisional bool   // it has attributes of a layer that is only shown, see inherit.go
}

// maxTrailer bounds what follows the end of an archive: archivers fill up a block, of 10 KiB in
// most cases and of some MiB in none.
const maxTrailer = 64 << 20

// Stage unpacks the tar stream r, to its end, into a temporary directory. It looks at no other layer.
func (s *Store) Stage(ctx context.Context, r io.Reader) (_ *Staged, err error) {
	dir, err := os.MkdirTemp(filepath.Join(s.root, tmpDir), "layer-")
	if err != nil {
		return nil, fmt.Errorf("unpack layer: %w", err)
	}
	// The root directory counts as implied until the tar describes it.
	st := &Staged{store: s, dir: dir, implied: map[string]bool{".": true}, borrowed: map[string]string{}}
	defer func() {
		if err != nil {
			st.Discard()
		}
	}()
	diff := filepath.Join(dir, "diff")
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, fmt.Errorf("unpack layer: %w", err)
	}
	if err := os.Mkdir(diff, 0o755); err != nil {
		return nil, fmt.Errorf("unpack layer: %w", err)
	}
	crash.Point("layer", "begun")
	root, err := openRoot(diff)
	if err != nil {
		return nil, fmt.Errorf("unpack layer: %w", err)
	}
	defer root.close()

	// Reading (which is decompression, and often a download) and hashing go on in one goroutine,
	// writing files in this one.
	sum := sha256.New()
	ahead := readAhead(ctx, io.TeeReader(r, sum))
	defer ahead.stop()
	u := &unpacker{Staged: st, root: root, limits: s.limits, buf: make([]byte, 256<<10), removed: map[string]bool{}}
	if err := u.unpack(ctx, &allowance{r: ahead}); err != nil {
		return nil, err
	}
	// What follows the end of the archive belongs to the layer's digest.
	if n, err := io.CopyBuffer(io.Discard, io.LimitReader(ahead, maxTrailer+1), u.buf); err != nil {
		return nil, fmt.Errorf("unpack layer: %w", err)
	} else if n > maxTrailer {
		return nil, fault.New(fault.Invalid, "unpack layer: more than %d bytes follow the end of the archive", maxTrailer)
	}
	ahead.stop()
	crash.Point("layer", "unpacked")
	st.DiffID = sumDigest(sum)
	return st, nil
}

func sumDigest(h hash.Hash) digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, h.Sum(nil))
}

// Discard throws the files away.
func (st *Staged) Discard() {
	if st.dir == "" {
		return
	}
	dir := st.dir
	st.dir = ""
	if st.shown != nil && st.shown.Release != nil {
		st.shown.Release()
	}
	st.store.removals.Go(func() {
		if err := os.RemoveAll(dir); err != nil {
			st.store.log.Warn("remove directory", "path", dir, "error", err)
		}
	})
}

// Unpack unpacks the uncompressed tar r as the layer on top of the chain parent, "" for a first
// layer. A layer that is there already stays as it is, and callers that unpack the same one at the
// same time get the same one.
func (s *Store) Unpack(ctx context.Context, parent digest.Digest, r io.Reader) (Layer, error) {
	if _, err := s.Get(parent); err != nil {
		return Layer{}, fmt.Errorf("unpack layer: %w", err)
	}
	st, err := s.Stage(ctx, r)
	if err != nil {
		return Layer{}, err
	}
	return st.Commit(ctx, parent)
}

// unpacker writes the entries of one layer.
type unpacker struct {
	*Staged
	root    *root
	limits  Limits
	buf     []byte
	entries int64
	names   int64
	removed map[string]bool // paths with a whiteout in this layer
	times   []dirTime
}

// dirTime is a directory's time, set when nothing is made in it any more.
type dirTime struct {
	path  string
	times [2]unix.Timespec
}

// maxHeaders bounds what describes one entry: archive/tar takes records of at most 1 MiB of each kind, but as many
// of them as come.
const maxHeaders = 8 << 20

// allowance ends an archive that says more of an entry than there is to say.
type allowance struct {
	r    io.Reader
	left int64
}

func (a *allowance) Read(p []byte) (int, error) {
	if a.left <= 0 {
		return 0, fault.New(fault.Invalid, "an entry has more than %d bytes of headers", maxHeaders)
	}
	n, err := a.r.Read(p[:min(int64(len(p)), a.left)])
	a.left -= int64(n)
	return n, err
}

func (u *unpacker) unpack(ctx context.Context, in *allowance) error {
	r := tar.NewReader(in)
	for size := int64(0); ; {
		// What is left of the entry before, its padding, and what describes the next one.
		in.left = size + maxHeaders
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			if len(u.borrowed) > 0 || u.hideRoot {
				u.Staged.times = u.times
			}
			return setDirTimes(u.root, u.times)
		}
		if err != nil {
			return fmt.Errorf("unpack layer: %w", readError(err))
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		size = h.Size
		in.left = size + maxHeaders
		u.names += int64(len(h.Name) + len(h.Linkname))
		if err := u.entry(h, r); err != nil {
			return fmt.Errorf("unpack layer: %q: %w", brief(h.Name), readError(err))
		}
		if u.entries++; u.entries > u.limits.Entries || u.names > u.limits.Names {
			return fault.New(fault.Invalid, "unpack layer: it has more than %d entries, or %d bytes of names", u.limits.Entries, u.limits.Names)
		}
	}
}

// brief is a name for an error: an archive can have names of a mebibyte.
func brief(name string) string {
	const most = 256
	if len(name) <= most {
		return name
	}
	return name[:most] + "..."
}

// readError gives a broken archive, and one whose names no filesystem takes, its class; the errors of the stream below
// pass through.
func readError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ENAMETOOLONG) {
		return fault.As(fault.Invalid, err)
	}
	return err
}

// setDirTimes runs after the last entry: what is made in a directory changes its time.
func setDirTimes(root *root, times []dirTime) error {
	for _, d := range times {
		fd, err := root.dir(d.path)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue // a later entry replaced it
		}
		if err == nil {
			err = setTimes(fd, ".", d.times)
		}
		if err != nil {
			return fmt.Errorf("unpack layer: %q: set its time: %w", d.path, err)
		}
	}
	return nil
}
