package systemd

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/fault"
)

// The versions of systemd from which on it knows something (its NEWS).
const (
	sinceDeviceMajor = 240 // DeviceAllow=char-136 by number
	sincePeriod      = 242 // CPUQuotaPeriodSec=
	sinceCPUSet      = 244 // AllowedCPUs=, AllowedMemoryNodes=
	sinceIdle        = 252 // CPUWeight=idle
	sinceOOMPolicy   = 253 // OOMPolicy= of scopes
)

// Dialect is what a host's systemd is told, and in which words.
type Dialect struct {
	Unified bool // cgroup v2 alone
	Version int
	Devices bool // device rules too: the user's systemd can make none
}

// maxQuota bounds a quota: the kernel's bound is 2^44 µs, and the calculation has room for 2^43.
const maxQuota = 1 << 43

// Round rounds the quota up to what systemd can say, a hundredth of a CPU, so that property and file
// tell the same. The resources are copied where they change.
func Round(r *specs.LinuxResources) (*specs.LinuxResources, error) {
	if r == nil || r.CPU == nil || r.CPU.Quota == nil || *r.CPU.Quota <= 0 {
		return r, nil
	}
	quota, period := *r.CPU.Quota, defaultPeriod
	if r.CPU.Period != nil && *r.CPU.Period > 0 {
		period = *r.CPU.Period
	}
	each, err := perSecond("linux.resources.cpu.quota", quota, period)
	if err != nil {
		return nil, err
	}
	if uint64(quota)*1e6/period == each {
		return r, nil
	}
	out, cpu := *r, *r.CPU
	rounded := int64(each * period / 1e6)
	cpu.Quota, out.CPU = &rounded, &cpu
	return &out, nil
}

// defaultPeriod is the kernel's, in µs.
const defaultPeriod = uint64(100000)

// perSecond is a quota as the time in a second: systemd keeps it in hundredths of a CPU, and rounds
// down.
func perSecond(field string, quota int64, period uint64) (uint64, error) {
	if quota > maxQuota || period == 0 || period > 1<<32 {
		return 0, &fault.Field{Field: field, Given: fmt.Sprintf("%d (period %d)", quota, period), Expected: fmt.Sprintf("at most %d in a period of at most %d", int64(maxQuota), int64(1)<<32)}
	}
	if quota <= 0 {
		return math.MaxUint64, nil // none
	}
	const percent = 10000
	return (uint64(quota)*1e6/period + percent - 1) / percent * percent, nil
}

// translation collects properties and the first error.
type translation struct {
	Dialect
	list []Property
	err  error
}

func (t *translation) put(name string, value any) { t.list = append(t.list, property(name, value)) }

func (t *translation) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// Properties are those of a unit that is to be made: annotations come before limits, which hold over
// them.
func (d Dialect) Properties(r *specs.LinuxResources, annotations map[string]string) ([]Property, error) {
	given, err := Annotations(annotations)
	if err != nil {
		return nil, err
	}
	limits, err := d.Limits(r)
	if err != nil {
		return nil, err
	}
	list := slices.Concat(accounting(d.Unified), given, limits)
	if r == nil || !d.Unified {
		return list, nil
	}
	once, err := d.once(r.Unified)
	return append(list, once...), err
}

// Limits are the resources that systemd has properties for, as properties. What it has none for is
// left out: it is written to the cgroup's files. As there, a limit of 0 is one that was not given, and
// a negative one is no limit.
func (d Dialect) Limits(r *specs.LinuxResources) ([]Property, error) {
	t := &translation{Dialect: d}
	if r == nil {
		return nil, nil
	}
	if d.Devices {
		t.devices(r.Devices)
	}
	if r.Memory != nil {
		t.memory(r.Memory)
	}
	if r.CPU != nil {
		t.cpu(r.CPU)
	}
	if r.Pids != nil && given(r.Pids.Limit) {
		t.put("TasksMax", infinite(*r.Pids.Limit))
	}
	if b := r.BlockIO; b != nil && b.Weight != nil && *b.Weight != 0 {
		if d.Unified {
			t.put("IOWeight", cgroup.IOWeight(*b.Weight))
		} else {
			t.put("BlockIOWeight", uint64(*b.Weight))
		}
	}
	t.unified(r.Unified)
	return t.list, t.err
}

