package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// resctrl is where the kernel has Intel RDT's classes of service (Documentation/arch/x86/resctrl.rst).
const resctrl = "/sys/fs/resctrl"

func validateRDT(r *specs.LinuxIntelRdt) error {
	if r == nil {
		return nil
	}
	if c := r.ClosID; c == "." || c == ".." || strings.ContainsAny(c, "/\n\x00") {
		return &fault.Field{Field: "linux.intelRdt.closID", Given: c, Expected: "a name without / and line ends"}
	}
	for _, line := range schemata(r) {
		if strings.ContainsAny(line, "\n\x00") {
			return &fault.Field{Field: "linux.intelRdt", Given: line, Expected: "a schema of one line"}
		}
	}
	var at unix.Statfs_t
	if err := unix.Statfs(resctrl, &at); err != nil || at.Type != unix.RDTGROUP_SUPER_MAGIC {
		return fault.New(fault.Invalid, "linux.intelRdt: expected none: Intel RDT is not supported or not enabled on this host (no resctrl at %s)", resctrl)
	}
	return nil
}

func schemata(r *specs.LinuxIntelRdt) (lines []string) {
	for _, line := range append([]string{r.L3CacheSchema, r.MemBwSchema}, r.Schemata...) {
		if line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// rdtGroup is the class of service of a container: the one that closID names, or its own.
func rdtGroup(root, id string, r *specs.LinuxIntelRdt) string {
	if r.ClosID != "" {
		return filepath.Join(root, r.ClosID)
	}
	return filepath.Join(root, id)
}

// joinRDT makes the class of service and its monitoring group, and moves a process there.
func joinRDT(root, id string, r *specs.LinuxIntelRdt, pid int) error {
	if r == nil {
		return nil
	}
	group := rdtGroup(root, id, r)
	lines := schemata(r)
	err := os.Mkdir(group, 0o755)
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	switch {
	case errors.Is(err, unix.ENOSPC):
		return fault.New(fault.Unavailable, "linux.intelRdt: the processor has no class of service left")
	case err != nil:
		return fmt.Errorf("linux.intelRdt: %w", err)
	}
	if len(lines) > 0 {
		if err := os.WriteFile(filepath.Join(group, "schemata"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			return fault.New(fault.Invalid, "linux.intelRdt %q: %w", lines, err)
		}
	}
	groups := []string{group}
	if r.EnableMonitoring {
		monitor := filepath.Join(group, "mon_groups", id)
		if err := os.Mkdir(monitor, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("linux.intelRdt.enableMonitoring: %w", err)
		}
		groups = append(groups, monitor)
	}
	for _, g := range groups {
		if err := os.WriteFile(filepath.Join(g, "tasks"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
			return fmt.Errorf("linux.intelRdt: %w", err)
		}
	}
	return nil
}

// leaveRDT removes what joinRDT has made. A class that closID names is its administrator's.
func leaveRDT(root, id string, r *specs.LinuxIntelRdt) error {
	if r == nil {
		return nil
	}
	at := rdtGroup(root, id, r)
	if r.ClosID != "" {
		at = filepath.Join(at, "mon_groups", id)
	}
	if err := unix.Rmdir(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "rmdir", Path: at, Err: err}
	}
	return nil
}

// UpdateRDT changes the schemata of the container's class of service; an empty one stays as it is.
func (c *Container) UpdateRDT(l3Cache, memoryBandwidth string) error {
	r := &specs.LinuxIntelRdt{L3CacheSchema: l3Cache, MemBwSchema: memoryBandwidth}
	if err := validateRDT(r); err != nil {
		return err
	}
	own := c.record.Spec.Linux.IntelRdt
	if own == nil {
		return fault.New(fault.Conflict, "container %s was created without linux.intelRdt", c.ID())
	}
	name := filepath.Join(rdtGroup(resctrl, c.ID(), own), "schemata")
	if err := os.WriteFile(name, []byte(strings.Join(schemata(r), "\n")+"\n"), 0o600); err != nil {
		return fault.New(fault.Invalid, "linux.intelRdt: %w", err)
	}
	return nil
}
