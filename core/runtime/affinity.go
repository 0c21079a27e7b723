package runtime

import (
	"context"
	"os"
	"runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/runtime/initproc"
)

// startOn starts a process that begins on the CPUs of execCPUAffinity.initial: a child has those of the
// thread that makes it. The process sets the final ones itself.
func startOn(s *linux.Spawn, affinity *specs.CPUAffinity) (linux.Child, error) {
	if affinity == nil || affinity.Initial == "" {
		return s.Start()
	}
	const field = "process.execCPUAffinity.initial"
	wanted, err := initproc.CPUSet(field, affinity.Initial)
	if err != nil {
		return linux.Child{}, err
	}
	runtime.LockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		runtime.UnlockOSThread()
		return linux.Child{}, err
	}
	if err := unix.SchedSetaffinity(0, wanted); err != nil {
		runtime.UnlockOSThread()
		return linux.Child{}, fault.New(fault.Invalid, "%s %q: %w", field, affinity.Initial, err)
	}
	child, err := s.Start()
	if unix.SchedSetaffinity(0, &before) == nil {
		// Else the goroutine ends with its thread, so that nothing else runs on these CPUs alone.
		runtime.UnlockOSThread()
	}
	return child, err
}

// placeBelow is place for a process that goes to a cgroup below the container's own.
func (c *Container) placeBelow(ctx context.Context, s *linux.Spawn, sub cgroup.Sub) (opened []*os.File, err error) {
	if c.throughSystemd() {
		s.Place = func(pid int) error { return c.attach(ctx, sub, pid) }
		return nil, nil
	}
	if len(sub) == 0 {
		return c.place(s)
	}
	if s.Cgroup, s.Tasks, err = c.cgroup.Enter(sub); err != nil {
		return nil, err
	}
	if s.Cgroup != nil {
		opened = append(opened, s.Cgroup)
	}
	return append(opened, s.Tasks...), nil
}
