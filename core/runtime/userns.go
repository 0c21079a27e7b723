package runtime

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/runtime/initproc"
)

// idMappings are the spec's in the kernel's words.
func idMappings(list []specs.LinuxIDMapping) []linux.IDMapping {
	out := make([]linux.IDMapping, len(list))
	for i, m := range list {
		out[i] = linux.IDMapping{Inside: m.ContainerID, Outside: m.HostID, Size: m.Size}
	}
	return out
}

// namespace is the spec's namespace of a type: nil when there is none.
func namespace(s *specs.Spec, name specs.LinuxNamespaceType) *specs.LinuxNamespace {
	if i := slices.IndexFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == name }); i >= 0 {
		return &s.Linux.Namespaces[i]
	}
	return nil
}

func validateUser(s *specs.Spec) error {
	user := namespace(s, specs.UserNamespace)
	for _, k := range []struct {
		field string
		list  []specs.LinuxIDMapping
	}{{"linux.uidMappings", s.Linux.UIDMappings}, {"linux.gidMappings", s.Linux.GIDMappings}} {
		switch {
		case user == nil && len(k.list) > 0:
			return fault.New(fault.Invalid, "%s: expected a user namespace in linux.namespaces", k.field)
		case user == nil || user.Path != "":
			continue // a namespace that is joined has its mappings
		}
		if err := validateMappings(k.field, k.list); err != nil {
			return err
		}
		if _, ok := linux.Outside(idMappings(k.list), 0); !ok {
			return fault.New(fault.Invalid, "%s: expected a mapping of containerID 0: root makes the container", k.field)
		}
	}
	if user == nil && os.Geteuid() != 0 {
		return fault.New(fault.Forbidden, "linux.namespaces: user %d makes containers in a user namespace alone, expected one of type user", os.Geteuid())
	}
	return nil
}

func validateMappings(field string, list []specs.LinuxIDMapping) error {
	if len(list) == 0 {
		return fault.New(fault.Invalid, "%s: expected at least one mapping", field)
	}
	for i, m := range list {
		if m.Size == 0 || uint64(m.ContainerID)+uint64(m.Size) > 1<<32-1 || uint64(m.HostID)+uint64(m.Size) > 1<<32-1 {
			return &fault.Field{Field: fmt.Sprintf("%s[%d]", field, i), Given: fmt.Sprintf("%d %d %d", m.ContainerID, m.HostID, m.Size), Expected: "containerID, hostID and a size above 0, below 4294967295 together"}
		}
	}
	return nil
}

// validateTime checks the offsets of a time namespace, which can be set only before anybody enters it.
func validateTime(s *specs.Spec) error {
	n := namespace(s, specs.TimeNamespace)
	for clock, o := range s.Linux.TimeOffsets {
		field := "linux.timeOffsets." + clock
		switch {
		case clock != "monotonic" && clock != "boottime":
			return &fault.Field{Field: "linux.timeOffsets", Given: clock, Expected: "monotonic or boottime", Nearest: fault.Nearest(clock, []string{"monotonic", "boottime"})}
		case n == nil || n.Path != "":
			return fault.New(fault.Invalid, "%s: expected a new time namespace in linux.namespaces", field)
		case o.Nanosecs >= 1e9:
			return &fault.Field{Field: field + ".nanosecs", Given: fmt.Sprint(o.Nanosecs), Expected: "less than a second"}
		}
	}
	return nil
}

func validateIDMapped(s *specs.Spec) error {
	for i, m := range s.Mounts {
		field := fmt.Sprintf("mounts[%d]", i)
		set := slices.Contains(m.Options, "idmap") || slices.Contains(m.Options, "ridmap")
		mapped := len(m.UIDMappings)+len(m.GIDMappings) > 0
		bind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
		switch {
		case !set && !mapped:
			continue
		case !bind:
			return fault.New(fault.NotImplemented, "%s: ids can be mapped on bind mounts alone, and this is of type %q", field, m.Type)
		case namespaceMade(s, specs.MountNamespace) == 0:
			return fault.New(fault.Invalid, "%s: expected a new mount namespace", field)
		case !mapped && namespace(s, specs.UserNamespace) == nil:
			return fault.New(fault.Invalid, "%s: expected uidMappings and gidMappings, or a user namespace whose mappings are taken", field)
		case !mapped:
			continue
		}
		if err := validateMappings(field+".uidMappings", m.UIDMappings); err != nil {
			return err
		}
		if err := validateMappings(field+".gidMappings", m.GIDMappings); err != nil {
			return err
		}
	}
	return nil
}

