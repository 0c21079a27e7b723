package cgroup

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Stats reads what the kernel has counted. A hierarchy in which the container has no cgroup counts
// nothing.
func (m *Manager) Stats() (Stats, error) {
	r := reader{m: m}
	var s Stats
	if h := m.host.of("cpuacct"); h != nil && !h.unified {
		r.legacyCPU(&s.CPU)
	} else if m.host.unified != nil {
		r.unifiedCPU(m.host.unified.mount+m.path, &s.CPU)
	}
	if h := m.host.of("memory"); h != nil && h.unified {
		r.unifiedMemory(h.mount+m.path, &s.Memory)
	} else if h != nil {
		r.legacyMemory(h.mount+m.path, &s.Memory)
	}
	if h := m.host.of("pids"); h != nil {
		s.Pids = PidsStats{Current: r.number(h.mount + m.path + "/pids.current"), Limit: r.number(h.mount + m.path + "/pids.max")}
	}
	if h := m.host.of("blkio"); h != nil && !h.unified {
		r.legacyBlock(h.mount+m.path, &s.Block)
	} else if h := m.host.of("io"); h != nil {
		r.unifiedBlock(h.mount+m.path, &s.Block)
	}
	if h := m.host.of("hugetlb"); h != nil {
		s.Hugetlb = r.hugetlb(h)
	}
	if u := m.host.unified; u != nil {
		dir := u.mount + m.path
		s.CPUPressure, s.MemoryPressure, s.BlockPressure = pressure(dir+"/cpu.pressure"), pressure(dir+"/memory.pressure"), pressure(dir+"/io.pressure")
	}
	if r.err != nil {
		return Stats{}, fmt.Errorf("statistics of cgroup %s: %w", m.path, r.err)
	}
	return s, nil
}

// OOMKills says how often the kernel killed a process of the container for want of memory.
func (m *Manager) OOMKills() (uint64, error) {
	h := m.host.of("memory")
	if h == nil {
		return 0, nil
	}
	name := "/memory.oom_control"
	if h.unified {
		name = "/memory.events"
	}
	n, err := numbers(h.mount + m.path + name)
	return n["oom_kill"], err
}

// reader keeps the first error.
type reader struct {
	m   *Manager
	err error
}

func (r *reader) number(name string) uint64 {
	n, err := number(name)
	if err != nil && r.err == nil {
		r.err = err
	}
	return n
}

func (r *reader) numbers(name string) map[string]uint64 {
	n, err := numbers(name)
	if err != nil && r.err == nil {
		r.err = err
	}
	return n
}

func (r *reader) text(name string) string {
	text, err := readFile(name)
	if err != nil && !gone(err) && r.err == nil {
		r.err = err
	}
	return text
}

// tick is what v1 counts user and system time in, in nanoseconds: USER_HZ is 100 everywhere.
const tick = 1e9 / 100

func (r *reader) legacyCPU(s *CPUStats) {
	dir := r.m.host.of("cpuacct").mount + r.m.path
	s.Total = r.number(dir + "/cpuacct.usage")
	// In ticks, but scaled to the precise total; usage_user and usage_sys are not.
	ticks := r.numbers(dir + "/cpuacct.stat")
	s.User, s.System = ticks["user"]*tick, ticks["system"]*tick
	for f := range strings.FieldsSeq(r.text(dir + "/cpuacct.usage_percpu")) {
		n, _ := parseNumber(f)
		s.PerCPU = append(s.PerCPU, n)
	}
	if h := r.m.host.of("cpu"); h != nil {
		n := r.numbers(h.mount + r.m.path + "/cpu.stat")
		s.Periods, s.ThrottledPeriods, s.Throttled = n["nr_periods"], n["nr_throttled"], n["throttled_time"]
	}
}

func (r *reader) unifiedCPU(dir string, s *CPUStats) {
	n := r.numbers(dir + "/cpu.stat")
	s.Total, s.User, s.System = n["usage_usec"]*1000, n["user_usec"]*1000, n["system_usec"]*1000
	s.Periods, s.ThrottledPeriods, s.Throttled = n["nr_periods"], n["nr_throttled"], n["throttled_usec"]*1000
}

func (r *reader) legacyMemory(dir string, s *MemoryStats) {
	s.Usage, s.Max = r.number(dir+"/memory.usage_in_bytes"), r.number(dir+"/memory.max_usage_in_bytes")
	s.Limit, s.Failcnt = r.number(dir+"/memory.limit_in_bytes"), r.number(dir+"/memory.failcnt")
	s.Detail = r.numbers(dir + "/memory.stat")
	s.SwapUsage = s.Detail["total_swap"]
	// v1 has the limit of both together.
	if both := r.number(dir + "/memory.memsw.limit_in_bytes"); both == math.MaxUint64 {
		s.SwapLimit = both
	} else if both > s.Limit {
		s.SwapLimit = both - s.Limit
	}
	s.OOMKills = r.numbers(dir + "/memory.oom_control")["oom_kill"]
}

func (r *reader) unifiedMemory(dir string, s *MemoryStats) {
	s.Usage, s.Max = r.number(dir+"/memory.current"), r.number(dir+"/memory.peak")
	s.Limit = r.number(dir + "/memory.max")
	s.SwapUsage, s.SwapLimit = r.number(dir+"/memory.swap.current"), r.number(dir+"/memory.swap.max")
	s.Detail = r.numbers(dir + "/memory.stat")
	events := r.numbers(dir + "/memory.events")
	s.Failcnt, s.OOMKills = events["max"], events["oom_kill"]
}

// legacyBlock reads lines "8:0 Read 4096". The throttling layer counts under every scheduler.
func (r *reader) legacyBlock(dir string, s *BlockStats) {
	s.Bytes = blockEntries(r.text(dir + "/blkio.throttle.io_service_bytes_recursive"))
	s.Operations = blockEntries(r.text(dir + "/blkio.throttle.io_serviced_recursive"))
}

func blockEntries(text string) []BlockEntry {
	var list []BlockEntry
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue // the total
		}
		op := strings.ToLower(f[1])
		if op != "read" && op != "write" && op != "discard" {
			continue // the same again, as sync, async and total
		}
		if e, ok := blockEntry(f[0], op, f[2]); ok {
			list = append(list, e)
		}
	}
	return list
}

// unifiedBlock reads lines "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6".
func (r *reader) unifiedBlock(dir string, s *BlockStats) {
	for line := range strings.Lines(r.text(dir + "/io.stat")) {
		f := strings.Fields(line)
		for _, pair := range f[min(1, len(f)):] {
			key, value, _ := strings.Cut(pair, "=")
			op, ok := map[byte]string{'r': "read", 'w': "write", 'd': "discard"}[(key + " ")[0]]
			e, valid := blockEntry(f[0], op, value)
			switch {
			case !ok || !valid:
			case strings.HasSuffix(key, "bytes"):
				s.Bytes = append(s.Bytes, e)
			case strings.HasSuffix(key, "ios"):
				s.Operations = append(s.Operations, e)
			}
		}
	}
}

func blockEntry(device, op, value string) (BlockEntry, bool) {
	a, b, _ := strings.Cut(device, ":")
	major, err1 := strconv.ParseUint(a, 10, 32)
	minor, err2 := strconv.ParseUint(b, 10, 32)
	n, err3 := strconv.ParseUint(value, 10, 64)
	return BlockEntry{Major: major, Minor: minor, Op: op, Value: n}, err1 == nil && err2 == nil && err3 == nil
}
