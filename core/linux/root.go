package linux

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Root is a directory that no path resolved in it can leave: "..", absolute symlinks and magic
// links are resolved by the kernel as if the directory were "/" (openat2(2), RESOLVE_IN_ROOT).
// Whatever changes the tree meanwhile, the handle that Open returns is of something inside it.
type Root struct {
	dir *os.File
}

// OpenRoot opens a directory of the host.
func OpenRoot(dir string) (*Root, error) {
	f, err := OpenAt(nil, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &Root{f}, nil
}

// NewRoot is the root of a directory that is open already and now belongs to the Root.
func NewRoot(dir *os.File) *Root { return &Root{dir} }

// Dir is the root itself. It stays the Root's.
func (r *Root) Dir() *os.File { return r.dir }

// Close closes the handle.
func (r *Root) Close() { r.dir.Close() }

// Open opens a path in the root. Flags are those of open(2); O_CLOEXEC is added.
func (r *Root) Open(name string, flags int, mode uint32) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	return r.openat2(name, &how)
}

// OpenNoFollow is Open, but every symlink in the path is an error (ELOOP).
func (r *Root) OpenNoFollow(name string, flags int, mode uint32) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS}
	return r.openat2(name, &how)
}

// OpenOne is Open, but of the filesystem that is mounted at the root alone: a path with another mount
// on it, also one of the same filesystem, is an error (EXDEV).
func (r *Root) OpenOne(name string, flags int, mode uint32) (*os.File, error) {
	how := unix.OpenHow{
		Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	return r.openat2(name, &how)
}

// maxAgain bounds how often a resolution that lost a race against a rename is repeated.
const maxAgain = 64

func (r *Root) openat2(name string, how *unix.OpenHow) (*os.File, error) {
	if name == "" {
		name = "."
	}
	for again := 0; ; again++ {
		fd, err := unix.Openat2(int(r.dir.Fd()), name, how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN) && again < maxAgain: // a ".." was resolved while something was renamed
		default:
			return nil, pathError("open in root", name, err)
		}
	}
}

