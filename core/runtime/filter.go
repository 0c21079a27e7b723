package runtime

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/runtime/initproc"
)

// compileFilter makes a seccomp program from a profile.
func compileFilter(profile *specs.LinuxSeccomp) (*initproc.Filter, error) {
	if profile == nil {
		return nil, nil
	}
	return nil, fault.New(fault.NotImplemented, "linux.seccomp is being written")
}
