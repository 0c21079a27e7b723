package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/cgroup/systemd"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/runtime/hook"
	"github.com/sampan-project/sampan/core/runtime/initproc"
)

// Container is a handle on a container. Its methods may be called in parallel.
type Container struct {
	runtime *Runtime
	dir     string
	record  record
	// reserved: the directory is this container's, which is being made.
	reserved bool

	mu       sync.Mutex
	cgroup   *cgroup.Manager
	bus      *systemd.Bus        // while the container is made
	placing  func(pid int) error // lets systemd make its cgroup with the first process in it; nil: it is made by us
	grouping func() error        // makes its cgroups; nil: they are there, or systemd makes them
	pidfd    *os.File
	console  *os.File
	call     *os.File // of Start, made ahead; nil: Start makes it
}

// ID is the container's name below the root.
func (c *Container) ID() string { return c.record.ID }

// Pid is the process ID of the first process as this process sees it; 0 when there was none.
func (c *Container) Pid() int { return c.record.Pid }

// PidFD is a handle of the first process. It is nil for a container that was loaded, and stays the
// container's.
func (c *Container) PidFD() *os.File { return c.pidfd }

// Console is the master of the container's terminal, which then belongs to the caller. It is nil
// without a terminal, for a container that was loaded, and the second time.
func (c *Container) Console() *os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.console
	c.console = nil
	return f
}

// Spec is what the container was made from, without its seccomp profile. It is not to be changed.
func (c *Container) Spec() *specs.Spec { return c.record.Spec }

// Created is when Create was called.
func (c *Container) Created() time.Time { return c.record.Created }

// Close closes the files that the handle holds.
func (c *Container) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, f := range []**os.File{&c.pidfd, &c.console, &c.call} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	return errors.Join(errs...)
}

// cgroups is the container's cgroup manager.
func (c *Container) cgroups() (*cgroup.Manager, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cgroup == nil {
		m, err := cgroup.Load(c.record.Cgroup)
		if err != nil {
			return nil, err
		}
		m.Own(c.cgroupID())
		c.cgroup = m
	}
	return c.cgroup, nil
}

// Start lets the container's program run, and returns when it does. An error of execve(2) is that of
// Start, such as `exec: "x": executable file not found in $PATH`; the container has stopped then. A
// container that is not created is fault.Conflict.
func (c *Container) Start(ctx context.Context) error {
	dir, err := linux.OpenAt(nil, c.dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return notFound(c.ID())
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if c.record.FewPids != nil && c.waiting() {
		if err := c.limitPids(); err != nil {
			return err
		}
	}
	call := c.called()
	if call == nil {
		call, err = linux.Connect(dir, socketName)
	}
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Conflict, "container %s is %s, expected created", c.ID(), c.status())
	}
	if err != nil {
		return err
	}
	defer call.Close()
	d := initproc.NewDialogue(call)
	d.Warn = c.warn
	d.Listener = c.listener(c.record.Pid, specs.StateCreated)
	_, err = until(ctx, d.Executed, func() { unix.Shutdown(int(call.Fd()), unix.SHUT_RDWR) }) //nolint:errcheck // it is closed anyway
	unix.Unlinkat(int(dir.Fd()), socketName, 0)                                               //nolint:errcheck // see status: the socket's presence alone proves nothing
	if ctx.Err() != nil {
		return fmt.Errorf("start container %s: %w", c.ID(), context.Cause(ctx))
	}
	if err != nil {
		return err
	}
	c.runtime.log.Debug("started", "container", c.ID(), "pid", c.Pid())
	return c.afterStart(ctx)
}

// called is the call that was made ahead, the first time.
func (c *Container) called() *os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	call := c.call
	c.call = nil
	return call
}

// afterStart runs the poststart hooks. When one fails the container ends (runtime.md, "Lifecycle", step 9;
// before version 1.3.0 of the specification that was a warning).
func (c *Container) afterStart(ctx context.Context) error {
	h := c.record.Spec.Hooks
	if h == nil {
		return nil
	}
	err := hook.Run(ctx, "poststart", h.Poststart, c.state(specs.StateRunning))
	if err != nil {
		err = errors.Join(err, c.end(context.WithoutCancel(ctx)))
	}
	return err
}

// afterDelete runs the poststop hooks: an error of one is logged, and the others run (step 13).
func (c *Container) afterDelete(ctx context.Context) {
	h := c.record.Spec.Hooks
	if h == nil {
		return
	}
	for _, one := range h.Poststop {
		if err := hook.Run(ctx, "poststop", []specs.Hook{one}, c.state(specs.StateStopped)); err != nil {
			c.warn(err.Error())
		}
	}
}

// process opens the first process, if it is still that one; os.ErrProcessDone when it has ended.
func (c *Container) process() (*os.File, error) {
	if c.record.Pid == 0 {
		return nil, os.ErrProcessDone
	}
	f, err := linux.PidFD(c.record.Pid)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, os.ErrProcessDone
	}
	if err != nil {
		return nil, err
	}
	// After it was opened: the number cannot be given to another process between the two.
	start, state, err := linux.StartTime(c.record.Pid)
	if err != nil || start != c.record.StartTime || state == 'Z' || state == 'X' {
		f.Close()
		return nil, os.ErrProcessDone
	}
	return f, nil
}

// status is created, running, paused or stopped.
func (c *Container) status() specs.ContainerState {
	f, err := c.process()
	if err != nil {
		return specs.StateStopped
	}
	f.Close()
	if c.waiting() {
		return specs.StateCreated
	}
	if m, err := c.cgroups(); err == nil {
		if frozen, err := m.Frozen(); err == nil && frozen {
			return "paused"
		}
	}
	return specs.StateRunning
}

