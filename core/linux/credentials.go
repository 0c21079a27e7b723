package linux

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// CapabilitySets are the five sets of capabilities(7), bit n is capability n.
type CapabilitySets struct {
	Bounding, Effective, Permitted, Inheritable, Ambient uint64
}

// LastCapability is the highest capability that the kernel knows.
func LastCapability() int {
	for n := unix.CAP_LAST_CAP; n < 63; n++ {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n+1), 0, 0, 0); err != nil {
			return n
		}
	}
	return unix.CAP_LAST_CAP
}

// DropBounding removes every capability that is not in the mask from the calling thread's bounding set.
func DropBounding(keep uint64) error {
	for n := 0; n < 64; n++ {
		if keep&(1<<n) != 0 {
			continue
		}
		if set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0); err != nil {
			return nil //nolint:nilerr // beyond the last one
		} else if set == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", n, err)
		}
	}
	return nil
}

// SetCapabilities sets effective, permitted and inheritable of the calling thread.
func SetCapabilities(effective, permitted, inheritable uint64) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(effective), Permitted: uint32(permitted), Inheritable: uint32(inheritable)},
		{Effective: uint32(effective >> 32), Permitted: uint32(permitted >> 32), Inheritable: uint32(inheritable >> 32)},
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}

// Capabilities returns the calling thread's permitted set.
func Capabilities() (permitted uint64, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("capget: %w", err)
	}
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32, nil
}

// SetAmbient replaces the calling thread's ambient set.
func SetAmbient(ambient uint64) error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear the ambient capabilities: %w", err)
	}
	for n := 0; n < 64; n++ {
		if ambient&(1<<n) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0); err != nil {
			return fmt.Errorf("raise ambient capability %d: %w", n, err)
		}
	}
	return nil
}

// SetUser sets the real, effective and saved ids and the supplementary groups of the calling
// thread, and of it alone: the wrappers of package syscall change every thread of the process,
// which costs and is not needed by a thread that will execute a program.
func SetUser(uid, gid uint32, groups []uint32, setGroups bool) error {
	if setGroups {
		if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0); e != 0 {
			return fmt.Errorf("setgroups %v: %w", groups, e)
		}
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
		return fmt.Errorf("setgid %d: %w", gid, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
		return fmt.Errorf("setuid %d: %w", uid, e)
	}
	return nil
}
