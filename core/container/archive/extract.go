package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/container/userns"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// ExtractOptions say how an archive is extracted.
type ExtractOptions struct {
	// Dir is the directory in the root that the archive's names are below; "" is the root itself.
	Dir string
	// KeepKind refuses to replace a directory by something else, and something else by a directory.
	KeepKind bool
	// Owner owns everything that is made; nil: whom the archive names.
	Owner *Owner
	// IDs is the mapping through which the root shows; owners are those of its inside. nil: none.
	IDs *userns.Remap
}

// Owner is a user and a group.
type Owner struct{ UID, GID int }

// maxEntries bounds an archive.
const maxEntries = 16 << 20

// Extract makes what the archive has in the root. Files that are there are replaced; directories are
// kept and get what is new.
func Extract(r io.Reader, root *linux.Root, o ExtractOptions) error {
	if o.IDs == nil {
		return extract(r, root, o)
	}
	return linux.OnThread(func() error {
		// What is made is first its maker's, and the host's root is no owner that could be stored.
		if err := linux.SetFilesystemUser(o.IDs.Root()); err != nil {
			return err
		}
		return extract(r, root, o)
	})
}

func extract(r io.Reader, root *linux.Root, o ExtractOptions) error {
	x := &extractor{root: root, o: o}
	in := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fault.New(fault.Invalid, "read archive: %w", err)
		}
		if n == maxEntries {
			return fault.New(fault.Invalid, "read archive: more than %d entries", maxEntries)
		}
		if err := x.entry(h, in); err != nil {
			return fmt.Errorf("extract %q: %w", h.Name, err)
		}
	}
	// Now that nothing is made in them any more.
	for i := len(x.dirs) - 1; i >= 0; i-- {
		if err := x.times(x.dirs[i]); err != nil {
			return fmt.Errorf("extract %q: %w", x.dirs[i].name, err)
		}
	}
	// What follows the archive's end belongs to it: whoever sends it waits until it is read.
	_, err := io.Copy(io.Discard, r)
	return err
}

type extractor struct {
	root *linux.Root
	o    ExtractOptions
	dirs []datedDir
}

type datedDir struct {
	name string
	at   time.Time
}

func (x *extractor) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if strings.ContainsRune(h.Name, 0) {
		return fault.New(fault.Invalid, "the name holds a NUL byte")
	}
	// Clean("/..") is "/": a name cannot leave the directory.
	name := path.Join("/", x.o.Dir, path.Clean("/"+h.Name))
	if name == path.Join("/", x.o.Dir) {
		return x.top(name, h)
	}
	dir, base, err := x.root.Parent(name, 0o755)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := x.clear(dir, base, h.Typeflag == tar.TypeDir); err != nil {
		return err
	}
	if err := x.make(dir, base, h, r); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		return nil
	}
	if h.Typeflag == tar.TypeDir {
		x.dirs = append(x.dirs, datedDir{name, h.ModTime})
	}
	return x.attributes(dir, base, h)
}

// top gives the directory itself what the archive says of it.
func (x *extractor) top(name string, h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return fault.New(fault.Invalid, "expected a name below the directory")
	}
	f, err := x.root.MkdirAll(name, 0o755)
	if err != nil {
		return err
	}
	defer f.Close()
	x.dirs = append(x.dirs, datedDir{name, h.ModTime})
	return x.handleAttributes(f, h)
}

// clear removes what is in the way. A directory stays for a directory.
func (x *extractor) clear(dir *os.File, base string, forDir bool) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case isDir && forDir:
		return nil
	case isDir && x.o.KeepKind:
		return fault.New(fault.Invalid, "cannot overwrite directory %q with non-directory", base)
	case forDir && x.o.KeepKind && st.Mode&unix.S_IFMT != unix.S_IFLNK:
		return fault.New(fault.Invalid, "cannot overwrite non-directory %q with directory", base)
	}
	return removeTree(dir, base)
}

// removeTree removes a file or a directory with all that is in it.
func removeTree(dir *os.File, base string) error {
	err := unix.Unlinkat(int(dir.Fd()), base, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return &os.PathError{Op: "unlink", Path: base, Err: err}
	}
	sub, err := linux.OpenAt(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer sub.Close()
	names, err := sub.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeTree(sub, n); err != nil {
			return err
		}
	}
	return unix.Unlinkat(int(dir.Fd()), base, unix.AT_REMOVEDIR)
}

func (x *extractor) make(dir *os.File, base string, h *tar.Header, r io.Reader) error {
	at := int(dir.Fd())
	switch h.Typeflag {
	case tar.TypeDir:
		if err := unix.Mkdirat(at, base, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		return nil
	case tar.TypeReg:
		f, err := linux.OpenAt(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	case tar.TypeSymlink:
		return unix.Symlinkat(h.Linkname, at, base)
	case tar.TypeLink:
		target, err := x.root.Open(path.Join("/", x.o.Dir, path.Clean("/"+h.Linkname)), unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		defer target.Close()
		return unix.Linkat(unix.AT_FDCWD, handlePath(target), at, base, unix.AT_SYMLINK_FOLLOW)
	case tar.TypeChar, tar.TypeBlock:
		kind := uint32(unix.S_IFCHR)
		if h.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
		return unix.Mknodat(at, base, kind|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	case tar.TypeFifo:
		return unix.Mknodat(at, base, unix.S_IFIFO|0o600, 0)
	}
	return fault.New(fault.NotImplemented, "entry of type %q: expected a file, directory, link, device or FIFO", h.Typeflag)
}

// attributes gives what was made its owner, mode, attributes and time.
func (x *extractor) attributes(dir *os.File, base string, h *tar.Header) error {
	f, err := linux.OpenAt(dir, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := x.handleAttributes(f, h); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		return nil
	}
	return setTime(int(dir.Fd()), base, h.ModTime)
}

func (x *extractor) handleAttributes(f *os.File, h *tar.Header) error {
	uid, gid := h.Uid, h.Gid
	if x.o.Owner != nil {
		uid, gid = x.o.Owner.UID, x.o.Owner.GID
	}
	uid, gid, err := x.o.IDs.Outside(uid, gid)
	if err != nil {
		return err
	}
	if err := unix.Fchownat(int(f.Fd()), "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "chown", Path: h.Name, Err: err}
	}
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	// After the owner, whose change takes the set-user-ID bit away.
	if err := unix.Chmod(handlePath(f), uint32(h.Mode)&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: h.Name, Err: err}
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok || !keptXattr(name) {
			continue
		}
		if err := unix.Setxattr(handlePath(f), name, []byte(value), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return &os.PathError{Op: "setxattr " + name, Path: h.Name, Err: err}
		}
	}
	return nil
}

func setTime(at int, base string, t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return fault.New(fault.Invalid, "time %s: %w", t, err)
	}
	return unix.UtimesNanoAt(at, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

func (x *extractor) times(d datedDir) error {
	f, err := x.root.Open(d.name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) { // the archive, or the container, replaced it
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	ts, err := unix.TimeToTimespec(d.at)
	if err != nil {
		return fault.New(fault.Invalid, "time %s: %w", d.at, err)
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, handlePath(f), []unix.Timespec{ts, ts}, 0)
}
