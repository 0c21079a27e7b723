package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
)

// TestSoak makes, starts and deletes many containers, one after the other and several at a time, and
// compares what the machine has with what it had before. SAMPAN_SOAK=1 is the long form, of
// make soak; SAMPAN_BIN is then a directory with the program as it is built for use.
func TestSoak(t *testing.T) {
	sequential, workers, each := 20, 4, 5
	if os.Getenv("SAMPAN_SOAK") != "" {
		sequential, workers, each = 10_000, 8, 500
	}
	if dir := os.Getenv("SAMPAN_BIN"); dir != "" && os.Getenv("SAMPAN_SOAK") != "" {
		defer func(before string) { under = before }(under)
		under = filepath.Join(dir, name)
	}
	// Containers outlive the calls that make them, and are ours then.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) //nolint:errcheck // it was set above
	h := newHouse(t, func(s *specs.Spec) { s.Linux.CgroupsPath = "" }, "true")
	prefix := fmt.Sprintf("soak-%d", os.Getpid())
	h.cycle(t, prefix+"-first") // what is made once is there after it

	for _, c := range []struct {
		name          string
		workers, each int
	}{{"sequential", 1, sequential}, {"parallel", workers, each}} {
		t.Run(c.name, func(t *testing.T) {
			before := take(t, h.root, prefix)
			var wait sync.WaitGroup
			for w := range c.workers {
				wait.Go(func() {
					for i := 0; i < c.each && !t.Failed(); i++ {
						h.cycle(t, fmt.Sprintf("%s-%d-%d", prefix, w, i))
					}
				})
			}
			wait.Wait()
			take(t, h.root, prefix).compare(t, before)
			t.Logf("%d × %d containers", c.workers, c.each)
		})
	}
}

// cycle is the life of one container, in three calls of the program.
func (h *house) cycle(t *testing.T, id string) {
	file := filepath.Join(h.root, "..", id+".pid")
	defer os.Remove(file)
	if !h.quietly(t, "create", "--bundle", h.bundle, "--pid-file", file, id) || !h.quietly(t, "start", id) {
		return
	}
	text, err := os.ReadFile(file)
	pid, perr := strconv.Atoi(string(text))
	if err = errors.Join(err, perr); err != nil {
		t.Error(err)
		return
	}
	var status unix.WaitStatus
	if _, err := linux.RetryValue(func() (int, error) { return unix.Wait4(pid, &status, unix.WALL, nil) }); err != nil || status != 0 {
		t.Errorf("container %s: wait status %#x, %v", id, uint32(status), err)
	}
	h.quietly(t, "delete", id)
}

// quietly is call for many: without files for its output, which goes to the test's.
func (h *house) quietly(t *testing.T, args ...string) bool {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Error(err)
		return false
	}
	defer null.Close() //nolint:errcheck // nothing was written
	p, err := os.StartProcess(under, append([]string{name, "--root", h.root}, args...), &os.ProcAttr{
		Dir: h.bundle, Env: append(os.Environ(), asProgram+"=1"), Files: []*os.File{null, null, os.Stderr},
	})
	if err != nil {
		t.Error(err)
		return false
	}
	s, err := p.Wait()
	if err != nil || !s.Success() {
		t.Errorf("%v: %v %v", args, s, err)
		return false
	}
	return true
}

// inventory is what containers could leave behind.
type inventory struct {
	mounts, cgroups, state, children []string
	files                            int
	kernel                           string // what the machine has, with what others do
}

// take lists what there is now: of the whole machine's cgroups and mounts those that are the test's.
func take(t *testing.T, root, prefix string) inventory {
	t.Helper()
	var n inventory
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, filepath.Dir(root)) || strings.Contains(line, prefix) {
			n.mounts = append(n.mounts, strings.TrimSpace(line))
		}
	}
	err = filepath.WalkDir("/sys/fs/cgroup", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(d.Name(), prefix) {
			n.cgroups = append(n.cgroups, name)
		}
		return nil // another program's cgroup may go meanwhile
	})
	if err != nil {
		t.Fatal(err)
	}
	n.state = names(t, root)
	n.files = len(names(t, "/proc/self/fd"))
	threads, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range threads {
		if pids, err := os.ReadFile(file); err == nil {
			n.children = append(n.children, strings.Fields(string(pids))...)
		}
	}
	n.kernel = kernel()
	return n
}

// kernel is the number of the memory controller's cgroups, with those that are removed and to which memory is
// still charged, and the kernel's own memory. It is for people to look at: others change it too.
func kernel() string {
	var text []string
	for file, first := range map[string]string{"/proc/cgroups": "memory", "/sys/fs/cgroup/cgroup.stat": "nr_dying_descendants", "/proc/meminfo": "Slab:"} {
		data, _ := os.ReadFile(file) //nolint:errcheck // not every host has it
		for line := range strings.Lines(string(data)) {
			if f := strings.Fields(line); f[0] == first {
				text = append(text, strings.Join(f, " "))
			}
		}
	}
	slices.Sort(text)
	return strings.Join(text, ", ")
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// compare says what is there now and was not before.
func (n inventory) compare(t *testing.T, before inventory) {
	t.Helper()
	for _, c := range []struct {
		what        string
		now, before []string
	}{
		{"mount", n.mounts, before.mounts},
		{"cgroup", n.cgroups, before.cgroups},
		{"state directory", n.state, before.state},
		{"process", n.children, before.children},
	} {
		for _, one := range c.now {
			if !slices.Contains(c.before, one) {
				t.Errorf("left: %s %s", c.what, one)
			}
		}
	}
	if n.files > before.files {
		t.Errorf("left: %d open files, before %d", n.files, before.files)
	}
	t.Logf("kernel before: %s", before.kernel)
	t.Logf("kernel now:    %s", n.kernel)
}
