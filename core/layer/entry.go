package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// Whiteouts in a layer tar (image-spec, layer.md, "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	// aufsPrefix marks what aufs kept beside the files; it says nothing of the layer.
	aufsPrefix = ".wh..wh."
)

// Whiteouts in an overlay's upper directory (overlayfs.rst, "whiteouts and opaque directories"): a
// character device 0/0, and this attribute on a directory.
const (
	overlayXattrs = "trusted.overlay."
	opaqueXattr   = "trusted.overlay.opaque"
)

// entry writes one entry of the tar.
func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil // archive/tar applies it; git archive writes one with a commit in it
	}
	p, err := cleanPath(h.Name)
	if err != nil {
		return err
	}
	if h.Uid < 0 || h.Gid < 0 || h.Uid > math.MaxUint32-1 || h.Gid > math.MaxUint32-1 {
		return fault.New(fault.Invalid, "its owner is %d:%d: expected numbers from 0 to %d", h.Uid, h.Gid, math.MaxUint32-1)
	}
	dir, base := path.Split(p)
	if strings.Contains("/"+dir, "/"+whiteoutPrefix) {
		if strings.Contains("/"+dir, "/"+aufsPrefix) {
			return nil
		}
		return fault.New(fault.Invalid, "it is inside a whiteout")
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return u.whiteout(path.Clean(dir), base)
	}
	return u.make(p, h, r)
}

// whiteout marks what the layer removes from those below it. What this layer itself has at the same
// place stays, in whatever order the two come.
func (u *unpacker) whiteout(dir, base string) error {
	switch name := strings.TrimPrefix(base, whiteoutPrefix); {
	case base == opaqueName && dir == ".":
		u.hideRoot = true // the overlay merges roots whatever their attributes are
		return nil
	case base == opaqueName:
		return u.opaque(dir)
	case strings.HasPrefix(base, aufsPrefix):
		return nil
	case name == "" || name == "." || name == "..":
		return fault.New(fault.Invalid, "it is a whiteout of no name")
	default:
		p := path.Join(dir, name)
		u.removed[p] = true
		fd, name, err := u.root.parent(p, u.imply)
		if err != nil {
			return err
		}
		err = unix.Mknodat(fd, name, unix.S_IFCHR, 0)
		if errors.Is(err, unix.EEXIST) {
			if is, err := isDir(fd, name); err != nil || !is {
				return err // a file of this layer hides the lower one by itself
			}
			return u.opaque(p)
		}
		return err
	}
}

func isDir(fd int, name string) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, err
}

func (u *unpacker) opaque(dir string) error {
	fd, _, err := u.root.parent(path.Join(dir, "."+whiteoutPrefix), u.imply)
	if err == nil {
		fd, err = u.root.dir(dir)
	}
	if err != nil {
		return err
	}
	return unix.Setxattr(procPath(fd), opaqueXattr, []byte("y"), 0)
}

// imply notes a directory that was made on the way to a file. It counts as an entry: one entry can
// ask for two thousand of them.
func (u *unpacker) imply(dir string) {
	u.entries++
	u.implied[dir] = true
}

// make creates the file of an entry, in the place of what an earlier entry made there.
func (u *unpacker) make(p string, h *tar.Header, r io.Reader) error {
	delete(u.borrowed, p)
	if p == "." {
		if h.Typeflag != tar.TypeDir {
			return fault.New(fault.Invalid, "the root of a layer is not a directory")
		}
		delete(u.implied, p)
		return u.finish(u.root.fd, ".", p, h)
	}
	for try := 0; ; try++ {
		fd, base, err := u.root.parent(p, u.imply)
		if err != nil {
			return err
		}
		err = u.create(fd, base, h, r)
		if errors.Is(err, unix.EEXIST) && try == 0 {
			if h.Typeflag == tar.TypeDir {
				if is, err := isDir(fd, base); err == nil && is {
					delete(u.implied, p)
					return u.finish(fd, base, p, h)
				}
			}
			if err := u.root.removeAt(fd, base); err != nil {
				return err
			}
			delete(u.implied, p)
			continue
		}
		if errors.Is(err, errBorrowed) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeLink {
			return nil // it shares the owner and times of its target
		}
		return u.finish(fd, base, p, h)
	}
}

