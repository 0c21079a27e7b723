package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/runtime"
)

// keepExecs is how many exec processes that have ended are remembered per container, when nobody
// deletes them. A health check makes thousands.
const keepExecs = 128

// container is one container from Create to Delete.
type container struct {
	id      string
	adopted bool
	alone   bool // it has a pid namespace of its own, with whose init all of its processes end (pid_namespaces(7))
	oci     ociContainer
	init    *process

	// life is held by Start and Delete, and by the announcement of the end, so that a container that
	// ends while Start still runs is told to be started first. Kill does not take it.
	life     sync.Mutex
	deleting bool
	vacated  atomic.Bool // it is about to be deleted, and is not shown any more

	mu         sync.Mutex // of the fields below
	netns      *os.File
	hold       []*os.File
	forwarders []*forwarder // of the hold of the same index, or nil
	started    time.Time
	paused     bool
	execs      []*execution // in the order of their beginning
	oom        atomic.Bool
}

// execution is an exec process of a container.
type execution struct {
	id      string
	started time.Time
	*process
}

// create makes a container. The files are kept by it when it succeeds.
func create(ctx context.Context, rt oci, o monitor.Config) (_ *container, err error) {
	if o.Spec == nil || o.Spec.Process == nil {
		return nil, fault.New(fault.Invalid, "create container %s: the spec has no process", o.ID)
	}
	log, err := openLog(o.Log)
	if err != nil {
		return nil, err
	}
	terminal := o.Spec.Process.Terminal
	p, theirs, err := newProcess(terminal, o.OpenStdin, o.StdinOnce && !terminal, log)
	if err != nil {
		if log != nil {
			_ = log.Close() // nothing was written
		}
		return nil, err
	}
	defer theirs.close() // the process has its own, and only that must be left: the last one's close is our EOF
	defer func() {
		if err != nil {
			p.closeStreams()
		}
	}()
	forwarders, err := forwardAll(o.Hold, o.Forward)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			closeForwarders(forwarders)
		}
	}()
	oc, err := rt.Create(ctx, o.ID, runtime.CreateOptions{
		Bundle: o.Bundle, Spec: o.Spec, RootMounts: o.RootMounts, NetNS: o.NetNS,
		Stdin: theirs.stdin, Stdout: theirs.stdout, Stderr: theirs.stderr,
		ClampDefaults: o.ClampDefaults, SystemdCgroup: o.SystemdCgroup,
	})
	if err != nil {
		return nil, err
	}
	c := &container{id: o.ID, alone: ownPids(o.Spec), oci: oc, init: p, netns: o.NetNS, hold: o.Hold, forwarders: forwarders}
	height, width := consoleSize(o.Spec.Process, o.ConsoleHeight, o.ConsoleWidth)
	if err := p.take(oc, height, width); err != nil {
		abandon(oc.Pid())
		return nil, errors.Join(err, oc.Delete(context.WithoutCancel(ctx), true), oc.Close())
	}
	p.run()
	return c, nil
}

func ownPids(s *specs.Spec) bool {
	return s.Linux != nil && slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.PIDNamespace && n.Path == ""
	})
}

func consoleSize(p *specs.Process, height, width uint16) (uint16, uint16) {
	if height == 0 && width == 0 && p.ConsoleSize != nil {
		return uint16(p.ConsoleSize.Height), uint16(p.ConsoleSize.Width)
	}
	return height, width
}

// close closes what Delete must close: what others may want. The life lock is held.
func (c *container) close() {
	c.mu.Lock()
	netns, forwarders, hold := c.netns, c.forwarders, c.hold
	c.netns, c.forwarders, c.hold = nil, nil, nil
	c.mu.Unlock()
	if netns != nil {
		netns.Close()
	}
	closeForwarders(forwarders)
	closeAll(hold)
}

