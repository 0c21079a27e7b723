package container

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/wire"
)

// Stats samples what the container uses. One that does not run is fault.Conflict.
func (m *Manager) Stats(ctx context.Context, ref string) (wire.Stats, error) {
	c, err := m.find(ref)
	if err != nil {
		return wire.Stats{}, err
	}
	rec, st := c.snapshot()
	if !st.live() {
		return wire.Stats{}, notRunningError(&rec)
	}
	s, err := m.o.Monitor.Stats(ctx, rec.ID)
	if err != nil {
		return wire.Stats{}, err
	}
	answer := shapeStats(s)
	answer.ID, answer.Name, answer.Read = rec.ID, "/"+rec.Name, time.Now().UTC().Format(time.RFC3339Nano)
	answer.CPUStats.SystemUsage = hostCPU()
	if rec.Host.NetworkMode != "host" {
		answer.Networks = networkStats(st.Pid)
	}
	if answer.MemoryStats.Limit == 0 {
		answer.MemoryStats.Limit = hostMemory()
	}
	return answer, nil
}

// shapeStats gives the cgroup's numbers Docker's names.
func shapeStats(s cgroup.Stats) wire.Stats {
	var w wire.Stats
	w.PidsStats = wire.PidsStats{Current: s.Pids.Current, Limit: bound(s.Pids.Limit)}
	w.CPUStats = wire.CPUStats{
		CPUUsage:       wire.CPUUsage{TotalUsage: s.CPU.Total, PercpuUsage: s.CPU.PerCPU, UsageInKernelmode: s.CPU.System, UsageInUsermode: s.CPU.User},
		OnlineCPUs:     uint32(cmp.Or(len(s.CPU.PerCPU), runtime.NumCPU())),
		ThrottlingData: wire.ThrottlingData{Periods: s.CPU.Periods, ThrottledPeriods: s.CPU.ThrottledPeriods, ThrottledTime: s.CPU.Throttled},
	}
	w.MemoryStats = wire.MemoryStats{Usage: s.Memory.Usage, MaxUsage: s.Memory.Max, Limit: bound(s.Memory.Limit), Failcnt: s.Memory.Failcnt, Stats: s.Memory.Detail}
	if memory := hostMemory(); w.MemoryStats.Limit > memory { // cgroup v1 has a number near 2⁶³ for none
		w.MemoryStats.Limit = memory
	}
	w.BlkioStats = wire.BlkioStats{IoServiceBytesRecursive: blkio(s.Block.Bytes), IoServicedRecursive: blkio(s.Block.Operations)}
	return w
}

// bound is 0 for none, which Docker leaves out.
func bound(limit uint64) uint64 {
	if limit == math.MaxUint64 {
		return 0
	}
	return limit
}

func blkio(entries []cgroup.BlockEntry) []wire.BlkioEntry {
	list := []wire.BlkioEntry{}
	for _, e := range entries {
		list = append(list, wire.BlkioEntry{Major: e.Major, Minor: e.Minor, Op: e.Op, Value: e.Value})
	}
	return list
}

// ticks is USER_HZ, which Linux has fixed at 100 for all programs (time(7)).
const ticks = 100

// hostCPU is the time that all CPUs of the host have spent, in nanoseconds: the first line of
// /proc/stat without guest times, which user times contain (proc_stat(5)).
func hostCPU() (sum uint64) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(data), "\n")
	for i, f := range strings.Fields(line) {
		if i == 0 || i > 7+1 {
			continue
		}
		n, _ := strconv.ParseUint(f, 10, 64) //nolint:errcheck // the kernel writes numbers
		sum += n
	}
	return sum * uint64(time.Second/ticks)
}

// hostMemory is the host's memory in bytes.
func hostMemory() uint64 {
	memory, _ := spec.HostMemory() //nolint:errcheck // 0 is "not known"
	return memory
}

// networkStats reads the counters of the interfaces that the process sees (/proc/PID/net/dev).
func networkStats(pid int) map[string]wire.NetworkStats {
	f, err := os.Open(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return nil
	}
	defer f.Close()
	all := map[string]wire.NetworkStats{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, numbers, ok := strings.Cut(lines.Text(), ":")
		fields := strings.Fields(numbers)
		if name = strings.TrimSpace(name); !ok || name == "lo" || len(fields) < 12 {
			continue
		}
		n := make([]uint64, len(fields))
		for i, field := range fields {
			n[i], _ = strconv.ParseUint(field, 10, 64) //nolint:errcheck // as above
		}
		all[name] = wire.NetworkStats{RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3], TxBytes: n[8], TxPackets: n[9], TxErrors: n[10], TxDropped: n[11]}
	}
	return all
}
