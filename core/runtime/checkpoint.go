package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/runtime/criu"
)

// A checkpoint is a directory of CRIU's images, and beside them
//
//	descriptors.json   what the first process had as descriptors 0 to 2, as runc writes it: a restore
//	                   puts its own in the place of pipes and of files from outside of the container; such
//	                   a file CRIU lets nothing replace but one of the same type and permissions
//	submounts.json     the mounts below recursive bind mounts, when there are any; see checkpoint_mounts.go
//	dump.log           CRIU's log, here or in the work directory; of a restore restore.log

const (
	descriptorsFile = "descriptors.json"
	submountsFile   = "submounts.json"
	dumpLog         = "dump.log"
	restoreLog      = "restore.log"
)

// ImageOptions are those that a checkpoint and its restore share. What they mean is CRIU's (criu(8)).
type ImageOptions struct {
	ImagePath      string // directory of the images
	WorkPath       string // of the log; "": ImagePath
	TCPEstablished bool
	ExtUnixSk      bool
	ShellJob       bool
	FileLocks      bool
	AutoDedup      bool
	LazyPages      bool
	CgroupsMode    string   // soft, full, strict or ignore; "" is soft
	EmptyNS        []string // namespaces of which nothing is kept: "network", which is so anyhow
}

// CheckpointOptions say how a container is written to disk.
type CheckpointOptions struct {
	ImageOptions
	ParentPath      string // of an earlier pre-dump, relative to ImagePath
	LeaveRunning    bool
	PreDump         bool   // its memory alone; it goes on
	PageServer      string // ADDRESS:PORT
	TCPSkipInFlight bool
	LinkRemap       bool
	Status          *os.File // is written a zero byte when the page server of LazyPages is ready, and closed
}

// Checkpoint writes the container's processes to disk and ends them, unless they are to go on. The container
// is to be deleted then. After an error it goes on as before; it cannot be interrupted, as CRIU works inside of
// the processes, but when its pages are waited for (LazyPages). The container must be running or paused.
func (c *Container) Checkpoint(ctx context.Context, o CheckpointOptions) (err error) {
	if status := c.status(); status != specs.StateRunning && status != "paused" {
		return fault.New(fault.Conflict, "container %s cannot be checkpointed in %s state", c.ID(), status)
	}
	if err := restorable(c.record.Spec, c.record.Agent != nil); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	call := &criu.Call{Kind: criu.Dump, Options: criu.Options{
		Log: dumpLog, ConfigFile: configFile(c.record.Spec), Pid: c.record.Pid, LeaveRunning: o.LeaveRunning,
		LinkRemap: o.LinkRemap, TCPSkipInFlight: o.TCPSkipInFlight, Parent: o.ParentPath, TrackMemory: o.ParentPath != "" || o.PreDump,
	}}
	server, err := o.pageServer()
	if err != nil {
		return err
	}
	call.Options.PageServer = server
	program, err := criu.Find(ctx)
	if err != nil {
		return err
	}
	if err := o.available(ctx, program); err != nil {
		return err
	}
	mode := os.FileMode(0o700)
	if c.record.Namespaces&unix.CLONE_NEWUSER != 0 {
		mode = 0o711 // see reachable
	}
	done, err := o.open(&call.Options, mode)
	if err != nil {
		return err
	}
	defer done()
	if err := o.checkParent(); err != nil {
		return err
	}
	if o.PreDump {
		call.Kind = criu.PreDump
	} else if err := c.describe(o.ImagePath, &call.Options); err != nil {
		return err
	}
	if err := c.freezer(&call.Options); err != nil {
		return err
	}
	var serving atomic.Bool
	call.MayKill = serving.Load
	call.Notify = func(n criu.Notification) error {
		if n.File != nil {
			n.File.Close()
		}
		if n.Step == "status-ready" && o.Status != nil {
			serving.Store(true)
			if _, err := o.Status.Write([]byte{0}); err != nil {
				c.warn(fmt.Sprintf("--status-fd: %v", err))
			}
			return o.Status.Close()
		}
		return nil
	}
	if _, err := program.Do(ctx, call); err != nil {
		return o.explain("checkpoint", c.ID(), dumpLog, err)
	}
	return nil
}

