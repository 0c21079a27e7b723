package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/cgroup/systemd"
)

// The tests of this file need a host with systemd, as root or as an ordinary user with a login session.

// managed is a house whose containers are units of systemd.
type managed struct {
	*house
	unified bool
}

func newManaged(t *testing.T, change func(*specs.Spec), args ...string) *managed {
	t.Helper()
	if err := systemd.Running(); err != nil {
		t.Skip(err)
	}
	unified, err := cgroup.Unified()
	if err != nil {
		t.Skip(err)
	}
	if !unified && os.Geteuid() != 0 {
		t.Skip("needs root or cgroup v2 alone: systemd delegates no v1")
	}
	h := furnish(t, func(s *specs.Spec) {
		s.Linux.CgroupsPath = ""
		if os.Geteuid() != 0 {
			withoutRoot(s)
			s.Linux.Resources = &specs.LinuxResources{}
		}
		if change != nil {
			change(s)
		}
	}, args...)
	return &managed{h, unified}
}

func (m *managed) run(args ...string) string {
	m.t.Helper()
	return m.must(append([]string{"--systemd-cgroup"}, args...)...)
}

// unit makes the name of a unit unique to the test.
func unit(t *testing.T) string { return fmt.Sprintf("%s-%d", t.Name(), os.Getpid()) }

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		args = append([]string{"--user"}, args...)
	}
	out, err := exec.CommandContext(t.Context(), "systemctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// shows compares properties of a unit.
func shows(t *testing.T, unit string, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for name := range want {
		got[name] = systemctl(t, "show", "--value", "-p", name, unit)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: -want +got\n%s", unit, diff)
	}
}

// place is the cgroup of a process, in the hierarchy of a controller on v1.
func (m *managed) place(pid int, controller string) string {
	m.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		m.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if m.unified && f[0] == "0" || !m.unified && strings.Contains(","+f[1]+",", ","+controller+",") {
			return f[2]
		}
	}
	m.t.Fatalf("process %d is in no cgroup of %s:\n%s", pid, controller, text)
	return ""
}

// files compares files of the container's cgroup: by the names of v1 with the controller in front, or of v2.
func (m *managed) files(pid int, want map[string]string) {
	m.t.Helper()
	got := map[string]string{}
	for name := range want {
		controller, _, _ := strings.Cut(name, ".")
		dir := "/sys/fs/cgroup"
		if !m.unified {
			dir += "/" + controller
		}
		text, err := os.ReadFile(dir + m.place(pid, controller) + "/" + name)
		if err != nil {
			m.t.Error(err)
			continue
		}
		got[name] = strings.TrimSpace(string(text))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		m.t.Errorf("-want +got\n%s", diff)
	}
}

func (m *managed) pid(id string) int {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.bundle, id+".pid"))
	if err != nil {
		m.t.Fatal(err)
	}
	n, err := strconv.Atoi(string(text))
	if err != nil {
		m.t.Fatal(err)
	}
	return n
}

// gone waits until systemd has forgotten a unit, which it does a moment after its last process has ended.
func gone(t *testing.T, unit string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		state := systemctl(t, "show", "--value", "-p", "LoadState", unit)
		if state == "not-found" {
			return
		}
		if time.Now().After(end) {
			t.Errorf("%s is left: %s", unit, state)
			return
		}
	}
}

func pointer[T any](v T) *T { return &v }

func TestSystemdUnit(t *testing.T) {
	scope := "test-" + unit(t) + ".scope"
	m := newManaged(t, func(s *specs.Spec) {
		s.Linux.CgroupsPath = ":test:" + unit(t)
		s.Annotations = map[string]string{"org.systemd.property.TimeoutStopSec": "uint64 42", "org.systemd.property.CollectMode": "'inactive-or-failed'"}
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: pointer(int64(64 << 20))}
		s.Linux.Resources.CPU = &specs.LinuxCPU{Quota: pointer(int64(25500)), Period: pointer(uint64(50000)), Shares: pointer(uint64(2048))}
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: pointer(int64(99))}
		if os.Geteuid() == 0 {
			s.Linux.Resources.CPU.Cpus = "0"
		}
	}, "sh", "-c", "while :; do sleep 1; done")
	m.run("create", "--pid-file", "c.pid", "c")
	pid := m.pid("c")
	slice := "/system.slice/"
	if os.Geteuid() != 0 {
		slice = systemctl(t, "show", "--value", "-p", "ControlGroup") + "/user.slice/"
	}
	if got := m.place(pid, "memory"); got != slice+scope {
		t.Errorf("created in %s, expected %s", got, slice+scope)
	}
	properties := map[string]string{
		"Delegate": "yes", "DefaultDependencies": "no", "TimeoutStopUSec": "42s", "CollectMode": "inactive-or-failed",
		"TasksMax": "99", "CPUQuotaPerSecUSec": "510ms", "CPUQuotaPeriodUSec": "50ms",
		"MemoryAccounting": "yes", "CPUAccounting": "yes", "TasksAccounting": "yes",
	}
	files := map[string]string{"memory.max": "67108864", "cpu.max": "25500 50000", "pids.max": "99", "cpu.weight": "174"}
	if m.unified {
		properties["MemoryMax"], properties["CPUWeight"], properties["IOAccounting"] = "67108864", "174", "yes"
	} else {
		properties["MemoryLimit"], properties["CPUShares"] = "67108864", "2048"
		files = map[string]string{"memory.limit_in_bytes": "67108864", "cpu.cfs_quota_us": "25500", "cpu.cfs_period_us": "50000", "pids.max": "99", "cpu.shares": "2048"}
	}
	if os.Geteuid() == 0 {
		properties["DevicePolicy"], properties["AllowedCPUs"] = "strict", "0"
		files["cpuset.cpus"] = "0"
	}
	shows(t, scope, properties)
	m.files(pid, files)
	// What systemd was told is what the files say: they do not change when it writes them again.
	systemctl(t, "daemon-reload")
	m.files(pid, files)

	m.run("start", "c")
	m.refused(1, "there is one already", "--systemd-cgroup", "create", "d")
	if m.status("c") != "running" {
		t.Error("the unit of another container was stopped")
	}
	m.lives(scope, pid)
	m.run("kill", "c", "KILL")
	m.eventually("c", "stopped")
	m.run("delete", "c")
	gone(t, scope)
}