// MkdirAll makes the directory and its missing parents, and returns a handle of it. Symlinks are
// followed inside the root, also one that leads to nothing yet: images have them, such as
// /etc/resolv.conf that names a file in /run.
func (r *Root) MkdirAll(name string, mode uint32) (*os.File, error) {
	if f, err := r.Open(name, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if f := r.mkdirLast(name, mode); f != nil {
		return f, nil
	}
	parts, err := r.expand(name)
	if err != nil {
		return nil, err
	}
	return r.mkdirAll(parts, mode)
}

// mkdirLast is MkdirAll where only the last element is missing, as nearly always: without a look at each of
// those before it. nil: it is not so, or the element is a symlink that leads to nothing.
func (r *Root) mkdirLast(name string, mode uint32) *os.File {
	if strings.Contains(name, "..") {
		return nil // it is for the kernel to say what is above a symlink's target
	}
	dir, base := path.Split(path.Clean("/" + name))
	parent, err := r.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil
	}
	defer parent.Close()
	if err := unix.Mkdirat(int(parent.Fd()), base, mode); err != nil {
		return nil
	}
	f, err := OpenAt(parent, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	return f
}

// mkdirAll makes a path that has no symlinks; one that appears meanwhile is an error.
func (r *Root) mkdirAll(parts []string, mode uint32) (*os.File, error) {
	current, err := r.OpenNoFollow(".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	for _, part := range parts {
		next, err := OpenAt(current, part, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			if err := unix.Mkdirat(int(current.Fd()), part, mode); err != nil && !errors.Is(err, unix.EEXIST) {
				current.Close()
				return nil, pathError("mkdir in root", path.Join(parts...), err)
			}
			next, err = OpenAt(current, part, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		}
		current.Close()
		if err != nil {
			return nil, pathError("mkdir in root", path.Join(parts...), errors.Unwrap(err))
		}
		current = next
	}
	return current, nil
}

// maxLinks is the kernel's bound of symlinks in one resolution, path_resolution(7).
const maxLinks = 40

// expand resolves the symlinks of a path of which a part may not exist. The result is a proposal,
// as the tree may change: who uses it opens it without following symlinks.
func (r *Root) expand(name string) ([]string, error) {
	var done []string
	todo := strings.Split(name, "/")
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = done[:max(0, len(done)-1)]
			continue
		}
		target, err := r.readlink(path.Join(path.Join(done...), part))
		if err != nil {
			return nil, err
		}
		if target == "" {
			done = append(done, part)
			continue
		}
		if links++; links > maxLinks {
			return nil, pathError("open in root", name, unix.ELOOP)
		}
		if target[0] == '/' {
			done = nil
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return done, nil
}

// readlink returns the target of a symlink, or "" for what is none or does not exist.
func (r *Root) readlink(name string) (string, error) {
	f, err := r.openat2(name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", buf)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return "", nil
	}
	return string(buf[:max(0, n)]), pathError("readlink in root", name, err)
}

// Parent makes the missing parents of a path and returns the handle of its directory and its last
// element. A symlink at the end is not followed.
func (r *Root) Parent(name string, mode uint32) (*os.File, string, error) {
	dir, base := path.Split(path.Clean("/" + name))
	if base == "" {
		return nil, "", pathError("open in root", name, unix.EISDIR)
	}
	f, err := r.MkdirAll(dir, mode)
	return f, base, err
}

// CreateFile opens a path in the root as a handle (O_PATH), and makes an empty regular file and the
// missing parents when there is nothing: the place of a mount that is no directory. Symlinks are
// followed as by MkdirAll.
func (r *Root) CreateFile(name string, mode, parents uint32) (*os.File, error) {
	if f, err := r.Open(name, unix.O_PATH, 0); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	parts, err := r.expand(name)
	if err != nil {
		return nil, err
	}
	if len(parts) == 0 {
		return nil, pathError("create in root", name, unix.EISDIR)
	}
	last := len(parts) - 1
	dir, err := r.mkdirAll(parts[:last], parents)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// mknod(2) and not open(2), which would do something to a device or wait for a FIFO that appears at
	// this moment. The handle is O_PATH: who only mounts on the file needs no right to write to it.
	if err := unix.Mknodat(int(dir.Fd()), parts[last], unix.S_IFREG|mode, 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, pathError("create in root", name, err)
	}
	return (&Root{dir}).OpenNoFollow(parts[last], unix.O_PATH, 0)
}

// OpenAt is openat(2); dir nil is the working directory. O_CLOEXEC is added.
func OpenAt(dir *os.File, name string, flags int, mode uint32) (*os.File, error) {
	at := unix.AT_FDCWD
	if dir != nil {
		at = int(dir.Fd())
	}
	fd, err := RetryValue(func() (int, error) { return unix.Openat(at, name, flags|unix.O_CLOEXEC, mode) })
	return open(fd, "open", name, err)
}

// Same reports whether two handles are of one file.
func Same(a, b *os.File) (bool, error) {
	first, err := Fstat(a)
	if err != nil {
		return false, err
	}
	second, err := Fstat(b)
	return first.Dev == second.Dev && first.Ino == second.Ino, err
}

// Fstat is fstat(2).
func Fstat(f *os.File) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := Retry(func() error { return unix.Fstat(int(f.Fd()), &st) })
	return st, pathError("stat", f.Name(), err)
}

// IsDir reports whether the file is a directory.
func IsDir(f *os.File) (bool, error) {
	st, err := Fstat(f)
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, err
}

// IsFilesystem reports whether the file is on a filesystem with the magic number of statfs(2).
func IsFilesystem(f *os.File, magic int64) (bool, error) {
	var st unix.Statfs_t
	err := Retry(func() error { return unix.Fstatfs(int(f.Fd()), &st) })
	return int64(st.Type) == magic, pathError("statfs", f.Name(), err) //nolint:unconvert // its type differs between architectures
}
