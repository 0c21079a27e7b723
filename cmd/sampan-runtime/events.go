package main

import (
	"encoding/json"
	"math"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/runtime"
)

// event is a line of `events`, as runc has it (github.com/opencontainers/runc/types).
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data *stats `json:"data,omitempty"`
}

type stats struct {
	CPU     cpuStats           `json:"cpu"`
	CPUSet  struct{}           `json:"cpuset"`
	Memory  memoryStats        `json:"memory"`
	Pids    pidsStats          `json:"pids"`
	Blkio   blkioStats         `json:"blkio"`
	Hugetlb map[string]hugetlb `json:"hugetlb"`
	RDT     struct{}           `json:"intel_rdt"`
	Network []struct{}         `json:"network_interfaces"`
}

type hugetlb struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type cpuStats struct {
	Usage struct {
		Total  uint64   `json:"total,omitempty"`
		PerCPU []uint64 `json:"percpu,omitempty"`
		Kernel uint64   `json:"kernel"`
		User   uint64   `json:"user"`
	} `json:"usage"`
	Throttling struct {
		Periods          uint64 `json:"periods,omitempty"`
		ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
		ThrottledTime    uint64 `json:"throttledTime,omitempty"`
	} `json:"throttling"`
	PSI *cgroup.Pressure `json:"psi,omitempty"`
}

type memoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type memoryStats struct {
	Cache uint64            `json:"cache,omitempty"`
	Usage memoryEntry       `json:"usage"`
	Swap  memoryEntry       `json:"swap"`
	Raw   map[string]uint64 `json:"raw,omitempty"`
	PSI   *cgroup.Pressure  `json:"psi,omitempty"`
}

type pidsStats struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"` // 0: none
}

type blkioStats struct {
	Bytes      []cgroup.BlockEntry `json:"ioServiceBytesRecursive,omitempty"`
	Operations []cgroup.BlockEntry `json:"ioServicedRecursive,omitempty"`
	PSI        *cgroup.Pressure    `json:"psi,omitempty"`
}

func asRuncStats(s cgroup.Stats) *stats {
	out := &stats{
		Memory: memoryStats{
			Cache: s.Memory.Detail["cache"] + s.Memory.Detail["file"], // v1 or v2
			Usage: memoryEntry{Limit: s.Memory.Limit, Usage: s.Memory.Usage, Max: s.Memory.Max, Failcnt: s.Memory.Failcnt},
			Swap:  memoryEntry{Limit: s.Memory.SwapLimit, Usage: s.Memory.SwapUsage},
			Raw:   s.Memory.Detail,
		},
		Pids:  pidsStats{Current: s.Pids.Current, Limit: s.Pids.Limit},
		Blkio: blkioStats{Bytes: s.Block.Bytes, Operations: s.Block.Operations},
	}
	if len(s.Hugetlb) > 0 {
		out.Hugetlb = map[string]hugetlb{}
	}
	for size, h := range s.Hugetlb {
		out.Hugetlb[size] = hugetlb(h)
	}
	out.CPU.PSI, out.Memory.PSI, out.Blkio.PSI = s.CPUPressure, s.MemoryPressure, s.BlockPressure
	if s.Pids.Limit == math.MaxUint64 {
		out.Pids.Limit = 0
	}
	out.CPU.Usage.Total, out.CPU.Usage.PerCPU = s.CPU.Total, s.CPU.PerCPU
	out.CPU.Usage.Kernel, out.CPU.Usage.User = s.CPU.System, s.CPU.User
	out.CPU.Throttling.Periods, out.CPU.Throttling.ThrottledPeriods, out.CPU.Throttling.ThrottledTime = s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.Throttled
	return out
}

// oomInterval is how often the counter of out-of-memory kills is read.
const oomInterval = 250 * time.Millisecond

func eventsFlags(p *program, f *pflag.FlagSet) action {
	interval := f.Duration("interval", 5*time.Second, "time between statistics")
	once := f.Bool("stats", false, "print the statistics and end")
	return func(args []string) error {
		if *interval <= 0 {
			return fault.New(fault.Invalid, "duration interval must be greater than 0")
		}
		c, err := p.load(args[0])
		if err != nil {
			return err
		}
		s, err := c.State()
		if err != nil {
			return err
		}
		if s.Status == "stopped" {
			return fault.New(fault.Conflict, "container with id %s is not running", c.ID())
		}
		if *once {
			return printStats(c)
		}
		return follow(c, *interval)
	}
}

func printStats(c *runtime.Container) error {
	s, err := c.Stats()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(event{"stats", c.ID(), asRuncStats(s)})
}

// follow prints events until the container ends.
func follow(c *runtime.Container, interval time.Duration) error {
	ctx, stop := interruptible()
	defer stop()
	statistics, oom := time.NewTicker(interval), time.NewTicker(oomInterval)
	defer statistics.Stop()
	defer oom.Stop()
	kills, err := c.OOMKills()
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-statistics.C:
			if err := printStats(c); err != nil {
				return err
			}
		case <-oom.C:
			now, err := c.OOMKills()
			if err != nil {
				return err
			}
			for ; kills < now; kills++ {
				if err := json.NewEncoder(os.Stdout).Encode(event{Type: "oom", ID: c.ID()}); err != nil {
					return err
				}
			}
			if s, err := c.State(); err != nil || s.Status == "stopped" {
				return nil //nolint:nilerr // it was deleted
			}
		}
	}
}
