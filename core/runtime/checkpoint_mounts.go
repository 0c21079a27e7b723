package runtime

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/runtime/criu"
	"github.com/sampan-project/sampan/core/runtime/initproc"
)

// CRIU makes a container's mounts again, but for those that came from the host: a dump gives each of them a
// name, and a restore says what is to be mounted in its place. The names are runc's: the destination in the
// spec, and /dev/null for what is masked.

// describe tells CRIU what in the container belongs to the outside, and writes down what a restore has to
// know of it.
func (c *Container) describe(images string, o *criu.Options) error {
	mounts, err := mountsOf(fmt.Sprint(c.record.Pid))
	if err != nil {
		return err
	}
	host, err := mountsOf("thread-self")
	if err != nil {
		return err
	}
	root, err := linux.OpenRoot(fmt.Sprintf("/proc/%d/root", c.record.Pid))
	if err != nil {
		return err
	}
	defer root.Close()
	d := dump{c: c, root: root, mounts: mounts, host: host, o: o, named: map[int]bool{}}
	if err := d.external(); err != nil {
		return err
	}
	submounts := d.below()
	if err := d.namespaces(); err != nil {
		return err
	}
	streams, err := d.streams()
	if err != nil {
		return err
	}
	err = writeImage(images, descriptorsFile, streams)
	if err == nil && len(submounts) > 0 {
		err = writeImage(images, submountsFile, submounts)
	}
	return err
}

func writeImage(dir, name string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), data, 0o600)
}

// dump is the state of one description.
type dump struct {
	c            *Container
	root         *linux.Root
	mounts, host map[int]mountEntry
	o            *criu.Options
	named        map[int]bool // mounts of the container that have been spoken for
}

// mountEntry is a line of mountinfo (proc_pid_mountinfo(5)).
type mountEntry struct {
	id, parent          int
	device, root, point string
}

// maxMounts bounds what is read: the kernel's own bound of a mount namespace is 100000.
const maxMounts = 200_000

// mountsOf reads the mounts of a process, by its name in /proc.
func mountsOf(process string) (map[int]mountEntry, error) {
	f, err := os.Open("/proc/" + process + "/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	mounts := map[int]mountEntry{}
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() && len(mounts) < maxMounts {
		w := strings.Fields(s.Text())
		if len(w) < 5 {
			continue
		}
		id, err := strconv.Atoi(w[0])
		parent, perr := strconv.Atoi(w[1])
		if err == nil && perr == nil {
			mounts[id] = mountEntry{id, parent, w[2], unescape(w[3]), unescape(w[4])}
		}
	}
	return mounts, s.Err()
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// at is the mount whose root is at a path of the container.
func (d *dump) at(name string) (mountEntry, bool) {
	f, err := d.root.Open(name, unix.O_PATH, 0)
	if err != nil {
		return mountEntry{}, false
	}
	defer f.Close()
	var st unix.Statx_t
	err = unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st)
	if err != nil || st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return mountEntry{}, false
	}
	m, ok := d.mounts[int(st.Mnt_id)] //nolint:gosec // an int in the kernel
	return m, ok
}

// name tells CRIU that the mount at a path comes from outside.
func (d *dump) name(path, name string) {
	if m, ok := d.at(path); ok && !d.named[m.id] {
		d.named[m.id] = true
		d.o.Mounts = append(d.o.Mounts, criu.Pair{Key: m.point, Value: name})
	}
}

// external names what the spec takes from the host.
func (d *dump) external() error {
	spec := d.c.record.Spec
	groups, err := d.c.cgroups()
	if err != nil {
		return err
	}
	shown := cgroupMounts(groups)
	for _, m := range spec.Mounts {
		to := path.Clean("/" + m.Destination)
		switch {
		case isBind(m):
			d.name(to, to)
		case m.Type == "cgroup":
			for name := range shown {
				d.name(path.Join(to, name), path.Join(to, name))
			}
		}
	}
	// Where no nodes can be made, in a user namespace, they are the host's.
	for _, device := range devicesOf(spec) {
		d.name(device.Path, device.Path)
	}
	for _, masked := range spec.Linux.MaskedPaths {
		f, err := d.root.Open(masked, unix.O_PATH, 0)
		if err != nil {
			continue // it was not there to be masked either
		}
		dir, err := linux.IsDir(f)
		f.Close()
		if err == nil && !dir {
			d.name(masked, os.DevNull)
		}
	}
	return nil
}

func devicesOf(s *specs.Spec) []specs.LinuxDevice {
	return slices.Concat(s.Linux.Devices, initproc.DefaultDevices)
}

