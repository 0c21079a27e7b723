package runtime

import (
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/runtime/initproc"
	"github.com/sampan-project/sampan/core/runtime/seccomp"
)

// instruction is the size of struct sock_filter in bytes.
const instruction = 8

// compileFilter makes a seccomp program from a profile.
func compileFilter(profile *specs.LinuxSeccomp) (*initproc.Filter, error) {
	if profile == nil {
		return nil, nil
	}
	p, err := seccomp.Compile(profile, "")
	if err != nil {
		return nil, err
	}
	if p.Notify {
		return nil, fault.New(fault.NotImplemented, "linux.seccomp: SCMP_ACT_NOTIFY is not implemented")
	}
	if len(p.Filter) == 0 {
		return nil, nil
	}
	program := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(p.Filter))), len(p.Filter)*instruction)
	return &initproc.Filter{Program: program, Flags: p.Flags}, nil
}