// restorable reports what a container has that CRIU cannot bring back.
func restorable(s *specs.Spec, agent bool) error {
	if os.Geteuid() != 0 {
		return fault.New(fault.NotImplemented, "checkpoint and restore by user %d are not implemented, expected root", os.Geteuid())
	}
	if agent {
		return fault.New(fault.NotImplemented, "linux.seccomp.listenerPath: CRIU cannot restore a filter that asks an agent")
	}
	own := false
	for _, n := range s.Linux.Namespaces {
		switch {
		case n.Type == specs.MountNamespace && n.Path == "":
			own = true
		case n.Path == "":
		case n.Type == specs.MountNamespace, n.Type == specs.CgroupNamespace, n.Type == specs.TimeNamespace:
			return fault.New(fault.NotImplemented, "linux.namespaces: CRIU cannot restore a container into a %s namespace that exists: %s", n.Type, n.Path)
		}
	}
	if !own {
		return fault.New(fault.NotImplemented, "linux.namespaces: a container without a mount namespace of its own cannot be checkpointed")
	}
	for _, m := range s.Mounts {
		mapped := func(option string) bool { return option == "idmap" || option == "ridmap" }
		if len(m.UIDMappings)+len(m.GIDMappings) > 0 || slices.ContainsFunc(m.Options, mapped) {
			return fault.New(fault.NotImplemented, "mounts: %s has mapped ids, which CRIU cannot restore", m.Destination)
		}
	}
	return nil
}

// check reads what is only text.
func (o *ImageOptions) check() error {
	if o.ImagePath == "" {
		return &fault.Field{Field: "--image-path", Given: "", Expected: "the directory of the checkpoint"}
	}
	if !criu.CgroupMode(o.CgroupsMode).Known() {
		return &fault.Field{Field: "--manage-cgroups-mode", Given: o.CgroupsMode, Expected: "soft, full, strict or ignore"}
	}
	for _, ns := range o.EmptyNS {
		if ns != string(specs.NetworkNamespace) {
			return &fault.Field{Field: "--empty-ns", Given: ns, Expected: "network, which is the only one"}
		}
	}
	return nil
}

// pageServer reads ADDRESS:PORT.
func (o *CheckpointOptions) pageServer() (*criu.PageServer, error) {
	if o.PageServer == "" {
		return nil, nil
	}
	address, text, err := net.SplitHostPort(o.PageServer)
	port, perr := strconv.ParseUint(text, 10, 16)
	if err != nil || perr != nil || address == "" || port == 0 {
		return nil, &fault.Field{Field: "--page-server", Given: o.PageServer, Expected: "ADDRESS:PORT"}
	}
	return &criu.PageServer{Address: address, Port: uint16(port)}, nil
}

// available asks whether kernel and CRIU can do what only some can.
func (o *CheckpointOptions) available(ctx context.Context, p *criu.Program) error {
	if !o.PreDump && o.ParentPath == "" && !o.LazyPages {
		return nil
	}
	f, err := p.Features(ctx)
	if err != nil {
		return err
	}
	switch {
	case o.PreDump && !f.MemoryTracking:
		return fault.New(fault.Unavailable, "--pre-dump: this kernel does not track changes of memory (CONFIG_MEM_SOFT_DIRTY)")
	case o.ParentPath != "" && !f.MemoryTracking:
		return fault.New(fault.Unavailable, "--parent-path: this kernel does not track changes of memory (CONFIG_MEM_SOFT_DIRTY)")
	case o.LazyPages && !f.LazyPages:
		return fault.New(fault.Unavailable, "--lazy-pages: this kernel or CRIU cannot serve pages later (userfaultfd)")
	}
	return nil
}

// reachable reports when a container with a user namespace could not be restored: its processes look for
// their images when they are users of that namespace already, and root's files are not theirs.
func (o *ImageOptions) reachable(s *specs.Spec) error {
	if namespaceSet(s)&unix.CLONE_NEWUSER == 0 {
		return nil
	}
	st, err := os.Stat(o.ImagePath)
	if err == nil && st.Mode()&0o001 == 0 {
		err = fault.New(fault.Invalid, "--image-path %s: mode %04o, expected search permission for others (0711), as the container has a user namespace", o.ImagePath, st.Mode().Perm())
	}
	return err
}