// namespaceMade is the flag of a namespace that is made and not joined, or 0.
func namespaceMade(s *specs.Spec, name specs.LinuxNamespaceType) uint64 {
	n := namespace(s, name)
	if n == nil || n.Path != "" {
		return 0
	}
	flag, _ := namespaceFlag(name)
	return flag
}

// order is in which namespaces are joined. Who has all rights here has them over every namespace, but
// in a user namespace no longer over those of the host: it comes last. Others get their rights by it.
func order() []int {
	list := make([]int, 0, len(namespaces))
	for i := range namespaces {
		list = append(list, i)
	}
	if os.Geteuid() == 0 {
		return append(list[1:], 0)
	}
	return list
}

// userSpawn adjusts the start of a first process to its user and time namespaces.
func (c *Container) userSpawn(s *linux.Spawn, spec *specs.Spec, made uint64) {
	joins := func(flag int) bool {
		return slices.ContainsFunc(s.Join, func(j linux.Join) bool { return j.Type&flag != 0 })
	}
	s.Root = made&unix.CLONE_NEWUSER != 0 || joins(unix.CLONE_NEWUSER)
	// The namespaces that are made are to belong to the user namespace that is joined; and what is
	// joined of the host can be only before a user namespace is made.
	s.Fork = s.Fork || joins(unix.CLONE_NEWUSER) || made&unix.CLONE_NEWUSER != 0 && len(s.Join) > 0
	if made&unix.CLONE_NEWTIME != 0 {
		// A process is born into the namespace that clone3(2) makes, and its clocks are fixed then.
		// unshare(2) makes one for what comes next: the program, from Linux 6.3 on.
		s.Flags &^= unix.CLONE_NEWTIME
		s.Unshare |= unix.CLONE_NEWTIME
	}
	switch {
	case made&(unix.CLONE_NEWUSER|unix.CLONE_NEWTIME) != 0:
		s.Prepare = func(pid int) error { return c.prepare(pid, spec, made) }
	case joins(unix.CLONE_NEWTIME):
		alone(s)
	}
}

// alone lets the child have memory of its own, without which it cannot enter a time namespace.
func alone(s *linux.Spawn) { s.Prepare = func(int) error { return nil } }

// prepare maps the ids of the waiting first process and sets its clocks.
func (c *Container) prepare(pid int, spec *specs.Spec, made uint64) error {
	if made&unix.CLONE_NEWTIME != 0 {
		offsets := map[string][2]int64{}
		for clock, o := range spec.Linux.TimeOffsets {
			offsets[clock] = [2]int64{o.Secs, int64(o.Nanosecs)}
		}
		if err := linux.WriteTimeOffsets(pid, offsets); err != nil {
			return err
		}
	}
	if made&unix.CLONE_NEWUSER == 0 {
		return nil
	}
	if score := spec.Process.OOMScoreAdj; score != nil {
		// Lower than the host's is refused to root of a user namespace, which tries again and tells.
		os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", strconv.AppendInt(nil, int64(*score), 10), 0) //nolint:errcheck // see above
	}
	return linux.WriteMappings(pid, idMappings(spec.Linux.UIDMappings), idMappings(spec.Linux.GIDMappings))
}

// checkClock makes sure that the first process is in the time namespace that was made for it.
func checkClock(pid int) error {
	dir := "/proc/" + strconv.Itoa(pid) + "/ns/"
	is, err := os.Readlink(dir + "time")
	if err != nil {
		return fmt.Errorf("time namespace: %w", err)
	}
	if wanted, err := os.Readlink(dir + "time_for_children"); err != nil || is != wanted {
		return errors.Join(fault.New(fault.NotImplemented, "linux.namespaces: a time namespace needs Linux 6.3 or newer"), err)
	}
	return nil
}