func isBind(m specs.Mount) bool {
	return slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// below names what a recursive bind mount brought along, the root included: mounts that the host has at
// the same place below the source. It returns their names.
func (d *dump) below() (names []string) {
	hostAt := map[string]mountEntry{}
	for _, m := range d.host {
		hostAt[m.point] = m
	}
	for _, from := range recursive(d.c.record.Spec, d.c.record.Bundle) {
		at, ok := d.at(from.name)
		if !ok {
			continue
		}
		for _, m := range d.mounts {
			rest, inside := strings.CutPrefix(m.point, strings.TrimSuffix(at.point, "/")+"/")
			if !inside || d.named[m.id] || !d.descends(m, at.id) {
				continue
			}
			h, there := hostAt[path.Join(from.source, rest)]
			if there && h.device == m.device && h.root == m.root {
				d.named[m.id] = true
				name := path.Join(from.name, rest)
				d.o.Mounts = append(d.o.Mounts, criu.Pair{Key: m.point, Value: name})
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// descends reports whether a mount is below another through mounts of the host alone.
func (d *dump) descends(m mountEntry, from int) bool {
	for range len(d.mounts) {
		if m.parent == from {
			return true
		}
		next, ok := d.mounts[m.parent]
		if !ok {
			return false
		}
		m = next
	}
	return false
}

// tree is a part of the host's tree that is shown in a container.
type tree struct{ name, source string }

// recursive are the trees that are shown with all that is mounted in them, the innermost first.
func recursive(s *specs.Spec, bundle string) (list []tree) {
	for _, m := range s.Mounts {
		if slices.Contains(m.Options, "rbind") {
			list = append(list, tree{path.Clean("/" + m.Destination), source(m, bundle)})
		}
	}
	if s.Root != nil && s.Root.Path != "" {
		list = append(list, tree{"/", rootfsOf(s, bundle)})
	}
	slices.SortStableFunc(list, func(a, b tree) int { return len(b.name) - len(a.name) })
	return list
}

func source(m specs.Mount, bundle string) string {
	if filepath.IsAbs(m.Source) {
		return filepath.Clean(m.Source)
	}
	return filepath.Join(bundle, m.Source)
}

func rootfsOf(s *specs.Spec, bundle string) string {
	if filepath.IsAbs(s.Root.Path) {
		return filepath.Clean(s.Root.Path)
	}
	return filepath.Join(bundle, s.Root.Path)
}

// Namespaces that exist without the container: CRIU leaves them alone under these names, which are runc's.
var outerNamespaces = map[specs.LinuxNamespaceType][2]string{
	specs.NetworkNamespace: {"net", "extRootNetNS"},
	specs.PIDNamespace:     {"pid", "extRootPidNS"},
}

// namespaces names those that the spec has by path.
func (d *dump) namespaces() error {
	for _, n := range d.c.record.Spec.Linux.Namespaces {
		names, ok := outerNamespaces[n.Type]
		if n.Path == "" || !ok {
			continue
		}
		var st unix.Stat_t
		file := fmt.Sprintf("/proc/%d/ns/%s", d.c.record.Pid, names[0])
		if err := unix.Stat(file, &st); err != nil {
			return &fs.PathError{Op: "stat", Path: file, Err: err}
		}
		d.o.External = append(d.o.External, fmt.Sprintf("%s[%d]:%s", names[0], st.Ino, names[1]))
	}
	return nil
}

// streams says what the first process has as its standard streams. Files that are no file of the
// container are CRIU's external files.
func (d *dump) streams() (list [3]string, err error) {
	for fd := range list {
		name := fmt.Sprintf("/proc/%d/fd/%d", d.c.record.Pid, fd)
		link, err := os.Readlink(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed
		}
		if err != nil {
			return list, err
		}
		list[fd] = link
		if strings.HasPrefix(link, "pipe:") {
			inside, err := d.inside(link, d.c.record.Pid, fd)
			if err != nil {
				return list, err
			}
			if inside {
				list[fd] = ""
			}
			continue
		}
		key, err := d.outerFile(fd, name)
		if err != nil {
			return list, err
		}
		if key != "" {
			list[fd] = key
			d.o.External = append(d.o.External, key)
		}
	}
	return list, nil
}

// outerFile is CRIU's name of a file that is on no mount of the container: its mount and inode.
func (d *dump) outerFile(fd int, name string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return "", &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	regular := st.Mode&unix.S_IFMT == unix.S_IFREG
	null := st.Mode&unix.S_IFMT == unix.S_IFCHR && unix.Major(uint64(st.Rdev)) == 1 //nolint:unconvert // its type differs between architectures
	if !regular && !null {
		return "", nil
	}
	info, err := fdinfo(d.c.record.Pid, fd)
	if err != nil {
		return "", err
	}
	if _, own := d.mounts[info.mount]; own {
		return "", nil
	}
	return fmt.Sprintf("file[%x:%x]", info.mount, st.Ino), nil
}

// inside reports whether the other end of a pipe is in the container too.
func (d *dump) inside(link string, pid, fd int) (bool, error) {
	own, err := fdinfo(pid, fd)
	if err != nil {
		return false, err
	}
	pids, err := d.c.Pids()
	if err != nil {
		return false, err
	}
	for _, p := range pids {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p))
		if err != nil {
			continue // it has ended
		}
		for _, e := range entries {
			if l, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", p, e.Name())); err != nil || l != link {
				continue
			}
			n, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			if other, err := fdinfo(p, n); err == nil && own.mode != unix.O_RDWR && other.mode != own.mode {
				return true, nil
			}
		}
	}
	return false, nil
}

// openFile is what fdinfo tells of a descriptor (proc_pid_fdinfo(5)).
type openFile struct{ mode, mount int }

func fdinfo(pid, fd int) (f openFile, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		return f, err
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); key {
		case "flags":
			flags, err := strconv.ParseUint(value, 8, 32)
			if err != nil {
				return f, fmt.Errorf("fdinfo: flags %q: %w", value, err)
			}
			f.mode = int(flags & unix.O_ACCMODE) //nolint:gosec // two bits
		case "mnt_id":
			if f.mount, err = strconv.Atoi(value); err != nil {
				return f, fmt.Errorf("fdinfo: mnt_id %q: %w", value, err)
			}
		}
	}
	return f, nil
}
