package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/runtime/criu"
	"github.com/sampan-project/sampan/core/runtime/hook"
)

// RestoreOptions describe a container that is made from a checkpoint. Its spec says what is around the
// processes: root filesystem, mounts of the host, cgroup and limits, namespaces that exist, hooks. What
// the processes are is in the images alone.
type RestoreOptions struct {
	CreateOptions
	ImageOptions
	LSMProfile      string // TYPE:LABEL in place of the one in the images
	LSMMountContext string // SELinux context in place of those of the mounts
}

// Restore makes a container from a checkpoint. It is running then, and its first process is a child of
// the caller. After an error nothing is left.
func (r *Runtime) Restore(ctx context.Context, id string, o RestoreOptions) (_ *Container, err error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if err := o.valid(); err != nil {
		return nil, err
	}
	if o.Bundle, err = filepath.Abs(o.Bundle); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	filter, err := compileFilter(o.Spec.Linux.Seccomp)
	if err != nil {
		return nil, err
	}
	if err := restorable(o.Spec, filter != nil && filter.Notify); err != nil {
		return nil, err
	}
	call := &criu.Call{Kind: criu.Restore, Options: criu.Options{Log: restoreLog, ConfigFile: configFile(o.Spec)}}
	program, err := criu.Find(ctx)
	if err != nil {
		return nil, err
	}
	done, err := o.open(&call.Options, 0)
	if err != nil {
		return nil, err
	}
	defer done()
	c := r.describe(id, o.CreateOptions, filter)
	defer func() {
		if err != nil {
			err = errors.Join(err, c.discard())
		}
	}()
	if err = c.reserve(filter); err != nil {
		return nil, err
	}
	if err = c.makeCgroup(o.Spec.Linux.Resources, cgroup.Options{Clamp: o.ClampDefaults, Logger: r.log}); err != nil {
		return nil, err
	}
	if err = (&restoring{c: c, o: &o, call: call}).run(ctx, program); err != nil {
		return nil, err
	}
	c.cgroup.Release()
	return c, nil
}

// valid checks the spec and the images.
func (o *RestoreOptions) valid() error {
	if err := validate(o.Spec, len(o.RootMounts) > 0); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	if len(o.Spec.Linux.NetDevices) > 0 && networkPath(o.Spec) == "" {
		return fault.New(fault.NotImplemented, "linux.netDevices: devices are not moved into a network namespace that a restore makes, expected one with a path")
	}
	if len(o.ExtraFiles) > 0 {
		return fault.New(fault.NotImplemented, "a restore passes no further files on to the container, %d given", len(o.ExtraFiles))
	}
	if o.NetNS != nil {
		return fault.New(fault.NotImplemented, "a restore takes the network namespace of the spec's path alone")
	}
	if _, err := os.Stat(filepath.Join(o.ImagePath, "inventory.img")); err != nil {
		return fault.New(fault.Invalid, "--image-path %s: expected the images of a checkpoint: %w", o.ImagePath, err)
	}
	return o.reachable(o.Spec)
}

func networkPath(s *specs.Spec) string {
	for _, n := range s.Linux.Namespaces {
		if n.Type == specs.NetworkNamespace {
			return n.Path
		}
	}
	return ""
}

// restoring is the state of one restore.
type restoring struct {
	c      *Container
	o      *RestoreOptions
	call   *criu.Call
	opened []*os.File
	whole  atomic.Bool // CRIU has restored everything
}

func (r *restoring) run(ctx context.Context, p *criu.Program) (err error) {
	defer func() {
		for _, f := range r.opened {
			f.Close()
		}
	}()
	to := &r.call.Options
	to.RestoreSibling, to.EvasiveDevices = true, true
	to.LSMProfile, to.LSMMountContext = r.o.LSMProfile, r.o.LSMMountContext
	for option, given := range map[string]string{"--lsm-profile": r.o.LSMProfile, "--lsm-mount-context": r.o.LSMMountContext} {
		if given != "" {
			if err := p.Require(option, 31600); err != nil {
				return err
			}
		}
	}
	if err := r.mounts(); err != nil {
		return err
	}
	if err := r.namespaces(); err != nil {
		return err
	}
	if err := r.streams(); err != nil {
		return err
	}
	r.call.Thread = r.separately
	r.call.Started = r.enterCgroup
	r.call.Notify = func(n criu.Notification) error { return r.step(ctx, n) }
	// What it has made by then is in the container's cgroup, and goes with it. Once it is whole, the
	// processes are let go, and it is too late.
	r.call.MayKill = func() bool { return !r.whole.Load() }
	if _, err := p.Do(ctx, r.call); err != nil {
		return r.o.explain("restore", r.c.ID(), restoreLog, err)
	}
	if r.c.record.Pid == 0 || r.c.pidfd == nil {
		return fault.New(fault.Internal, "restore of container %s: CRIU has named no process", r.c.ID())
	}
	return nil
}

