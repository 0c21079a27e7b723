package initproc

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
)

// In a user namespace (user_namespaces(7)) this process is root over less: what it cannot reach or may
// not do is asked of the parent (trees of mounts), or done in another way, which is found out by the
// kernel's refusal: so it also holds for a runtime that is itself inside of one.

// rootTree is the number by which the root filesystem is asked for.
const rootTree = -1

// fromParent asks for the detached tree of a mount of the spec, by its number, or for the root.
func (p *process) fromParent(number int) (*os.File, error) {
	if err := p.parent.send(kindTree, strconv.AppendInt(nil, int64(number), 10), nil); err != nil {
		return nil, err
	}
	kind, payload, err := p.parent.receive()
	if err != nil {
		return nil, fmt.Errorf("wait for a mount: %w", err)
	}
	tree := p.parent.in.Take()
	switch {
	case kind == kindTree && tree != nil:
		return tree, nil
	case kind == kindError:
		return nil, errors.New(string(payload))
	}
	return nil, fmt.Errorf("wait for a mount: got a message of kind %q", kind)
}

// bindRoot makes a plain bundle's root mount.
func (p *process) bindRoot() (*linux.Root, error) {
	bind := mount.Mount{Type: "bind", Source: p.Rootfs, Target: "/", Options: []string{"rbind"}}
	if !p.Trees {
		return mount.All(p.Rootfs, []mount.Mount{bind})
	}
	return p.treeRoot()
}

// treeRoot attaches the root that the parent has made.
func (p *process) treeRoot() (*linux.Root, error) {
	tree, err := p.fromParent(rootTree)
	if err != nil {
		return nil, err
	}
	host, err := linux.OpenRoot("/")
	if err != nil {
		tree.Close()
		return nil, err
	}
	defer host.Close()
	mnt, err := mount.Mount{Type: "bind", Target: treePlace(), Options: []string{"rbind"}}.AttachTree(host, tree)
	if err != nil {
		return nil, err
	}
	return linux.NewRoot(mnt), nil
}

// treePlace is where the root is attached: pivot_root(2) takes it from anywhere. Its own directory is
// one that this process may have no right to reach. Nothing in these is needed.
func treePlace() string {
	for _, place := range []string{"/mnt", "/srv", "/opt", "/media", "/home"} {
		var st unix.Stat_t
		if unix.Lstat(place, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return place
		}
	}
	return "/tmp"
}

// attach performs a mount of the spec, with the parent's help where it is needed.
func (p *process) attach(m specs.Mount, what mount.Mount, checks ...func(target *os.File) error) (*os.File, error) {
	_, _, foreign := OfProcess(m)
	if what.Type == "bind" && (p.Trees || idmapped(m) || foreign) {
		i := slices.IndexFunc(p.Spec.Mounts, func(o specs.Mount) bool {
			return o.Destination == m.Destination && o.Source == m.Source && slices.Equal(o.Options, m.Options)
		})
		tree, err := p.fromParent(i)
		if err != nil {
			return nil, err
		}
		return what.AttachTree(p.root, tree, checks...)
	}
	mnt, err := what.Attach(p.root, checks...)
	if err != nil && errors.Is(err, unix.EPERM) {
		if other, ok := p.instead(what); ok {
			return other.Attach(p.root, checks...)
		}
	}
	return mnt, err
}

// OfProcess is the process and the path in it that the source of a bind names, as /proc/PID/root/dev/shm:
// what is mounted in another mount namespace, which the parent must copy from there.
func OfProcess(m specs.Mount) (pid int, name string, ok bool) {
	rest, ok := strings.CutPrefix(m.Source, "/proc/")
	if !ok {
		return 0, "", false
	}
	number, name, ok := strings.Cut(rest, "/root/")
	pid, err := strconv.Atoi(number)
	return pid, "/" + name, ok && err == nil && pid > 0
}

// idmapped reports whether a mount of the spec has mapped ids.
func idmapped(m specs.Mount) bool {
	return len(m.UIDMappings)+len(m.GIDMappings) > 0 || slices.Contains(m.Options, "idmap") || slices.Contains(m.Options, "ridmap")
}

