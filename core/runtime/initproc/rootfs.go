package initproc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/runtime/hook"
)

// filesystem makes the container's tree of mounts and moves into it.
func (p *process) filesystem() error {
	if p.Made&unix.CLONE_NEWNS == 0 {
		if slices.ContainsFunc(p.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace }) {
			return p.joinedFilesystem()
		}
		return p.bareFilesystem()
	}
	propagation, err := propagationOf(p.Spec.Linux.RootfsPropagation)
	if err != nil {
		return err
	}
	if p.root, err = p.rootfs(); err != nil {
		return err
	}
	defer p.root.Close()
	for _, m := range p.Spec.Mounts {
		if err := p.mount(m); err != nil {
			return err
		}
	}
	if !p.ownDev() {
		if err := p.devices(); err != nil {
			return err
		}
	}
	if err := p.console(); err != nil {
		return err
	}
	if err := p.cwd(); err != nil {
		return err
	}
	if h := p.Spec.Hooks; h != nil && len(h.CreateContainer) > 0 {
		p.State.Pid = os.Getpid()
		// Such hooks expect the root filesystem to be their directory, as with runc, and have no other way to
		// it than the bundle's config.json.
		if err := unix.Fchdir(int(p.root.Dir().Fd())); err != nil {
			return fmt.Errorf("enter the root filesystem: %w", err)
		}
		if err := hook.Run(p.context(), "createContainer", h.CreateContainer, p.State); err != nil {
			return err
		}
	}
	if err := p.lock(); err != nil {
		return err
	}
	// Before /proc/sys is made read-only.
	if err := p.sysctls(); err != nil {
		return err
	}
	if err := p.conceal(); err != nil {
		return err
	}
	if p.Spec.Root.Readonly {
		if err := linux.SetMount(p.root.Dir(), &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}, false); err != nil {
			return fmt.Errorf("make the root filesystem read-only: %w", err)
		}
	}
	if err := p.pivot(); err != nil {
		return err
	}
	if propagation.Type == unix.MS_SHARED || propagation.Type == unix.MS_UNBINDABLE {
		return mount.Propagate("/", uintptr(propagation.Type))
	}
	return nil
}

// joinedFilesystem is for a mount namespace that somebody else has made: its root is the root.
func (p *process) joinedFilesystem() error {
	root, err := linux.OpenRoot("/")
	if err != nil {
		return err
	}
	p.root = root
	if err := p.console(); err != nil {
		return err
	}
	return p.sysctls()
}

// bareFilesystem is for a container without a mount namespace: the directory of its root, and no mount,
// which would be the host's.
func (p *process) bareFilesystem() error {
	if len(p.Spec.Mounts) > 0 {
		p.parent.warn("mounts: %d are left out, as the container has no mount namespace", len(p.Spec.Mounts))
	}
	if err := unix.Chroot(p.Rootfs); err != nil {
		return fmt.Errorf("root.path: %w", &fs.PathError{Op: "chroot", Path: p.Rootfs, Err: err})
	}
	return unix.Chdir("/")
}

// propagationOf is the rootfsPropagation of the spec; rslave is what a container has that says nothing.
func propagationOf(name string) (mount.Propagation, error) {
	if name == "" {
		name = "rslave"
	}
	o, err := mount.Mount{Type: "bind", Options: []string{name}}.ParseOptions()
	if err != nil || len(o.Propagation) != 1 {
		return mount.Propagation{}, &fault.Field{Field: "linux.rootfsPropagation", Given: name, Expected: "private, slave, shared or unbindable"}
	}
	return o.Propagation[0], nil
}

// separate makes sure that no mount made from here on shows on the host.
func (p *process) separate() error {
	if p.Made&unix.CLONE_NEWNS == 0 {
		return nil
	}
	propagation, err := propagationOf(p.Spec.Linux.RootfsPropagation)
	if err != nil {
		return err
	}
	switch propagation.Type {
	case unix.MS_SHARED:
		// Mounts inside are to be seen outside: everything stays as it is but the mount on which the
		// root is about to be attached, or the root itself would be seen too.
		at, err := mountPoint(p.place())
		if err != nil {
			return err
		}
		return mount.Propagate(at, unix.MS_PRIVATE)
	case unix.MS_SLAVE:
		return mount.Propagate("/", unix.MS_SLAVE|unix.MS_REC)
	default:
		return mount.Propagate("/", unix.MS_PRIVATE|unix.MS_REC)
	}
}

