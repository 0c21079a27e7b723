package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/runtime/hook"
	"github.com/sampan-project/sampan/core/runtime/initproc"
)

// Create makes a container up to the point where Start lets its program run. After an error nothing
// is left. The id of a container that exists is fault.Exists.
func (r *Runtime) Create(ctx context.Context, id string, o CreateOptions) (_ *Container, err error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if r.options.Init == nil {
		return nil, fault.New(fault.Internal, "create container %s: the runtime has no init program", id)
	}
	if err := validate(o.Spec, len(o.RootMounts) > 0); err != nil {
		return nil, err
	}
	if err := validateNetDevices(o.Spec, o.NetNS != nil); err != nil {
		return nil, err
	}
	if o.Bundle, err = filepath.Abs(o.Bundle); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	filter, err := compileFilter(o.Spec.Linux.Seccomp)
	if err != nil {
		return nil, err
	}
	c := r.describe(id, o, filter)
	if c.recorded() {
		return nil, taken(id) // reserve would find out too, with a process started in vain
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.discard())
		}
	}()
	limits := cgroup.Options{Clamp: o.ClampDefaults, Logger: r.log}
	if r.options.SystemdCgroup || o.SystemdCgroup {
		defer c.hangUp()
		o.begun()
		o.lasting()
		if err = c.reserve(filter); err == nil {
			err = c.prepareUnit(ctx, limits)
		}
	} else {
		var now *specs.LinuxResources
		now, c.record.FewPids = withoutFewPids(o.Spec.Linux.Resources)
		o.StartNext = o.StartNext && c.record.FewPids == nil
		c.grouping = func() error { return c.makeCgroup(now, limits) }
		if cgroup.UnifiedMounted() {
			o.lasting()
			if err = c.reserve(filter); err == nil {
				err = c.group()
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if err = c.launch(ctx, o, filter); err != nil {
		return nil, err
	}
	if err = c.limitPids(); err != nil {
		return nil, err
	}
	c.cgroup.Release()
	r.log.Debug("created", "container", id, "pid", c.Pid(), "cgroup", c.record.Cgroup)
	return c, nil
}

// begun calls Begun the first time.
func (o *CreateOptions) begun() {
	if o.Begun != nil {
		o.Begun()
		o.Begun = nil
	}
}

// lasting calls Lasting.
func (o *CreateOptions) lasting() {
	if o.Lasting != nil {
		o.Lasting()
	}
}

// group makes the cgroups, when there is still something to be done for them.
func (c *Container) group() error {
	if c.grouping == nil {
		return nil
	}
	err := c.grouping()
	c.grouping = nil
	if err != nil {
		return err
	}
	return c.delegate()
}

// fewPids is more threads than the init has. It is a Go program, of whose threads all but one go with execve(2).
const fewPids = 32

// withoutFewPids takes a limit of processes that the init would not fit into out of the limits.
func withoutFewPids(r *specs.LinuxResources) (now *specs.LinuxResources, later *int64) {
	if r == nil || r.Pids == nil || r.Pids.Limit == nil || *r.Pids.Limit < 0 || *r.Pids.Limit >= fewPids {
		return r, nil
	}
	rest := *r
	rest.Pids = nil
	return &rest, r.Pids.Limit
}

// limitPids sets a limit that was taken out, when the init has its threads and before the container's program is there:
// at the end of Create, or before the start of a container whose creation was cut off just then.
func (c *Container) limitPids() error {
	limit := c.record.FewPids
	if limit == nil {
		return nil
	}
	if !c.record.NoCgroup {
		m, err := c.cgroups()
		if err != nil {
			return err
		}
		if err := m.Set(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: limit}}); err != nil {
			return err
		}
	}
	c.record.FewPids = nil
	return c.save()
}