// instead is what a user namespace can mount in place of a filesystem that belongs to another: sysfs
// is that of the network namespace, and cgroup2 that of the cgroup namespace.
func (p *process) instead(m mount.Mount) (mount.Mount, bool) {
	switch m.Type {
	case "sysfs":
		m.Source = "/sys"
	case "cgroup2":
		m.Source = "/sys/fs/cgroup"
		if dir := p.CgroupMounts[""]; dir != "" {
			m.Source = dir
		}
	default:
		return m, false
	}
	// All that is mounted below comes along: parts of it cannot be uncovered.
	options := []string{"rbind"}
	for _, o := range m.Options {
		if o == "ro" {
			o = "rro"
		}
		if !strings.Contains(o, "=") {
			options = append(options, o)
		}
	}
	m.Type, m.Options = "bind", options
	return m, true
}

// bindDevice shows a device of the host, where no node can be made.
func (p *process) bindDevice(dir *os.File, name string, d specs.LinuxDevice, typ uint32, number uint64) error {
	mnt, err := hostDevice(d.Path, typ, number)
	if err != nil {
		return err
	}
	defer mnt.Close()
	// Never through what is there: it may be a link.
	if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("device %s: unlink: %w", d.Path, err)
	}
	if err := unix.Mknodat(int(dir.Fd()), name, unix.S_IFREG|0o666, 0); err != nil {
		return fmt.Errorf("device %s: make a file to bind it on: %w", d.Path, err)
	}
	at, err := linux.OpenAt(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer at.Close()
	return linux.MoveMount(mnt, at)
}

// hostDevice is a detached mount of the host's node of a device: that of the same name, or the one of
// its number.
func hostDevice(name string, typ uint32, number uint64) (*os.File, error) {
	kind := "char"
	if typ == unix.S_IFBLK {
		kind = "block"
	}
	byNumber := path.Join("/dev", kind, fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number)))
	for _, source := range []string{name, byNumber} {
		mnt, err := linux.CloneTree(nil, source, false)
		if err != nil {
			continue
		}
		st, err := linux.Fstat(mnt)
		if err == nil && st.Mode&unix.S_IFMT == typ && uint64(st.Rdev) == number { //nolint:unconvert // see same
			return mnt, nil
		}
		mnt.Close()
	}
	return nil, fault.New(fault.Forbidden, "device %s: nodes cannot be made here, and the host has none of number %d:%d at %s or %s: %w",
		name, unix.Major(number), unix.Minor(number), name, byNumber, unix.EPERM)
}

// existingProc is the procfs at /proc, for who may mount none: another one is only given to who sees
// all of one already, and the container's has masked parts. Files are then opened without crossing
// what is mounted over them (write).
func existingProc() (*os.File, error) {
	f, err := linux.OpenAt(nil, "/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	const rootInode = 1 // PROC_ROOT_INO
	proc, err := linux.IsFilesystem(f, unix.PROC_SUPER_MAGIC)
	if err == nil {
		var st unix.Stat_t
		if st, err = linux.Fstat(f); err == nil && (!proc || st.Ino != rootInode) {
			err = fmt.Errorf("/proc is not a procfs")
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// become sets the ids of the program's user. A namespace that one user made without help denies
// setgroups(2): then the groups stay those of that user.
func (p *process) become(user specs.User) error {
	err := linux.SetUser(user.UID, user.GID, user.AdditionalGids, true)
	if !errors.Is(err, unix.EPERM) || !setgroupsDenied() {
		return err
	}
	if len(user.AdditionalGids) > 0 {
		return fmt.Errorf("additionalGids: expected none, the user namespace cannot set groups: %w", err)
	}
	return linux.SetUser(user.UID, user.GID, nil, false)
}

// setgroupsDenied asks the kernel, not a file that the container could replace: an empty list is
// refused only for want of the right or by the namespace, and this process has the right.
func setgroupsDenied() bool {
	have, err := linux.Capabilities()
	if err != nil || have&(1<<unix.CAP_SETGID) == 0 {
		return false
	}
	_, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
	return e == unix.EPERM
}

// Tree opens the trees that a process in a user namespace asks for: of a mount of the spec by its
// number, or of the root filesystem.
type Tree func(number int, root bool) (*os.File, error)

// tree answers the question for a tree.
func (d *Dialogue) tree(payload []byte) error {
	number, err := strconv.Atoi(string(payload))
	if err == nil && d.Tree == nil {
		err = errors.New("no mount was expected to be asked for")
	}
	var f *os.File
	if err == nil {
		f, err = d.Tree(number, number == rootTree)
	}
	if err != nil {
		return d.c.send(kindError, []byte(err.Error()), nil)
	}
	defer f.Close()
	return d.c.send(kindTree, nil, f)
}