// enterCgroup moves CRIU into the container's cgroup, where the processes are then born, and says that this
// is what takes the place of the cgroup in the images.
func (r *restoring) enterCgroup(pid int, o *criu.Options) error {
	if err := r.c.cgroup.Add(pid); err != nil {
		return err
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		// cgroups(7): hierarchy-ID:controller-list:path
		if part := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(part) == 3 {
			for controller := range strings.SplitSeq(part[1], ",") {
				o.CgroupRoots = append(o.CgroupRoots, criu.Pair{Key: controller, Value: part[2]})
			}
		}
	}
	return nil
}

// step is what is done when CRIU has come to a step.
func (r *restoring) step(ctx context.Context, n criu.Notification) error {
	if n.Step == "orphan-pts-master" {
		if r.c.console != nil || n.File == nil {
			return fault.New(fault.Internal, "restore of container %s: expected one terminal", r.c.ID())
		}
		r.c.console = n.File
		return nil
	}
	if n.File != nil {
		n.File.Close()
	}
	switch n.Step {
	case "setup-namespaces":
		if err := r.born(n.Pid); err != nil {
			return err
		}
		return r.setup(ctx)
	case "post-restore":
		if err := r.born(n.Pid); err != nil {
			return err
		}
		r.whole.Store(true)
		return r.restored()
	}
	return nil
}

// born takes the first process down, as soon as there is one: whatever happens, somebody can end it.
func (r *restoring) born(pid int) (err error) {
	c := r.c
	if pid <= 0 || c.record.Pid == pid {
		return nil
	}
	c.record.Pid = pid
	if c.pidfd != nil {
		c.pidfd.Close()
	}
	if c.pidfd, err = linux.PidFD(pid); err != nil {
		return err
	}
	if c.record.StartTime, _, err = linux.StartTime(pid); err != nil {
		return err
	}
	return c.save()
}

// setup does what is due when the namespaces are there and nothing is in them: the hooks of this time.
func (r *restoring) setup(ctx context.Context) error {
	c := r.c
	if c.record.Namespaces&unix.CLONE_NEWNET != 0 && networkPath(c.record.Spec) == "" {
		if err := loopbackUp(c.record.Pid); err != nil {
			return err
		}
	}
	if err := joinRDT(resctrl, c.record.ID, c.record.Spec.Linux.IntelRdt, c.record.Pid); err != nil {
		return err
	}
	h := c.record.Spec.Hooks
	if h == nil {
		return nil
	}
	state := c.state(specs.StateCreating)
	err := hook.Run(ctx, "prestart", h.Prestart, state) //nolint:staticcheck // deprecated and still used
	if err == nil {
		err = hook.Run(ctx, "createRuntime", h.CreateRuntime, state)
	}
	if err != nil {
		return &hookError{err}
	}
	return nil
}

// hookError tells the failure of a hook from one of CRIU's.
type hookError struct{ error }

func (e *hookError) Unwrap() error { return e.error }

func isHook(err error) bool {
	var h *hookError
	return errors.As(err, &h)
}

// restored completes the record.
func (r *restoring) restored() error {
	c := r.c
	c.record.Created = time.Now().UTC()
	// CRIU keeps the clocks' course by a time namespace, where the kernel has them.
	same, err := sameNamespace(c.record.Pid, "time")
	if err != nil {
		return err
	}
	if !same {
		c.record.Namespaces |= unix.CLONE_NEWTIME
	}
	return c.save()
}

// sameNamespace reports whether a process and this one are in one namespace of a kind.
func sameNamespace(pid int, kind string) (bool, error) {
	ours, err := os.Readlink("/proc/thread-self/ns/" + kind)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil // a kernel without
	}
	if err != nil {
		return false, err
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	return ours == theirs, err
}