// mountPoint is the root of the mount that the directory is on.
func mountPoint(dir string) (string, error) {
	for {
		var st unix.Statx_t
		err := linux.Retry(func() error {
			return unix.Statx(unix.AT_FDCWD, dir, unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
		})
		if err != nil {
			return "", &fs.PathError{Op: "statx", Path: dir, Err: err}
		}
		if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 || dir == "/" {
			return dir, nil
		}
		dir = path.Dir(dir)
	}
}

// place is the directory that the root is mounted on.
func (p *process) place() string {
	if len(p.RootMounts) > 0 {
		return p.Place
	}
	if p.Trees {
		return treePlace()
	}
	return p.Rootfs
}

// rootfs makes the root mount and returns it.
func (p *process) rootfs() (*linux.Root, error) {
	if len(p.RootMounts) > 0 {
		if p.Trees && slices.ContainsFunc(p.RootMounts, func(m mount.Mount) bool { return m.Layers != "" }) {
			return p.treeRoot() // its ids are mapped, to which this process has no right
		}
		return mount.All(p.place(), p.RootMounts)
	}
	// A mount of its own, as pivot_root(2) demands, with all that is mounted below.
	root, err := p.bindRoot()
	if err != nil {
		return nil, fmt.Errorf("root.path: %w", err)
	}
	return root, nil
}

// ofTmpfs are options that specs give to bind mounts too, where mount(2) passes them over.
var ofTmpfs = []string{"mode", "size", "uid", "gid", "nr_inodes"}

// mount performs one mount of the spec.
func (p *process) mount(m specs.Mount) error {
	// A relative destination is deprecated in the specification, and means one below the root.
	target := path.Clean("/" + m.Destination)
	what := mount.Mount{Type: m.Type, Source: m.Source, Target: target, Options: m.Options}
	bind := slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
	if bind {
		what.Type = "bind"
		what.Options = slices.DeleteFunc(slices.Clone(m.Options), func(option string) bool {
			name, _, _ := strings.Cut(option, "=")
			return slices.Contains(ofTmpfs, name)
		})
	}
	what.Options = append(slices.Clone(what.Options), p.mountLabel(m.Type, bind)...)
	if err := allowed(what); err != nil {
		return err
	}
	switch {
	case m.Type == "cgroup":
		return p.cgroups(what)
	case bind:
		if !path.IsAbs(m.Source) {
			what.Source = path.Join(p.Bundle, m.Source)
		}
	case m.Type == "proc" || m.Type == "sysfs":
		// Before Attach follows it and makes what is missing.
		if err := p.plain(target, nil); err != nil {
			return err
		}
	}
	writable := p.stillWritten(&what)
	mnt, err := p.attach(m, what, outsideProc(what), p.straight(what))
	if err != nil {
		return err
	}
	if writable {
		p.late = append(p.late, mnt)
		return nil
	}
	if target == "/proc" {
		// A directory bound there would show the container a made up /proc (CVE-2019-16884).
		if proc, err := linux.IsFilesystem(mnt, unix.PROC_SUPER_MAGIC); err != nil || !proc {
			mnt.Close()
			return fault.New(fault.Invalid, "mounts: %s cannot be mounted on /proc, expected a procfs", what.Source)
		}
		if m.Type == "proc" && p.proc == nil && p.Made&unix.CLONE_NEWPID != 0 {
			p.proc = mnt
		}
		p.shown = mnt
		return nil
	}
	return mnt.Close()
}

// stillWritten takes "ro" away from a tmpfs, in which places of other mounts, devices and the console are yet to
// be made: lock makes it read-only.
func (p *process) stillWritten(m *mount.Mount) bool {
	o, err := m.ParseOptions()
	if m.Type != "tmpfs" || err != nil || o.Set&unix.MOUNT_ATTR_RDONLY == 0 {
		return false
	}
	m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(option string) bool { return option == "ro" })
	return true
}

// lock makes read-only what was to be so once everything is in it.
func (p *process) lock() error {
	for _, mnt := range p.late {
		err := linux.SetMount(mnt, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}, false)
		mnt.Close()
		if err != nil {
			return fmt.Errorf("make a tmpfs read-only: %w", err)
		}
	}
	p.late = nil
	return nil
}

// straight refuses another place for a procfs or sysfs than the directory whose path has no symlink:
// over one it would land where the image says, such as in a volume that another container changes at
// this moment, and leave what it hides open (CVE-2019-19921, CVE-2023-27561, CVE-2023-28642).
func (p *process) straight(m mount.Mount) func(target *os.File) error {
	return func(target *os.File) error {
		if m.Type != "proc" && m.Type != "sysfs" {
			return nil
		}
		return p.plain(m.Target, target)
	}
}

// plain checks that the path, when there is something, is a directory without a symlink on the way,
// and that it is the one opened, when there is one.
func (p *process) plain(target string, opened *os.File) error {
	f, err := p.root.OpenNoFollow(target, unix.O_PATH, 0)
	if errors.Is(err, fs.ErrNotExist) && opened == nil {
		return nil // Attach makes it
	}
	if err != nil {
		return fmt.Errorf("mount on %s: expected a directory that is no symlink: %w", target, err)
	}
	defer f.Close()
	if dir, err := linux.IsDir(f); err != nil || !dir {
		return fmt.Errorf("mount on %s: expected a directory: %w", target, errors.Join(err, unix.ENOTDIR))
	}
	if opened == nil {
		return nil
	}
	if same, err := linux.Same(f, opened); err != nil || !same {
		return fmt.Errorf("mount on %s: the directory was replaced meanwhile", target)
	}
	return nil
}

// belowProc are the places below /proc that may be mounted on: what lxcfs and its like replace.
// Anything else would let the container fake what this process writes to (CVE-2019-16884).
var belowProc = []string{
	"cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "sys/kernel/ns_last_pid",
	"sys/crypto/fips_enabled",
}

