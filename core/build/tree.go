package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// copier copies files from one root into another. Neither root's symlinks lead out of it: paths are
// resolved by linux.Root, and names that come from directories are used only with calls that do not
// follow links.
type copier struct {
	ctx   context.Context //nolint:containedctx // of one copy
	from  *linux.Root
	to    *linux.Root
	owner *owner     // nil: as the source's
	mode  *uint32    // nil: as the source's
	time  *time.Time // nil: as the source's
	// plain leaves out devices and extended attributes, which local files have by accident.
	plain bool
	links map[inode]string // where files with several names went
}

type owner struct{ uid, gid int }

type inode struct{ dev, ino uint64 }

// copy copies a file to dest, or into it when dest is a directory or ends with a slash; of a
// directory it copies what is in it. A symlink at the end of source is followed.
func (c *copier) copy(source, dest string) error {
	c.links = map[inode]string{}
	src, err := c.from.Open(path.Clean("/"+source), unix.O_PATH, 0)
	if err != nil {
		return missing("copy", source, err)
	}
	defer src.Close()
	dir, err := linux.IsDir(src)
	if err != nil {
		return err
	}
	if dir {
		return c.into(src, path.Clean("/"+dest))
	}
	into := strings.HasSuffix(dest, "/") || dest == "." || strings.HasSuffix(dest, "/.")
	dest = path.Clean("/" + dest)
	if f, err := c.to.Open(dest, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
		f.Close()
		into = true
	}
	if into {
		dest = path.Join(dest, path.Base(path.Clean("/"+source)))
	}
	parent, err := c.to.MkdirAll(path.Dir(dest), 0o755)
	if err != nil {
		return notDirectory(path.Dir(dest), err)
	}
	defer parent.Close()
	return c.entry(src, parent, dest, 0)
}

// into copies what is in a directory into the directory dest, which is made like the source when it
// is not there.
func (c *copier) into(src *os.File, dest string) error {
	if f, err := c.to.Open(dest, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
		defer f.Close()
		return c.children(src, f, dest, 0)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return notDirectory(dest, err)
	}
	parent, err := c.to.MkdirAll(path.Dir(dest), 0o755)
	if err != nil {
		return notDirectory(path.Dir(dest), err)
	}
	defer parent.Close()
	return c.entry(src, parent, dest, 0)
}

func notDirectory(name string, err error) error {
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EEXIST) {
		return fault.New(fault.Invalid, "copy: %s is not a directory", name)
	}
	return fmt.Errorf("copy to %s: %w", name, err)
}

// entry copies one file or directory to dest, whose directory is parent.
func (c *copier) entry(src, parent *os.File, dest string, depth int) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	st, err := linux.Fstat(src)
	if err != nil {
		return err
	}
	at, name := int(parent.Fd()), path.Base(dest)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return c.directory(src, &st, parent, dest, depth)
	case unix.S_IFSOCK:
		return nil // it would be of no use without its process, and a layer has no form for it
	case unix.S_IFCHR, unix.S_IFBLK:
		if c.plain {
			return fault.New(fault.Invalid, "copy: %s is a device", dest)
		}
	}
	if err := clearPlace(at, name, dest); err != nil {
		return err
	}
	if linked, err := c.again(&st, at, name, dest); linked || err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = c.content(src, at, name)
	case unix.S_IFLNK:
		var target string
		if target, err = readlink(src); err == nil {
			err = unix.Symlinkat(target, at, name)
		}
	default:
		err = unix.Mknodat(at, name, st.Mode&unix.S_IFMT|0o600, int(st.Rdev)) //nolint:unconvert // differs between architectures
	}
	if err != nil {
		return fmt.Errorf("copy to %s: %w", dest, err)
	}
	return c.attributes(src, &st, parent, name, dest)
}

// clearPlace removes a file that is in the way of one that is copied.
func clearPlace(at int, name, dest string) error {
	err := unix.Unlinkat(at, name, 0)
	switch {
	case errors.Is(err, unix.EISDIR):
		return fault.New(fault.Invalid, "copy: %s is a directory, and a file would take its place", dest)
	case err != nil && !errors.Is(err, unix.ENOENT):
		return fmt.Errorf("copy to %s: %w", dest, err)
	}
	return nil
}

