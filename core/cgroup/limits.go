package cgroup

import (
	"fmt"
	"math"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/fault"
)

// The functions here say which file has which limit: v1 first, then v2. A limit of 0, but that of
// processes, is one that was not given, as runc and Docker have it; a negative one is no limit.

// unlimited is n in v2's files, where no limit is a word.
func unlimited(n int64) string {
	if n < 0 {
		return "max"
	}
	return fmt.Sprint(n)
}

func given[T int64 | uint64 | uint32](v *T) bool { return v != nil && *v != 0 }

func (p *plan) memory(r *specs.LinuxMemory) {
	swap := r.Swap
	if given(r.Limit) {
		limit := *r.Limit
		p.put("memory", "memory.limit", limit, one("memory.limit_in_bytes", max(limit, -1)), one("memory.max", unlimited(limit)))
		if limit < 0 && !given(swap) {
			// A limit of memory with swap below that of memory alone cannot be.
			all := int64(-1)
			p.swap(r.Limit, &all)
		}
	}
	if given(swap) {
		p.swap(r.Limit, swap)
	}
	if given(r.Reservation) {
		p.put("memory", "memory.reservation", *r.Reservation, one("memory.soft_limit_in_bytes", max(*r.Reservation, -1)), one("memory.low", unlimited(*r.Reservation)))
	}
	if given(r.KernelTCP) {
		p.put("memory", "memory.kernelTCP", *r.KernelTCP, one("memory.kmem.tcp.limit_in_bytes", max(*r.KernelTCP, -1)), nil)
	}
	if r.Swappiness != nil {
		if *r.Swappiness > 100 {
			p.fail(&fault.Field{Field: "linux.resources.memory.swappiness", Given: fmt.Sprint(*r.Swappiness), Expected: "a number from 0 to 100"})
			return
		}
		p.put("memory", "memory.swappiness", *r.Swappiness, one("memory.swappiness", *r.Swappiness), nil)
	}
	if r.DisableOOMKiller != nil && *r.DisableOOMKiller {
		p.put("memory", "memory.disableOOMKiller", true, one("memory.oom_control", 1), nil)
	}
	// kernel and useHierarchy: the kernel knows neither any more; the specification lets us ignore them.
}

// swap sets the limit of memory and swap together, which v2 keeps as that of swap alone.
func (p *plan) swap(limit, swap *int64) {
	alone := "max"
	if *swap > 0 && p.unified("memory") {
		memory, err := p.memoryLimit(limit)
		if err != nil {
			p.fail(err)
			return
		}
		if memory > uint64(*swap) {
			p.fail(&fault.Field{Field: "linux.resources.memory.swap", Given: fmt.Sprint(*swap), Expected: fmt.Sprintf("at least memory.limit, %d: it is the limit of memory and swap together", memory)})
			return
		}
		alone = fmt.Sprint(uint64(*swap) - memory)
	}
	p.put("memory", "memory.swap", *swap, one("memory.memsw.limit_in_bytes", max(*swap, -1)), one("memory.swap.max", alone))
	if *swap < 0 {
		p.optional()
	}
}

// memoryLimit is the limit that is being set or, without, that stands.
func (p *plan) memoryLimit(limit *int64) (uint64, error) {
	if given(limit) && *limit > 0 {
		return uint64(*limit), nil
	}
	n := uint64(math.MaxUint64)
	if limit == nil || *limit == 0 {
		if now, err := readFile(p.m.host.of("memory").mount + p.m.path + "/memory.max"); err == nil {
			n, _ = parseNumber(now)
		}
	}
	if n == math.MaxUint64 {
		return 0, fault.New(fault.Invalid, "linux.resources.memory.swap: expected memory.limit beside it")
	}
	return n, nil
}

// unified reports whether a controller is in the unified hierarchy.
func (p *plan) unified(controller string) bool {
	h := p.m.host.of(controller)
	return h != nil && h.unified
}

func (p *plan) cpu(r *specs.LinuxCPU) {
	if given(r.Shares) {
		p.put("cpu", "cpu.shares", *r.Shares, one("cpu.shares", *r.Shares), one("cpu.weight", weight(*r.Shares)))
	}
	if r.Idle != nil {
		p.put("cpu", "cpu.idle", *r.Idle, one("cpu.idle", *r.Idle), one("cpu.idle", *r.Idle))
	}
	p.bandwidth(r)
	if given(r.RealtimePeriod) {
		p.put("cpu", "cpu.realtimePeriod", *r.RealtimePeriod, one("cpu.rt_period_us", *r.RealtimePeriod), nil)
	}
	if given(r.RealtimeRuntime) {
		p.put("cpu", "cpu.realtimeRuntime", *r.RealtimeRuntime, one("cpu.rt_runtime_us", *r.RealtimeRuntime), nil)
	}
	if r.Cpus != "" {
		p.put("cpuset", "cpu.cpus", r.Cpus, one("cpuset.cpus", r.Cpus), one("cpuset.cpus", r.Cpus))
	}
	if r.Mems != "" {
		p.put("cpuset", "cpu.mems", r.Mems, one("cpuset.mems", r.Mems), one("cpuset.mems", r.Mems))
	}
}