// lives goes through what is done to a running container.
func (m *managed) lives(scope string, pid int) {
	t := m.t
	m.run("exec", "--detach", "--pid-file", filepath.Join(m.bundle, "x.pid"), "c", "sleep", "1000")
	for _, controller := range []string{"memory", "freezer", "name=systemd"} {
		if got, want := m.place(m.pid("x"), controller), m.place(pid, controller); got != want {
			t.Errorf("%s: exec is in %s, expected %s", controller, got, want)
		}
	}
	if ps := m.run("ps", "--format", "json", "c"); strings.Count(ps, ",") < 1 || !strings.Contains(ps, strconv.Itoa(m.pid("x"))) {
		t.Errorf("ps: %s", ps)
	}
	if out := m.run("events", "--stats", "c"); !strings.Contains(out, `"limit":67108864`) || !strings.Contains(out, `"limit":99`) {
		t.Errorf("events: %s", out)
	}
	m.run("pause", "c")
	if m.status("c") != "paused" {
		t.Error(m.status("c"))
	}
	m.run("resume", "c")

	m.run("update", "--memory", "128m", "--pids-limit", "-1", "--cpu-quota", "10000", "c")
	properties := map[string]string{"TasksMax": "infinity", "CPUQuotaPerSecUSec": "200ms", "CPUQuotaPeriodUSec": "50ms"}
	if m.unified {
		properties["MemoryMax"] = "134217728"
		m.files(pid, map[string]string{"memory.max": "134217728", "cpu.max": "10000 50000", "pids.max": "max"})
	} else {
		properties["MemoryLimit"] = "134217728"
		m.files(pid, map[string]string{"memory.limit_in_bytes": "134217728", "cpu.cfs_quota_us": "10000", "pids.max": "max"})
	}
	shows(t, scope, properties)
	m.run("update", "--cpu-period", "100000", "c")
	shows(t, scope, map[string]string{"CPUQuotaPerSecUSec": "100ms", "CPUQuotaPeriodUSec": "100ms"})
}

func TestSystemdDefaultsAndSlices(t *testing.T) {
	for name, c := range map[string]struct{ path, unit, below string }{
		"no path":  {"", "sampan-c.scope", ".slice/sampan-c.scope"},
		"slice":    {"sampantest-a.slice:x:y", "x-y.scope", "/sampantest.slice/sampantest-a.slice/x-y.scope"},
		"is slice": {":x:sampantest-b.slice", "sampantest-b.slice", "/sampantest.slice/sampantest-b.slice"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManaged(t, func(s *specs.Spec) {
				s.Linux.CgroupsPath = c.path
				s.Linux.Resources.Pids = &specs.LinuxPids{Limit: pointer(int64(30))}
			})
			if strings.HasSuffix(c.unit, ".slice") && os.Geteuid() != 0 {
				m.refused(1, "systemd moves no process into a slice", "--systemd-cgroup", "run", "--detach", "c")
				return
			}
			m.run("run", "--detach", "--pid-file", "c.pid", "c")
			if got := m.place(m.pid("c"), "pids"); !strings.HasSuffix(got, c.below) {
				t.Errorf("in %s, expected ...%s", got, c.below)
			}
			m.files(m.pid("c"), map[string]string{"pids.max": "30"})
			shows(t, c.unit, map[string]string{"TasksMax": "30"})
			m.run("exec", "c", "true")
			m.run("delete", "--force", "c")
			if strings.HasSuffix(c.unit, ".scope") {
				gone(t, c.unit)
			}
		})
	}
}

