// Package archive writes a tree of a container's root filesystem as a tar archive, and extracts one
// into it: for cp, export, and volumes that an image fills.
//
// Both sides are hostile: the tree belongs to a container that may change it meanwhile, and the
// archive to whoever sent it. So nothing is reached by a path of the host. A tree is walked by
// descriptors, without following symbolic links; names of an archive are resolved by openat2(2) with
// the container's root as "/" (core/linux.Root), and what is made there is touched by descriptor.
package archive

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/container/userns"
	"github.com/sampan-project/sampan/core/linux"
)

// WriteOptions say what Write puts into the archive.
type WriteOptions struct {
	// Name is what the tree is called in the archive; "" names nothing but what is in it.
	Name string
	// NoRoot leaves out the entry of the tree's root itself.
	NoRoot bool
	// IDs is the mapping of the tree's ids: the archive has those of the inside. nil: none.
	IDs *userns.Remap
	// OneMount leaves out what is mounted in the tree; mount points are empty.
	OneMount bool
}

// xattrPrefix is how PAX records name an extended attribute.
const xattrPrefix = "SCHILY.xattr."

// maxXattr is the kernel's bound of an attribute's value and of the list of names (xattr(7)).
const maxXattr = 64 << 10

// keptXattr chooses the attributes that mean the same elsewhere: file capabilities and a user's own.
func keptXattr(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "user.")
}

// Write writes everything below the root.
func Write(w io.Writer, root *linux.Root, o WriteOptions) error {
	a := newWriter(w, o)
	dir, err := linux.OpenAt(root.Dir(), ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := a.begin(dir); err != nil {
		return err
	}
	if o.NoRoot {
		err = a.contents(dir, o.Name)
	} else {
		err = a.directory(dir, o.Name)
	}
	if err != nil {
		return err
	}
	return a.tar.Close()
}

// WriteFile writes the one thing at name in the directory, which is a directory with all that is in it,
// or any other kind of file.
func WriteFile(w io.Writer, dir *os.File, name string, o WriteOptions) error {
	a := newWriter(w, o)
	if err := a.begin(dir); err != nil {
		return err
	}
	if err := a.entry(dir, name, o.Name); err != nil {
		return err
	}
	return a.tar.Close()
}

type inode struct{ dev, ino uint64 }

type writer struct {
	tar   *tar.Writer
	o     WriteOptions
	mount uint64           // the mount that the tree is on
	links map[inode]string // names of files with more than one
}

func newWriter(w io.Writer, o WriteOptions) *writer {
	return &writer{tar: tar.NewWriter(w), o: o, links: map[inode]string{}}
}

func (a *writer) begin(dir *os.File) (err error) {
	if a.o.OneMount {
		a.mount, err = mountOf(dir, "")
	}
	return err
}

// mountOf is the number of the mount that a file is on; see statx(2).
func mountOf(dir *os.File, name string) (uint64, error) {
	var st unix.Statx_t
	err := linux.Retry(func() error {
		return unix.Statx(int(dir.Fd()), name, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &st)
	})
	return st.Mnt_id, err
}

// directory writes the directory itself, when it has a name, and what is in it in the order of names.
func (a *writer) directory(dir *os.File, name string) error {
	st, err := linux.Fstat(dir)
	if err != nil {
		return err
	}
	h := a.header(&st, name)
	h.Typeflag = tar.TypeDir
	if h.Name = strings.TrimSuffix(name, "/") + "/"; name == "" {
		h.Name = "./"
	}
	if h.PAXRecords, err = xattrs(dir); err != nil {
		return err
	}
	if err := a.tar.WriteHeader(h); err != nil {
		return err
	}
	return a.contents(dir, name)
}

func (a *writer) contents(dir *os.File, name string) error {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, base := range names {
		below := path.Join(name, base)
		if name == "." { // who asked for "DIR/." renames what begins with a dot
			below = "./" + base
		}
		if err := a.entry(dir, base, below); err != nil {
			return err
		}
	}
	return nil
}

// entry writes one file of a directory. A file that is gone by now is left out.
func (a *writer) entry(dir *os.File, base, name string) error {
	var st unix.Stat_t
	err := linux.Retry(func() error { return unix.Fstatat(int(dir.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	foreign := false
	if a.o.OneMount {
		id, err := mountOf(dir, base)
		if err != nil {
			return &os.PathError{Op: "stat", Path: name, Err: err}
		}
		foreign = id != a.mount
	}
	h := a.header(&st, name)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return a.subdirectory(dir, base, name, foreign, h)
	case unix.S_IFREG:
		return a.regular(dir, base, &st, foreign, h)
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = readlink(dir, base); err != nil {
			return err
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default: // a socket means nothing without its process
		return nil
	}
	return a.tar.WriteHeader(h)
}

func (a *writer) subdirectory(dir *os.File, base, name string, foreign bool, h *tar.Header) error {
	if foreign {
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		return a.tar.WriteHeader(h)
	}
	sub, err := linux.OpenAt(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) { // replaced meanwhile
		return nil
	}
	if err != nil {
		return err
	}
	defer sub.Close()
	return a.directory(sub, name)
}

func (a *writer) regular(dir *os.File, base string, st *unix.Stat_t, foreign bool, h *tar.Header) error {
	h.Typeflag = tar.TypeReg
	if foreign {
		return a.tar.WriteHeader(h)
	}
	if st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, ok := a.links[key]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return a.tar.WriteHeader(h)
		}
		a.links[key] = h.Name
	}
	f, err := linux.OpenAt(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	now, err := linux.Fstat(f)
	if err != nil || now.Mode&unix.S_IFMT != unix.S_IFREG {
		return err
	}
	h.Size = now.Size
	if h.PAXRecords, err = xattrs(f); err != nil {
		return err
	}
	if err := a.tar.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(a.tar, io.LimitReader(f, h.Size))
	if err == nil && n < h.Size { // it was cut meanwhile; the header has promised its bytes
		_, err = io.CopyN(a.tar, zeros{}, h.Size-n)
	}
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func (a *writer) header(st *unix.Stat_t, name string) *tar.Header {
	uid, gid := a.o.IDs.Inside(int(st.Uid), int(st.Gid))
	return &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: uid, Gid: gid,
		ModTime: timeOf(st.Mtim), Format: tar.FormatPAX,
	}
}

func readlink(dir *os.File, base string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), base, buf)
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: base, Err: err}
	}
	return string(buf[:n]), nil
}

// xattrs are the attributes of an open file as PAX records.
func xattrs(f *os.File) (map[string]string, error) {
	names := make([]byte, 4096)
	n, err := unix.Flistxattr(int(f.Fd()), names)
	if errors.Is(err, unix.ERANGE) {
		names = make([]byte, maxXattr)
		n, err = unix.Flistxattr(int(f.Fd()), names)
	}
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: f.Name(), Err: err}
	}
	var records map[string]string
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if !keptXattr(name) {
			continue
		}
		value := make([]byte, maxXattr)
		size, err := unix.Fgetxattr(int(f.Fd()), name, value)
		if err != nil {
			continue // removed meanwhile
		}
		if records == nil {
			records = map[string]string{}
		}
		records[xattrPrefix+name] = string(value[:size])
	}
	return records, nil
}

// handlePath is a path by which calls that know no descriptor reach what one refers to.
func handlePath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }
