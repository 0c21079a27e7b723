package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// unified is the mount of the cgroup v2 hierarchy.
func unified(t *testing.T) (dir string, pure bool) {
	t.Helper()
	var fs unix.Statfs_t
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if err := unix.Statfs(dir, &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir, dir == "/sys/fs/cgroup"
		}
	}
	t.Skip("needs cgroup v2, also beside v1")
	return "", false
}

// v1 skips where the controllers are in the unified hierarchy.
func v1(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/sys/fs/cgroup/memory/tasks"); err != nil {
		t.Skip("needs cgroup v1")
	}
}

// writableCgroups mounts the cgroups of a container for writing.
func writableCgroups(s *specs.Spec) {
	for i, m := range s.Mounts {
		if m.Destination == "/sys/fs/cgroup" {
			s.Mounts[i].Options = []string{"rw", "nosuid", "noexec", "nodev", "relatime"}
		}
	}
}

func path(t *testing.T, h *house) string {
	t.Helper()
	var s specs.Spec
	if err := readJSON(h.bundle+"/config.json", &s); err != nil {
		t.Fatal(err)
	}
	return s.Linux.CgroupsPath
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestExecFollowsTheFirstProcess(t *testing.T) {
	root, pure := unified(t)
	h := newScene(t)
	h.configure("sleep 1000", func(s *specs.Spec) {
		// On a hybrid host this makes the container join the unified hierarchy.
		s.Linux.Resources.HugepageLimits = []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 2 << 20}}
		s.Linux.Namespaces = withoutNamespace(s, specs.CgroupNamespace)
	})
	if text, err := os.ReadFile(root + "/cgroup.controllers"); err != nil || !strings.Contains(string(text), "hugetlb") {
		t.Skip("needs the hugetlb controller in the unified hierarchy")
	}
	h.must("run", "-d", "c")
	name := path(t, h)
	own, below := root+name, root+name+"/below"
	where := func(args ...string) string {
		out := h.must(append(append([]string{"exec"}, args...), "c", "sh", "-c", "grep ^0:: /proc/self/cgroup")...)
		return strings.TrimSpace(out)
	}
	// Beside v1, a path without controllers means all hierarchies.
	all, err := filepath.Glob("/sys/fs/cgroup/*" + name)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(all, own) {
		if err := os.Mkdir(dir+"/below", 0o755); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	write(t, below+"/cgroup.procs", strconv.Itoa(h.state("c").Pid))
	if got := where(); got != "0::"+name {
		t.Errorf("with no controller handed down: %s", got)
	}
	write(t, own+"/cgroup.subtree_control", "+hugetlb")
	if got := where(); got != "0::"+name+"/below" {
		t.Errorf("in a cgroup that can have no process: %s", got)
	}
	h.refused(execFailed, "busy", "exec", "--cgroup", "/", "c", "true")
	if got := where("--cgroup", "below"); got != "0::"+name+"/below" {
		t.Errorf("--cgroup below: %s", got)
	}
	write(t, own+"/cgroup.subtree_control", "-hugetlb")
	if !pure {
		return // the others of its cgroups stay
	}
	other := root + name + "-other"
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.must("delete", "-f", "c")
		unix.Rmdir(other) //nolint:errcheck // what is left is reported by the house
	})
	write(t, other+"/cgroup.procs", strconv.Itoa(h.state("c").Pid))
	for _, dir := range []string{below, own} {
		if err := unix.Rmdir(dir); err != nil {
			t.Fatal(err)
		}
	}
	if got := where(); got != "0::"+name+"-other" {
		t.Errorf("where its own cgroup is gone: %s", got)
	}
}

func withoutNamespace(s *specs.Spec, name specs.LinuxNamespaceType) (rest []specs.LinuxNamespace) {
	for _, n := range s.Linux.Namespaces {
		if n.Type != name {
			rest = append(rest, n)
		}
	}
	return rest
}