// bandwidth sets quota, period and burst. v2 has quota and period in one file.
func (p *plan) bandwidth(r *specs.LinuxCPU) {
	quota, period := given(r.Quota), given(r.Period)
	switch {
	case p.unified("cpu") && period:
		q := "max"
		if quota {
			q = unlimited(*r.Quota)
		} else if now, err := readFile(p.m.host.of("cpu").mount + p.m.path + "/cpu.max"); err == nil {
			q, _, _ = strings.Cut(now, " ")
		}
		p.put("cpu", "cpu.period", *r.Period, nil, one("cpu.max", fmt.Sprintf("%s %d", q, *r.Period)))
	case p.unified("cpu") && quota:
		p.put("cpu", "cpu.quota", *r.Quota, nil, one("cpu.max", unlimited(*r.Quota)))
	default:
		if period {
			p.put("cpu", "cpu.period", *r.Period, one("cpu.cfs_period_us", *r.Period), nil)
		}
		if quota {
			p.put("cpu", "cpu.quota", *r.Quota, one("cpu.cfs_quota_us", max(*r.Quota, -1)), nil)
		}
	}
	if r.Burst != nil {
		p.put("cpu", "cpu.burst", *r.Burst, one("cpu.cfs_burst_us", *r.Burst), one("cpu.max.burst", *r.Burst))
		if *r.Burst == 0 {
			p.optional()
		}
	}
}

// weight translates v1's shares (2 to 262144, 1024 is usual) to v2's weight (1 to 10000, 100 is
// usual), so that the least, the usual and the most fall on each other: a quadratic function of the
// logarithms through these three points, as runc and crun have it since 2025.
func weight(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

func (p *plan) pids(r *specs.LinuxPids) {
	if r.Limit == nil {
		return
	}
	// 0 is a limit here: no process beside the first, which has to be made in the cgroup and needs 1.
	n := *r.Limit
	if n == 0 {
		n = 1
	}
	p.put("pids", "pids.limit", *r.Limit, one("pids.max", unlimited(n)), one("pids.max", unlimited(n)))
}

// blockController is "blkio", or v2's "io".
func (p *plan) blockController() string {
	if p.m.host.of("blkio") == nil && p.m.host.of("io") != nil {
		return "io"
	}
	return "blkio"
}

// ioWeight translates a weight of 10 to 1000 to io.weight's 1 to 10000.
func ioWeight(w uint16) uint64 { return 1 + (uint64(max(w, 10))-10)*9999/990 }

func (p *plan) blockIO(r *specs.LinuxBlockIO) {
	c := p.blockController()
	if r.Weight != nil && *r.Weight != 0 {
		p.put(c, "blockIO.weight", *r.Weight,
			[]file{{"blkio.bfq.weight", fmt.Sprint(*r.Weight)}, {"blkio.weight", fmt.Sprint(*r.Weight)}},
			[]file{{"io.bfq.weight", fmt.Sprint(*r.Weight)}, {"io.weight", fmt.Sprint(ioWeight(*r.Weight))}})
	}
	if r.LeafWeight != nil && *r.LeafWeight != 0 {
		p.put(c, "blockIO.leafWeight", *r.LeafWeight, one("blkio.leaf_weight", *r.LeafWeight), nil)
	}
	for _, d := range r.WeightDevice {
		id := fmt.Sprintf("%d:%d", d.Major, d.Minor)
		if d.Weight != nil {
			v := fmt.Sprintf("%s %d", id, *d.Weight)
			p.put(c, "blockIO.weightDevice", v,
				[]file{{"blkio.bfq.weight_device", v}, {"blkio.weight_device", v}},
				[]file{{"io.bfq.weight", v}, {"io.weight", fmt.Sprintf("%s %d", id, ioWeight(*d.Weight))}})
		}
		if d.LeafWeight != nil {
			v := fmt.Sprintf("%s %d", id, *d.LeafWeight)
			p.put(c, "blockIO.weightDevice.leafWeight", v, one("blkio.leaf_weight_device", v), nil)
		}
	}
	p.throttle(c, "blockIO.throttleReadBpsDevice", r.ThrottleReadBpsDevice, "blkio.throttle.read_bps_device", "rbps")
	p.throttle(c, "blockIO.throttleWriteBpsDevice", r.ThrottleWriteBpsDevice, "blkio.throttle.write_bps_device", "wbps")
	p.throttle(c, "blockIO.throttleReadIOPSDevice", r.ThrottleReadIOPSDevice, "blkio.throttle.read_iops_device", "riops")
	p.throttle(c, "blockIO.throttleWriteIOPSDevice", r.ThrottleWriteIOPSDevice, "blkio.throttle.write_iops_device", "wiops")
}

func (p *plan) throttle(controller, field string, devices []specs.LinuxThrottleDevice, v1, v2 string) {
	for _, d := range devices {
		rate := "max"
		if d.Rate != 0 {
			rate = fmt.Sprint(d.Rate)
		}
		v := fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate)
		p.put(controller, field, v, one(v1, v), one("io.max", fmt.Sprintf("%d:%d %s=%s", d.Major, d.Minor, v2, rate)))
	}
}