// waiting reports whether the first process has not been started. The socket goes when Start is
// through; a Start that died before it could remove it is told apart by what the process executes.
func (c *Container) waiting() bool {
	if _, err := os.Lstat(filepath.Join(c.dir, socketName)); err != nil {
		return false
	}
	var st unix.Stat_t
	err := unix.Stat("/proc/"+strconv.Itoa(c.record.Pid)+"/exe", &st)
	return err == nil && (c.record.Init == 0 || st.Ino == c.record.Init)
}

func (c *Container) state(status specs.ContainerState) specs.State {
	s := specs.State{
		Version: specs.Version, ID: c.record.ID, Status: status, Bundle: c.record.Bundle, Annotations: c.record.Spec.Annotations,
	}
	if status != specs.StateStopped {
		s.Pid = c.record.Pid
	}
	return s
}

// State is the state of the specification (runtime.md, "State"); paused is one more status.
func (c *Container) State() (specs.State, error) {
	if _, err := os.Lstat(filepath.Join(c.dir, recordFile)); errors.Is(err, fs.ErrNotExist) {
		return specs.State{}, notFound(c.ID())
	}
	return c.state(c.status()), nil
}

// Kill sends a signal to the first process, or to all of the container. fault.Conflict when the
// container has stopped; with all that is no error as long as the cgroup can be reached.
func (c *Container) Kill(sig unix.Signal, all bool) error {
	if all && !c.record.NoCgroup {
		m, err := c.cgroups()
		if err != nil {
			return err
		}
		return m.Kill(sig)
	}
	if sig == unix.SIGKILL && c.sharesPids() && !c.record.NoCgroup {
		return c.killAll()
	}
	f, err := c.process()
	if err == nil {
		defer f.Close()
		err = linux.Signal(f, sig)
	}
	if errors.Is(err, os.ErrProcessDone) {
		return fault.New(fault.Conflict, "container %s is not running", c.ID())
	}
	return err
}

// sharesPids reports whether the container has no pid namespace of its own, with which the kernel would end all
// of its processes together with the first one (pid_namespaces(7)).
func (c *Container) sharesPids() bool {
	ns := namespace(c.record.Spec, specs.PIDNamespace)
	return ns == nil || ns.Path != ""
}

// killAll is SIGKILL for every process that is left, whether the first one is among them or not.
func (c *Container) killAll() error {
	m, err := c.cgroups()
	if err != nil {
		return err
	}
	pids, err := m.Pids()
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return fault.New(fault.Conflict, "container %s is not running", c.ID())
	}
	return m.Kill(unix.SIGKILL)
}

// defaultCgroup, before its id, is the cgroup of a container whose spec has no cgroupsPath. There is no
// parent for all, which would be seven directories more to make, and nobody's to remove.
const defaultCgroup = "/sampan-"

// killTimeout bounds the wait for processes that were killed: one in the kernel's hands (state D)
// goes when it can.
const killTimeout = 10 * time.Second

// Delete removes a container that has stopped, or with force any. fault.Conflict for one that runs. It is no error when
// it was removed meanwhile.
func (c *Container) Delete(ctx context.Context, force bool) error {
	dir, err := c.hold()
	if err != nil || dir == nil {
		return err
	}
	err = c.delete(ctx, force)
	dir.Close()
	if err == nil {
		c.runtime.log.Debug("deleted", "container", c.ID())
		c.afterDelete(context.WithoutCancel(ctx))
	}
	return err
}

func (c *Container) delete(ctx context.Context, force bool) error {
	if status := c.status(); status != specs.StateStopped {
		if !force {
			return fault.New(fault.Conflict, "cannot delete container %s that is not stopped: %s", c.ID(), status)
		}
		if err := c.end(ctx); err != nil {
			return err
		}
	}
	m, err := c.cgroups()
	if err != nil {
		return err
	}
	if c.record.Unit != nil || !m.DeleteEmpty() {
		// Without a pid namespace of its own, processes outlive the first one.
		if c.sharesPids() || force {
			if err := m.Kill(unix.SIGKILL); err != nil {
				return err
			}
		}
		c.leaveUnit(ctx)
		if err := m.Delete(); err != nil {
			return err
		}
	}
	return errors.Join(leaveRDT(resctrl, c.record.ID, c.record.Spec.Linux.IntelRdt), c.remove())
}

// end kills everything and waits for the first process.
func (c *Container) end(ctx context.Context) error {
	m, err := c.cgroups()
	if err != nil {
		return err
	}
	f, perr := c.process()
	if perr == nil {
		defer f.Close()
		linux.Signal(f, unix.SIGKILL) //nolint:errcheck // it may have ended
	}
	if err := m.Kill(unix.SIGKILL); err != nil {
		return err
	}
	if frozen, err := m.Frozen(); err == nil && frozen {
		// A frozen process of a v1 hierarchy dies when it is thawed.
		if err := m.Thaw(); err != nil {
			return err
		}
	}
	if perr != nil {
		return nil
	}
	for deadline := time.Now().Add(killTimeout); ; {
		poll := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 100)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for container %s: %w", c.ID(), err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for container %s: %w", c.ID(), context.Cause(ctx))
		}
		if time.Now().After(deadline) {
			return fault.New(fault.Unavailable, "container %s: process %d was killed and does not end", c.ID(), c.record.Pid)
		}
	}
}