func TestSystemdForegroundLeavesNothing(t *testing.T) {
	m := newManaged(t, nil, "sh", "-c", "exit 7")
	for range 3 {
		if r := m.call("--systemd-cgroup", "run", "c"); r.code != 7 || r.err != "" {
			t.Fatalf("%+v", r)
		}
	}
	gone(t, "sampan-c.scope")
}

func TestSystemdUnifiedFiles(t *testing.T) {
	m := newManaged(t, func(s *specs.Spec) {
		s.Linux.Resources.Unified = map[string]string{
			"memory.max": "41943040", "memory.high": "20971520", "memory.low": "524288", "memory.min": "131072", "memory.oom.group": "1",
			"pids.max": "98", "cpu.max": "10000 100000", "cpu.weight": "42",
		}
	})
	if !m.unified {
		m.refused(1, "linux.resources.unified", "--systemd-cgroup", "create", "c")
		return
	}
	m.run("run", "--detach", "--pid-file", "c.pid", "c")
	shows(t, "sampan-c.scope", map[string]string{
		"MemoryMax": "41943040", "MemoryHigh": "20971520", "MemoryLow": "524288", "MemoryMin": "131072", "OOMPolicy": "kill",
		"TasksMax": "98", "CPUQuotaPerSecUSec": "100ms", "CPUWeight": "42",
	})
	m.files(m.pid("c"), map[string]string{
		"memory.max": "41943040", "memory.high": "20971520", "memory.low": "524288", "memory.min": "131072", "memory.oom.group": "1",
		"pids.max": "98", "cpu.max": "10000 100000", "cpu.weight": "42",
	})
}

// The rules hold also when systemd has written its own again.
func TestSystemdDevices(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: an ordinary user makes no device rules")
	}
	for name, c := range map[string]struct {
		rules  []specs.LinuxDeviceCgroup
		policy string
		opens  bool
	}{
		"denied":            {[]specs.LinuxDeviceCgroup{{Access: "rwm"}}, "strict", false},
		"allowed":           {[]specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: pointer(int64(10)), Minor: pointer(int64(229)), Access: "r"}}, "strict", true},
		"allowed by number": {[]specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: pointer(int64(10)), Access: "r"}}, "strict", true},
		"all":               {[]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, "auto", true},
		"all but":           {[]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}, {Type: "c", Major: pointer(int64(10)), Minor: pointer(int64(229)), Access: "r"}}, "auto", false},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManaged(t, func(s *specs.Spec) {
				s.Linux.Resources.Devices = c.rules
				s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}}
			})
			if c.policy == "auto" && !c.opens && !m.unified {
				c.policy = "strict"
			}
			m.run("run", "--detach", "c")
			shows(t, "sampan-c.scope", map[string]string{"DevicePolicy": c.policy})
			try := func() {
				t.Helper()
				r := m.call("exec", "c", "sh", "-c", ": >/dev/null; : </dev/fuse")
				if (r.code == 0) != c.opens {
					t.Errorf("exit status %d, %s", r.code, r.err)
				}
			}
			try()
			if m.unified { // on v1 a reload takes away what systemd has no words for
				systemctl(t, "daemon-reload")
				m.run("update", "--pids-limit", "77", "c")
				try()
			}
		})
	}
}

func TestSystemdRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*specs.Spec)
		words  string
	}{
		"path":            {func(s *specs.Spec) { s.Linux.CgroupsPath = "/a/b" }, `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "/a/b" instead`},
		"slice":           {func(s *specs.Spec) { s.Linux.CgroupsPath = "a--b.slice:x:y" }, "a--b.slice"},
		"unknown":         {func(s *specs.Spec) { s.Annotations = map[string]string{"org.systemd.property.NoSuch": "true"} }, "NoSuch"},
		"value":           {func(s *specs.Spec) { s.Annotations = map[string]string{"org.systemd.property.CollectMode": "(("} }, "CollectMode"},
		"property's type": {func(s *specs.Spec) { s.Annotations = map[string]string{"org.systemd.property.CollectMode": "true"} }, "sampan-c.scope"},
		"limit": {func(s *specs.Spec) {
			s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: pointer(int64(1 << 20)), Swap: pointer(int64(1 << 10))}
		}, "memory"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManaged(t, c.change)
			r := m.call("--systemd-cgroup", "run", "c")
			if r.code != 1 || !strings.Contains(strings.ReplaceAll(r.err, `\"`, `"`), c.words) || strings.Count(strings.TrimSpace(r.err), "\n") > 0 {
				t.Errorf("exit status %d, %q; expected one line with %q", r.code, r.err, c.words)
			}
			if list := m.run("list", "-q"); list != "" {
				t.Errorf("left: %s", list)
			}
			gone(t, "sampan-c.scope")
		})
	}
}

func TestWithoutSystemd(t *testing.T) {
	if systemd.Running() == nil {
		t.Skip("systemd runs here")
	}
	h := newHouse(t, nil)
	h.refused(1, "systemd not running on this host", "--systemd-cgroup", "create", "c")
	if list := h.must("list", "-q"); list != "" {
		t.Errorf("left: %s", list)
	}
}
