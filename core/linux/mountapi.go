package linux

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Filesystem is a filesystem context of fsopen(2): configured step by step, then mounted.
type Filesystem struct {
	fd   int
	typ  string
	held []*os.File // directories that options name by descriptor
}

// NewFilesystem is fsopen(2).
func NewFilesystem(typ string) (*Filesystem, error) {
	fd, err := unix.Fsopen(typ, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("filesystem type %q: the kernel has none of that name: %w", typ, err)
	}
	if err != nil {
		return nil, pathError("fsopen", typ, err)
	}
	return &Filesystem{fd: fd, typ: typ}, nil
}

// Close closes the context.
func (f *Filesystem) Close() {
	unix.Close(f.fd)
	for _, dir := range f.held {
		dir.Close()
	}
}

// MaxOption is the longest value that SetString takes: fsconfig(2) copies at most 256 bytes.
const MaxOption = 255

// SetString sets an option that has a value.
func (f *Filesystem) SetString(key, value string) error {
	return f.explain(unix.FsconfigSetString(f.fd, key, value), key+"="+value)
}

// SetFlag sets an option without a value.
func (f *Filesystem) SetFlag(key string) error {
	return f.explain(unix.FsconfigSetFlag(f.fd, key), key)
}

// SetDirs sets an option whose value is directories joined by colons, under names in /proc that are
// short whatever their own are.
func (f *Filesystem) SetDirs(key string, dirs []string) error {
	names := make([]string, len(dirs))
	for i, dir := range dirs {
		handle, err := OpenAt(nil, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		f.held = append(f.held, handle)
		names[i] = fmt.Sprintf("/proc/self/fd/%d", handle.Fd())
	}
	value := strings.Join(names, ":")
	if len(value) > MaxOption {
		return fmt.Errorf("mount %s: option %s: %d directories, which need Linux 6.5 or newer: %w", f.typ, key, len(dirs), unix.E2BIG)
	}
	return f.SetString(key, value)
}

// Mount makes the filesystem and returns a mount of it that is attached nowhere.
func (f *Filesystem) Mount(attributes int) (*os.File, error) {
	if err := f.explain(unix.FsconfigCreate(f.fd), ""); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(f.fd, unix.FSMOUNT_CLOEXEC, attributes)
	return open(fd, "fsmount", f.typ, err)
}

// explain adds what the kernel wrote to the context's log, which says more than the number.
func (f *Filesystem) explain(err error, option string) error {
	if err == nil {
		return nil
	}
	what := "mount " + f.typ
	if option != "" {
		what += ": option " + option
	}
	if text := f.log(); text != "" {
		return fmt.Errorf("%s: %w (%s)", what, err, text)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// log reads the messages of the context, one for each read: "e text".
func (f *Filesystem) log() string {
	var lines []string
	buf := make([]byte, 1024)
	for range 16 {
		n, err := unix.Read(f.fd, buf)
		if err != nil || n <= 2 {
			break
		}
		lines = append(lines, strings.TrimSpace(string(buf[2:n])))
	}
	return strings.Join(lines, "; ")
}

// CloneTree is open_tree(2) with OPEN_TREE_CLONE: a copy of the mount at a path, attached nowhere.
// dir nil is the working directory; an empty path is dir itself.
func CloneTree(dir *os.File, name string, recursive bool) (*os.File, error) {
	at, shown := unix.AT_FDCWD, name
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if dir != nil {
		at = int(dir.Fd())
	}
	if name == "" && dir != nil {
		flags |= unix.AT_EMPTY_PATH
		shown = dir.Name()
	}
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := RetryValue(func() (int, error) { return unix.OpenTree(at, name, flags) })
	return open(fd, "open_tree", shown, err)
}

// MoveMount attaches a mount on the file that target is a handle of. Nothing is looked up.
func MoveMount(mnt, target *os.File) error {
	err := Retry(func() error {
		return unix.MoveMount(int(mnt.Fd()), "", int(target.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	})
	return pathError("move_mount", target.Name(), err)
}

// SetMount is mount_setattr(2) on the mount that the file is the root of.
func SetMount(mnt *os.File, attr *unix.MountAttr, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	err := Retry(func() error { return unix.MountSetattr(int(mnt.Fd()), "", flags, attr) })
	return pathError("mount_setattr", mnt.Name(), err)
}