// allowed refuses a mount over or below /proc by its name.
func allowed(m mount.Mount) error {
	if below, ok := strings.CutPrefix(m.Target, "/proc/"); ok && !slices.Contains(belowProc, below) {
		return fault.New(fault.Invalid, "mounts: %s cannot be mounted on: it is inside /proc", m.Target)
	}
	if m.Target == "/proc" && m.Type != "proc" && m.Type != "bind" {
		return fault.New(fault.Invalid, "mounts: %q cannot be mounted on /proc, expected type proc", m.Type)
	}
	return nil
}

// outsideProc refuses a place that is in a procfs, though its name does not say so: a symlink of the
// image, or one that another container puts there at this moment. It looks at the file itself.
func outsideProc(m mount.Mount) func(target *os.File) error {
	return func(target *os.File) error {
		if m.Target == "/proc" || strings.HasPrefix(m.Target, "/proc/") {
			return nil // see allowed
		}
		proc, err := linux.IsFilesystem(target, unix.PROC_SUPER_MAGIC)
		if err == nil && proc {
			err = fault.New(fault.Invalid, "mounts: %s leads into /proc, which cannot be mounted on", m.Target)
		}
		return err
	}
}

// cgroups shows the container its own cgroups: on a host with one hierarchy that directory itself,
// else a directory of each hierarchy.
func (p *process) cgroups(m mount.Mount) error {
	options := slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return strings.Contains(o, "=") })
	show := func(source, target string) error {
		mnt, err := (mount.Mount{Type: "bind", Source: source, Target: target, Options: append([]string{"bind"}, options...)}).Attach(p.root)
		if err != nil {
			return err
		}
		return mnt.Close()
	}
	if p.Unified {
		if p.Made&unix.CLONE_NEWCGROUP != 0 || p.CgroupMounts[""] == "" {
			mnt, err := p.attach(specs.Mount{}, mount.Mount{Type: "cgroup2", Source: "cgroup", Target: m.Target, Options: options})
			if err != nil {
				return err
			}
			return mnt.Close()
		}
		return show(p.CgroupMounts[""], m.Target)
	}
	writable := slices.DeleteFunc(slices.Clone(options), func(o string) bool { return o == "ro" })
	top, err := (mount.Mount{Type: "tmpfs", Source: "tmpfs", Target: m.Target, Options: append(writable, "mode=755")}).Attach(p.root)
	if err != nil {
		return err
	}
	defer top.Close()
	for _, name := range sorted(p.CgroupMounts) {
		source := p.CgroupMounts[name]
		// Controllers that share a hierarchy, such as cpu,cpuacct, are one directory and links to it.
		at := name
		if strings.Contains(name, ",") {
			for one := range strings.SplitSeq(name, ",") {
				if err := unix.Symlinkat(name, int(top.Fd()), one); err != nil && !errors.Is(err, unix.EEXIST) {
					return &fs.PathError{Op: "symlink", Path: path.Join(m.Target, one), Err: err}
				}
			}
		}
		if err := show(source, path.Join(m.Target, at)); err != nil {
			return err
		}
	}
	if slices.Contains(options, "ro") {
		return linux.SetMount(top, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}, false)
	}
	return nil
}

func sorted(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// cwd makes the working directory of the program, as an image may name one that it does not have.
func (p *process) cwd() error {
	dir, err := p.root.MkdirAll(p.Spec.Process.Cwd, 0o755)
	if err != nil {
		return fmt.Errorf("process.cwd: %w", err)
	}
	return dir.Close()
}

// pivot makes the container's root the root of this process and of its mount namespace, and drops the
// host's.
func (p *process) pivot() error {
	if err := leaveChroot(); err != nil {
		return err
	}
	if p.NoPivot {
		return p.moveRoot()
	}
	host, err := linux.OpenAt(nil, "/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer host.Close()
	if err := unix.Fchdir(int(p.root.Dir().Fd())); err != nil {
		return fmt.Errorf("enter the root filesystem: %w", err)
	}
	// With the same directory twice the old root ends up on top of the new one, and no directory for
	// it is needed inside (pivot_root(2), NOTES).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	// The unmount must not reach the host where the old root is shared. From inside it, as mount(2) would
	// take "." in the new root for that, and take away the propagation that its mounts were given.
	if err := unix.Fchdir(int(host.Fd())); err != nil {
		return fmt.Errorf("enter the old root: %w", err)
	}
	if err := unix.Mount("", ".", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("separate the old root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter /: %w", err)
	}
	return nil
}

// leaveChroot goes to the root of the mount namespace. When the engine itself runs in a chroot,
// pivot_root(2) would only swap what is mounted there: the host's root would stay below, in reach of
// a container that may call chroot(2), and setns(2) would take an exec to it.
func leaveChroot() error {
	// setns(2) moves a thread that shares its root with no other.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	self, err := linux.PidFD(os.Getpid())
	if err != nil {
		return err
	}
	defer self.Close()
	if err := unix.Setns(int(self.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the root of the mount namespace: %w", err)
	}
	return nil
}
