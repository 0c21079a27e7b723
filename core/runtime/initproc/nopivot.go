package initproc

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// moveRoot makes the container's root the root without pivot_root(2), which cannot move away from the
// initial root filesystem of a machine that runs from memory (--no-pivot). The host's root stays mounted
// below, out of reach by path.
func (p *process) moveRoot() error {
	if err := p.coverKernel(); err != nil {
		return err
	}
	if err := unix.Fchdir(int(p.root.Dir().Fd())); err != nil {
		return fmt.Errorf("enter the root filesystem: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root filesystem to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter /: %w", err)
	}
	return nil
}

// coverKernel removes every procfs and sysfs outside of the container's root: as long as one without
// anything masked is mounted in its namespace, the container could mount another in a user namespace of
// its own (mount_too_revealing in the kernel's fs/namespace.c).
func (p *process) coverKernel() error {
	// As this thread sees it now, which may have left a chroot since the root was made.
	place, err := os.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", p.root.Dir().Fd()))
	if err != nil {
		return err
	}
	targets, err := kernelMounts(place)
	if err != nil {
		return err
	}
	for _, target := range targets {
		// It must not reach the host, where the mount is shared.
		if err := unix.Mount("", target, "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return &fs.PathError{Op: "separate", Path: target, Err: err}
		}
		err := unix.Unmount(target, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
			// A mount of another user namespace is locked: it is covered.
			err = unix.Mount("tmpfs", target, "tmpfs", 0, "size=0")
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return &fs.PathError{Op: "unmount", Path: target, Err: err}
		}
	}
	return nil
}

// kernelMounts are the places of procfs and sysfs outside of a directory, the latest mounts first.
func kernelMounts(root string) ([]string, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var targets []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// proc_pid_mountinfo(5): the mount point is the fifth field, the type the first after the dash.
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		kind, _, _ := strings.Cut(after, " ")
		if len(fields) < 5 || kind != "proc" && kind != "sysfs" {
			continue
		}
		target := unescape.Replace(fields[4])
		if target != root && !strings.HasPrefix(target, strings.TrimSuffix(root, "/")+"/") {
			targets = append(targets, target)
		}
	}
	slices.Reverse(targets)
	return targets, lines.Err()
}
