package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Diff writes what a snapshot changed as the tar of an OCI layer (image-spec, "Image Layer Filesystem
// Changeset"), sorted by path, so that the same files give the same bytes. The snapshot may be in
// use: a file that changes meanwhile is written as a mixture, but never breaks the archive.
func (s *Store) Diff(ctx context.Context, key string, w io.Writer) error {
	out := &diffWriter{tar: tar.NewWriter(w), links: map[inode]string{}, buf: make([]byte, 128<<10)}
	if err := s.walk(ctx, key, out.entry); err != nil {
		return fmt.Errorf("diff of snapshot %s: %w", key, err)
	}
	if err := out.tar.Close(); err != nil {
		return fmt.Errorf("diff of snapshot %s: %w", key, err)
	}
	return nil
}

// Change is one path that a snapshot changed.
type Change struct {
	Path string // absolute, in the container
	Kind Kind
}

// Kind says what happened to a path; the numbers are those of Docker's API.
type Kind int

// The kinds of a Change.
const (
	Modified Kind = iota
	Added
	Deleted
)

// Changes returns what a snapshot changed, sorted by path.
func (s *Store) Changes(ctx context.Context, key string) ([]Change, error) {
	var list []Change
	err := s.walk(ctx, key, func(c *changed) error {
		if c.path != "." {
			list = append(list, Change{"/" + c.path, c.kind()})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("changes of snapshot %s: %w", key, err)
	}
	return list, nil
}

// Usage returns the bytes of the files that were written to a snapshot; hard links count once.
func (s *Store) Usage(ctx context.Context, key string) (int64, error) {
	name, _, err := s.snapshot(key)
	if err != nil {
		return 0, err
	}
	top, err := openTop(filepath.Join(s.root, name, "diff"))
	if err != nil {
		return 0, fmt.Errorf("usage of snapshot %s: %w", key, err)
	}
	defer unix.Close(top)
	var sum int64
	seen := map[inode]bool{}
	err = walkDir(ctx, top, ".", func(_ int, _, _ string, st *unix.Stat_t) error {
		id := inode{st.Dev, st.Ino}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR || seen[id] {
			return nil
		}
		if st.Nlink > 1 {
			seen[id] = true
		}
		sum += st.Size
		return nil
	})
	if err == nil {
		err = s.inPlace(name)
	}
	if err != nil {
		return 0, fmt.Errorf("usage of snapshot %s: %w", key, err)
	}
	return sum, nil
}

type inode struct{ dev, ino uint64 }

// changed is a file of a snapshot's upper directory.
type changed struct {
	path  string
	dir   int    // handle of its directory
	name  string // in dir
	st    *unix.Stat_t
	lower *found // what the image has at the path, nil for nothing
}

func (c *changed) whiteout() bool { return isWhiteout(c.st) }

func (c *changed) kind() Kind {
	switch {
	case c.whiteout():
		return Deleted
	case c.lower == nil:
		return Added
	}
	return Modified
}

// walk calls fn for each file of a snapshot, parents first, otherwise in the order of their names.
// What only hides something that no image has (a removed mount point of the engine) is passed over.
func (s *Store) walk(ctx context.Context, key string, fn func(*changed) error) error {
	name, chain, err := s.snapshot(key)
	if err != nil {
		return err
	}
	below, err := s.stack(chain)
	if err != nil {
		return err
	}
	defer below.close()
	top, err := openTop(filepath.Join(s.root, name, "diff"))
	if err != nil {
		return err
	}
	defer unix.Close(top)
	err = walkDir(ctx, top, ".", func(dir int, p, name string, st *unix.Stat_t) error {
		lower, err := below.lookup(p)
		if err != nil {
			return err
		}
		if lower != nil {
			defer lower.close()
		}
		c := &changed{p, dir, name, st, lower}
		if c.whiteout() && lower == nil {
			return nil
		}
		return fn(c)
	})
	if err == nil {
		err = s.inPlace(name) // what vanishes is passed over, see Whole
	}
	return err
}

func openTop(dir string) (int, error) {
	return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// walkDir calls fn for an open directory and all below it. Every step goes through a handle of the
// directory above, so that a container that moves things about leads it nowhere else; what vanishes
// meanwhile is passed over.
func walkDir(ctx context.Context, dir int, p string, fn func(dir int, p, name string, st *unix.Stat_t) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var st unix.Stat_t
	if p == "." {
		if err := unix.Fstat(dir, &st); err != nil {
			return err
		}
		if err := fn(dir, p, ".", &st); err != nil {
			return err
		}
	}
	names, err := readNames(dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		sub := path.Join(p, name)
		err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("/%s: %w", sub, err)
		}
		if err := fn(dir, sub, name, &st); err != nil {
			return fmt.Errorf("/%s: %w", sub, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("/%s: %w", sub, err)
		}
		err = walkDir(ctx, fd, sub, fn)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// diffWriter writes changed files as entries of a layer.
type diffWriter struct {
	tar   *tar.Writer
	links map[inode]string // files with more than one name, by the first
	buf   []byte
}

func (d *diffWriter) entry(c *changed) error {
	if c.path == "." {
		return nil // the root's own attributes are the image's
	}
	if c.whiteout() {
		dir, name := path.Split(c.path)
		return d.marker(dir+whiteoutPrefix+name, c.st)
	}
	h, err := d.header(c)
	if h == nil || err != nil {
		return err
	}
	if h.Typeflag == tar.TypeReg {
		return d.regular(c, h)
	}
	if err := d.tar.WriteHeader(h); err != nil {
		return err
	}
	// The overlay marks every directory that it makes as opaque; only over a lower one it matters.
	if h.Typeflag == tar.TypeDir && c.lower != nil && c.lower.isDir() {
		fd, err := unix.Openat(c.dir, c.name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil
		}
		defer unix.Close(fd)
		if isOpaque(fd) {
			return d.marker(c.path+"/"+opaqueName, c.st)
		}
	}
	return nil
}

// marker writes an empty file that means something by its name.
func (d *diffWriter) marker(name string, st *unix.Stat_t) error {
	return d.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, ModTime: modTime(st), Format: tar.FormatPAX})
}

// modTime is a whole second, as in Docker's layers: other archivers cannot keep more.
func modTime(st *unix.Stat_t) time.Time { return time.Unix(st.Mtim.Sec, 0) }

// header describes a file; nil for a socket, which an archive cannot hold.
func (d *diffWriter) header(c *changed) (*tar.Header, error) {
	st := c.st
	h := &tar.Header{
		Name: c.path, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: modTime(st), Format: tar.FormatPAX,
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && kind != unix.S_IFSOCK && st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first, ok := d.links[id]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return h, nil
		}
		d.links[id] = c.path
	}
	switch kind {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, c.path+"/"
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(c.dir, c.name, buf)
		if err != nil {
			return nil, err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, string(buf[:n])
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeBlock
		if kind == unix.S_IFCHR {
			h.Typeflag = tar.TypeChar
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	default:
		return nil, nil
	}
	attrs, err := xattrs(procPath(c.dir)+"/"+c.name, unix.Llistxattr, unix.Lgetxattr)
	if err != nil {
		return nil, err
	}
	for name, value := range attrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+name] = value
	}
	return h, nil
}

// regular writes a file with exactly the bytes that its header promises.
func (d *diffWriter) regular(c *changed, h *tar.Header) error {
	// O_NONBLOCK: by now it may be a fifo.
	fd, err := unix.Openat(c.dir, c.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil // removed or replaced meanwhile
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return err
	}
	h.Size = st.Size
	if err := d.tar.WriteHeader(h); err != nil {
		return err
	}
	for left := h.Size; left > 0; {
		n, err := unix.Read(fd, d.buf[:min(left, int64(len(d.buf)))])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 { // it became shorter
			n = int(min(left, int64(len(d.buf))))
			clear(d.buf[:n])
		}
		if _, err := d.tar.Write(d.buf[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}
