package spec

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// minMemory is the least --memory: below it a process hardly starts. Docker's number.
const minMemory = 6 << 20

func validateResources(c *wire.ContainerConfig, h *wire.HostConfig) error {
	if h.ShmSize < 0 {
		return fault.New(fault.Invalid, "SHM size can not be less than 0")
	}
	if h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000 {
		return fault.New(fault.Invalid, "invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	}
	return ValidateResources(&h.Resources)
}

// ValidateResources checks limits, in Docker's words. Update uses it too.
func ValidateResources(r *wire.Resources) error {
	for _, check := range []func(*wire.Resources) error{validateMemory, validateCPU, validateBlkio} {
		if err := check(r); err != nil {
			return err
		}
	}
	return nil
}

func validateMemory(r *wire.Resources) error {
	switch {
	case r.Memory != 0 && r.Memory < minMemory:
		return fault.New(fault.Invalid, "Minimum memory limit allowed is 6MB")
	case r.MemorySwap > 0 && r.Memory == 0:
		return fault.New(fault.Invalid, "You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return fault.New(fault.Invalid, "Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.MemorySwap < -1:
		return fault.New(fault.Invalid, "--memory-swap %d: expected a size, or -1 for no limit", r.MemorySwap)
	case r.MemorySwappiness != nil && (*r.MemorySwappiness < -1 || *r.MemorySwappiness > 100):
		return fault.New(fault.Invalid, "Invalid value: %d, valid memory swappiness range is 0-100", *r.MemorySwappiness)
	case r.MemoryReservation != 0 && r.MemoryReservation < minMemory:
		return fault.New(fault.Invalid, "Minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > 0 && r.Memory < r.MemoryReservation:
		return fault.New(fault.Invalid, "Minimum memory limit can not be less than memory reservation limit, see usage")
	}
	return nil
}

func validateCPU(r *wire.Resources) error {
	cpus := runtime.NumCPU()
	switch {
	case r.NanoCPUs > 0 && r.CPUPeriod > 0:
		return fault.New(fault.Invalid, "Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case r.NanoCPUs > 0 && r.CPUQuota > 0:
		return fault.New(fault.Invalid, "Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case r.NanoCPUs < 0 || r.NanoCPUs > int64(cpus)*1e9 || r.NanoCPUs > 0 && r.NanoCPUs < 1e7:
		return fault.New(fault.Invalid, "Range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cpus, cpus)
	case r.CPUShares < 0:
		return fault.New(fault.Invalid, "--cpu-shares %d: expected a positive number", r.CPUShares)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return fault.New(fault.Invalid, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPURealtimePeriod > 0 && r.CPURealtimeRuntime > r.CPURealtimePeriod:
		return fault.New(fault.Invalid, "cpu real-time runtime cannot be higher than cpu real-time period")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return fault.New(fault.Invalid, "CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case r.PidsLimit != nil && *r.PidsLimit < -1:
		return fault.New(fault.Invalid, "--pids-limit %d: expected a number, or -1 for no limit", *r.PidsLimit)
	}
	if err := validateSet("CPUs", r.CpusetCpus, "/sys/devices/system/cpu/online"); err != nil {
		return err
	}
	return validateSet("memory nodes", r.CpusetMems, "/sys/devices/system/node/online")
}

// oomScore is the container's own score, also when it asks for none: the daemon has a lower one, which
// must not be inherited, and in rare cases a higher one, below which nobody may go.
func oomScore(h *wire.HostConfig) *int {
	score := h.OomScoreAdj
	if score == 0 {
		score = max(0, ownOOMScore())
	}
	return &score
}

var ownOOMScore = sync.OnceValue(func() int {
	data, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	return score
})

// validateSet checks a list such as "0-3,7" against what the kernel has online.
func validateSet(what, given, path string) error {
	if given == "" {
		return nil
	}
	option := "--cpuset-cpus"
	if what != "CPUs" {
		option = "--cpuset-mems"
	}
	wanted, err := parseSet(given)
	if err != nil {
		return &fault.Field{Field: option, Given: given, Expected: "a list such as 0-3 or 0,2"}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil //nolint:nilerr // the kernel will say
	}
	have, err := parseSet(strings.TrimSpace(string(data)))
	if err != nil {
		return nil //nolint:nilerr // the kernel will say
	}
	for n := range wanted {
		if !have[n] {
			return fault.New(fault.Invalid, "Requested %s are not available - requested %s, available: %s", what, given, strings.TrimSpace(string(data)))
		}
	}
	return nil
}

// parseSet reads the kernel's list format (cpuset(7)). 8192 bounds what a number may be.
func parseSet(list string) (map[int]bool, error) {
	set := map[int]bool{}
	for part := range strings.SplitSeq(list, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		a, err := strconv.Atoi(low)
		if err != nil {
			return nil, err
		}
		b, err := strconv.Atoi(high)
		if err != nil {
			return nil, err
		}
		if a < 0 || b < a || b > 8192 {
			return nil, fmt.Errorf("range %q", part)
		}
		for n := a; n <= b; n++ {
			set[n] = true
		}
	}
	return set, nil
}

func validateBlkio(r *wire.Resources) error {
	if r.BlkioWeight != 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000) {
		return fault.New(fault.Invalid, "Range of blkio weight is from 10 to 1000")
	}
	for _, d := range r.BlkioWeightDevice {
		if d.Weight < 10 || d.Weight > 1000 {
			return fault.New(fault.Invalid, "--blkio-weight-device %s:%d: range of blkio weight is from 10 to 1000", d.Path, d.Weight)
		}
	}
	_, err := blkio(r)
	return err
}

// Resources turns the limits into the runtime's. What was not asked for stays unset. Device rules
// are not part of it.
func Resources(h *wire.HostConfig) (*specs.LinuxResources, error) {
	r := &h.Resources
	io, err := blkio(r)
	if err != nil {
		return nil, err
	}
	if err := sharesFit(r.CPUShares); err != nil {
		return nil, err
	}
	out := &specs.LinuxResources{Memory: memory(r), CPU: cpu(r), BlockIO: io}
	if r.PidsLimit != nil && *r.PidsLimit != 0 {
		out.Pids = &specs.LinuxPids{Limit: r.PidsLimit}
	}
	return out, nil
}

// minShares and maxShares are what v1's kernel keeps (MIN_SHARES and MAX_SHARES of kernel/sched/sched.h): it takes
// others for the nearest and says nothing, so Docker's runtime reads back and refuses. v2 has a weight of its own
// range, to which all are translated.
const minShares, maxShares = 2, 262144

// sharesFit is asked when the limit is to hold, as with Docker: a container can be created with any.
func sharesFit(shares int64) error {
	switch {
	case shares == 0 || CgroupV2():
	case shares < minShares:
		return fault.New(fault.Invalid, "--cpu-shares %d: the minimum allowed cpu-shares is %d", shares, minShares)
	case shares > maxShares:
		return fault.New(fault.Invalid, "--cpu-shares %d: the maximum allowed cpu-shares is %d", shares, maxShares)
	}
	return nil
}

func memory(r *wire.Resources) *specs.LinuxMemory {
	m := &specs.LinuxMemory{}
	set := false
	if r.Memory > 0 {
		m.Limit, set = &r.Memory, true
	}
	if r.MemoryReservation > 0 {
		m.Reservation, set = &r.MemoryReservation, true
	}
	if r.MemorySwap != 0 {
		m.Swap, set = &r.MemorySwap, true
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness != -1 {
		swappiness := uint64(*r.MemorySwappiness)
		m.Swappiness, set = &swappiness, true
	}
	if r.OomKillDisable != nil && *r.OomKillDisable {
		m.DisableOOMKiller, set = r.OomKillDisable, true
	}
	if !set {
		return nil
	}
	return m
}

func cpu(r *wire.Resources) *specs.LinuxCPU {
	c := &specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	set := c.Cpus != "" || c.Mems != ""
	if r.CPUShares > 0 {
		shares := uint64(r.CPUShares)
		c.Shares, set = &shares, true
	}
	period, quota := uint64(r.CPUPeriod), r.CPUQuota
	if r.NanoCPUs > 0 {
		// A tenth of a second is the kernel's own period.
		period = 100000
		quota = r.NanoCPUs * int64(period) / 1e9
	}
	if period != 0 {
		c.Period, set = &period, true
	}
	if quota != 0 {
		c.Quota, set = &quota, true
	}
	if r.CPURealtimePeriod != 0 {
		p := uint64(r.CPURealtimePeriod)
		c.RealtimePeriod, set = &p, true
	}
	if r.CPURealtimeRuntime != 0 {
		c.RealtimeRuntime, set = &r.CPURealtimeRuntime, true
	}
	if !set {
		return nil
	}
	return c
}

func blkio(r *wire.Resources) (*specs.LinuxBlockIO, error) {
	b := &specs.LinuxBlockIO{}
	set := false
	if r.BlkioWeight != 0 {
		b.Weight, set = &r.BlkioWeight, true
	}
	for _, d := range r.BlkioWeightDevice {
		major, minor, err := blockDevice("--blkio-weight-device", d.Path)
		if err != nil {
			return nil, err
		}
		w := specs.LinuxWeightDevice{Weight: &d.Weight}
		w.Major, w.Minor = major, minor
		b.WeightDevice, set = append(b.WeightDevice, w), true
	}
	for _, t := range []struct {
		option string
		from   []wire.ThrottleDevice
		to     *[]specs.LinuxThrottleDevice
	}{
		{"--device-read-bps", r.BlkioDeviceReadBps, &b.ThrottleReadBpsDevice},
		{"--device-write-bps", r.BlkioDeviceWriteBps, &b.ThrottleWriteBpsDevice},
		{"--device-read-iops", r.BlkioDeviceReadIOps, &b.ThrottleReadIOPSDevice},
		{"--device-write-iops", r.BlkioDeviceWriteIOps, &b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.from {
			major, minor, err := blockDevice(t.option, d.Path)
			if err != nil {
				return nil, err
			}
			limit := specs.LinuxThrottleDevice{Rate: d.Rate}
			limit.Major, limit.Minor = major, minor
			*t.to, set = append(*t.to, limit), true
		}
	}
	if !set {
		return nil, nil
	}
	return b, nil
}

func blockDevice(option, path string) (major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, fault.New(fault.Invalid, "%s %s: %w", option, path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, &fault.Field{Field: option, Given: path, Expected: "a block device"}
	}
	return int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), nil
}

// SwapAccounting reports whether the kernel counts swap by cgroup.
func SwapAccounting() bool {
	if CgroupV2() {
		_, err := os.Stat("/proc/swaps")
		return err == nil
	}
	_, err := os.Stat("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
	return err == nil
}

// Adjust fills in what follows from other limits, as Docker does, and takes away what this kernel
// cannot do and is no more than advice. It returns what a user should know.
func Adjust(h *wire.HostConfig) (warnings []string) {
	swap := SwapAccounting()
	if h.Memory > 0 && !swap && h.MemorySwap != -1 {
		if h.MemorySwap > 0 {
			warnings = append(warnings, "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.")
		}
		h.MemorySwap = -1
	}
	if h.Memory > 0 && h.MemorySwap == 0 {
		h.MemorySwap = math.MaxInt64 // a limit that no host has
		if h.Memory < math.MaxInt64/2 {
			h.MemorySwap = 2 * h.Memory
		}
	}
	if h.OomKillDisable != nil && *h.OomKillDisable {
		switch {
		case CgroupV2():
			warnings = append(warnings, "Your kernel does not support OomKillDisable. OomKillDisable discarded.")
			h.OomKillDisable = nil
		case h.Memory == 0:
			warnings = append(warnings, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
		}
	}
	if h.PidsLimit != nil && *h.PidsLimit == 0 {
		h.PidsLimit = nil
	}
	if slices.Contains(h.SecurityOpt, "seccomp=") {
		warnings = append(warnings, "--security-opt seccomp= names no profile: the default one is used.")
	}
	return warnings
}