// describe is the container as it is to be; nothing of it is made yet.
func (r *Runtime) describe(id string, o CreateOptions, filter *initproc.Filter) *Container {
	spec := *o.Spec
	linux := *spec.Linux
	linux.Seccomp = nil
	spec.Linux = &linux
	if spec.Root == nil {
		spec.Root = &specs.Root{}
	}
	c := &Container{runtime: r, dir: filepath.Join(r.options.Root, id), record: record{
		ID: id, Bundle: o.Bundle, Created: time.Now().UTC(), Spec: &spec, Namespaces: namespaceSet(&spec), Cgroup: linux.CgroupsPath,
		Agent: agentOf(o.Spec.Linux.Seccomp, filter), KeepKeyring: o.NoNewKeyring,
	}}
	if c.record.Cgroup == "" {
		c.record.Cgroup = defaultPath(id)
	}
	if o.NetNS != nil {
		c.record.Namespaces |= unix.CLONE_NEWNET
	}
	return c
}

// reserve makes the container's directory with its record.
func (c *Container) reserve(filter *initproc.Filter) error {
	if err := os.MkdirAll(filepath.Dir(c.dir), 0o711); err != nil {
		return fmt.Errorf("root: %w", err)
	}
	if err := os.Mkdir(c.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("root: %w", err)
	}
	dir, err := c.claim()
	if err != nil {
		return err
	}
	defer dir.Close()
	c.reserved = true
	if err := c.saveFilter(filter); err != nil {
		return err
	}
	return c.save()
}

func (c *Container) saveFilter(filter *initproc.Filter) error {
	if filter == nil {
		return nil
	}
	c.record.Filter = &filter.Flags
	return os.WriteFile(filepath.Join(c.dir, seccompFile), filter.Program, 0o600)
}

// discard removes a container whose making failed.
func (c *Container) discard() error {
	var errs []error
	if c.pidfd != nil {
		linux.Signal(c.pidfd, unix.SIGKILL) //nolint:errcheck // it may have ended
		linux.Wait(c.pidfd)                 //nolint:errcheck // it is our child
		c.pidfd.Close()
		c.pidfd = nil
	}
	for _, f := range []*os.File{c.console, c.call} {
		if f != nil {
			f.Close()
		}
	}
	if c.cgroup != nil {
		defer c.cgroup.Release()
	}
	if !c.reserved { // the directory is another container's
		return nil
	}
	dir, err := c.hold()
	if dir == nil {
		return err // it was deleted meanwhile
	}
	defer dir.Close()
	if c.cgroup != nil && !c.record.NoCgroup { // else there is none, or it is another's
		errs = append(errs, c.cgroup.Kill(unix.SIGKILL))
		c.leaveUnit(context.Background())
		errs = append(errs, c.cgroup.Delete())
	}
	return errors.Join(append(errs, leaveRDT(resctrl, c.record.ID, c.record.Spec.Linux.IntelRdt), c.remove())...)
}

