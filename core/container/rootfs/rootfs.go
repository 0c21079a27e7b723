// Package rootfs reaches into the root filesystem of a container from outside: to look up a user, to
// fill a volume, to copy files in and out.
//
// A container's mounts are in its own mount namespace. Of one that runs, OfProcess opens the root
// through its init process. Of one that does not, Open mounts the snapshot in a namespace that
// belongs to one thread and ends with it: the handle keeps the mount alive, nothing shows on the
// host, and nothing is left when the daemon is killed. Either way paths are resolved by openat2(2)
// with the container's root as "/" (core/linux.Root), as what is in there is hostile.
package rootfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
)

// OfProcess opens the root filesystem that the process sees, with all that is mounted there.
func OfProcess(pid int) (*linux.Root, error) {
	root, err := linux.OpenRoot("/proc/" + strconv.Itoa(pid) + "/root")
	if err != nil {
		return nil, fmt.Errorf("root filesystem of process %d: %w", pid, err)
	}
	return root, nil
}

// Open performs the mounts, of which the first is the root, at an empty directory of the host, where
// nobody else sees them, and returns a handle of the root. With ids what is in there shows as it does to
// the host while a container with that mapping runs.
func Open(at string, mounts []mount.Mount, ids *mount.IDMap) (*linux.Root, error) {
	tree, err := mount.Detached(at, mounts, ids)
	if err != nil {
		return nil, fmt.Errorf("mount root filesystem: %w", err)
	}
	return linux.NewRoot(tree), nil
}

// ReadFile returns what a regular file in the root has, at most limit bytes. What is no regular file,
// such as a FIFO that would block for ever, is not opened for reading.
func ReadFile(root *linux.Root, name string, limit int64) ([]byte, error) {
	f, err := root.Open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := linux.Fstat(f)
	if err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fault.New(fault.Invalid, "%s is not a regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fault.New(fault.Invalid, "%s has more than %d bytes", name, limit)
	}
	return data, nil
}

// IsMissing reports whether the error says that there is no such file.
func IsMissing(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}