// open opens the directories and sets the options that both verbs have. That of the images is made with the
// mode; 0: it is there.
func (o *ImageOptions) open(to *criu.Options, mode os.FileMode) (done func(), err error) {
	dir := func(option, path string, mode os.FileMode) (*os.File, error) {
		if mode != 0 {
			if err := os.MkdirAll(path, mode); err != nil {
				return nil, fmt.Errorf("%s: %w", option, err)
			}
		}
		f, err := linux.OpenAt(nil, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, fault.New(fault.Invalid, "%s: %w", option, err)
		}
		return f, nil
	}
	done = func() {
		for _, f := range []*os.File{to.Images, to.Work} {
			if f != nil {
				f.Close()
			}
		}
	}
	if to.Images, err = dir("--image-path", o.ImagePath, mode); err != nil {
		return nil, err
	}
	if o.WorkPath != "" {
		if to.Work, err = dir("--work-path", o.WorkPath, 0o700); err != nil {
			done()
			return nil, err
		}
	}
	// What a log of before says is not about this time.
	if err := os.Remove(o.log(to.Log)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		done()
		return nil, err
	}
	to.TCPEstablished, to.ExtUnixSk, to.ShellJob, to.FileLocks = o.TCPEstablished, o.ExtUnixSk, o.ShellJob, o.FileLocks
	to.AutoDedup, to.LazyPages, to.CgroupMode = o.AutoDedup, o.LazyPages, criu.CgroupMode(o.CgroupsMode)
	// Devices and addresses of a network namespace are made by who made them first, such as a hook.
	to.EmptyNetwork = true
	to.OrphanPTSMaster = true // the terminal's, which is held outside
	return done, nil
}

// reopen opens the directories once more, for CRIU in another mount namespace: it mounts things below them,
// which is possible in one's own namespace alone.
func (o *ImageOptions) reopen(to *criu.Options) error {
	for path, f := range map[string]**os.File{o.ImagePath: &to.Images, o.WorkPath: &to.Work} {
		if *f == nil {
			continue
		}
		again, err := linux.OpenAt(nil, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		(*f).Close()
		*f = again
	}
	return nil
}

func (o *ImageOptions) log(name string) string {
	dir := o.ImagePath
	if o.WorkPath != "" {
		dir = o.WorkPath
	}
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return filepath.Join(dir, name)
}

// explain makes one line of what CRIU says and where it says more.
func (o *ImageOptions) explain(verb, id, name string, err error) error {
	log := o.log(name)
	if _, serr := os.Stat(log); serr != nil {
		return fmt.Errorf("%s of container %s: %w", verb, id, err)
	}
	if cause := criu.Cause(log); cause != "" && !fault.Is(err, fault.Canceled) && !isHook(err) {
		err = fault.New(fault.Internal, "%s", cause)
	}
	return fmt.Errorf("%s of container %s: %w (log: %s)", verb, id, err, log)
}

// checkParent looks for the images of a pre-dump, in runc's words where they are looked for.
func (o *CheckpointOptions) checkParent() error {
	if o.ParentPath == "" {
		return nil
	}
	if filepath.IsAbs(o.ParentPath) {
		return &fault.Field{Field: "--parent-path", Given: o.ParentPath, Expected: "a path relative to --image-path"}
	}
	st, err := os.Stat(filepath.Join(o.ImagePath, o.ParentPath))
	if err == nil && !st.IsDir() {
		err = unix.ENOTDIR
	}
	if err != nil {
		return fault.New(fault.Invalid, "--parent-path %s: %w", o.ParentPath, err)
	}
	return nil
}

// configFile is CRIU's own file of settings for this container, as runc names it: that of the annotation,
// which may be none, or one for all.
func configFile(s *specs.Spec) string {
	if name, ok := s.Annotations["org.criu.config"]; ok {
		return name
	}
	return "/etc/criu/runc.conf"
}

// freezer lets CRIU stop the processes by the cgroup: what they fork meanwhile is stopped too.
func (c *Container) freezer(o *criu.Options) error {
	m, err := c.cgroups()
	if err != nil {
		return err
	}
	controller := "freezer"
	if m.Unified() {
		controller = ""
	}
	o.FreezeCgroup = m.Paths()[controller]
	return nil
}