// again makes a further name of a file that was copied under another name before.
func (c *copier) again(st *unix.Stat_t, at int, name, dest string) (bool, error) {
	if st.Nlink < 2 {
		return false, nil
	}
	id := inode{uint64(st.Dev), st.Ino} //nolint:unconvert // differs between architectures
	first, ok := c.links[id]
	if !ok {
		c.links[id] = dest
		return false, nil
	}
	dir, err := c.to.Open(path.Dir(first), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	if err := unix.Linkat(int(dir.Fd()), path.Base(first), at, name, 0); err != nil {
		return false, fmt.Errorf("copy: link %s to %s: %w", dest, first, err)
	}
	return true, nil
}

func (c *copier) directory(src *os.File, st *unix.Stat_t, parent *os.File, dest string, depth int) error {
	if depth >= maxDepth {
		return fault.New(fault.Invalid, "copy: %s: directories are nested more than %d deep", dest, maxDepth)
	}
	name := path.Base(dest)
	made := false
	dir, err := linux.OpenAt(parent, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := unix.Mkdirat(int(parent.Fd()), name, 0o700); err != nil {
			return fmt.Errorf("copy to %s: %w", dest, err)
		}
		made = true
		dir, err = linux.OpenAt(parent, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	case err != nil:
		// A symlink to a directory stands for it: images have /bin for /usr/bin.
		if dir, err = c.to.Open(dest, unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
			return fault.New(fault.Invalid, "copy: %s is a file, and a directory would take its place", dest)
		}
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := c.children(src, dir, dest, depth+1); err != nil || !made {
		return err
	}
	return c.attributes(src, st, parent, name, dest)
}

func (c *copier) children(src, dir *os.File, dest string, depth int) error {
	list, err := names(src)
	if err != nil {
		return err
	}
	for _, name := range list {
		child, err := linux.OpenAt(src, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		err = c.entry(child, dir, path.Join(dest, name), depth)
		child.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// chunk is how much is copied between looks at the context.
const chunk = 64 << 20

func (c *copier) content(src *os.File, at int, name string) (err error) {
	r, err := reopen(src)
	if err != nil {
		return err
	}
	defer r.Close()
	fd, err := unix.Openat(at, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	w := os.NewFile(uintptr(fd), name)
	defer func() { err = errors.Join(err, w.Close()) }()
	for {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		// Between files this is copy_file_range(2): a reflink where the filesystem can.
		if _, err := io.CopyN(w, r, chunk); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// attributes gives a copy its owner, mode, attributes and times. A change of owner clears set-user-ID and
// capabilities (chown(2)), so it comes first.
func (c *copier) attributes(src *os.File, st *unix.Stat_t, parent *os.File, name, dest string) error {
	at := int(parent.Fd())
	own := owner{int(st.Uid), int(st.Gid)}
	if c.owner != nil {
		own = *c.owner
	}
	link := st.Mode&unix.S_IFMT == unix.S_IFLNK
	err := unix.Fchownat(at, name, own.uid, own.gid, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && !link {
		mode := st.Mode & 0o7777
		if c.mode != nil {
			mode = *c.mode
		}
		err = unix.Fchmodat(at, name, mode, 0)
	}
	if err == nil && !c.plain && !link {
		err = copyXattrs(procPath(src), procPath(parent)+"/"+name)
	}
	if err == nil {
		when := st.Mtim
		if c.time != nil {
			when = unix.NsecToTimespec(c.time.UnixNano())
		}
		err = unix.UtimesNanoAt(at, name, []unix.Timespec{when, when}, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return fmt.Errorf("copy to %s: %w", dest, err)
	}
	return nil
}

// copyXattrs copies capabilities, access lists and what users set; the rest belongs to the system.
func copyXattrs(from, to string) error {
	buf := make([]byte, 64<<10)
	n, err := unix.Listxattr(from, buf)
	if errors.Is(err, unix.ENOTSUP) || n == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list attributes: %w", err)
	}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "system.posix_acl_") {
			continue
		}
		size, err := unix.Getxattr(from, name, value)
		if err == nil {
			err = unix.Lsetxattr(to, name, value[:size], 0)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("copy attribute %s: %w", name, err)
		}
	}
	return nil
}

// settle gives everything in a snapshot's upper directory that changed since began the time to, so
// that the same step makes the same layer whenever it runs.
func settle(ctx context.Context, upper string, began, to time.Time) error {
	dir, err := linux.OpenAt(nil, upper, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	// The kernel's file times lag behind its clock by up to a tick.
	s := settler{ctx, began.Add(-time.Second).UnixNano(), unix.NsecToTimespec(to.UnixNano())}
	if err := s.children(dir, 0); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return s.one(dir, ".")
}

type settler struct {
	ctx   context.Context //nolint:containedctx // of one walk
	began int64
	to    unix.Timespec
}

func (s *settler) children(dir *os.File, depth int) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if depth > maxDepth {
		return fault.New(fault.Invalid, "directories are nested more than %d deep", maxDepth)
	}
	list, err := names(dir)
	if err != nil {
		return err
	}
	for _, name := range list {
		child, err := linux.OpenAt(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err == nil {
			err = s.children(child, depth+1)
			child.Close()
			if err != nil {
				return err
			}
		} else if !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			return err
		}
		if err := s.one(dir, name); err != nil {
			return err
		}
	}
	return nil
}

func (s *settler) one(dir *os.File, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mtim.Nano() < s.began {
		return nil
	}
	return unix.UtimesNanoAt(int(dir.Fd()), name, []unix.Timespec{s.to, s.to}, unix.AT_SYMLINK_NOFOLLOW)
}
