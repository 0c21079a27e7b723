package cgroup

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// delegates names the files of a cgroup that somebody needs to have cgroups of his own below it.
const delegates = "/sys/kernel/cgroup/delegate"

// Delegate gives the container's cgroup of the unified hierarchy to a user, who then makes cgroups
// below it (Documentation/admin-guide/cgroup-v2.rst, "Model of Delegation"; config-linux.md, "Cgroup
// ownership"). The files with limits stay root's. v1 knows no such thing.
func (m *Manager) Delegate(uid int) error {
	if m.host.unified == nil {
		return fault.New(fault.NotImplemented, "cgroup %s: only those of cgroup v2 are delegated", m.path)
	}
	dir := m.host.unified.mount + m.path
	names, err := readFile(delegates)
	if err != nil { // before Linux 4.15
		names = "cgroup.procs\ncgroup.threads\ncgroup.subtree_control"
	}
	if err := os.Chown(dir, uid, -1); err != nil {
		return fmt.Errorf("delegate cgroup: %w", err)
	}
	for file := range strings.FieldsSeq(names) {
		// The list has what the kernel knows, whether the controller is on or not.
		if err := os.Chown(dir+"/"+file, uid, -1); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("delegate cgroup: %w", err)
		}
	}
	return nil
}

// Of opens the cgroup of a process in the unified hierarchy; nil where there is none.
func (m *Manager) Of(pid int) (*os.File, error) {
	if m.host.unified == nil {
		return nil, nil
	}
	text, err := readFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(text) {
		if below, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			dir := m.host.unified.mount + below
			fd, err := retryOpen(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
			if err != nil {
				return nil, &os.PathError{Op: "open", Path: dir, Err: err}
			}
			return os.NewFile(uintptr(fd), dir), nil
		}
	}
	return nil, nil
}
