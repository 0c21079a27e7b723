package layer

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/go-digest"
)

// stack is a chain of layers as the overlay would show it, looked at without mounting it.
type stack struct {
	tops []int // handles of the layers' root directories, the top first
}

// stack opens the layers of a chain; the caller closes it.
func (s *Store) stack(chain digest.Digest) (*stack, error) {
	list, err := s.Chain(chain)
	if err != nil {
		return nil, err
	}
	k := &stack{}
	for _, l := range list {
		dir := filepath.Join(s.dir(l.ChainID), "diff")
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			k.close()
			return nil, fmt.Errorf("open layer %s: %w", l.ChainID, err)
		}
		k.tops = append(k.tops, fd)
	}
	return k, nil
}

func (k *stack) close() { closeAll(k.tops) }

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// found is what a stack has at a path: a handle (O_PATH) of the file that is seen, and of the
// directories that are merged with it when it is one.
type found struct {
	st  unix.Stat_t
	fds []int // the top first; at least one
}

func (f *found) close() { closeAll(f.fds) }

func (f *found) isDir() bool { return f.st.Mode&unix.S_IFMT == unix.S_IFDIR }

// lookup returns what the chain has at a clean path, nil for nothing. Links on the way are not
// followed: what lies behind one has another path. The caller closes the answer.
func (k *stack) lookup(p string) (*found, error) {
	dirs := make([]int, 0, len(k.tops))
	for _, fd := range k.tops {
		c, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			closeAll(dirs)
			return nil, err
		}
		dirs = append(dirs, c)
	}
	if len(dirs) == 0 {
		return nil, nil
	}
	f := &found{fds: dirs}
	if err := unix.Fstat(dirs[0], &f.st); err != nil {
		f.close()
		return nil, err
	}
	if p == "." {
		return f, nil
	}
	for name := range strings.SplitSeq(p, "/") {
		if !f.isDir() {
			f.close()
			return nil, nil
		}
		next, err := f.child(name)
		f.close()
		if next == nil || err != nil {
			return nil, err
		}
		f = next
	}
	return f, nil
}

// child returns what merged directories have under a name, as ovl_lookup of the kernel decides it:
// the topmost wins, directories are merged until one is opaque or hidden by what is no directory.
func (f *found) child(name string) (*found, error) {
	c := &found{}
	for _, dir := range f.fds {
		fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		var st unix.Stat_t
		if err == nil {
			err = unix.Fstat(fd, &st)
		}
		if err != nil {
			c.close()
			return nil, err
		}
		dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if isWhiteout(&st) || !dir && len(c.fds) > 0 {
			unix.Close(fd)
			break
		}
		if len(c.fds) == 0 {
			c.st = st
		}
		c.fds = append(c.fds, fd)
		if !dir || isOpaque(fd) {
			break
		}
	}
	if len(c.fds) == 0 {
		return nil, nil
	}
	return c, nil
}

// names returns the names in merged directories, sorted.
func (f *found) names() ([]string, error) {
	var all []string
	hidden := map[string]bool{}
	for _, dir := range f.fds {
		fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		names, err := readNames(fd)
		unix.Close(fd)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if hidden[n] {
				continue
			}
			hidden[n] = true
			var st unix.Stat_t
			if err := unix.Fstatat(dir, n, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return nil, err
			}
			if !isWhiteout(&st) {
				all = append(all, n)
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

func isOpaque(fd int) bool {
	buf := make([]byte, 1)
	n, err := unix.Getxattr(procPath(fd), opaqueXattr, buf)
	return err == nil && n == 1 && buf[0] == 'y'
}

// copyAttributes gives the file at dir/name the owner, mode, attributes and times of another, which
// is open as from. Like finish, owner first.
func copyAttributes(from int, st *unix.Stat_t, dir int, name string) error {
	if err := unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(dir, name, st.Mode&0o7777, 0); err != nil {
			return err
		}
		attrs, err := xattrs(procPath(from), unix.Listxattr, unix.Getxattr)
		if err != nil {
			return err
		}
		for key, value := range attrs {
			if err := unix.Lsetxattr(procPath(dir)+"/"+name, key, []byte(value), 0); err != nil {
				return fmt.Errorf("set attribute %s: %w", key, err)
			}
		}
	}
	return setTimes(dir, name, [2]unix.Timespec{st.Atim, st.Mtim})
}

// xattrs returns the extended attributes that belong to a file and not to the overlay that keeps it.
func xattrs(path string, list func(string, []byte) (int, error), get func(string, string, []byte) (int, error)) (map[string]string, error) {
	n, err := list(path, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	buf := make([]byte, n+256)
	if n, err = list(path, buf); err != nil {
		return nil, err
	}
	attrs := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		// The label of a file is the host's policy and not the image's.
		if name == "" || strings.HasPrefix(name, overlayXattrs) || name == "security.selinux" {
			continue
		}
		value := make([]byte, 1<<16) // XATTR_SIZE_MAX
		n, err := get(path, name, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read attribute %s: %w", name, err)
		}
		attrs[name] = string(value[:n])
	}
	return attrs, nil
}