// isPageSize checks the form of a huge page's size in the names of the kernel's files, "2MB". This
// and isUnifiedKey are by hand: compiling an expression would cost every start of the program.
func isPageSize(s string) bool {
	number := strings.TrimRight(s, "KMGB")
	unit := s[len(number):]
	return number != "" && len(number) <= 4 && strings.Trim(number, "0123456789") == "" && (unit == "KB" || unit == "MB" || unit == "GB")
}

func (p *plan) hugetlb(r specs.LinuxHugepageLimit) {
	if !isPageSize(r.Pagesize) {
		p.fail(&fault.Field{Field: "linux.resources.hugepageLimits.pageSize", Given: r.Pagesize, Expected: "a size such as 2MB or 1GB"})
		return
	}
	shown := fmt.Sprintf("%s %d", r.Pagesize, r.Limit)
	p.put("hugetlb", "hugepageLimits", shown, one("hugetlb."+r.Pagesize+".limit_in_bytes", r.Limit), one("hugetlb."+r.Pagesize+".max", r.Limit))
	// The specification wants reservations limited too, where the kernel can (Linux 5.7).
	p.put("hugetlb", "hugepageLimits", shown, one("hugetlb."+r.Pagesize+".rsvd.limit_in_bytes", r.Limit), one("hugetlb."+r.Pagesize+".rsvd.max", r.Limit))
	p.optional()
}

func (p *plan) network(r *specs.LinuxNetwork) {
	if given(r.ClassID) {
		p.put("net_cls", "network.classID", *r.ClassID, one("net_cls.classid", *r.ClassID), nil)
	}
	for _, i := range r.Priorities {
		v := fmt.Sprintf("%s %d", i.Name, i.Priority)
		if i.Name == "" || strings.ContainsAny(i.Name, " \t\n\x00/") {
			p.fail(&fault.Field{Field: "linux.resources.network.priorities.name", Given: i.Name, Expected: "the name of an interface"})
			return
		}
		p.put("net_prio", "network.priorities", v, one("net_prio.ifpriomap", v), nil)
	}
}

func (p *plan) rdma(device string, r specs.LinuxRdma) {
	if device == "" || strings.ContainsAny(device, " \t\n\x00") {
		p.fail(&fault.Field{Field: "linux.resources.rdma", Given: device, Expected: "the name of a device"})
		return
	}
	v := device
	if r.HcaHandles != nil {
		v += fmt.Sprintf(" hca_handle=%d", *r.HcaHandles)
	}
	if r.HcaObjects != nil {
		v += fmt.Sprintf(" hca_object=%d", *r.HcaObjects)
	}
	if v != device {
		p.put("rdma", "rdma", v, one("rdma.max", v), one("rdma.max", v))
	}
}

// isUnifiedKey checks the form of a controller's file. Files of cgroup.* are not limits, and are ours.
func isUnifiedKey(s string) bool {
	controller, file, ok := strings.Cut(s, ".")
	for part := range strings.SplitSeq(file, ".") {
		ok = ok && part != ""
	}
	return ok && controller != "" && controller != "cgroup" &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.") == ""
}

func (p *plan) raw(key, value string) {
	controller, _, _ := strings.Cut(key, ".")
	if !isUnifiedKey(key) {
		p.fail(&fault.Field{Field: "linux.resources.unified", Given: key, Expected: "the name of a controller's file such as memory.high"})
		return
	}
	// Files with a line for each device, such as io.max, take one at a time.
	for line := range strings.SplitSeq(strings.TrimRight(value, "\n"), "\n") {
		p.put(controller, "unified."+key, line, nil, one(key, line))
	}
}