// launch starts the first process and sees it through the making of the container.
func (c *Container) launch(ctx context.Context, o CreateOptions, filter *initproc.Filter) (err error) {
	spawn, made, done, err := c.spawn(o)
	if err != nil {
		return err
	}
	defer done()
	ours, theirs, err := linux.Socketpair()
	if err != nil {
		return err
	}
	defer ours.Close()
	defer theirs.Close()
	spawn.Files = append(append(spawn.Files, theirs), o.ExtraFiles...)

	if c.grouping != nil {
		go cgroup.Survey() // while this thread waits for the kernel
	}
	child, err := spawn.Start()
	if err != nil {
		return err
	}
	theirs.Close()
	c.pidfd = child.PidFD
	c.record.Pid = child.Pid
	if c.record.StartTime, _, err = linux.StartTime(child.Pid); err != nil {
		return err
	}
	if st, err := linux.Fstat(spawn.Program); err == nil {
		c.record.Init = st.Ino
	}
	if c.reserved {
		err = c.save()
	} else {
		o.lasting()
		// Written once, and with the process in it: a file that takes another one's place is written to the disk at once
		// (ext4(5), auto_da_alloc). The process ends by itself when there is nobody to talk with any more.
		err = c.reserve(filter)
	}
	if err != nil {
		return err
	}
	files, err := c.handOver()
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if made&unix.CLONE_NEWTIME != 0 {
		if err := checkClock(child.Pid); err != nil {
			return err
		}
	}
	c.giveStreams(child.Pid, o.Spec.Process.User, o.Stdin, o.Stdout, o.Stderr)
	if err := joinRDT(resctrl, c.record.ID, c.record.Spec.Linux.IntelRdt, child.Pid); err != nil {
		return err
	}
	devices, err := moveNetDevices(child.Pid, c.record.Spec.Linux.NetDevices)
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			devices.Close()
		} else {
			err = errors.Join(err, devices.Back())
		}
	}()
	config := &initproc.Config{
		Spec: c.record.Spec, Bundle: o.Bundle, RootMounts: o.RootMounts, Place: c.dir, Made: made, Filter: filter, Extra: len(o.ExtraFiles),
		Clamp: o.ClampDefaults, State: c.state(specs.StateCreating), CgroupMounts: cgroupMounts(c.cgroup), Unified: c.cgroup.Unified(),
	}
	config.NoNewKeyring, config.NoPivot = o.NoNewKeyring, o.NoPivot
	if config.Scored, err = c.score(child.Pid, spawn.Program, o.Spec.Process, o.ClampDefaults); err != nil {
		return err
	}
	config.OwnCgroup = made&unix.CLONE_NEWCGROUP != 0 && spawn.Unshare&unix.CLONE_NEWCGROUP == 0
	if path := c.record.Spec.Root.Path; filepath.IsAbs(path) {
		config.Rootfs = path
	} else {
		config.Rootfs = filepath.Join(o.Bundle, path)
	}
	d := initproc.NewDialogue(ours)
	d.Warn = c.warn
	config.Trees = asksForTrees(c.record.Spec)
	d.Tree = c.trees(child.Pid, c.record.Spec, config.Rootfs, o.RootMounts)
	if config.Trees && len(o.RootMounts) > 0 {
		// Root of the user namespace mounts them there, and cannot read what is inside.
		if err := os.Chmod(c.dir, 0o711); err != nil {
			return err
		}
	}
	if h := c.record.Spec.Hooks; h != nil && len(h.Prestart)+len(h.CreateRuntime) > 0 { //nolint:staticcheck // deprecated and still used
		config.Hooks = true
		d.Hooks = func() error {
			state := c.state(specs.StateCreating)
			if err := hook.Run(ctx, "prestart", h.Prestart, state); err != nil { //nolint:staticcheck // deprecated and still used
				return err
			}
			return hook.Run(ctx, "createRuntime", h.CreateRuntime, state)
		}
	}
	return c.converse(ctx, child, func() error {
		if err := d.Send(config, files...); err != nil && !errors.Is(err, unix.EPIPE) {
			return err
		}
		o.begun()
		// After it: what the caller does to be there when the program runs is done.
		if o.StartNext {
			if err := c.callAhead(); err != nil {
				return err
			}
		}
		err := d.Created()
		c.console = d.Console
		return err
	})
}

// converse talks with a process that is killed when the context ends first.
func (c *Container) converse(ctx context.Context, child linux.Child, talk func() error) error {
	ended, err := until(ctx, talk, func() { linux.Signal(child.PidFD, unix.SIGKILL) }) //nolint:errcheck // it may have ended
	if ended {
		return fmt.Errorf("container %s: %w", c.record.ID, context.Cause(ctx))
	}
	return err
}

// until talks, and cuts the talk short when the context ends first. When it returns, cut has returned or is never
// called: what it uses can be closed.
func until(ctx context.Context, talk func() error, cut func()) (ended bool, err error) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(done); cut() })
	err = talk()
	if stop() {
		return false, err
	}
	<-done
	return true, err
}

func (c *Container) warn(text string) { c.runtime.log.Warn(text, "container", c.record.ID) }

// initEnv is the environment of the init: it lives for some milliseconds, so it needs neither a
// garbage collector nor more than one processor.
var initEnv = []string{"GOGC=off", "GOMAXPROCS=1"}

