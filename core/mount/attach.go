package mount

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// All performs mounts in order below a directory of the calling thread's mount namespace, and
// returns the root that results: the directory itself, or what was mounted on it.
func All(dir string, mounts []Mount) (_ *linux.Root, err error) {
	root, err := linux.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if root, err = m.attachTo(root); err != nil {
			return nil, err
		}
	}
	return root, nil
}

// attachTo is Attach for a mount that may be the root itself. It closes root when it fails.
func (m Mount) attachTo(root *linux.Root) (*linux.Root, error) {
	mnt, err := m.Attach(root)
	if err != nil {
		root.Close()
		return nil, err
	}
	if m.Target != "/" {
		mnt.Close()
		return root, nil
	}
	root.Close()
	return linux.NewRoot(mnt), nil
}

// Attach performs the mount in the root and returns a handle of the mount's own root directory or
// file. The place is resolved without leaving the root, and made when nothing is there. The mount
// has all its attributes before anybody can see it, and it lands on exactly the file that was
// resolved: a symlink that is put in its way in between changes nothing (CVE-2021-30465).
//
// The checks are asked about the very file that is mounted on, and any of them may refuse it.
func (m Mount) Attach(root *linux.Root, checks ...func(target *os.File) error) (*os.File, error) {
	return m.attach(root, nil, checks)
}

func (m Mount) attach(root *linux.Root, tree *os.File, checks []func(target *os.File) error) (*os.File, error) {
	o, err := m.ParseOptions()
	if err == nil && tree == nil && o.IDMap {
		err = fault.New(fault.NotImplemented, "mount on %s: ids can be mapped on bind mounts of a container alone", m.Target)
	}
	if err != nil {
		if tree != nil {
			tree.Close()
		}
		return nil, err
	}
	mnt, target, err := m.prepare(root, tree, &o)
	if target != nil {
		defer target.Close()
	}
	if err != nil {
		return nil, m.wrap(err)
	}
	for _, check := range checks {
		if err := check(target); err != nil {
			mnt.Close()
			return nil, err
		}
	}
	if err := o.set(mnt); err != nil {
		mnt.Close()
		return nil, m.wrap(err)
	}
	if err := linux.MoveMount(mnt, target); err != nil {
		mnt.Close()
		return nil, m.wrap(err)
	}
	// Propagation last: attaching to a shared mount makes the mount shared, whatever it was.
	if err := o.propagate(mnt); err != nil {
		mnt.Close()
		return nil, m.wrap(err)
	}
	return mnt, nil
}

func (m Mount) wrap(err error) error {
	if err == nil {
		return nil
	}
	what := m.Type
	if m.Source != "" && m.Source != m.Type {
		what += " " + m.Source
	}
	return fmt.Errorf("mount %s on %s: %w", what, m.Target, err)
}

// prepare makes a detached mount and opens its place.
func (m Mount) prepare(root *linux.Root, tree *os.File, o *Options) (mnt, target *os.File, err error) {
	if o.Bind {
		return m.prepareBind(root, tree, o)
	}
	// A directory that is there has a mode that the tmpfs takes over; for one that is made it has its own.
	target, err = root.Open(m.Target, unix.O_PATH|unix.O_DIRECTORY, 0)
	there := err == nil
	if !there {
		target, err = root.MkdirAll(m.Target, 0o755)
	}
	if err != nil {
		return nil, nil, err
	}
	if o.CopyUp && m.Type != "tmpfs" {
		return nil, target, &fault.Field{Field: "option tmpcopyup", Given: m.Type, Expected: "a mount of type tmpfs"}
	}
	if m.Type == "tmpfs" && there {
		o.keepMode(target)
	}
	if mnt, err = m.filesystem(o); err != nil || !o.CopyUp {
		return mnt, target, err
	}
	if err := copyUp(target, mnt); err != nil {
		mnt.Close()
		return nil, target, err
	}
	return mnt, target, nil
}

func (m Mount) prepareBind(root *linux.Root, tree *os.File, o *Options) (mnt, target *os.File, err error) {
	mnt = tree
	switch {
	case tree != nil:
	case m.Source == "":
		return nil, nil, &fault.Field{Field: "source", Given: "", Expected: "the path of a file or directory to bind"}
	default:
		if mnt, err = linux.CloneTree(nil, m.Source, o.Recursive); err != nil {
			return nil, nil, err
		}
	}
	dir, err := linux.IsDir(mnt)
	if err == nil {
		if dir {
			target, err = root.MkdirAll(m.Target, 0o755)
		} else {
			target, err = root.CreateFile(m.Target, 0o644, 0o755)
		}
	}
	switch {
	case errors.Is(err, unix.ENOTDIR): // a file is at the directory's place, or on the way
		err = otherKind()
	case err == nil && !dir:
		err = sameKind(target)
	}
	if err != nil {
		mnt.Close()
		return nil, target, err
	}
	return mnt, target, nil
}