var errBorrowed = errors.New("the target may be in a lower layer")

// create makes the file without its attributes; regular files come with their content.
func (u *unpacker) create(fd int, base string, h *tar.Header, r io.Reader) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		return u.regular(fd, base, h, r)
	case tar.TypeDir:
		return unix.Mkdirat(fd, base, 0o700)
	case tar.TypeSymlink:
		u.Size += int64(len(h.Linkname)) // as lstat(2) says, which Docker sums up
		return unix.Symlinkat(h.Linkname, fd, base)
	case tar.TypeLink:
		return u.hardlink(base, h)
	case tar.TypeFifo:
		return unix.Mknodat(fd, base, unix.S_IFIFO|0o600, 0)
	case tar.TypeChar, tar.TypeBlock:
		if h.Devmajor < 0 || h.Devminor < 0 || h.Devmajor > math.MaxUint32 || h.Devminor > math.MaxUint32 {
			return fault.New(fault.Invalid, "its device number is %d:%d", h.Devmajor, h.Devminor)
		}
		mode := uint32(unix.S_IFBLK)
		if h.Typeflag == tar.TypeChar {
			mode = unix.S_IFCHR
			if h.Devmajor == 0 && h.Devminor == 0 {
				return fault.New(fault.Invalid, "a character device 0:0 would be an overlay's whiteout")
			}
		}
		return unix.Mknodat(fd, base, mode|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	}
	return fault.New(fault.Invalid, "its type is %q: expected a file, directory, link, device or fifo", h.Typeflag)
}

