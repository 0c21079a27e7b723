package linux

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// OnThread runs fn on a thread of its own that ends with it: what fn changes of the thread, such as its
// namespaces or ids, nobody else ever has. fn must start no goroutine that relies on the change.
func OnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the Go runtime ends the thread of a goroutine that ends locked.
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// But not the process's first one, by which others see the whole process (/proc/self). While that
			// is held here, the next goroutine gets another.
			done <- OnThread(fn)
			runtime.UnlockOSThread()
			return
		}
		var err error
		whole := false
		defer func() {
			if !whole {
				err = fmt.Errorf("panic on a thread of its own: %v", recover())
			}
			done <- err
		}()
		err = fn()
		whole = true
	}()
	return <-done
}

// SetFilesystemUser lets the calling thread, one of OnThread, make files as another user and still have
// every right over files (setfsuid(2); without more it would lose them, capabilities(7)). Where ids are
// mapped root itself is no id in which a file could be stored.
func SetFilesystemUser(uid, gid int) error {
	permitted, err := Capabilities()
	if err != nil {
		return err
	}
	for _, set := range []struct {
		call uintptr
		id   int
		name string
	}{{unix.SYS_SETFSGID, gid, "setfsgid"}, {unix.SYS_SETFSUID, uid, "setfsuid"}} {
		unix.RawSyscall(set.call, uintptr(set.id), 0, 0) //nolint:errcheck // it reports none
		// It answers with the id before, in any case: an impossible one changes nothing and shows it.
		if now, _, _ := unix.RawSyscall(set.call, ^uintptr(0), 0, 0); int(now) != set.id {
			return fmt.Errorf("%s %d: %w", set.name, set.id, unix.EPERM)
		}
	}
	return SetCapabilities(permitted, permitted, 0)
}

// SeparateMounts gives the calling thread, one of OnThread, a mount namespace that nothing leaves.
func SeparateMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	// Otherwise what is mounted here would be passed on to the host's namespace.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// CloneTreeOf is CloneTree in the mount namespace of a process, from its root: what is mounted there can
// be copied nowhere else. Symbolic links are refused, as the tree belongs to the process.
func CloneTreeOf(pid int, name string, recursive bool) (tree *os.File, err error) {
	ns, err := OpenAt(nil, "/proc/"+strconv.Itoa(pid)+"/ns/mnt", unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	err = OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil { // setns(2) demands it
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter the mount namespace of process %d: %w", pid, err)
		}
		root, err := OpenRoot("/")
		if err != nil {
			return err
		}
		defer root.Close()
		at, err := root.OpenNoFollow(name, unix.O_PATH, 0)
		if err != nil {
			return err
		}
		defer at.Close()
		tree, err = CloneTree(at, "", recursive)
		return err
	})
	if err != nil {
		return nil, err
	}
	return tree, nil
}
