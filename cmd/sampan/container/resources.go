package container

import (
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// resources are the limits that run, create and update share.
type resources struct {
	blkioWeight               uint16
	cpuPeriod, cpuQuota       int64
	cpuRTPeriod, cpuRTRuntime int64
	cpuShares                 int64
	cpus                      cli.CPUs
	cpusetCPUs, cpusetMems    string
	memory, memoryReservation cli.Bytes
	memorySwap, kernelMemory  cli.Bytes
	pids                      int64
	pidsSet                   bool
}

func (r *resources) addFlags(f *pflag.FlagSet) {
	r.memorySwap.Unlimited = true
	f.Uint16Var(&r.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	f.Int64Var(&r.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	f.Int64Var(&r.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	f.Int64Var(&r.cpuRTPeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	f.Int64Var(&r.cpuRTRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	f.Int64VarP(&r.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	f.Var(&r.cpus, "cpus", "Number of CPUs")
	f.StringVar(&r.cpusetCPUs, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	f.StringVar(&r.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	f.VarP(&r.memory, "memory", "m", "Memory limit")
	f.Var(&r.memoryReservation, "memory-reservation", "Memory soft limit")
	f.Var(&r.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	f.Var(&r.kernelMemory, "kernel-memory", "Kernel memory limit (deprecated)")
	f.MarkHidden("kernel-memory") //nolint:errcheck // it is a flag of ours
	f.Int64Var(&r.pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
}

// wire checks the limits and returns them as the API has them. Whether --memory-swap may stand alone is
// the engine's to say: an update's goes with the memory that the container has.
func (r *resources) wire() (wire.Resources, error) {
	switch {
	case r.blkioWeight != 0 && (r.blkioWeight < 10 || r.blkioWeight > 1000):
		return wire.Resources{}, &fault.Field{Field: "--blkio-weight", Given: strconv.Itoa(int(r.blkioWeight)), Expected: "10 to 1000, or 0"}
	case r.cpus.Nano > 0 && (r.cpuPeriod > 0 || r.cpuQuota != 0):
		return wire.Resources{}, fault.New(fault.Invalid, "conflicting options: --cpus cannot be used with --cpu-period or --cpu-quota")
	case !isSet(r.cpusetCPUs):
		return wire.Resources{}, &fault.Field{Field: "--cpuset-cpus", Given: r.cpusetCPUs, Expected: "CPU numbers such as 0-3 or 0,1"}
	case !isSet(r.cpusetMems):
		return wire.Resources{}, &fault.Field{Field: "--cpuset-mems", Given: r.cpusetMems, Expected: "memory node numbers such as 0-3 or 0,1"}
	case r.memorySwap.Value > 0 && r.memorySwap.Value < r.memory.Value:
		return wire.Resources{}, &fault.Field{Field: "--memory-swap", Given: r.memorySwap.Given, Expected: "at least the --memory of " + r.memory.Given}
	case r.memory.Value > 0 && r.memoryReservation.Value > r.memory.Value:
		return wire.Resources{}, &fault.Field{Field: "--memory-reservation", Given: r.memoryReservation.Given, Expected: "at most the --memory of " + r.memory.Given}
	}
	w := wire.Resources{
		BlkioWeight: r.blkioWeight, CPUPeriod: r.cpuPeriod, CPUQuota: r.cpuQuota, CPURealtimePeriod: r.cpuRTPeriod,
		CPURealtimeRuntime: r.cpuRTRuntime, CPUShares: r.cpuShares, NanoCPUs: r.cpus.Nano, CpusetCpus: r.cpusetCPUs,
		CpusetMems: r.cpusetMems, Memory: r.memory.Value, MemoryReservation: r.memoryReservation.Value, MemorySwap: r.memorySwap.Value,
	}
	if r.pidsSet {
		w.PidsLimit = &r.pids
	}
	return w, nil
}

// isSet reports a list of numbers and ranges as cpuset(7) has it, or "".
func isSet(s string) bool {
	if s == "" {
		return true
	}
	for part := range strings.SplitSeq(s, ",") {
		r, ok := parseRange(part)
		if !ok || r.empty {
			return false
		}
	}
	return true
}