// ended reports whether the init has ended and its log is complete.
func (c *container) ended() bool { return isClosed(c.init.exited) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (c *container) start(ctx context.Context) error {
	c.life.Lock()
	defer c.life.Unlock()
	c.mu.Lock()
	started := !c.started.IsZero()
	c.mu.Unlock()
	switch {
	case c.deleting:
		return notFound(c.id)
	case started:
		return fault.New(fault.Conflict, "container %s is already started", c.id)
	case c.ended():
		return fault.New(fault.Conflict, "container %s has ended before it was started", c.id)
	}
	at := time.Now()
	if err := c.oci.Start(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	c.started = at
	c.mu.Unlock()
	return nil
}

// run attaches to a container that was just created, and starts it.
func (c *container) run(ctx context.Context, attach []monitor.AttachConfig) (streams []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(streams)
		}
	}()
	for _, a := range attach {
		f, err := c.init.attach(a)
		if err != nil {
			return streams, err
		}
		streams = append(streams, f)
	}
	return streams, c.start(ctx)
}

func (c *container) kill(sig unix.Signal, all bool) error {
	if c.ended() && !all {
		return fault.New(fault.Conflict, "container %s is not running", c.id)
	}
	return c.oci.Kill(sig, all)
}

// killExec sends a signal to an exec process; to one that has ended it is no error.
func (c *container) killExec(id string, sig unix.Signal) error {
	p, err := c.process(id)
	if err != nil {
		return err
	}
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	closed := raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if closed != nil || errors.Is(sent, unix.ESRCH) {
		return nil //nolint:nilerr // its end was seen
	}
	return sent
}

// delete removes the container from the kernel and from the runtime's state. It may be called again
// when it failed.
func (c *container) delete(ctx context.Context, force bool) error {
	if err := c.over(ctx, force); err != nil {
		return err
	}
	c.life.Lock()
	defer c.life.Unlock()
	if c.deleting {
		return notFound(c.id)
	}
	if err := c.oci.Delete(context.WithoutCancel(ctx), force); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	c.deleting = true
	c.close()
	c.oci.Close() //nolint:errcheck // only descriptors
	return nil
}

// vacate does what delete has to do for others: that there is no process, and that ports and names are free.
func (c *container) vacate(ctx context.Context, force bool) error {
	if err := c.over(ctx, force); err != nil {
		return err
	}
	c.life.Lock()
	defer c.life.Unlock()
	if c.deleting {
		return notFound(c.id)
	}
	c.vacated.Store(true)
	c.close()
	return nil
}

// over makes sure that the container has ended.
func (c *container) over(ctx context.Context, force bool) error {
	switch {
	case c.ended():
		return nil
	case !force:
		return fault.New(fault.Conflict, "container %s is running: stop it before removing it, or use force", c.id)
	}
	return c.end(ctx)
}

// end kills every process of the container and waits for its end. It takes no lock, so that a Start
// that hangs can be ended by it.
func (c *container) end(ctx context.Context) error {
	err := c.oci.Kill(unix.SIGKILL, true)
	c.mu.Lock()
	paused := c.paused
	c.mu.Unlock()
	if paused { // a frozen process dies when it is thawed (cgroup v1)
		err = errors.Join(err, c.oci.Resume(ctx))
	}
	if err != nil && !c.ended() {
		// An init that has ended by itself just now is an error for Kill, and none for us.
		select {
		case <-c.init.exited:
		case <-time.After(time.Second):
			return fmt.Errorf("kill container %s: %w", c.id, err)
		}
	}
	select {
	case <-c.init.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kill container %s: %w", c.id, context.Cause(ctx))
	}
}