// otherKind is the error of a file bound on a directory or the reverse, in the words of Docker, on which people
// search. move_mount(2) only knows the first three.
func otherKind() error {
	return fault.New(fault.Invalid, "%w: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type", unix.ENOTDIR)
}

// sameKind refuses a directory as the place of a file.
func sameKind(target *os.File) error {
	dir, err := linux.IsDir(target)
	if err == nil && dir {
		err = otherKind()
	}
	return err
}

// keepMode gives a tmpfs the mode of the directory that it hides, as /tmp needs, unless one is asked for.
func (o *Options) keepMode(target *os.File) {
	if slices.ContainsFunc(o.Data, func(d string) bool { return strings.HasPrefix(d, "mode=") }) {
		return
	}
	if st, err := linux.Fstat(target); err == nil {
		o.Data = append(o.Data, fmt.Sprintf("mode=%o", st.Mode&0o7777))
	}
}

// virtual are filesystems whose superblock is shared with other mounts or has nothing to write to:
// "ro" is an attribute of the mount there and not of the filesystem.
var virtual = []string{
	"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "bpf",
}

// filesystem makes a filesystem and returns a detached mount of it.
func (m Mount) filesystem(o *Options) (*os.File, error) {
	fs, err := linux.NewFilesystem(m.Type)
	if err != nil {
		return nil, err
	}
	defer fs.Close()
	if m.Source != "" {
		if err := fs.SetString("source", m.Source); err != nil {
			return nil, err
		}
	}
	flags := slices.Clone(o.Superblock)
	if o.Set&unix.MOUNT_ATTR_RDONLY != 0 && !slices.Contains(virtual, m.Type) {
		flags = append(flags, "ro")
	}
	for _, flag := range flags {
		if err := fs.SetFlag(flag); err != nil {
			return nil, err
		}
	}
	for _, option := range o.Data {
		key, value, has := strings.Cut(option, "=")
		switch {
		case !has:
			err = fs.SetFlag(key)
		case m.Type == "overlay" && key == "lowerdir" && len(value) > linux.MaxOption:
			err = lowerDirs(fs, value)
		default:
			err = fs.SetString(key, value)
		}
		if err != nil {
			return nil, err
		}
	}
	mnt, err := fs.Mount(0)
	if i := slices.Index(o.Data, "volatile"); i >= 0 && errors.Is(err, unix.EIO) {
		// Once something could not be written to the filesystem below, and nobody was told by syncfs(2), the kernel refuses this
		// option alone (fs/overlayfs/super.c, "unseen error").
		synced := *o
		synced.Data = slices.Delete(slices.Clone(o.Data), i, i+1)
		return m.filesystem(&synced)
	}
	return mnt, err
}

// lowerDirs sets the layers of an overlay one by one ("lowerdir+", Linux 6.5): together they are
// longer than an option can be. Older kernels are given short names of the same directories.
func lowerDirs(fs *linux.Filesystem, value string) error {
	dirs := splitLayers(value)
	for i, dir := range dirs {
		err := fs.SetString("lowerdir+", dir)
		if i == 0 && errors.Is(err, unix.EINVAL) {
			return fs.SetDirs("lowerdir", dirs)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// splitLayers splits a lowerdir at its colons and takes away the backslashes that escape some.
func splitLayers(value string) []string {
	var dirs []string
	var dir strings.Builder
	for i := 0; i < len(value); i++ {
		switch {
		case value[i] == '\\' && i+1 < len(value):
			i++
			dir.WriteByte(value[i])
		case value[i] == ':':
			dirs = append(dirs, dir.String())
			dir.Reset()
		default:
			dir.WriteByte(value[i])
		}
	}
	return append(dirs, dir.String())
}

// set gives a detached mount its attributes. Only what was asked for is changed: a flag that a
// source mount has and that is locked in a user namespace stays.
func (o *Options) set(mnt *os.File) error {
	if o.Set|o.Clear != 0 {
		if err := linux.SetMount(mnt, &unix.MountAttr{Attr_set: o.Set, Attr_clr: o.Clear}, false); err != nil {
			return err
		}
	}
	if o.SetTree|o.ClearTree != 0 {
		if err := linux.SetMount(mnt, &unix.MountAttr{Attr_set: o.SetTree, Attr_clr: o.ClearTree}, true); err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) propagate(mnt *os.File) error {
	for _, p := range o.Propagation {
		if err := linux.SetMount(mnt, &unix.MountAttr{Propagation: p.Type}, p.Recursive); err != nil {
			return err
		}
	}
	return nil
}

// Propagate gives the mount at the top of the calling thread's namespace, and all below it, a
// propagation type.
func Propagate(path string, typ uintptr) error {
	if err := unix.Mount("", path, "", typ, ""); err != nil {
		return fmt.Errorf("set the propagation of %s: %w", path, err)
	}
	return nil
}
