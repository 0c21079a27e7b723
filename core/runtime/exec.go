package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/runtime/initproc"
)

// Process is a process made by Exec. The caller is its parent.
type Process struct {
	child   linux.Child
	console *os.File
}

// Pid is its process ID as the caller sees it.
func (p *Process) Pid() int { return p.child.Pid }

// PidFD is a handle of it, which belongs to the caller.
func (p *Process) PidFD() *os.File { return p.child.PidFD }

// Console is the master of its terminal, or nil. It belongs to the caller.
func (p *Process) Console() *os.File { return p.console }

// Exec runs a further process in the container. Errors are as those of Start.
func (c *Container) Exec(ctx context.Context, o ExecOptions) (_ *Process, err error) {
	if c.runtime.options.Init == nil {
		return nil, fault.New(fault.Internal, "exec in container %s: the runtime has no init program", c.ID())
	}
	if o.Process == nil {
		return nil, fault.New(fault.Invalid, "process: expected the program to run")
	}
	if err := validateProcess(o.Process); err != nil {
		return nil, err
	}
	if c.record.Namespaces&unix.CLONE_NEWNS == 0 {
		// Its root is no more than the first process's own.
		return nil, fault.New(fault.NotImplemented, "exec in a container without a mount namespace is not implemented")
	}
	first, err := c.process()
	if errors.Is(err, os.ErrProcessDone) {
		return nil, fault.New(fault.Conflict, "cannot exec in a stopped container")
	}
	if err != nil {
		return nil, err
	}
	defer first.Close()
	m, err := c.cgroups()
	if len(o.Cgroup) > 0 {
		m, err = c.ownCgroups()
	}
	if err != nil {
		return nil, err
	}
	if frozen, err := m.Frozen(); err == nil && frozen && !o.IgnorePaused {
		return nil, fault.New(fault.Conflict, "cannot exec in a paused container")
	}
	filter, err := c.loadFilter()
	if err != nil {
		return nil, err
	}
	return c.enter(ctx, first, o, filter)
}

func (c *Container) enter(ctx context.Context, first *os.File, o ExecOptions, filter *initproc.Filter) (_ *Process, err error) {
	s := &linux.Spawn{
		Args: []string{"sampan-runtime", initproc.Verb}, Env: initEnv,
		// One call enters all namespaces of the first process, or none.
		Join: []linux.Join{{File: first, Type: int(c.record.Namespaces)}},
		Fork: c.record.Namespaces&unix.CLONE_NEWPID != 0,
		Root: c.record.Namespaces&unix.CLONE_NEWUSER != 0,
	}
	if c.record.Namespaces&unix.CLONE_NEWTIME != 0 {
		alone(s)
	}
	if s.Program, err = c.runtime.initFor(s); err != nil {
		return nil, err
	}
	opened, err := c.placeBelow(ctx, s, o.Cgroup)
	if len(o.Cgroup) == 0 && errors.Is(err, fs.ErrNotExist) {
		// The first process has moved, and its own cgroup was removed.
		if err = c.placeBesideFirst(s, first); err == nil && s.Cgroup != nil {
			opened = append(opened, s.Cgroup)
		}
	}
	defer func() {
		for _, f := range opened {
			f.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	files, err := streams(s, o.Process.Terminal, o.Stdin, o.Stdout, o.Stderr)
	opened = append(opened, files...)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := linux.Socketpair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	defer theirs.Close()
	s.Files = append(append(s.Files, theirs), o.ExtraFiles...)

	child, err := startOn(s, o.Process.ExecCPUAffinity)
	if len(o.Cgroup) == 0 && s.Cgroup != nil && errors.Is(err, unix.EBUSY) {
		// The container has made cgroups of its own and hands controllers down to them: then only those at
		// the ends can have processes (cgroups(7), "no internal processes").
		if err = c.placeBesideFirst(s, first); err == nil {
			opened = append(opened, s.Cgroup)
			child, err = startOn(s, o.Process.ExecCPUAffinity)
		}
	}
	if errors.Is(err, unix.ESRCH) {
		return nil, fault.New(fault.Conflict, "cannot exec in a stopped container")
	}
	if err != nil {
		return nil, err
	}
	theirs.Close()
	c.giveStreams(child.Pid, o.Process.User, o.Stdin, o.Stdout, o.Stderr)
	d := initproc.NewDialogue(ours)
	d.Warn = c.warn
	d.Listener = c.listener(child.Pid, specs.StateRunning)
	err = c.converse(ctx, child, func() error {
		config := &initproc.Config{
			Spec: &specs.Spec{Process: o.Process, Linux: &specs.Linux{Personality: c.record.Spec.Linux.Personality, MemoryPolicy: c.record.Spec.Linux.MemoryPolicy}},
			Exec: true, NoNewKeyring: c.record.KeepKeyring, Filter: filter, Extra: len(o.ExtraFiles), Clamp: o.ClampDefaults,
			State: specs.State{ID: c.ID()},
		}
		if config.Scored, err = c.score(child.Pid, s.Program, o.Process, o.ClampDefaults); err != nil {
			return err
		}
		if err := d.Send(config); err != nil && !errors.Is(err, unix.EPIPE) {
			return err
		}
		return d.Executed()
	})
	if err != nil {
		linux.Signal(child.PidFD, unix.SIGKILL) //nolint:errcheck // it may have ended
		linux.Wait(child.PidFD)                 //nolint:errcheck // it is our child
		child.PidFD.Close()
		if d.Console != nil {
			d.Console.Close()
		}
		return nil, err
	}
	c.runtime.log.Debug("executed", "container", c.ID(), "pid", child.Pid)
	return &Process{child, d.Console}, nil
}

// placeBesideFirst places a process in the unified hierarchy's cgroup of the first one.
func (c *Container) placeBesideFirst(s *linux.Spawn, first *os.File) error {
	f, err := c.cgroup.Of(c.record.Pid)
	if err != nil {
		return err
	}
	// The number was still that process's when the cgroup was read.
	if err := linux.Signal(first, 0); err != nil {
		if f != nil {
			f.Close()
		}
		return fault.New(fault.Conflict, "cannot exec in a stopped container")
	}
	s.Cgroup = f
	return nil
}

// loadFilter reads the seccomp program of the container.
func (c *Container) loadFilter() (*initproc.Filter, error) {
	if c.record.Filter == nil {
		return nil, nil
	}
	program, err := os.ReadFile(filepath.Join(c.dir, seccompFile))
	if err != nil {
		return nil, fmt.Errorf("seccomp program: %w", err)
	}
	return &initproc.Filter{Program: program, Flags: *c.record.Filter, Notify: c.record.Agent != nil}, nil
}
