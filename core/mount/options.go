package mount

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// Options are the options of a Mount, sorted by what carries them out.
type Options struct {
	Set, Clear         uint64 // MOUNT_ATTR_* of the mount itself
	SetTree, ClearTree uint64 // MOUNT_ATTR_* of the mount and all below it ("rro")
	Propagation        []Propagation
	Superblock         []string // flags of the filesystem that fsconfig(2) knows by name: "ro", "sync"
	Data               []string // what only the filesystem's driver understands: "size=64m"
	Bind, Recursive    bool
	IDMap, IDMapTree   bool // ids are mapped on the mount ("idmap"), and on all below it ("ridmap")
	CopyUp             bool // tmpcopyup: a tmpfs begins with what was at its place
}

// Propagation is a propagation type for a mount, or for it and all below it.
type Propagation struct {
	Type      uint64 // MS_SHARED, MS_PRIVATE, MS_SLAVE, MS_UNBINDABLE
	Recursive bool
}

// The tables are lists and no maps, which would be filled at the start of every process that has this package, and of
// which a container has two (docs/performance.md).

// attribute is what one option does to the attributes of a mount.
type attribute struct {
	name       string
	set, clear uint64
}

// atime values are a field of two bits, which must be cleared to be set (mount_setattr(2)).
var attributes = [...]attribute{
	{name: "ro", set: unix.MOUNT_ATTR_RDONLY},
	{name: "rw", clear: unix.MOUNT_ATTR_RDONLY},
	{name: "nosuid", set: unix.MOUNT_ATTR_NOSUID},
	{name: "suid", clear: unix.MOUNT_ATTR_NOSUID},
	{name: "nodev", set: unix.MOUNT_ATTR_NODEV},
	{name: "dev", clear: unix.MOUNT_ATTR_NODEV},
	{name: "noexec", set: unix.MOUNT_ATTR_NOEXEC},
	{name: "exec", clear: unix.MOUNT_ATTR_NOEXEC},
	{name: "nosymfollow", set: unix.MOUNT_ATTR_NOSYMFOLLOW},
	{name: "symfollow", clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
	{name: "nodiratime", set: unix.MOUNT_ATTR_NODIRATIME},
	{name: "diratime", clear: unix.MOUNT_ATTR_NODIRATIME},
	{name: "noatime", set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME},
	{name: "strictatime", set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
	{name: "relatime", clear: unix.MOUNT_ATTR__ATIME},
	{name: "atime", clear: unix.MOUNT_ATTR__ATIME},
	// They take back no more than an option before them could have said: what the source of a bind has
	// may be locked in a user namespace, and a fresh mount has the kernel's default.
	{name: "norelatime"},
	{name: "nostrictatime"},
}

func attributeOf(name string) (attribute, bool) {
	for _, a := range &attributes {
		if a.name == name {
			return a, true
		}
	}
	return attribute{}, false
}

var propagations = [...]struct {
	name string
	kind uint64
}{
	{"shared", unix.MS_SHARED}, {"private", unix.MS_PRIVATE}, {"slave", unix.MS_SLAVE}, {"unbindable", unix.MS_UNBINDABLE},
}

func propagationOf(name string) (kind uint64, ok bool) {
	for _, p := range &propagations {
		if p.name == name {
			return p.kind, true
		}
	}
	return 0, false
}

// superblock are flags of a filesystem, as fs_context.c of the kernel names them.
var superblock = []string{"sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"}

// ignored are options without a meaning to a modern kernel, or for programs other than the kernel.
var ignored = []string{
	"defaults", "silent", "loud", "iversion", "noiversion", "acl", "noacl", "auto", "noauto", "user", "nouser", "_netdev", "nofail",
}

// Known are the names of the options that are not passed to a filesystem's driver.
func Known() []string {
	names := []string{"bind", "rbind", "tmpcopyup", "idmap", "ridmap"}
	for _, a := range &attributes {
		names = append(names, a.name, "r"+a.name)
	}
	for _, p := range &propagations {
		names = append(names, p.name, "r"+p.name)
	}
	return append(append(names, superblock...), ignored...)
}

// ParseOptions sorts the options of a mount. Later options win over earlier ones, as in fstab(5).
func (m Mount) ParseOptions() (Options, error) {
	var o Options
	o.Bind = m.Type == "bind"
	for _, option := range m.Options {
		if err := o.add(option); err != nil {
			return o, err
		}
	}
	if o.IDMap && !o.Bind {
		return o, fault.New(fault.NotImplemented, "mount option idmap: ids can be mapped on bind mounts alone, and %s is a mount of type %q", m.Target, m.Type)
	}
	if o.Bind && len(o.Data) > 0 {
		return o, &fault.Field{Field: "option of the mount at " + m.Target, Given: o.Data[0], Expected: "one that a bind mount can have", Nearest: fault.Nearest(o.Data[0], Known())}
	}
	if o.Bind {
		o.Superblock = nil // they are another mount's business
	}
	return o, nil
}

func (o *Options) add(option string) error {
	if a, ok := attributeOf(option); ok {
		apply(&o.Set, &o.Clear, a)
		return nil
	}
	if typ, ok := propagationOf(option); ok {
		o.Propagation = append(o.Propagation, Propagation{Type: typ})
		return nil
	}
	if inner, ok := strings.CutPrefix(option, "r"); ok {
		if a, ok := attributeOf(inner); ok {
			apply(&o.SetTree, &o.ClearTree, a)
			return nil
		}
		if typ, ok := propagationOf(inner); ok {
			o.Propagation = append(o.Propagation, Propagation{typ, true})
			return nil
		}
	}
	switch option {
	case "":
	case "bind":
		o.Bind = true
	case "rbind":
		o.Bind, o.Recursive = true, true
	case "tmpcopyup":
		o.CopyUp = true
	case "idmap":
		o.IDMap = true
	case "ridmap":
		o.IDMap, o.IDMapTree = true, true
	case "remount":
		return fault.New(fault.NotImplemented, "mount option %q: only fresh mounts are made", option)
	default:
		switch {
		case slices.Contains(superblock, option):
			o.Superblock = append(o.Superblock, option)
		case !slices.Contains(ignored, option):
			o.Data = append(o.Data, option)
		}
	}
	return nil
}

// apply adds an attribute to a pair of masks so that it wins over those before it.
func apply(set, clear *uint64, a attribute) {
	*set &^= a.clear
	*clear |= a.clear
	*set |= a.set
	*clear &^= a.set &^ unix.MOUNT_ATTR__ATIME
}