// giveStreams gives the standard streams to the user that the program's is outside: pipes can then be
// opened again by /dev/stdout. Root of a user namespace has no right over them.
func (c *Container) giveStreams(pid int, user specs.User, files ...*os.File) {
	if os.Geteuid() != 0 || c.record.Namespaces&unix.CLONE_NEWUSER == 0 {
		return
	}
	uids, err := linux.Mappings(pid, "uid_map")
	if err != nil {
		return // it has ended, which is told by what follows
	}
	gids, err := linux.Mappings(pid, "gid_map")
	if err != nil {
		return
	}
	uid, ok := linux.Outside(uids, user.UID)
	gid, gok := linux.Outside(gids, user.GID)
	for _, f := range files {
		if f == nil || !ok || !gok {
			continue
		}
		if st, err := linux.Fstat(f); err != nil || st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3) {
			continue
		}
		if err := f.Chown(int(uid), int(gid)); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EROFS) {
			c.warn(fmt.Sprintf("the standard stream %s could not be given to user %d: %v", f.Name(), uid, err))
		}
	}
}

// trees makes the mounts that the first process asks for.
func (c *Container) trees(pid int, spec *specs.Spec, rootfs string, roots []mount.Mount) func(number int, root bool) (*os.File, error) {
	return func(number int, root bool) (*os.File, error) {
		if root && len(roots) > 0 {
			return c.mappedRoot(pid, roots)
		}
		if root {
			return mount.Mount{Type: "bind", Source: rootfs, Target: "/", Options: []string{"rbind"}}.Tree(nil)
		}
		if number < 0 || number >= len(spec.Mounts) {
			return nil, fmt.Errorf("mounts[%d]: there is none", number)
		}
		m := spec.Mounts[number]
		what := mount.Mount{Type: "bind", Source: m.Source, Target: m.Destination, Options: m.Options}
		if !path.IsAbs(what.Source) {
			what.Source = filepath.Join(c.record.Bundle, what.Source)
		}
		var userns *os.File
		var err error
		switch {
		case len(m.UIDMappings)+len(m.GIDMappings) > 0:
			userns, err = linux.UserNamespace(idMappings(m.UIDMappings), idMappings(m.GIDMappings))
		case slices.Contains(m.Options, "idmap") || slices.Contains(m.Options, "ridmap"):
			userns, err = linux.OpenAt(nil, "/proc/"+strconv.Itoa(pid)+"/ns/user", unix.O_RDONLY, 0)
		}
		if err != nil {
			return nil, fmt.Errorf("mounts[%d]: %w", number, err)
		}
		if userns != nil {
			defer userns.Close()
		}
		tree, err := what.Tree(userns)
		if owner, at, ok := initproc.OfProcess(m); ok && errors.Is(err, unix.EINVAL) {
			return linux.CloneTreeOf(owner, at, slices.Contains(m.Options, "rbind"))
		}
		return tree, err
	}
}

