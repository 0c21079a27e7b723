package mount

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// maxCopyDepth bounds how deep directories are nested: each level holds two files open.
const maxCopyDepth = 128

// copyUp copies what is in a directory of the container into a filesystem that is about to hide it
// (option tmpcopyup). Symlinks are copied and never followed; how much is copied is bounded by the size
// of the filesystem.
func copyUp(hidden, mnt *os.File) error {
	c := &copyingUp{links: map[[2]uint64]place{}}
	defer func() {
		for _, p := range c.links {
			p.dir.Close()
		}
	}()
	from, err := linux.OpenAt(hidden, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("tmpcopyup: %w", err)
	}
	defer from.Close()
	if err := c.children(from, mnt, 0); err != nil {
		return fmt.Errorf("tmpcopyup: %w", err)
	}
	return nil
}

type copyingUp struct {
	links map[[2]uint64]place // by device and inode, the first name of a file that has several
}

// place is a name in a directory of the copy.
type place struct {
	dir  *os.File
	name string
}

// children copies what is in a directory.
func (c *copyingUp) children(from, to *os.File, depth int) error {
	if depth > maxCopyDepth {
		return fault.New(fault.Invalid, "directories are nested more than %d deep", maxCopyDepth)
	}
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.entry(from, to, name, depth); err != nil {
			return err
		}
	}
	return nil
}

func (c *copyingUp) entry(from, to *os.File, name string, depth int) error {
	src, dst := int(from.Fd()), int(to.Fd())
	var st unix.Stat_t
	if err := linux.Retry(func() error { return unix.Fstatat(src, name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		if linked, err := c.again(to, name, &st); linked || err != nil {
			return err
		}
	}
	switch kind {
	case unix.S_IFDIR:
		if err := unix.Mkdirat(dst, name, 0o700); err != nil {
			return err
		}
		return c.both(from, to, name, unix.O_RDONLY|unix.O_DIRECTORY, &st, func(a, b *os.File) error { return c.children(a, b, depth+1) })
	case unix.S_IFREG:
		if err := unix.Mknodat(dst, name, unix.S_IFREG|0o600, 0); err != nil {
			return err
		}
		return c.both(from, to, name, unix.O_RDWR, &st, func(a, b *os.File) error {
			_, err := io.Copy(b, a)
			return err
		})
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(src, name, target)
		if err == nil {
			err = unix.Symlinkat(string(target[:max(0, n)]), dst, name)
		}
		if err != nil {
			return err
		}
	default: // devices, FIFOs and sockets
		if err := unix.Mknodat(dst, name, st.Mode, int(st.Rdev)); err != nil { //nolint:unconvert // differs between architectures
			return err
		}
		if err := unix.Fchmodat(dst, name, st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	if err := unix.Fchownat(dst, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.UtimesNanoAt(dst, name, []unix.Timespec{st.Mtim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// both opens a file and its copy, and gives the copy what fn does and then its attributes. Another file that has taken the first one's place meanwhile is an error.
func (c *copyingUp) both(from, to *os.File, name string, flags int, st *unix.Stat_t, fn func(a, b *os.File) error) error {
	a, err := linux.OpenAt(from, name, flags&^unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer a.Close()
	if now, err := linux.Fstat(a); err != nil || now.Ino != st.Ino || now.Dev != st.Dev {
		return errors.Join(err, errors.New("the file was replaced meanwhile"))
	}
	b, err := linux.OpenAt(to, name, flags|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	err = fn(a, b)
	if err == nil {
		err = likewise(a, b, st)
	}
	return errors.Join(err, b.Close())
}

// again links a further name of a file that was copied before.
func (c *copyingUp) again(to *os.File, name string, st *unix.Stat_t) (bool, error) {
	id := [2]uint64{uint64(st.Dev), st.Ino} //nolint:unconvert // differs between architectures
	if first, ok := c.links[id]; ok {
		return true, unix.Linkat(int(first.dir.Fd()), first.name, int(to.Fd()), name, 0)
	}
	dir, err := linux.OpenAt(to, ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil {
		c.links[id] = place{dir, name}
	}
	return false, err
}

// likewise gives a copy the owner, mode, extended attributes and times of a file. A change of owner
// clears set-user-ID and capabilities (chown(2)), so it comes first.
func likewise(from, to *os.File, st *unix.Stat_t) error {
	fd := int(to.Fd())
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return err
	}
	if err := extended(int(from.Fd()), fd); err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{st.Mtim, st.Mtim}, unix.AT_EMPTY_PATH) // Linux 5.8
}

// extended copies capabilities, access lists and what users set; the rest is the system's (xattr(7)).
func extended(from, to int) error {
	list := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Flistxattr(from, list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil || n == 0 {
		return err
	}
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "system.posix_acl_") {
			continue
		}
		size, err := unix.Fgetxattr(from, name, value)
		if err == nil {
			err = unix.Fsetxattr(to, name, value[:size], 0)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}
