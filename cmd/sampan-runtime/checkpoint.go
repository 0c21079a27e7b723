package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/runtime"
)

// defaultImages is where a checkpoint goes and comes from when nobody says otherwise.
const defaultImages = "checkpoint"

// imageFlags are the options that checkpoint and restore share.
func imageFlags(f *pflag.FlagSet, o *runtime.ImageOptions) {
	f.StringVar(&o.ImagePath, "image-path", defaultImages, "directory of the checkpoint")
	f.StringVar(&o.WorkPath, "work-path", "", "directory for CRIU's log and working files (default: --image-path)")
	f.BoolVar(&o.TCPEstablished, "tcp-established", false, "allow connected TCP sockets")
	f.BoolVar(&o.ExtUnixSk, "ext-unix-sk", false, "allow unix sockets that are connected to the outside")
	f.BoolVar(&o.ShellJob, "shell-job", false, "allow processes that belong to the session of a shell outside")
	f.BoolVar(&o.FileLocks, "file-locks", false, "allow file locks")
	f.StringVar(&o.CgroupsMode, "manage-cgroups-mode", "", "what CRIU does with cgroups below the container's: soft, full, strict or ignore (default soft)")
	f.StringArrayVar(&o.EmptyNS, "empty-ns", nil, "namespace of which nothing is kept: network, which is always so")
	f.BoolVar(&o.AutoDedup, "auto-dedup", false, "keep each page of memory in one image alone")
	f.BoolVar(&o.LazyPages, "lazy-pages", false, "move pages of memory when they are asked for (userfaultfd)")
}

func checkpointFlags(p *program, f *pflag.FlagSet) action {
	var o runtime.CheckpointOptions
	imageFlags(f, &o.ImageOptions)
	f.StringVar(&o.ParentPath, "parent-path", "", "directory of an earlier pre-dump, relative to --image-path")
	f.BoolVar(&o.LeaveRunning, "leave-running", false, "let the container go on")
	f.BoolVar(&o.TCPSkipInFlight, "tcp-skip-in-flight", false, "leave out TCP connections that are being made")
	f.BoolVar(&o.LinkRemap, "link-remap", false, "give open files that were unlinked a name meanwhile")
	f.StringVar(&o.PageServer, "page-server", "", "ADDRESS:PORT of the page server")
	f.BoolVar(&o.PreDump, "pre-dump", false, "write the memory alone and let the container go on")
	status := f.Int("status-fd", -1, "file that is written a zero byte when the page server of --lazy-pages is ready")
	return func(args []string) error {
		ctx, stop := interruptible()
		defer stop()
		c, err := p.load(args[0])
		if err != nil {
			return err
		}
		if o.Status, err = statusFile(*status); err != nil {
			return err
		}
		if err := c.Checkpoint(ctx, o); err != nil || o.LeaveRunning || o.PreDump {
			return err
		}
		if err := c.Delete(context.WithoutCancel(ctx), true); err != nil {
			return fmt.Errorf("the checkpoint is whole, and the container could not be deleted: %w", err)
		}
		p.forget(c.ID())
		return nil
	}
}

// statusFile is the file of --status-fd.
func statusFile(fd int) (*os.File, error) {
	if fd == -1 {
		return nil, nil
	}
	flags, err := unix.FcntlInt(uintptr(max(fd, 0)), unix.F_GETFL, 0) //nolint:gosec // not negative
	switch {
	case fd < 0 || err != nil:
		return nil, &fault.Field{Field: "--status-fd", Given: fmt.Sprint(fd), Expected: "an open file"}
	case flags&unix.O_ACCMODE == unix.O_RDONLY:
		return nil, &fault.Field{Field: "--status-fd", Given: fmt.Sprint(fd), Expected: "a file that is open for writing"}
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "--status-fd"), nil
}

func restoreFlags(p *program, f *pflag.FlagSet) action {
	var o runtime.RestoreOptions
	var c creation
	imageFlags(f, &o.ImageOptions)
	f.StringVarP(&c.bundle, "bundle", "b", "", "the bundle's directory (default: the working directory)")
	f.StringVar(&c.consoleSocket, "console-socket", "", "unix socket that is sent the master of the container's terminal")
	f.StringVar(&c.pidFile, "pid-file", "", "file that the process ID is written to")
	f.StringVar(&o.LSMProfile, "lsm-profile", "", "TYPE:LABEL in place of the label in the checkpoint; TYPE is apparmor or selinux")
	f.StringVar(&o.LSMMountContext, "lsm-mount-context", "", "SELinux context in place of those of the mounts in the checkpoint")
	detach := f.BoolP("detach", "d", false, "leave the container running and return")
	noSubreaper := f.Bool("no-subreaper", false, "do not become the parent of processes that lose theirs")
	f.Bool("no-pivot", false, "taken for runc's sake, without effect: CRIU makes the root filesystem")
	return func(args []string) error {
		return p.restore(args[0], &c, &o, *detach, !*noSubreaper)
	}
}

func (p *program) restore(id string, b *creation, o *runtime.RestoreOptions, detach, subreaper bool) error {
	ctx, stop := interruptible()
	defer stop()
	spec, err := b.spec()
	if err != nil {
		return err
	}
	if err := checkConsole(spec.Process, b.consoleSocket, detach); err != nil {
		return err
	}
	if err := p.notification(id).addTo(spec); err != nil {
		return err
	}
	if !detach && subreaper {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("become subreaper: %w", err)
		}
	}
	o.Spec = spec
	// The processes go on before CRIU says so: what is sent from then on is for them.
	late := make(chan os.Signal, 8)
	signal.Notify(late, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(late)
	container, err := p.restored(ctx, id, b, o)
	if err != nil {
		return err
	}
	defer container.Close() //nolint:errcheck // handles that were only read from
	if detach {
		return nil
	}
	relay, err := newForeground(foregroundSignals(), container.Console(), container.Pid(), container.PidFD())
	stop()
	if err != nil {
		return errors.Join(err, container.Delete(context.Background(), true))
	}
	signal.Stop(late)
	for len(late) > 0 {
		relay.handle(<-late)
	}
	code, err := relay.wait()
	if err == nil {
		err = container.Delete(context.Background(), true)
		p.forget(id)
	}
	if err != nil {
		return err
	}
	return &exitStatus{code: code}
}

// restored restores a container, hands its terminal over and writes its pid file. After an error it is gone.
func (p *program) restored(ctx context.Context, id string, b *creation, o *runtime.RestoreOptions) (*runtime.Container, error) {
	r, err := p.runtime(false)
	if err != nil {
		return nil, err
	}
	if o.Bundle = b.bundle; o.Bundle == "" {
		if o.Bundle, err = os.Getwd(); err != nil {
			return nil, err
		}
	}
	o.Stdin, o.Stdout, o.Stderr = os.Stdin, os.Stdout, os.Stderr
	c, err := r.Restore(ctx, id, *o)
	if fault.Is(err, fault.Exists) {
		return nil, fault.New(fault.Exists, "container with given ID already exists")
	}
	if err != nil {
		p.forget(id)
		return nil, err
	}
	if b.consoleSocket != "" {
		err = sendConsole(b.consoleSocket, c.Console())
	}
	if err == nil {
		err = writePid(b.pidFile, c.Pid())
	}
	if err != nil {
		return nil, errors.Join(err, c.Delete(context.WithoutCancel(ctx), true), c.Close())
	}
	return c, nil
}