// mappedRoot makes the root filesystem of layers whose ids show through the mapping of the container's
// user namespace.
func (c *Container) mappedRoot(pid int, roots []mount.Mount) (*os.File, error) {
	ids := mount.IDMap{}
	for _, k := range []struct {
		file string
		root *int
	}{{"uid_map", &ids.UID}, {"gid_map", &ids.GID}} {
		list, err := linux.Mappings(pid, k.file)
		if err != nil {
			return nil, err
		}
		root, ok := linux.Outside(list, 0)
		if !ok {
			return nil, fault.New(fault.Invalid, "%s: expected a mapping of id 0", k.file)
		}
		*k.root = int(root)
	}
	userns, err := linux.OpenAt(nil, "/proc/"+strconv.Itoa(pid)+"/ns/user", unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer userns.Close()
	ids.UserNS = userns
	// The container's own directory is there, and hides nothing that is bound from somewhere else.
	return mount.Detached(c.dir, roots, &ids)
}

// asksForTrees reports whether the first process is one that may not reach what it is to mount, and
// we are one that may.
func asksForTrees(spec *specs.Spec) bool {
	return os.Geteuid() == 0 && namespace(spec, specs.UserNamespace) != nil
}

// delegate gives the container's cgroup to root in its user namespace, where it can be written to: cgroup v2, a
// cgroup namespace of its own and a mount of it that is not read-only (config-linux.md, "Cgroup ownership").
func (c *Container) delegate() error {
	spec := c.record.Spec
	own, user := namespace(spec, specs.CgroupNamespace), namespace(spec, specs.UserNamespace)
	if os.Geteuid() != 0 || c.record.NoCgroup || c.cgroup == nil || !c.cgroup.Unified() || own == nil || own.Path != "" || user == nil {
		return nil
	}
	for _, m := range spec.Mounts {
		if (m.Type != "cgroup" && m.Type != "cgroup2") || slices.Contains(m.Options, "ro") {
			continue
		}
		if uid, ok := linux.Outside(idMappings(spec.Linux.UIDMappings), 0); ok {
			return c.cgroup.Delegate(int(uid))
		}
	}
	return nil
}

// makeCgroup makes the container's cgroups, and notes which they are: when the container has ended, others may have
// their path. A link costs less than a file.
func (c *Container) makeCgroup(r *specs.LinuxResources, o cgroup.Options) error {
	if err := c.newCgroup(r, o); err != nil || c.record.NoCgroup {
		return err
	}
	return os.Symlink(strconv.FormatUint(c.cgroup.ID(), 10), filepath.Join(c.dir, cgroupLink))
}

// cgroupID is what makeCgroup has noted, 0 when it has not, as where systemd has made the cgroup.
func (c *Container) cgroupID() uint64 {
	text, err := os.Readlink(filepath.Join(c.dir, cgroupLink))
	if err != nil {
		return 0
	}
	id, _ := strconv.ParseUint(text, 10, 64) //nolint:errcheck // then it is not known
	return id
}

// newCgroup is makeCgroup without the note. An ordinary user has cgroups where they were delegated: limits
// that cannot be set without are an error, and the container is without when it has none.
func (c *Container) newCgroup(r *specs.LinuxResources, o cgroup.Options) (err error) {
	if os.Geteuid() == 0 {
		c.cgroup, err = cgroup.New(c.record.Cgroup, r, o)
		// Root of a user namespace that a rootless engine has made is an ordinary user here.
		if err == nil || !undelegated(err) || !linux.InUserNamespace() {
			return err
		}
	}
	limits := specs.LinuxResources{}
	if r != nil {
		limits = *r
	}
	// Who makes no node and gets no device from root needs no rules, which only root can make.
	allow := specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"}
	limits.Devices = []specs.LinuxDeviceCgroup{allow}
	if c.cgroup, err = cgroup.New(c.record.Cgroup, &limits, o); err == nil {
		return nil
	}
	if !undelegated(err) {
		return err
	}
	// Also a limit that is set later counts.
	if limited(c.record.Spec.Linux.Resources) && !o.Clamp {
		return fault.New(fault.Forbidden, "linux.resources: no cgroup is delegated to user %d: %w", os.Geteuid(), err)
	}
	c.warn(fmt.Sprintf("the container has no cgroup of its own: none is delegated to user %d: %v", os.Geteuid(), err))
	c.record.NoCgroup = true
	if c.sharesPids() {
		c.warn("without a cgroup and a pid namespace of the container's own, no more than its first process can be found and ended")
	}
	c.cgroup, err = cgroup.Load(c.record.Cgroup)
	if err != nil {
		return err
	}
	return c.save()
}

// undelegated reports whether the error is what a user meets who may not make cgroups.
func undelegated(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOENT) || fault.Is(err, fault.Unavailable)
}

// limited reports whether anything but device rules is set.
func limited(r *specs.LinuxResources) bool {
	return r != nil && (r.Memory != nil || r.CPU != nil || r.Pids != nil || r.BlockIO != nil || len(r.HugepageLimits) > 0 ||
		r.Network != nil || len(r.Rdma) > 0 || len(r.Unified) > 0)
}

// defaultPath is the cgroup of a container without a cgroupsPath: for an ordinary user below what is
// delegated.
func defaultPath(id string) string {
	if os.Geteuid() == 0 {
		return defaultCgroup + id
	}
	return path.Join(cgroup.Delegated(), defaultCgroup+id)
}