func TestCgroupsOfContainersOwnRoot(t *testing.T) {
	if _, pure := unified(t); !pure {
		t.Skip("needs cgroup v2 alone")
	}
	for _, c := range []struct {
		name, want string
		change     func(*specs.Spec)
	}{
		{"read-only", "65534", func(*specs.Spec) {}},
		{"writable", "0", writableCgroups},
		{"writable, in the namespace of the host", "65534", func(s *specs.Spec) {
			writableCgroups(s)
			s.Linux.Namespaces = withoutNamespace(s, specs.CgroupNamespace)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newScene(t)
			h.own()
			h.configure("stat -c %u /sys/fs/cgroup", inUserNamespace, c.change)
			h.shows(c.want)
		})
	}
}

func TestExecInCgroupsBelowOfV1(t *testing.T) {
	v1(t)
	h := newScene(t)
	h.configure("sleep 1000", writableCgroups)
	h.must("run", "-d", "c")
	name := path(t, h)
	show := []string{"c", "sh", "-c", "grep -E ':(memory|pids|cpu[^:s]*):' /proc/self/cgroup | cut -d: -f2,3 | sort | tr '\n' ' '"}
	h.refused(execFailed, `cgroup ".."`, "exec", "--cgroup", "..", "c", "true")
	h.refused(execFailed, "no such file or directory", "exec", "--cgroup", "nonexistent", "c", "true")
	h.refused(execFailed, "no such file or directory", "exec", "--cgroup", "cpu:nonexistent", "c", "true")
	h.refused(execFailed, "a controller that the container has", "exec", "--cgroup", "whaaat:/", "c", "true")
	// From outside the container's cgroup namespace, whose root it is.
	for _, option := range [][]string{{"exec"}, {"exec", "--cgroup", "/"}} {
		if out := h.must(append(option, show...)...); !strings.Contains(out, "memory:/ ") || !strings.Contains(out, "pids:/ ") {
			t.Errorf("%v: %q", option, out)
		}
	}
	h.must("exec", "c", "mkdir", "/sys/fs/cgroup/memory/submem", "/sys/fs/cgroup/pids/subpids")
	if out := h.must(append([]string{"exec", "--cgroup", "memory:submem", "--cgroup", "pids:subpids"}, show...)...); !strings.Contains(out, "memory:/submem ") || !strings.Contains(out, "pids:/subpids ") {
		t.Errorf("below: %q", out)
	}
	// A process below does not keep the container from being removed.
	h.must("exec", "-d", "--cgroup", "memory:submem", "c", "sleep", "1000")
	h.must("exec", "c", "sh", "-c", "mkdir /sys/fs/cgroup/freezer/sub; sleep 1000 & echo $! >/sys/fs/cgroup/freezer/sub/tasks")
	h.must("delete", "--force", "c")
	for _, controller := range []string{"memory", "pids", "freezer"} {
		if _, err := os.Stat("/sys/fs/cgroup/" + controller + name); !os.IsNotExist(err) {
			t.Errorf("%s: %v", controller, err)
		}
	}
}

func TestDeleteWithCgroupsBelowOfV2(t *testing.T) {
	root, pure := unified(t)
	if !pure {
		t.Skip("needs cgroup v2 alone")
	}
	h := newScene(t)
	h.configure("sleep 1000", writableCgroups)
	h.must("run", "-d", "c")
	h.must("exec", "-d", "c", "sleep", "1001")
	h.must("exec", "c", "sh", "-ec", `cd /sys/fs/cgroup; echo +pids >cgroup.subtree_control; mkdir foo; cd foo
		echo threaded >cgroup.type; echo $(pidof sleep | cut -d' ' -f1) >cgroup.threads`)
	name := path(t, h)
	h.must("delete", "--force", "c")
	if _, err := os.Stat(root + name); !os.IsNotExist(err) {
		t.Error(err)
	}
}

