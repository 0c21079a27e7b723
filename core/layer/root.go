package layer

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// maxOpenDirs is how many directories an unpacking keeps open. Entries come directory by directory,
// so a few dozen save nearly every lookup.
const maxOpenDirs = 64

// root is a directory that paths of a tar are looked up in. No path leaves it: directories are
// found by openat2(2) with RESOLVE_BENEATH, which refuses "..", absolute links and links that point
// outside, and the last component is only ever used by calls that do not follow links.
type root struct {
	fd   int
	dirs map[string]int // open directories by path; the root itself is not among them
}

func openRoot(dir string) (*root, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return &root{fd: fd, dirs: map[string]int{}}, nil
}

func (r *root) close() {
	r.flush()
	unix.Close(r.fd)
}

// flush forgets the open directories; it must be called when a directory is removed or replaced.
func (r *root) flush() {
	for p, fd := range r.dirs {
		unix.Close(fd)
		delete(r.dirs, p)
	}
}

// dir returns a handle of the directory p ("." is the root). It stays valid until the next call.
func (r *root) dir(p string) (int, error) {
	if p == "." {
		return r.fd, nil
	}
	if fd, ok := r.dirs[p]; ok {
		return fd, nil
	}
	fd, err := openBeneath(r.fd, p, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	if errors.Is(err, unix.ELOOP) {
		fd, err = r.dirByLink(p)
	}
	if err != nil {
		return -1, err
	}
	if len(r.dirs) >= maxOpenDirs {
		r.flush()
	}
	r.dirs[p] = fd
	return fd, nil
}

// dirByLink opens a directory whose path goes through a link inside the root. Links could be laid
// one behind the other to nest directories without end, deeper than any program can remove them
// again, so the place must have a path of ordinary length.
func (r *root) dirByLink(p string) (int, error) {
	fd, err := openBeneath(r.fd, p, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	if _, err := handlePath(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// handlePath returns the path of an open directory as the kernel knows it.
func handlePath(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlink(procPath(fd), buf)
	return string(buf[:max(n, 0)]), err
}

// procPath names an open handle for the calls that take only paths.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// openBeneath opens a path below dir; resolve restricts it further.
func openBeneath(dir int, p string, flags, resolve uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV | resolve,
	}
	for {
		fd, err := unix.Openat2(dir, p, &how)
		// EAGAIN: the kernel saw a rename somewhere on the machine and could not rule out a race
		// with "..", openat2(2).
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// parent returns a handle of the directory that holds p and p's last component. Missing directories
// on the way are made, with made called for each.
func (r *root) parent(p string, made func(dir string)) (int, string, error) {
	dir, base := path.Split(p)
	dir = path.Clean(dir)
	fd, err := r.dir(dir)
	if errors.Is(err, unix.ENOENT) {
		fd, err = r.makeDirs(dir, made)
	}
	switch {
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.ELOOP):
		err = fault.New(fault.Invalid, "its directory %q is a link that leads out of the layer", brief(dir))
	case errors.Is(err, unix.ENOTDIR):
		err = fault.New(fault.Invalid, "%q is not a directory", brief(dir))
	}
	return fd, base, err
}

func (r *root) makeDirs(p string, made func(dir string)) (int, error) {
	fd, base, err := r.parent(p, made)
	if err != nil {
		return -1, err
	}
	switch err := unix.Mkdirat(fd, base, 0o755); {
	case errors.Is(err, unix.EEXIST):
		// It exists and yet could not be opened: a link into nothing.
		return -1, fault.New(fault.Invalid, "its directory %q is a link to a directory that is not there", brief(p))
	case err != nil:
		return -1, err
	}
	made(p)
	return r.dir(p)
}

// cleanPath returns the path of a tar entry relative to the root, "." for the root itself.
func cleanPath(name string) (string, error) {
	if strings.ContainsRune(name, 0) {
		return "", fault.New(fault.Invalid, "its name has a zero byte")
	}
	// Archivers write "./a" and "/a" for "a". A path that climbs above the root is an attack; one
	// that climbs inside may lead elsewhere by a link, and no archiver writes it.
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fault.New(fault.Invalid, `its name has a ".."`)
		}
	}
	p := path.Clean(strings.TrimLeft(name, "/"))
	if len(p) >= unix.PathMax {
		return "", fault.New(fault.Invalid, "its name is longer than %d bytes", unix.PathMax-1)
	}
	return p, nil
}

// removeAt removes name from the directory fd, with everything below it. Handles that dir and parent
// returned are not valid after it.
func (r *root) removeAt(fd int, name string) error {
	defer r.flush()
	if err := unix.Unlinkat(fd, name, 0); !errors.Is(err, unix.EISDIR) {
		return err
	}
	return removeTree(fd, name)
}

func removeTree(fd int, name string) error {
	dir, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	names, err := readNames(dir)
	for _, n := range names {
		if err != nil {
			break
		}
		if err = unix.Unlinkat(dir, n, 0); errors.Is(err, unix.EISDIR) {
			err = removeTree(dir, n)
		}
	}
	unix.Close(dir)
	if err != nil {
		return err
	}
	return unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
}

// readNames returns the names in an open directory, in no order.
func readNames(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 32<<10)
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return nil, err
	}
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}