func given[T int64 | uint64](v *T) bool { return v != nil && *v != 0 }

// infinite is a limit in systemd's words: the highest number is none.
func infinite(n int64) uint64 {
	if n < 0 {
		return math.MaxUint64
	}
	return uint64(n)
}

func (t *translation) memory(r *specs.LinuxMemory) {
	if !t.Unified {
		if given(r.Limit) {
			t.put("MemoryLimit", infinite(*r.Limit))
		}
		return
	}
	if given(r.Limit) {
		t.put("MemoryMax", infinite(*r.Limit))
	}
	if given(r.Reservation) {
		t.put("MemoryLow", infinite(*r.Reservation))
	}
	// The specification's limit of swap is that of memory and swap together.
	switch {
	case given(r.Swap) && *r.Swap < 0, !given(r.Swap) && given(r.Limit) && *r.Limit < 0:
		t.put("MemorySwapMax", uint64(math.MaxUint64))
	case given(r.Swap) && given(r.Limit) && *r.Limit > 0 && *r.Swap >= *r.Limit:
		t.put("MemorySwapMax", uint64(*r.Swap-*r.Limit))
	}
}

func (t *translation) cpu(r *specs.LinuxCPU) {
	switch {
	case t.Unified && r.Idle != nil && *r.Idle == 1 && t.Version >= sinceIdle:
		t.put("CPUWeight", uint64(0)) // cpu.idle
	case given(r.Shares) && t.Unified:
		t.put("CPUWeight", cgroup.Weight(*r.Shares))
	case given(r.Shares):
		t.put("CPUShares", min(max(*r.Shares, 2), 262144)) // as the kernel bounds it
	}
	if given(r.Quota) || given(r.Period) {
		var quota int64
		var period uint64
		if r.Quota != nil {
			quota = *r.Quota
		}
		if r.Period != nil {
			period = *r.Period
		}
		t.bandwidth("linux.resources.cpu.quota", quota, period)
	}
	t.cpuset("linux.resources.cpu.cpus", "AllowedCPUs", r.Cpus)
	t.cpuset("linux.resources.cpu.mems", "AllowedMemoryNodes", r.Mems)
}

// bandwidth tells a quota, 0 or less is none, and its period, 0 is the kernel's.
func (t *translation) bandwidth(field string, quota int64, period uint64) {
	if period != 0 && t.Version >= sincePeriod {
		t.put("CPUQuotaPeriodUSec", period)
	}
	if period == 0 {
		period = defaultPeriod
	}
	each, err := perSecond(field, quota, period)
	if err != nil {
		t.fail(err)
		return
	}
	t.put("CPUQuotaPerSecUSec", each)
}

func (t *translation) cpuset(field, name, list string) {
	if list == "" || t.Version < sinceCPUSet {
		return
	}
	mask, ok := bits(list)
	if !ok {
		t.fail(&fault.Field{Field: field, Given: short(list), Expected: fmt.Sprintf("a list such as 0-3,7 of numbers below %d", maxBits)})
		return
	}
	t.put(name, mask)
}

// maxBits is more than the kernel's bound for CPUs (CONFIG_NR_CPUS is at most 8192) and nodes.
const maxBits = 8192

// bits is a list as cpuset.cpus has it, "0-3,7", in the form of systemd: one bit for each number, the
// lowest first.
func bits(list string) ([]byte, bool) {
	mask := make([]byte, maxBits/8)
	length := 0
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, err1 := strconv.ParseUint(low, 10, 32)
		to, err2 := strconv.ParseUint(high, 10, 32)
		if err1 != nil || err2 != nil || from > to || to >= maxBits {
			return nil, false
		}
		for n := from; n <= to; n++ {
			mask[n/8] |= 1 << (n % 8)
		}
		length = max(length, int(to/8)+1)
	}
	return mask[:length], length > 0
}
