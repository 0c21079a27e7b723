package initproc

import (
	"fmt"
	"slices"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// MemoryPolicyModes are in the order of their numbers in linux/mempolicy.h.
var MemoryPolicyModes = []specs.MemoryPolicyModeType{
	specs.MpolDefault, specs.MpolPreferred, specs.MpolBind, specs.MpolInterleave, specs.MpolLocal, specs.MpolPreferredMany,
	specs.MpolWeightedInterleave,
}

// MemoryPolicy are the mode and the nodes for set_mempolicy(2).
func MemoryPolicy(m *specs.LinuxMemoryPolicy) (mode uint, nodes *unix.CPUSet, err error) {
	n := slices.Index(MemoryPolicyModes, m.Mode)
	if n < 0 {
		return 0, nil, &fault.Field{Field: "linux.memoryPolicy.mode", Given: string(m.Mode), Expected: "a mode of set_mempolicy(2), such as MPOL_BIND"}
	}
	mode = uint(n)
	for i, f := range m.Flags {
		switch f {
		case specs.MpolFNumaBalancing:
			mode |= unix.MPOL_F_NUMA_BALANCING
		case specs.MpolFRelativeNodes:
			mode |= unix.MPOL_F_RELATIVE_NODES
		case specs.MpolFStaticNodes:
			mode |= unix.MPOL_F_STATIC_NODES
		default:
			return 0, nil, &fault.Field{Field: fmt.Sprintf("linux.memoryPolicy.flags[%d]", i), Given: string(f), Expected: "a flag of set_mempolicy(2), such as MPOL_F_STATIC_NODES"}
		}
	}
	if m.Nodes == "" {
		return mode, nil, nil
	}
	// A list of nodes is written as one of CPUs, and has as many bits here.
	nodes, err = CPUSet("linux.memoryPolicy.nodes", m.Nodes)
	return mode, nodes, err
}

func setMemoryPolicy(m *specs.LinuxMemoryPolicy) error {
	if m == nil {
		return nil
	}
	mode, nodes, err := MemoryPolicy(m)
	if err != nil {
		return err
	}
	var bits uintptr
	if nodes != nil {
		bits = unsafe.Sizeof(*nodes)*8 + 1 // the kernel takes one off
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SET_MEMPOLICY, uintptr(mode), uintptr(unsafe.Pointer(nodes)), bits); e != 0 {
		return fault.New(fault.Invalid, "linux.memoryPolicy: %s of nodes %q: %w", m.Mode, m.Nodes, e)
	}
	return nil
}
