package main

import (
	"encoding/json"
	"slices"
	"strconv"

	"github.com/docker/go-units"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/core/fault"
)

// limit is an option of update that fills in one field.
type limit struct {
	option, does string
	set          func(r *specs.LinuxResources, value string) error
}

func integer(s string) (int64, error)   { return strconv.ParseInt(s, 10, 64) }
func unsigned(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) }
func small(s string) (uint16, error)    { n, err := strconv.ParseUint(s, 10, 16); return uint16(n), err }
func bytesOrAll(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	return units.RAMInBytes(s)
}

// into is a setter of a field that is a pointer.
func into[T any](parse func(string) (T, error), field func(*specs.LinuxResources) **T) func(*specs.LinuxResources, string) error {
	return func(r *specs.LinuxResources, s string) error {
		v, err := parse(s)
		if err == nil {
			*field(r) = &v
		}
		return err
	}
}

func limits() []limit {
	text := func(field func(*specs.LinuxResources) *string) func(*specs.LinuxResources, string) error {
		return func(r *specs.LinuxResources, s string) error { *field(r) = s; return nil }
	}
	return []limit{
		{"blkio-weight", "weight for block devices, 10 to 1000", into(small, func(r *specs.LinuxResources) **uint16 { return &r.BlockIO.Weight })},
		{"cpu-period", "period of the quota, in microseconds", into(unsigned, func(r *specs.LinuxResources) **uint64 { return &r.CPU.Period })},
		{"cpu-quota", "CPU time in a period, in microseconds", into(integer, func(r *specs.LinuxResources) **int64 { return &r.CPU.Quota })},
		{"cpu-burst", "CPU time that can be saved up, in microseconds", into(unsigned, func(r *specs.LinuxResources) **uint64 { return &r.CPU.Burst })},
		{"cpu-share", "CPU shares, relative to other containers", into(unsigned, func(r *specs.LinuxResources) **uint64 { return &r.CPU.Shares })},
		{"cpu-rt-period", "period of realtime scheduling, in microseconds", into(unsigned, func(r *specs.LinuxResources) **uint64 { return &r.CPU.RealtimePeriod })},
		{"cpu-rt-runtime", "time of realtime scheduling in a period, in microseconds", into(integer, func(r *specs.LinuxResources) **int64 { return &r.CPU.RealtimeRuntime })},
		{"cpu-idle", "1: run only when nothing else does", into(integer, func(r *specs.LinuxResources) **int64 { return &r.CPU.Idle })},
		{"cpuset-cpus", "CPUs, such as 0-3,7", text(func(r *specs.LinuxResources) *string { return &r.CPU.Cpus })},
		{"cpuset-mems", "memory nodes", text(func(r *specs.LinuxResources) *string { return &r.CPU.Mems })},
		{"memory", "limit of memory, such as 512m; -1: none", into(bytesOrAll, func(r *specs.LinuxResources) **int64 { return &r.Memory.Limit })},
		{"memory-reservation", "memory that is not taken back while there is enough", into(bytesOrAll, func(r *specs.LinuxResources) **int64 { return &r.Memory.Reservation })},
		{"memory-swap", "limit of memory and swap together; -1: none", into(bytesOrAll, func(r *specs.LinuxResources) **int64 { return &r.Memory.Swap })},
		{"pids-limit", "number of processes; -1: any", into(integer, func(r *specs.LinuxResources) **int64 { return &r.Pids.Limit })},
	}
}

// obsolete are options for what the kernel no longer limits: they are taken, checked and left out, as with runc.
func obsolete() []limit {
	return []limit{
		{"kernel-memory", "obsolete, without effect", into(bytesOrAll, func(r *specs.LinuxResources) **int64 { return &r.Memory.Kernel })}, //nolint:staticcheck // deprecated, see above
		{"kernel-memory-tcp", "obsolete, without effect", into(bytesOrAll, func(r *specs.LinuxResources) **int64 { return &r.Memory.KernelTCP })},
	}
}

func (p *program) dropKernelMemory(m *specs.LinuxMemory) {
	if m == nil || m.Kernel == nil && m.KernelTCP == nil { //nolint:staticcheck // see obsolete
		return
	}
	p.log.Warn("the limits of kernel memory are obsolete and left out")
	m.Kernel, m.KernelTCP = nil, nil //nolint:staticcheck // see obsolete
}

func updateFlags(p *program, f *pflag.FlagSet) action {
	resources := f.StringP("resources", "r", "", "file with the specification's resources as JSON, - is stdin; other options are then ignored")
	l3 := f.String("l3-cache-schema", "", "schema of Intel RDT for the L3 cache")
	bandwidth := f.String("mem-bw-schema", "", "schema of Intel RDT for the memory bandwidth")
	given := map[string]*string{}
	all := limits()
	for _, l := range obsolete() {
		given[l.option] = f.String(l.option, "", l.does)
		f.MarkHidden(l.option) //nolint:errcheck // it is there
	}
	for _, l := range all {
		given[l.option] = f.String(l.option, "", l.does)
	}
	return func(args []string) error {
		r := specs.LinuxResources{Memory: &specs.LinuxMemory{}, CPU: &specs.LinuxCPU{}, Pids: &specs.LinuxPids{}, BlockIO: &specs.LinuxBlockIO{}}
		if *resources != "" {
			if err := readJSON(*resources, &r); err != nil {
				return err
			}
		} else {
			for _, l := range slices.Concat(all, obsolete()) {
				value := *given[l.option]
				if value == "" {
					continue
				}
				if err := l.set(&r, value); err != nil {
					return &fault.Field{Field: "--" + l.option, Given: value, Expected: l.does}
				}
			}
		}
		p.dropKernelMemory(r.Memory)
		// Device rules are those of the bundle: runc does not take them here either.
		r.Devices = nil
		c, err := p.load(args[0])
		if err != nil {
			return err
		}
		if p.debug {
			text, _ := json.Marshal(r) //nolint:errcheck,errchkjson // it came from JSON or options
			p.log.Debug("update", "resources", string(text))
		}
		if err := c.Update(&r); err != nil {
			return err
		}
		if *l3 == "" && *bandwidth == "" {
			return nil
		}
		return c.UpdateRDT(*l3, *bandwidth)
	}
}
