// Package cgroup makes a container's control groups, sets their limits, and reads, freezes, kills
// and removes what is in them.
//
// # Hosts
//
// A host has either the unified hierarchy alone (v2), or one hierarchy for each controller or few (v1),
// perhaps with a unified one beside them that has the controllers left over (hybrid). A Manager
// hides which. Its container has one path, below every hierarchy that it uses:
//
//	v1, hybrid  <mount of controller>/<path>   for memory, pids, cpu, cpuacct, freezer, devices and
//	                                           blkio, and for others only when a limit asks for them
//	v2          <mount>/<path>
//
// Only the container's own directories are changed, and those above are made when they are missing;
// on v2 the controllers that are needed are switched on in the subtree_control of those above.
//
// # Files and not a library
//
// The files are written here and not through containerd/cgroups: every start pays for what is done
// here, and that module makes a directory in every hierarchy, parses the mount table for each
// container, and brings D-Bus, protobuf and logrus into the small program that is the parent of every
// container. One container costs a mkdir and a rmdir for each hierarchy (some 20 µs each), and
// three calls for each limit.
//
// # Somebody else's cgroups
//
// Where systemd makes the container's cgroup (package systemd), Adopt makes what it leaves out: the
// hierarchies that it does not use, and the limits that it does not know. All else is the same.
//
// Facts: cgroups(7), Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst of the kernel, and
// config-linux.md of the OCI runtime specification.
package cgroup

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// maxPath bounds a cgroup's path: the kernel's PATH_MAX less what the mount and the files need.
const maxPath = 3072

// Options say how limits are set.
type Options struct {
	Clamp  bool         // a limit that the host refuses is a warning to the Logger, not an error
	Logger *slog.Logger // nil: discard
}

// Manager is the control groups of one container. It holds no file open, but for one from New to Release.
type Manager struct {
	host *host
	path string // clean, with a leading slash
	o    Options

	// Of cgroups that New has made, see claim.go.
	made []*hierarchy
	lock *os.File // of the directory in the first hierarchy; nil: others may have the path when it is empty
	id   uint64   // that directory's inode; 0: not known
}

// New makes the container's cgroups and sets the limits. path is the spec's cgroupsPath: one that is
// not absolute is taken from the root of each hierarchy. An empty cgroup that is left from before is
// replaced; one with processes in it is fault.Conflict, and so is one that another New has made until its Release
// is called. After an error nothing is left.
func New(name string, r *specs.LinuxResources, o Options) (*Manager, error) {
	m, err := Open(name, o)
	if err != nil {
		return nil, err
	}
	if r == nil {
		r = &specs.LinuxResources{}
	}
	plan, err := m.plan(r)
	if err != nil {
		return nil, err
	}
	if err = m.make(plan); err == nil {
		err = m.apply(plan)
	}
	if err == nil {
		err = m.setDevices(r.Devices, true)
	}
	if err != nil {
		m.undo()
		return nil, err
	}
	return m, nil
}

// Load is the Manager of cgroups that exist. It is no error when they do not: Pids are then none,
// and Delete does nothing.
func Load(name string) (*Manager, error) { return Open(name, Options{}) }

// Open is Load with options for the limits that are set later.
func Open(name string, o Options) (*Manager, error) {
	h, err := thisHost()
	if err != nil {
		return nil, err
	}
	p, err := cleanPath(name)
	if err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Manager{host: h, path: p, o: o}, nil
}

// cleanPath makes cgroupsPath absolute. The root itself is never a container's.
func cleanPath(name string) (string, error) {
	bad := &fault.Field{Field: "linux.cgroupsPath", Given: name}
	switch {
	case len(name) > maxPath:
		bad.Given = name[:32] + "..."
		bad.Expected = fmt.Sprintf("at most %d bytes", maxPath)
		return "", bad
	case strings.ContainsAny(name, "\x00\n"):
		bad.Expected = "a path without control characters"
		return "", bad
	case strings.Count(name, ":") == 2 && !strings.Contains(name, "/"):
		bad.Expected = "a path: slice:prefix:name is the form of the systemd cgroup driver"
		return "", bad
	}
	p := path.Clean("/" + name)
	if p == "/" {
		bad.Expected = "a path below the root of the hierarchy"
		return "", bad
	}
	return p, nil
}

// Unified reports whether the host has cgroup v2 only.
func (m *Manager) Unified() bool { return m.host.pure() }