// spawn describes the first process. made are the namespaces that are made and not joined.
func (c *Container) spawn(o CreateOptions) (s *linux.Spawn, made uint64, done func(), err error) {
	var opened []*os.File
	closeAll := func() { // and not done, which an error takes away
		for _, f := range opened {
			f.Close()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	s = &linux.Spawn{Args: []string{"sampan-runtime", initproc.Verb}, Env: initEnv}
	for _, at := range order() {
		n := namespaces[at]
		i := slices.IndexFunc(o.Spec.Linux.Namespaces, func(of specs.LinuxNamespace) bool { return of.Type == n.name })
		switch {
		case n.flag == unix.CLONE_NEWNET && o.NetNS != nil:
			s.Join = append(s.Join, linux.Join{File: o.NetNS, Type: int(n.flag)})
		case i < 0:
		case o.Spec.Linux.Namespaces[i].Path != "":
			f, err := linux.OpenAt(nil, o.Spec.Linux.Namespaces[i].Path, unix.O_RDONLY, 0)
			if err != nil {
				return nil, 0, nil, fmt.Errorf("linux.namespaces: %s: %w", n.name, err)
			}
			opened = append(opened, f)
			s.Join = append(s.Join, linux.Join{File: f, Type: int(n.flag)})
			s.Fork = s.Fork || n.flag == unix.CLONE_NEWPID
		default:
			made |= n.flag
		}
	}
	// The cgroup namespace begins where the process is when it makes it: after it has joined.
	s.Flags = made &^ unix.CLONE_NEWCGROUP
	if c.grouping == nil {
		s.Unshare = int(made & unix.CLONE_NEWCGROUP)
	}
	c.userSpawn(s, o.Spec, made)
	if s.Program, err = c.runtime.initFor(s); err != nil {
		return nil, 0, nil, err
	}
	files, err := c.place(s)
	opened = append(opened, files...)
	if err != nil {
		return nil, 0, nil, err
	}
	files, err = streams(s, o.Spec.Process.Terminal, o.Stdin, o.Stdout, o.Stderr)
	opened = append(opened, files...)
	return s, made, closeAll, err
}

// handOver are the files that come along with the configuration: the socket on which Start calls, then what joins
// the cgroups.
func (c *Container) handOver() ([]*os.File, error) {
	dir, err := linux.OpenAt(nil, c.dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	listener, err := linux.Listen(dir, socketName, 1)
	if err != nil {
		return nil, err
	}
	joins, err := c.joins()
	if err != nil {
		listener.Close()
		return nil, err
	}
	return append([]*os.File{listener}, joins...), nil
}

// callAhead makes the call of Start. The first process hears it when it has come that far.
func (c *Container) callAhead() error {
	dir, err := linux.OpenAt(nil, c.dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	c.call, err = linux.Connect(dir, socketName)
	return err
}

// joins makes the cgroups that the first process has not begun in, and opens what it joins them through.
func (c *Container) joins() ([]*os.File, error) {
	if c.grouping == nil {
		return nil, nil
	}
	if err := c.group(); err != nil || c.record.NoCgroup {
		return nil, err
	}
	return c.cgroup.Joins()
}

// place lets the process begin in the container's cgroups.
func (c *Container) place(s *linux.Spawn) (opened []*os.File, err error) {
	if c.record.NoCgroup || c.grouping != nil {
		return nil, nil
	}
	if c.placing != nil {
		s.Place = c.placing
		return nil, nil
	}
	if s.Cgroup, err = c.cgroup.FD(); err != nil {
		return nil, err
	}
	if s.Cgroup != nil {
		opened = append(opened, s.Cgroup)
	}
	s.Tasks, err = c.cgroup.Tasks()
	return append(opened, s.Tasks...), err
}

// streams are the first three files.
func streams(s *linux.Spawn, terminal bool, files ...*os.File) (opened []*os.File, err error) {
	var null *os.File
	for _, f := range files {
		if terminal || f == nil {
			if null == nil {
				if null, err = linux.OpenAt(nil, os.DevNull, unix.O_RDWR, 0); err != nil {
					return nil, err
				}
				opened = append(opened, null)
			}
			f = null
		}
		s.Files = append(s.Files, f)
	}
	return opened, nil
}

// cgroupMounts are the container's cgroups as /sys/fs/cgroup shows them: hierarchies that have
// several controllers by the names of all.
func cgroupMounts(m *cgroup.Manager) map[string]string {
	paths := m.Paths()
	byDir := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(paths)) {
		byDir[paths[name]] = append(byDir[paths[name]], strings.TrimPrefix(name, "name="))
	}
	mounts := map[string]string{}
	for dir, names := range byDir {
		name := strings.Join(names, ",")
		if name == "" && !m.Unified() {
			name = "unified"
		}
		mounts[name] = dir
	}
	return mounts
}
