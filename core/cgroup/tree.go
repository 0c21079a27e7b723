package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

const dirMode = 0o755

// make makes the directories in the hierarchies that the plan and every container need, and notes
// in which: in the one that is locked before all others.
func (m *Manager) make(p *plan) error {
	order := m.removal()
	slices.Reverse(order)
	for _, h := range order {
		wanted := h.wanted(p.controllers, m.host.pure())
		if len(wanted) == 0 && m.inheritsCpuset(h) {
			wanted = []string{"cpuset"}
		}
		if len(wanted) == 0 && !m.host.pure() {
			continue
		}
		if err := m.makeIn(h, wanted); err != nil {
			return err
		}
		m.made = append(m.made, h)
		if err := h.inherit(m.path); err != nil {
			return err
		}
	}
	return nil
}

// undo removes what make has made, and gives the path free.
func (m *Manager) undo() {
	for _, h := range slices.Backward(m.made) {
		removeTree(h.mount+m.path, time.Now()) //nolint:errcheck // the error that it is undone for tells more
	}
	m.made = nil
	m.Release()
}

// wanted are those controllers of the hierarchy that a container needs which has these limits. The
// unified hierarchy of a hybrid host is used for limits only.
func (h *hierarchy) wanted(limits []string, pure bool) []string {
	var list []string
	for _, c := range h.controllers {
		if slices.Contains(limits, c) || slices.Contains(base, c) && (!h.unified || pure) {
			list = append(list, c)
		}
	}
	return list
}

func (m *Manager) makeIn(h *hierarchy, controllers []string) error {
	if h.unified {
		if err := h.enable(path.Dir(m.path), controllers); err != nil {
			return err
		}
	}
	if err := m.place(h); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	return nil
}

// inherit makes a new cgroup one that takes processes.
func (h *hierarchy) inherit(p string) error {
	if h.unified || !h.has("cpuset") {
		return nil
	}
	return h.inheritCpuset(p)
}

// place makes the directory, in place of an empty one.
func (m *Manager) place(h *hierarchy) error {
	if h == m.host.first() {
		return m.claim(h)
	}
	err := h.mkdirBelow(m.path, dirMode)
	if errors.Is(err, unix.EEXIST) {
		if err := removeOld(h.mount + m.path); err != nil {
			return err
		}
		err = h.mkdir(m.path, dirMode)
	}
	return err
}

func (h *hierarchy) mkdir(p string, mode uint32) error {
	dir := h.mount + p
	if err := linux.Retry(func() error { return unix.Mkdir(dir, mode) }); err != nil {
		return &os.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return nil
}

// mkdirAll makes the directory and those above, where they are missing.
func (h *hierarchy) mkdirAll(p string) error {
	if p == "/" {
		return nil
	}
	err := h.mkdirBelow(p, dirMode)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err == nil && h.has("cpuset") && !h.unified {
		return errors.Join(h.inheritCpuset(p), h.handDown(p))
	}
	return err
}

// inheritsCpuset reports whether a container joins a v1 cpuset though no limit asks for it: the Java VM
// and others read no limit at all where they are not in one. Below a directory of the engine's, which
// hands its processors down, it costs a mkdir; in the root of the hierarchy it would be two writes of some
// milliseconds, as the kernel arranges its processors anew.
func (m *Manager) inheritsCpuset(h *hierarchy) bool {
	return !h.unified && h.has("cpuset") && path.Dir(m.path) != "/"
}

// handDown has a v1 cpuset give new children its processors and memory nodes (cpusets(7), clone_children).
func (h *hierarchy) handDown(p string) error {
	if err := writeFile(h.mount+p+"/cgroup.clone_children", "1"); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	return nil
}

// inheritCpuset gives a new v1 cpuset its parent's: an empty one takes no process.
func (h *hierarchy) inheritCpuset(p string) error {
	for _, file := range []string{"/cpuset.cpus", "/cpuset.mems"} {
		if now, err := readFile(h.mount + p + file); err != nil {
			return fmt.Errorf("cgroup: %w", err)
		} else if now != "" {
			continue
		}
		value, err := readFile(h.mount + path.Dir(p) + file)
		if err == nil && value == "" && path.Dir(p) != "/" {
			// Another container makes the parent at this moment, and has not come as far as this.
			if err = h.inheritCpuset(path.Dir(p)); err == nil {
				value, err = readFile(h.mount + path.Dir(p) + file)
			}
		}
		if err == nil {
			err = writeFile(h.mount+p+file, value)
		}
		if err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
	}
	return nil
}

// enable switches controllers on for what is below the directory, from the root down. A controller that
// cannot be switched on is no error here: a limit that needs it will find no file.
func (h *hierarchy) enable(p string, controllers []string) error {
	if on, err := readFile(h.mount + p + "/cgroup.subtree_control"); err == nil && containsAll(strings.Fields(on), controllers) {
		return nil
	}
	if p != "/" {
		if err := h.enable(path.Dir(p), controllers); err != nil {
			return err
		}
		if err := h.mkdir(p, dirMode); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("cgroup: %w", err)
		}
	}
	if len(controllers) == 0 {
		return nil
	}
	name := h.mount + p + "/cgroup.subtree_control"
	if writeFile(name, "+"+strings.Join(controllers, " +")) == nil {
		return nil
	}
	for _, c := range controllers {
		writeFile(name, "+"+c) //nolint:errcheck // see above
	}
	return nil
}