// Path is the container's path below each hierarchy.
func (m *Manager) Path() string { return m.path }

// Paths are the directories by controller, those that exist. On v2 the one directory has the key "".
func (m *Manager) Paths() map[string]string {
	paths := map[string]string{}
	for _, h := range m.joined() {
		for _, c := range h.controllers {
			if !h.unified {
				paths[c] = h.mount + m.path
			}
		}
		if h.unified {
			paths[""] = h.mount + m.path
		}
	}
	return paths
}

// joined are the hierarchies in which the container has a directory.
func (m *Manager) joined() []*hierarchy {
	return slices.DeleteFunc(slices.Clone(m.host.all), func(h *hierarchy) bool { return !exists(h.mount + m.path) })
}

// FD is the directory of the unified hierarchy for CLONE_INTO_CGROUP; nil when the container has
// none there.
func (m *Manager) FD() (*os.File, error) {
	u := m.host.unified
	if u == nil || !m.host.pure() && !exists(u.mount+m.path) {
		return nil, nil
	}
	dir := u.mount + m.path
	fd, err := retryOpen(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// Tasks are the "tasks" files of the v1 hierarchies, open for writing. A new process, still
// single-threaded, joins by writing "0" to each, which is far cheaper than Add: the kernel need not
// stop the forks of the whole system.
func (m *Manager) Tasks() ([]*os.File, error) {
	var files []*os.File
	for _, h := range slices.Concat(m.host.all, m.host.named) {
		if h.unified {
			continue
		}
		name := h.mount + m.path + "/tasks"
		fd, err := retryOpen(name, unix.O_WRONLY|unix.O_CLOEXEC)
		if errors.Is(err, unix.ENOENT) && !slices.Contains(m.made, h) {
			continue // without a limit that asks for it, or another's from before
		}
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
		files = append(files, os.NewFile(uintptr(fd), name))
	}
	return files, nil
}

// Joins are the files through which a process that is there already joins the cgroups, by writing "0" to each in its
// first thread: Tasks, which take that thread alone, and for a cgroup that the container has in the unified
// hierarchy its cgroup.procs, which takes the process and costs what Add does.
func (m *Manager) Joins() ([]*os.File, error) {
	files, err := m.Tasks()
	u := m.host.unified
	if err != nil || u == nil || !exists(u.mount+m.path) {
		return files, err
	}
	name := u.mount + m.path + "/cgroup.procs"
	fd, err := retryOpen(name, unix.O_WRONLY|unix.O_CLOEXEC)
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return append(files, os.NewFile(uintptr(fd), name)), nil
}

// Add moves a process, with all its threads, into the container's cgroups.
func (m *Manager) Add(pid int) error {
	joined := m.joined()
	if len(joined) == 0 {
		return fault.New(fault.NotFound, "cgroup %s: there is none", m.path)
	}
	for _, h := range joined {
		if err := writeFile(h.mount+m.path+"/cgroup.procs", fmt.Sprint(pid)); err != nil {
			return err
		}
	}
	return nil
}

// Set changes the limits that r names and leaves the others. Device rules, when there are any,
// replace those of before.
func (m *Manager) Set(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	joined := m.joined()
	if len(joined) == 0 {
		return fault.New(fault.NotFound, "cgroup %s: there is none", m.path)
	}
	plan, err := m.plan(r)
	if err != nil {
		return err
	}
	if err := m.extend(plan, joined); err != nil {
		return err
	}
	if err := m.CheckUsage(r); err != nil {
		return err
	}
	if err := m.apply(plan); err != nil {
		return err
	}
	if len(r.Devices) > 0 {
		return m.setDevices(r.Devices, false)
	}
	return nil
}

// CheckUsage does what memory.checkBeforeUpdate asks for: a limit below what is in use is refused,
// where the kernel would kill.
func (m *Manager) CheckUsage(r *specs.LinuxResources) error {
	if r.Memory == nil || r.Memory.CheckBeforeUpdate == nil || !*r.Memory.CheckBeforeUpdate || r.Memory.Limit == nil || *r.Memory.Limit <= 0 {
		return nil
	}
	s, err := m.Stats()
	if err != nil {
		return err
	}
	if uint64(*r.Memory.Limit) < s.Memory.Usage {
		return fault.New(fault.Conflict, "linux.resources.memory.limit %d: expected at least the current usage, %d", *r.Memory.Limit, s.Memory.Usage)
	}
	return nil
}