func (u *unpacker) regular(fd int, base string, h *tar.Header, r io.Reader) error {
	if h.Size < 0 || h.Size > u.limits.Bytes-u.Size {
		return fault.New(fault.Invalid, "the layer's files are larger than %d bytes", u.limits.Bytes)
	}
	file, err := unix.Openat(fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	if isSparse(h) {
		err = u.copySparse(file, h.Size, r)
	} else {
		err = u.copy(file, h.Size, r)
	}
	if cerr := unix.Close(file); err == nil {
		err = cerr
	}
	u.Size += h.Size
	return err
}

// copy writes exactly size bytes of r.
func (u *unpacker) copy(file int, size int64, r io.Reader) error {
	for size > 0 {
		n, err := io.ReadFull(r, u.buf[:min(size, int64(len(u.buf)))])
		if err != nil {
			return err
		}
		if err := writeAll(file, u.buf[:n]); err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

func writeAll(file int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(file, p)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	_, major := h.PAXRecords["GNU.sparse.major"]
	_, numbered := h.PAXRecords["GNU.sparse.numblocks"]
	return major || numbered
}

// copySparse is copy that leaves holes where whole pages are zero.
func (u *unpacker) copySparse(file int, size int64, r io.Reader) error {
	const page = 4096
	for at := int64(0); at < size; {
		n, err := io.ReadFull(r, u.buf[:min(size-at, page)])
		if err != nil {
			return err
		}
		if !allZero(u.buf[:n]) {
			if _, err := unix.Pwrite(file, u.buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
	}
	return unix.Ftruncate(file, size)
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// hardlink links to a file of this layer, or notes that a lower one must have it.
func (u *unpacker) hardlink(base string, h *tar.Header) error {
	target, err := cleanPath(h.Linkname)
	if err != nil {
		return fault.New(fault.Invalid, "hard link to %q: %w", brief(h.Linkname), err)
	}
	p, err := cleanPath(h.Name)
	if err != nil {
		return err
	}
	if target == p {
		return fault.New(fault.Invalid, "it is a hard link to itself")
	}
	fd, name, err := u.linkTarget(target)
	if err != nil {
		return err
	}
	if fd < 0 {
		u.borrowed[p] = target
		return errBorrowed
	}
	defer unix.Close(fd)
	// The directories are looked up again: either lookup may have closed the other's handle.
	to, _, err := u.root.parent(p, u.imply)
	if err != nil {
		return err
	}
	// Without AT_SYMLINK_FOLLOW a link to a symbolic link is a second name of that link.
	return unix.Linkat(fd, name, to, base, 0)
}

// linkTarget returns a handle, the caller's to close, of the directory that holds a hard link's
// target, and the target's name in it; -1 when the layer has no such file.
func (u *unpacker) linkTarget(target string) (int, string, error) {
	dir, name := path.Split(target)
	fd, err := u.root.dir(path.Clean(dir))
	switch {
	case errors.Is(err, unix.ENOENT):
		return -1, "", nil
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.ELOOP):
		return -1, "", fault.New(fault.Invalid, "hard link to %q: it leads out of the layer", brief(target))
	case err != nil:
		return -1, "", fmt.Errorf("hard link to %q: %w", brief(target), err)
	}
	var st unix.Stat_t
	err = unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return -1, "", nil
	}
	if err != nil {
		return -1, "", err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR || isWhiteout(&st) {
		return -1, "", fault.New(fault.Invalid, "hard link to %q: it is not a file", brief(target))
	}
	fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return fd, name, err
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// finish gives a file its owner, mode, attributes and times, in this order: a change of owner
// clears set-user-ID and capabilities, chown(2).
func (u *unpacker) finish(fd int, base, p string, h *tar.Header) error {
	if err := unix.Fchownat(fd, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set its owner: %w", err)
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Fchmodat(fd, base, uint32(h.Mode)&0o7777, 0); err != nil {
			return fmt.Errorf("set its mode: %w", err)
		}
	}
	if err := setXattrs(fd, base, h); err != nil {
		return err
	}
	times, err := timesOf(h.ModTime)
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		if u.removed[p] {
			// The directory replaces the lower one instead of being merged with it.
			if err := unix.Lsetxattr(procPath(fd)+"/"+base, opaqueXattr, []byte("y"), 0); err != nil {
				return err
			}
		}
		u.times = append(u.times, dirTime{p, times})
		return nil
	}
	return setTimes(fd, base, times)
}

func timesOf(t time.Time) ([2]unix.Timespec, error) {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return [2]unix.Timespec{}, fault.New(fault.Invalid, "its time is out of range")
	}
	return [2]unix.Timespec{ts, ts}, nil
}

func setTimes(fd int, base string, times [2]unix.Timespec) error {
	return unix.UtimesNanoAt(fd, base, times[:], unix.AT_SYMLINK_NOFOLLOW)
}

const paxXattr = "SCHILY.xattr."

// maxXattrNames is XATTR_LIST_MAX of linux/limits.h: more names than that cannot be listed, listxattr(2).
const maxXattrNames = 64 << 10

// setXattrs sets the extended attributes that the tar has for the file.
func setXattrs(fd int, base string, h *tar.Header) error {
	names := 0
	for key := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, paxXattr); ok {
			names += len(name) + 1
		}
	}
	if names > maxXattrNames {
		return fault.New(fault.Invalid, "the names of its attributes have %d bytes: expected at most %d", names, maxXattrNames)
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok {
			continue
		}
		if strings.HasPrefix(name, overlayXattrs) {
			return fault.New(fault.Invalid, "its attribute %q would change what the overlay shows", brief(name))
		}
		err := unix.Lsetxattr(procPath(fd)+"/"+base, name, []byte(value), 0)
		// A filesystem without such attributes, or one that keeps user.* to files and directories,
		// still holds a usable image: Docker passes over the same.
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) && strings.HasPrefix(name, "user.") {
			continue
		}
		if err != nil {
			return fmt.Errorf("set its attribute %q: %w", brief(name), err)
		}
	}
	return nil
}
