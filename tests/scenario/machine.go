package scenario

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/google/nftables"
)

// machine is what the kernel holds that a container engine could leak. Each entry of a set names
// one thing in words.
type machine struct {
	mounts, namespaces, cgroups, links, tables, processes, files set
}

type set map[string]bool

// observe takes stock. Processes and namespaces of the machine's other users come and go, so of
// these only what belongs to the scenario counts: by the root's path in the command line or
// environment, or by the cgroup.
func observe(root string) (machine, error) {
	var m machine
	var err error
	if m.mounts, err = mountsBelow("/"); err != nil {
		return m, err
	}
	if m.cgroups, err = cgroups(root); err != nil {
		return m, err
	}
	if m.links, err = links(); err != nil {
		return m, err
	}
	if m.tables, err = tables(); err != nil {
		return m, err
	}
	if m.processes, m.namespaces, err = processes(root); err != nil {
		return m, err
	}
	m.files, err = files(root)
	return m, err
}

// leaks stops what the scenario started and compares the machine with what it was. Some of the
// kernel's tear-down is asynchronous (a link goes when its namespace is freed), so it looks again
// until there is no difference or patience ends.
func (s *state) leaks() error {
	var ends []error
	if s.daemon != nil {
		ends = append(ends, s.end(syscall.SIGTERM))
	}
	for _, cmd := range s.others {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	s.others = nil
	for _, end := range slices.Backward(s.ends) {
		ends = append(ends, end())
	}
	s.ends = nil
	ends = append(ends, poll(func() error {
		after, err := observe(s.root)
		if err != nil {
			return err
		}
		return s.before.compare(after)
	}))
	// What is left of the daemon's run directory would be found by its next start, and should not be.
	runs := []string{filepath.Join(s.root, "run")}
	for _, n := range s.nodes.list {
		runs = append(runs, filepath.Join(s.root, n.name, "run"))
	}
	for _, run := range runs {
		left, _ := os.ReadDir(run)
		for _, e := range left {
			if info, err := e.Info(); err == nil && info.Mode()&fs.ModeSocket != 0 {
				ends = append(ends, fmt.Errorf("leaked: socket %s in the daemon's exec-root", e.Name()))
			}
		}
	}
	s.kill()
	return errors.Join(ends...)
}

// kill ends processes of the scenario that are still there, so that a failure does not spoil the
// next scenario. It goes by the same test as observe, never by name.
func (s *state) kill() {
	left, _, err := processes(s.root)
	if err != nil {
		return
	}
	for p := range left {
		if pid, err := strconv.Atoi(strings.Fields(p)[0]); err == nil && !s.before.processes[p] {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func (m machine) compare(after machine) error {
	var lines []string
	for _, c := range []struct {
		what          string
		before, after set
	}{
		{"mount", m.mounts, after.mounts}, {"namespace", m.namespaces, after.namespaces}, {"cgroup", m.cgroups, after.cgroups},
		{"link", m.links, after.links}, {"nft table", m.tables, after.tables}, {"process", m.processes, after.processes},
		{"file", m.files, after.files},
	} {
		for _, k := range slices.Sorted(maps.Keys(c.after)) {
			if !c.before[k] {
				lines = append(lines, fmt.Sprintf("leaked: %s %s", c.what, k))
			}
		}
		for _, k := range slices.Sorted(maps.Keys(c.before)) {
			if !c.after[k] && c.what != "process" && c.what != "namespace" {
				lines = append(lines, fmt.Sprintf("lost: %s %s", c.what, k))
			}
		}
	}
	if lines != nil {
		return errors.New(strings.Join(lines, "\n"))
	}
	return nil
}

// mountsBelow lists this namespace's mounts at or below dir (proc_pid_mountinfo(5)).
func mountsBelow(dir string) (set, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	found := set{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if dir == "/" || f[4] == dir || strings.HasPrefix(f[4], dir+"/") {
			found[f[4]+" "+strings.Join(f[slices.Index(f, "-")+1:], " ")] = true
		}
	}
	return found, nil
}

// cgroups lists the scenario's cgroups in every hierarchy.
func cgroups(root string) (set, error) {
	found := set{}
	roots, err := filepath.Glob("/sys/fs/cgroup/*")
	if err != nil {
		return nil, err
	}
	for _, hierarchy := range append(roots, "/sys/fs/cgroup") {
		ours, err := filepath.Glob(filepath.Join(hierarchy, cgroupParent(root)))
		if err != nil {
			return nil, err
		}
		nodes, err := filepath.Glob(filepath.Join(hierarchy, cgroupParent(root)+"-*"))
		if err != nil {
			return nil, err
		}
		for _, top := range append(ours, nodes...) {
			err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				if err == nil && d.IsDir() {
					found[path] = true
				}
				return err
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

func links() (set, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	found := set{}
	for _, i := range interfaces {
		found[i.Name] = true
	}
	return found, nil
}

func tables() (set, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	list, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nft tables: %w", err)
	}
	found := set{}
	for _, t := range list {
		found[fmt.Sprintf("%v %s", t.Family, t.Name)] = true
	}
	return found, nil
}

// processes lists the scenario's processes as "PID COMMAND", and the namespaces that they are in
// and this process is not.
func processes(root string) (found, namespaces set, err error) {
	found, namespaces = set{}, set{}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, nil, err
	}
	for _, dir := range dirs {
		if dir == fmt.Sprintf("/proc/%d", os.Getpid()) || !belongs(dir, root) {
			continue
		}
		command, err := os.ReadFile(dir + "/cmdline")
		if err != nil || len(command) == 0 { // gone, or a zombie that its parent has yet to reap
			continue
		}
		found[filepath.Base(dir)+" "+strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " "))] = true
		entries, _ := os.ReadDir(dir + "/ns")
		for _, e := range entries {
			theirs, _ := os.Readlink(filepath.Join(dir, "ns", e.Name()))
			ours, _ := os.Readlink("/proc/self/ns/" + e.Name())
			if theirs != ours && theirs != "" {
				namespaces[theirs] = true
			}
		}
	}
	return found, namespaces, nil
}

func belongs(dir, root string) bool {
	for _, name := range []string{"cmdline", "environ", "cgroup"} {
		b, err := os.ReadFile(dir + "/" + name)
		if err == nil && (strings.Contains(string(b), root) || name == "cgroup" && strings.Contains(string(b), cgroupParent(root))) {
			return true
		}
	}
	return false
}

// cgroupParent is the cgroup of the scenario's containers.
func cgroupParent(root string) string { return "/sampan-" + filepath.Base(root) }

// files lists the entries of the directories where daemons leave things, without the scenario's own
// root, without the work directories of other tests, and without what skopeo and podman remember of blobs
// (containers/image's blob info cache, of which root cannot choose the place).
func files(root string) (set, error) {
	found := set{}
	for _, dir := range []string{"/run", "/var/run", "/var/lib", "/dev/shm", "/tmp", "/etc"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if path == root || path == "/var/lib/containers" || dir == "/tmp" && !strings.HasPrefix(e.Name(), "sampan") {
				continue
			}
			found[path] = true
		}
	}
	return found, nil
}