func TestLimitsOfProcesses(t *testing.T) {
	for limit, want := range map[int64]string{0: "1", -1: "max", 42: "42"} {
		t.Run(want, func(t *testing.T) {
			h := newScene(t)
			h.configure("echo x", func(s *specs.Spec) { s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit} })
			h.must("create", "c")
			files, _ := filepath.Glob("/sys/fs/cgroup/pids" + path(t, h) + "/pids.max")
			if len(files) == 0 {
				files = []string{"/sys/fs/cgroup" + path(t, h) + "/pids.max"}
			}
			if text, err := os.ReadFile(files[0]); err != nil || strings.TrimSpace(string(text)) != want {
				t.Errorf("pids.max %q, %v; expected %s", text, err, want)
			}
			h.must("start", "c") // the program is the one process that may be
			h.eventually("c", "stopped")
		})
	}
}

func TestUnifiedLimitsWithV1(t *testing.T) {
	v1(t)
	h := newScene(t)
	h.configure("true", func(s *specs.Spec) { s.Linux.Resources.Unified = map[string]string{"memory.min": "131072"} })
	h.refused(1, `linux.resources.unified.memory.min "131072"`, "run", "c")
}

func TestCgroupsInUse(t *testing.T) {
	h := newScene(t)
	h.configure("sleep 1000")
	h.must("run", "-d", "c")
	for _, args := range [][]string{{"run", "-d", "d"}, {"create", "e"}} {
		h.refused(1, "exists and has 1 processes in it", args...)
	}
	if status := h.status("c"); status != "running" {
		t.Errorf("the first one is %s", status)
	}
}

// runc refuses a cgroup that is there and frozen. Ours makes an empty one anew: neither its limits nor its state
// are the new container's.
func TestAFrozenCgroupOfBefore(t *testing.T) {
	h := newScene(t)
	h.configure("echo ran")
	dir, file, frozen := "/sys/fs/cgroup"+path(t, h), "/cgroup.freeze", "1"
	if _, err := os.Stat("/sys/fs/cgroup/freezer/tasks"); err == nil {
		dir, file, frozen = "/sys/fs/cgroup/freezer"+path(t, h), "/freezer.state", "FROZEN"
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir+file, frozen)
	h.shows("ran")
}

func TestOneCgroupIsSeen(t *testing.T) {
	h := newScene(t)
	// Each of v1's hierarchies has one directory inside, and v2 none below the root.
	h.configure("find /sys/fs/cgroup -mindepth 2 -type d | wc -l")
	h.shows("0")
}

func TestCgroupsOfExecAreThoseOfTheContainer(t *testing.T) {
	h := newScene(t)
	h.configure("sleep 1000", func(s *specs.Spec) {
		limit, pids := int64(32<<20), int64(20)
		s.Linux.Resources.Memory, s.Linux.Resources.Pids = &specs.LinuxMemory{Limit: &limit}, &specs.LinuxPids{Limit: &pids}
		s.Linux.Resources.HugepageLimits = []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 2 << 20}}
		s.Linux.Namespaces = withoutNamespace(s, specs.CgroupNamespace)
	})
	h.must("run", "-d", "c")
	first, err := os.ReadFile("/proc/" + strconv.Itoa(h.state("c").Pid) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if out := h.must("exec", "c", "cat", "/proc/self/cgroup"); out != string(first) || !strings.Contains(out, path(t, h)) {
		t.Errorf("exec %q, the first process %q", out, first)
	}
	var e struct {
		Data struct {
			Hugetlb map[string]struct{ Failcnt *uint64 }
			CPU     struct {
				PSI *struct{ Some, Full map[string]float64 }
			}
		}
	}
	if err := json.Unmarshal([]byte(h.must("events", "--stats", "c")), &e); err != nil || e.Data.Hugetlb["2MB"].Failcnt == nil {
		t.Errorf("huge pages %+v, %v", e.Data.Hugetlb, err)
	}
	root, _ := unified(t)
	if _, err := os.ReadFile(root + path(t, h) + "/cpu.pressure"); err == nil && (e.Data.CPU.PSI == nil || len(e.Data.CPU.PSI.Some) != 4) {
		t.Errorf("pressure %+v", e.Data.CPU.PSI)
	}
}
