package build

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// localTree is the files of one local source. They do not change while the build runs.
type localTree struct {
	name string
	dir  string

	mu      sync.Mutex
	digests map[string]digest.Digest // by path
}

// digest is that of a file or directory in the source: names, types, modes, link targets and
// contents. Owners and times are not part of it, because a copy does not keep them.
func (t *localTree) digest(ctx context.Context, name string) (digest.Digest, error) {
	name = path.Clean("/" + name)
	t.mu.Lock()
	defer t.mu.Unlock()
	if d, ok := t.digests[name]; ok {
		return d, nil
	}
	root, err := linux.OpenRoot(t.dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	f, err := root.Open(name, unix.O_PATH, 0)
	if err != nil {
		return "", missing(t.name, name, err)
	}
	defer f.Close()
	d := digester{ctx: ctx, hash: sha256.New()}
	if err := d.file("", f, 0); err != nil {
		return "", fmt.Errorf("local %s: %w", t.name, err)
	}
	t.digests[name] = digest.NewDigest(digest.SHA256, d.hash)
	return t.digests[name], nil
}

// missing says which source has not the file.
func missing(source, name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return fault.New(fault.NotFound, "%s: no file or directory %q", source, name)
	}
	return err
}

// maxDepth bounds how deep directories are nested: every level holds a handle.
const maxDepth = 500

type digester struct {
	ctx  context.Context //nolint:containedctx // of one walk
	hash hash.Hash
}

// write adds fields so that no two rows of fields look alike.
func (d *digester) write(fields ...string) {
	for _, f := range fields {
		_ = binary.Write(d.hash, binary.BigEndian, uint64(len(f)))
		_, _ = io.WriteString(d.hash, f)
	}
}

// file digests what the handle is of; name is its path below the start.
func (d *digester) file(name string, f *os.File, depth int) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	st, err := linux.Fstat(f)
	if err != nil {
		return err
	}
	d.write(name, fmt.Sprintf("%o", st.Mode))
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return d.directory(name, f, depth)
	case unix.S_IFLNK:
		target, err := readlink(f)
		d.write(target)
		return err
	case unix.S_IFREG:
		return d.content(f)
	}
	d.write(fmt.Sprint(st.Rdev))
	return nil
}

func (d *digester) directory(name string, f *os.File, depth int) error {
	if depth >= maxDepth {
		return fault.New(fault.Invalid, "%q: directories are nested more than %d deep", name, maxDepth)
	}
	list, err := names(f)
	if err != nil {
		return err
	}
	d.write(fmt.Sprint(len(list)))
	for _, n := range list {
		child, err := linux.OpenAt(f, n, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		err = d.file(path.Join(name, n), child, depth+1)
		child.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *digester) content(f *os.File) error {
	r, err := reopen(f)
	if err != nil {
		return err
	}
	defer r.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, r); err != nil {
		return err
	}
	d.write(string(sum.Sum(nil)))
	return nil
}

// reopen opens for reading the regular file that an O_PATH handle is of.
func reopen(f *os.File) (*os.File, error) {
	return linux.OpenAt(nil, procPath(f), unix.O_RDONLY|unix.O_NONBLOCK, 0)
}

func readlink(f *os.File) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", buf)
	if err != nil {
		return "", fmt.Errorf("readlink %s: %w", f.Name(), err)
	}
	return string(buf[:n]), nil
}