func (c *container) setPaused(ctx context.Context, pause bool) error {
	c.mu.Lock()
	paused := c.paused
	c.mu.Unlock()
	switch {
	case c.ended() || c.state() == monitor.Created:
		return fault.New(fault.Conflict, "container %s is not running", c.id)
	case pause && paused:
		return fault.New(fault.Conflict, "container %s is already paused", c.id)
	case !pause && !paused:
		return fault.New(fault.Conflict, "container %s is not paused", c.id)
	}
	do := c.oci.Resume
	if pause {
		do = c.oci.Pause
	}
	if err := do(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	c.paused = pause
	c.mu.Unlock()
	return nil
}

// exec starts a process in the container. With attach its stream is returned.
func (c *container) exec(ctx context.Context, o monitor.ExecArgs) (e *execution, client *os.File, err error) {
	if o.Process == nil {
		return nil, nil, fault.New(fault.Invalid, "exec in container %s: no process is given", c.id)
	}
	if c.ended() || c.state() == monitor.Created {
		return nil, nil, fault.New(fault.Conflict, "container %s is not running", c.id)
	}
	p, theirs, err := newProcess(o.Process.Terminal, o.OpenStdin, !o.Process.Terminal, nil)
	if err != nil {
		return nil, nil, err
	}
	defer theirs.close()
	defer func() {
		if err != nil {
			p.closeStreams()
		}
	}()
	op, err := c.oci.Exec(ctx, runtime.ExecOptions{
		Process: o.Process, Stdin: theirs.stdin, Stdout: theirs.stdout, Stderr: theirs.stderr, ClampDefaults: o.ClampDefaults,
	})
	if err != nil {
		return nil, nil, err
	}
	if f := op.PidFD(); f != nil {
		defer f.Close()
	}
	height, width := consoleSize(o.Process, o.ConsoleHeight, o.ConsoleWidth)
	err = p.take(op, height, width)
	if err == nil && o.Attach != nil {
		client, err = p.attach(*o.Attach)
	}
	if err != nil {
		abandon(op.Pid())
		if p.pidfd != nil {
			p.pidfd.Close()
		}
		return nil, nil, err
	}
	p.run() // after the client is attached: it gets the first byte
	return &execution{id: o.ID, started: time.Now(), process: p}, client, nil
}

// add remembers an exec process and forgets the oldest of those that have ended when there are too
// many.
func (c *container) add(e *execution) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.execs = append(c.execs, e)
	ended := 0
	for _, o := range c.execs {
		if isClosed(o.exited) {
			ended++
		}
	}
	if ended > keepExecs {
		oldest := slices.IndexFunc(c.execs, func(o *execution) bool { return isClosed(o.exited) })
		c.execs = slices.Delete(c.execs, oldest, oldest+1)
	}
}

// deleteExec forgets an exec process that has ended.
func (c *container) deleteExec(id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.execs, func(o *execution) bool { return o.id == id })
	switch {
	case i < 0:
		return fault.New(fault.NotFound, "No such exec instance: %s", id)
	case !isClosed(c.execs[i].exited):
		return fault.New(fault.Conflict, "exec process %s is running", id)
	}
	c.execs = slices.Delete(c.execs, i, i+1)
	return nil
}

// process returns the init, or the exec process of that id.
func (c *container) process(execID string) (*process, error) {
	if execID == "" {
		return c.init, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.execs {
		if e.id == execID {
			return e.process, nil
		}
	}
	return nil, fault.New(fault.NotFound, "No such exec instance: %s", execID)
}

func (c *container) state() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stateLocked()
}

func (c *container) stateLocked() string {
	switch {
	case c.ended():
		return monitor.Stopped
	case c.started.IsZero():
		return monitor.Created
	case c.paused:
		return monitor.Paused
	}
	return monitor.Running
}

// status tells what clients may know.
func (c *container) status() monitor.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := monitor.Status{
		ID: c.id, Pid: c.init.pid, State: c.stateLocked(), StartedAt: c.started,
		Terminal: c.init.terminal, OOM: c.oom.Load(), Adopted: c.adopted,
	}
	if c.netns != nil {
		s.Netns = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), c.netns.Fd())
	}
	if c.ended() {
		s.Exit = &c.init.exit
	}
	for _, e := range c.execs {
		s.Execs = append(s.Execs, e.status(c.id))
	}
	return s
}

func (e *execution) status(container string) monitor.Status {
	s := monitor.Status{ID: container, ExecID: e.id, Pid: e.pid, State: monitor.Running, StartedAt: e.started, Terminal: e.terminal}
	if isClosed(e.exited) {
		s.State, s.Exit = monitor.Stopped, &e.exit
	}
	return s
}

func notFound(id string) error { return fault.New(fault.NotFound, "No such container: %s", id) }
