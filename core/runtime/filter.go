package runtime

import (
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

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
	if p.Notify && profile.ListenerPath == "" {
		return nil, fault.New(fault.Invalid, "linux.seccomp.listenerPath: expected the socket of the agent, as a rule has SCMP_ACT_NOTIFY")
	}
	if len(p.Filter) == 0 {
		return nil, nil
	}
	program := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(p.Filter))), len(p.Filter)*instruction)
	filter := &initproc.Filter{Program: program, Flags: p.Flags, Notify: p.Notify}
	if p.Notify {
		// The threads of the init other than that which executes the program must go on without the agent.
		filter.Flags &^= unix.SECCOMP_FILTER_FLAG_TSYNC
	}
	return filter, nil
}
