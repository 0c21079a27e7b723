package spec

import (
	"os"
	"path/filepath"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultShmSize is the size of /dev/shm in bytes when --shm-size is not given.
const DefaultShmSize = 64 << 20

// DefaultMaskedPaths are hidden from a container: they tell of the host or let it be changed.
var DefaultMaskedPaths = sync.OnceValue(func() []string {
	paths := []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
	// The counters of thermal throttling tell one container what another does (a side channel).
	throttles, _ := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle") //nolint:errcheck // the pattern is right
	return append(paths, throttles...)
})

// DefaultReadonlyPaths are shown read-only: they would change the host.
var DefaultReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

// defaultMounts are the mounts of every container, in the order in which they must be made.
func defaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777"}},
	}
}

// Device numbers of Documentation/admin-guide/devices.txt.
func deviceRule(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	r := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
	if major >= 0 {
		r.Major = &major
	}
	if minor >= 0 {
		r.Minor = &minor
	}
	return r
}

// defaultDeviceRules deny all devices but the harmless ones. Nodes of any device may be made
// (CAP_MKNOD is a default), but not opened.
func defaultDeviceRules() []specs.LinuxDeviceCgroup {
	return []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		deviceRule("c", -1, -1, "m"),
		deviceRule("b", -1, -1, "m"),
		deviceRule("c", 1, 3, "rwm"),    // null
		deviceRule("c", 1, 5, "rwm"),    // zero
		deviceRule("c", 1, 7, "rwm"),    // full
		deviceRule("c", 1, 8, "rwm"),    // random
		deviceRule("c", 1, 9, "rwm"),    // urandom
		deviceRule("c", 5, 0, "rwm"),    // tty
		deviceRule("c", 5, 1, "rwm"),    // console
		deviceRule("c", 5, 2, "rwm"),    // ptmx
		deviceRule("c", 136, -1, "rwm"), // pts
	}
}

// CgroupV2 reports whether this host has the unified hierarchy alone.
var CgroupV2 = sync.OnceValue(func() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
})