func containsAll(list, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(w string) bool { return !slices.Contains(list, w) })
}

// extend makes what the plan needs beyond the hierarchies that a running container has joined, and
// moves its processes there.
func (m *Manager) extend(p *plan, joined []*hierarchy) error {
	for _, h := range m.host.all {
		wanted := h.wanted(p.controllers, false)
		wanted = slices.DeleteFunc(wanted, func(c string) bool { return !slices.Contains(p.controllers, c) })
		switch {
		case len(wanted) == 0:
		case slices.Contains(joined, h):
			if h.unified {
				if err := h.enable(path.Dir(m.path), wanted); err != nil {
					return err
				}
			}
		default:
			if err := m.makeIn(h, wanted); err != nil {
				return err
			}
			if err := h.inherit(m.path); err != nil {
				return err
			}
			if err := m.moveAll(h); err != nil {
				return err
			}
		}
	}
	return nil
}

// moveAll moves the container's processes into a hierarchy, again until none is new: they may fork.
func (m *Manager) moveAll(h *hierarchy) error {
	moved := map[int]bool{}
	for {
		pids, err := m.Pids()
		if err != nil {
			return err
		}
		again := false
		for _, pid := range pids {
			if moved[pid] {
				continue
			}
			moved[pid], again = true, true
			if err := writeFile(h.mount+m.path+"/cgroup.procs", strconv.Itoa(pid)); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("cgroup: %w", err)
			}
		}
		if !again {
			return nil
		}
	}
}

// Delete removes the container's cgroups, with those that it made below. It waits a while for
// processes that are about to end, and kills none. What is not there is removed, and what others have in
// its place stays (Own).
func (m *Manager) Delete() error {
	done, ours := m.guard()
	if !ours {
		return nil
	}
	defer done()
	var errs []error
	end := time.Now().Add(removeWait)
	for _, h := range m.removal() {
		if err := removeTree(h.mount+m.path, end); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("cgroup %s: %w", m.path, errors.Join(errs...))
	}
	return nil
}

// DeleteEmpty is Delete for cgroups that have no process in them, and none below: it tries each once, and
// reports whether nothing is left. The kernel refuses to remove what is in use, so that nobody need be
// asked before, nor be stopped.
func (m *Manager) DeleteEmpty() bool {
	done, ours := m.guard()
	if !ours {
		return true
	}
	defer done()
	all := true
	for _, h := range m.removal() {
		err := linux.Retry(func() error { return unix.Rmdir(h.mount + m.path) })
		all = all && (err == nil || gone(err))
	}
	return all
}

// removeWait is how long Delete waits altogether: killed processes are still on their way out.
const removeWait = 2 * time.Second

// removeTree removes a directory and those below, and tries until the end while it is busy.
func removeTree(dir string, end time.Time) error {
	for wait := time.Millisecond / 4; ; wait = min(2*wait, 50*time.Millisecond) {
		err := linux.Retry(func() error { return unix.Rmdir(dir) })
		if err == nil || gone(err) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		children, childErr := subdirs(dir)
		if childErr != nil {
			return childErr
		}
		for _, c := range children {
			if err := removeTree(dir+"/"+c, end); err != nil {
				return err
			}
		}
		if len(children) > 0 {
			if linux.Retry(func() error { return unix.Rmdir(dir) }) == nil {
				return nil
			}
		}
		if time.Now().After(end) {
			return busy(dir)
		}
		time.Sleep(wait)
	}
}

// busy is the error about a directory that cannot be removed.
func busy(dir string) error {
	var pids []int
	if collect(dir, &pids) == nil && len(pids) > 0 {
		return fault.New(fault.Conflict, "rmdir %s: %d processes are still in it (one is %d)", dir, len(pids), pids[0])
	}
	return &os.PathError{Op: "rmdir", Path: dir, Err: unix.EBUSY}
}

// subdirs are the names of the cgroups directly below.
func subdirs(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		if gone(err) {
			return nil, nil
		}
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil && !gone(err) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Pids are the processes in the container's cgroups, also in those that it made below, in the numbers of our pid
// namespace, sorted.
func (m *Manager) Pids() ([]int, error) {
	dir := m.main()
	if dir == "" || m.lost() {
		return nil, nil
	}
	var pids []int
	if err := collect(dir, &pids); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// main is the directory that is asked for processes: that of the freezer, so that those are
// found that it stops. "" when there is none.
func (m *Manager) main() string {
	if h := m.host.of("freezer"); h != nil && exists(h.mount+m.path) {
		return h.mount + m.path
	}
	for _, h := range m.joined() {
		return h.mount + m.path
	}
	return ""
}

// collect adds the processes of a cgroup and of all below.
func collect(dir string, pids *[]int) error {
	text, err := readFile(dir + "/cgroup.procs")
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = nil // a threaded cgroup: its processes are shown above it
	}
	if err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	for line := range strings.Lines(text) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return fmt.Errorf("read %s/cgroup.procs: %q is not a number", dir, line)
		}
		if pid > 0 { // 0: a process of another pid namespace
			*pids = append(*pids, pid)
		}
	}
	children, err := subdirs(dir)
	if err != nil {
		return err
	}
	for _, c := range children {
		if err := collect(dir+"/"+c, pids); err != nil {
			return err
		}
	}
	return nil
}