// loopbackUp sets the loopback device of a new network namespace going, as Create does: an empty one has
// it down.
func loopbackUp(pid int) error {
	ns, err := linux.OpenAt(nil, fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer ns.Close()
	return linux.OnThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace of process %d: %w", pid, err)
		}
		socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		defer unix.Close(socket)
		device, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		device.SetUint16(unix.IFF_UP)
		if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, device); err != nil {
			return fmt.Errorf("loopback device: %w", err)
		}
		return nil
	})
}

// namespaces hands over those that exist.
func (r *restoring) namespaces() error {
	for _, n := range r.o.Spec.Linux.Namespaces {
		if n.Path == "" {
			continue
		}
		names, ok := outerNamespaces[n.Type]
		if !ok {
			r.call.Options.Namespaces = append(r.call.Options.Namespaces, criu.Pair{Key: string(n.Type), Value: n.Path})
			continue
		}
		f, err := linux.OpenAt(nil, n.Path, unix.O_RDONLY, 0)
		if err != nil {
			return fmt.Errorf("linux.namespaces: %s: %w", n.Type, err)
		}
		r.inherit(names[1], f)
	}
	return nil
}

// inherit gives CRIU a file for a name.
func (r *restoring) inherit(key string, f *os.File) {
	r.opened = append(r.opened, f)
	r.call.Options.InheritFiles = append(r.call.Options.InheritFiles, criu.Pair{Key: key, Number: criu.FirstFile + len(r.call.Files)})
	r.call.Files = append(r.call.Files, f)
}

// maxDescription bounds the files that a checkpoint has beside CRIU's.
const maxDescription = 1 << 20

func readImage(dir, name string, into any) error {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxDescription+1))
	if err == nil && len(data) > maxDescription {
		err = fmt.Errorf("more than %d bytes", maxDescription)
	}
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return fault.New(fault.Invalid, "--image-path: %s: %w", name, err)
	}
	return nil
}

// streams puts the caller's in the place of those that the first process had from outside.
func (r *restoring) streams() error {
	r.call.Stdin, r.call.Stdout, r.call.Stderr = r.o.Stdin, r.o.Stdout, r.o.Stderr
	if r.o.Spec.Process.Terminal {
		r.call.Stdin, r.call.Stdout, r.call.Stderr = nil, nil, nil
	}
	var list []string
	if err := readImage(r.o.ImagePath, descriptorsFile, &list); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for fd, name := range list {
		if fd < 3 && (strings.HasPrefix(name, "pipe:") || strings.HasPrefix(name, "file[")) {
			r.call.Options.InheritFiles = append(r.call.Options.InheritFiles, criu.Pair{Key: name, Number: fd})
		}
	}
	return nil
}

// hostNode is the host's node of a device: that of the same name, or the one of its number.
func hostNode(d specs.LinuxDevice) string {
	var st unix.Stat_t
	number := unix.Mkdev(uint32(d.Major), uint32(d.Minor))          //nolint:gosec // validated
	if unix.Stat(d.Path, &st) == nil && uint64(st.Rdev) == number { //nolint:unconvert // its type differs between architectures
		return d.Path
	}
	kind := "char"
	if d.Type == "b" {
		kind = "block"
	}
	return fmt.Sprintf("/dev/%s/%d:%d", kind, d.Major, d.Minor)
}

// mounts says what of the host is mounted where.
func (r *restoring) mounts() error {
	to := &r.call.Options
	add := func(name, source string) { to.Mounts = append(to.Mounts, criu.Pair{Key: name, Value: source}) }
	for _, m := range r.o.Spec.Mounts {
		at := path.Clean("/" + m.Destination)
		switch {
		case isBind(m):
			add(at, source(m, r.o.Bundle))
		case m.Type == "cgroup":
			for name, dir := range cgroupMounts(r.c.cgroup) {
				add(path.Join(at, name), dir)
			}
		}
	}
	for _, device := range devicesOf(r.o.Spec) {
		add(device.Path, hostNode(device))
	}
	var below []string
	if err := readImage(r.o.ImagePath, submountsFile, &below); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	trees := recursive(r.o.Spec, r.o.Bundle)
	for _, name := range below {
		for _, t := range trees {
			if rest, ok := strings.CutPrefix(name, strings.TrimSuffix(t.name, "/")+"/"); ok {
				add(name, path.Join(t.source, rest))
				break
			}
		}
	}
	return nil
}
