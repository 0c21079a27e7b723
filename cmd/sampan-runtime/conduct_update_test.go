package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/cgroup"
)

// updated is a running container, whose limits are read from the kernel's files.
type updated struct {
	*house
	path string
	v2   bool
}

// runUpdated runs a container with these limits, and some for what is not given.
func runUpdated(t *testing.T, change func(*specs.LinuxResources)) *updated {
	t.Helper()
	h := newScene(t)
	u := &updated{house: h}
	h.configure("sleep 1000", func(s *specs.Spec) {
		u.path = s.Linux.CgroupsPath
		r := s.Linux.Resources
		r.Memory = &specs.LinuxMemory{Limit: new(int64(32 << 20)), Reservation: new(int64(24 << 20))}
		r.CPU = &specs.LinuxCPU{Shares: new(uint64(100)), Quota: new(int64(500000)), Period: new(uint64(1000000))}
		r.Pids = &specs.LinuxPids{Limit: new(int64(20))}
		if change != nil {
			change(r)
		}
	})
	h.must("run", "-d", "c")
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	u.v2 = err == nil
	return u
}

// read reads a file of the container's cgroup; controller is for v1.
func (u *updated) read(controller, file string) string {
	u.t.Helper()
	at := filepath.Join("/sys/fs/cgroup", controller, u.path, file)
	if u.v2 {
		at = filepath.Join("/sys/fs/cgroup", u.path, file)
	}
	text, err := os.ReadFile(at)
	if errors.Is(err, fs.ErrNotExist) {
		u.t.Skipf("this kernel has no %s", file)
	}
	if err != nil {
		u.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// has compares limits, in the order of names.
func (u *updated) has(what string, want map[string]string) {
	u.t.Helper()
	for name, value := range want {
		var got string
		switch name {
		case "memory":
			got = map[bool]func() string{
				false: func() string { return unlimited(u.read("memory", "memory.limit_in_bytes")) },
				true:  func() string { return u.read("", "memory.max") },
			}[u.v2]()
		case "swap": // the limit of both together
			if got = unlimited(u.swap()); got == "" {
				continue
			}
		case "reservation":
			got = u.either("memory", "memory.soft_limit_in_bytes", "memory.low")
		case "pids":
			got = u.read("pids", "pids.max")
		case "cpus":
			got = u.read("cpuset", "cpuset.cpus")
		case "idle":
			got = u.read("cpu", "cpu.idle")
		case "burst":
			got = u.either("cpu", "cpu.cfs_burst_us", "cpu.max.burst")
		case "shares":
			got = u.read("cpu", "cpu.shares")
		case "quota":
			if got = u.read("cpu", map[bool]string{false: "cpu.cfs_quota_us", true: "cpu.max"}[u.v2]); !u.v2 {
				got = strings.Replace(got, "-1", "max", 1) + " " + u.read("cpu", "cpu.cfs_period_us")
			}
		case "realtime":
			got = u.read("cpu", "cpu.rt_runtime_us") + " " + u.read("cpu", "cpu.rt_period_us")
		}
		if got != value {
			u.t.Errorf("%s: %s is %q, expected %q", what, name, got, value)
		}
	}
}

func (u *updated) either(controller, v1, v2 string) string {
	if u.v2 {
		return u.read(controller, v2)
	}
	return u.read(controller, v1)
}

func (u *updated) swap() string {
	if !u.v2 {
		text, _ := os.ReadFile(filepath.Join("/sys/fs/cgroup/memory", u.path, "memory.memsw.limit_in_bytes")) //nolint:errcheck // a kernel without has no swap
		return strings.TrimSpace(string(text))
	}
	text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", u.path, "memory.swap.max"))
	swap := strings.TrimSpace(string(text))
	if err != nil || swap == "max" {
		return swap
	}
	alone, _ := strconv.ParseUint(swap, 10, 64)
	memory, _ := strconv.ParseUint(u.read("", "memory.max"), 10, 64)
	return fmt.Sprint(alone + memory)
}

// unlimited is v2's word for v1's largest number.
func unlimited(s string) string {
	if n, err := strconv.ParseUint(s, 10, 64); err == nil && n >= 1<<62 {
		return "max"
	}
	return s
}

// resources calls update with JSON on its standard input.
func (u *updated) resources(text string) result {
	cmd := u.command("update", "-r", "-", "c")
	cmd.Stdin = strings.NewReader(text)
	out, _ := cmd.CombinedOutput() //nolint:errcheck // the status tells
	return result{code: cmd.ProcessState.ExitCode(), err: string(out)}
}

func (u *updated) mustTake(text string) {
	u.t.Helper()
	if r := u.resources(text); r.code != 0 {
		u.t.Errorf("%s: %+v", text, r)
	}
}

const firstLimits = `{"memory":{"limit":33554432,"reservation":25165824},"cpu":{"shares":100,"quota":500000,"period":1000000,"cpus":"0"},"pids":{"limit":20}}`

func TestUpdateLimits(t *testing.T) {
	u := runUpdated(t, nil)
	first := map[string]string{"memory": "33554432", "reservation": "25165824", "pids": "20", "quota": "500000 1000000"}
	u.has("at first", first)
	for _, c := range []struct {
		args string
		want map[string]string
	}{
		{"--memory 67108864", map[string]string{"memory": "67108864"}},
		{"--memory 50M", map[string]string{"memory": "52428800"}},
		{"--memory-reservation 33554432", map[string]string{"reservation": "33554432"}},
		{"--memory-swap -1", map[string]string{"swap": "max"}},
		{"--memory 50M --memory-swap 96468992", map[string]string{"swap": "96468992", "memory": "52428800"}},
		{"--memory -1", map[string]string{"memory": "max", "swap": "max"}},
		{"--pids-limit 10", map[string]string{"pids": "10"}},
		{"--pids-limit -1", map[string]string{"pids": "max"}},
		{"--pids-limit 12345", map[string]string{"pids": "12345"}},
		{"--pids-limit 0", map[string]string{"pids": "1"}}, // the process that is there
		{"", first},
		{"--cpu-period 900000 --cpu-quota 600000 --cpu-share 200 --memory 67108864 --memory-reservation 33554432 --pids-limit 10",
			map[string]string{"memory": "67108864", "reservation": "33554432", "pids": "10", "quota": "600000 900000", "swap": "max"}},
		{"", first},
		// More memory than the old limit of both, and less again.
		{"--memory 30M --memory-swap 50M", map[string]string{"memory": "31457280", "swap": "52428800"}},
		{"--memory 60M --memory-swap 80M", map[string]string{"memory": "62914560", "swap": "83886080"}},
		{"--memory 30M --memory-swap 50M", map[string]string{"memory": "31457280", "swap": "52428800"}},
		// What the kernel no longer limits.
		{"--kernel-memory 16M --kernel-memory-tcp 11M --pids-limit 9", map[string]string{"pids": "9", "memory": "31457280"}},
	} {
		if c.args == "" {
			u.mustTake(firstLimits)
		} else {
			u.must(append(append([]string{"update"}, strings.Fields(c.args)...), "c")...)
		}
		u.has(c.args, c.want)
	}
	if r := u.call("update", "--kernel-memory", "1", "c"); r.code != 0 || !strings.Contains(r.err, "obsolete") {
		t.Errorf("no warning: %+v", r)
	}
	if r := u.resources(`{"memory":{"kernel":1048576}}`); r.code != 0 || !strings.Contains(r.err, "obsolete") {
		t.Errorf("no warning: %+v", r)
	}
	u.refused(1, `--kernel-memory "much"`, "update", "--kernel-memory", "much", "c")
	file := filepath.Join(t.TempDir(), "resources.json")
	if err := os.WriteFile(file, []byte(firstLimits), 0o600); err != nil {
		t.Fatal(err)
	}
	u.must("update", "-r", file, "c")
	u.has("from a file", first)
	u.has("from a file", map[string]string{"cpus": "0"})
	if runtime.NumCPU() > 1 {
		u.must("update", "--cpuset-cpus", "1", "c")
		u.has("another CPU", map[string]string{"cpus": "1"})
		u.mustTake(`{"cpu":{"cpus":"0"}}`)
		u.has("as JSON", map[string]string{"cpus": "0"})
	}
}

func TestUpdateCPU(t *testing.T) {
	u := runUpdated(t, nil)
	u.has("at first", map[string]string{"quota": "500000 1000000"})
	for _, c := range []struct{ args, quota, shares string }{
		{"--cpu-period 900000", "500000 900000", "100"},
		{"--cpu-quota 600000", "600000 900000", "100"},
		{"--cpu-quota -1", "max 900000", "100"},
		{"--cpu-share 200", "max 900000", "200"},
		{"", "500000 1000000", "100"},
		{"--cpu-period 900000 --cpu-quota 600000 --cpu-share 200", "600000 900000", "200"},
		{"--cpu-quota -1 --cpu-period 100000", "max 100000", "200"},
	} {
		if c.args == "" {
			u.mustTake(firstLimits)
		} else {
			u.must(append(append([]string{"update"}, strings.Fields(c.args)...), "c")...)
		}
		want := map[string]string{"quota": c.quota}
		if !u.v2 {
			want["shares"] = c.shares
		}
		u.has(c.args, want)
	}
	t.Run("burst", func(t *testing.T) {
		u.t = t
		for _, c := range []struct{ args, want string }{
			{"--cpu-period 900000 --cpu-quota 600000 --cpu-burst 500000", "500000"}, {"--memory 100M", "500000"}, {"--cpu-period 900000 --cpu-burst 0", "0"},
		} {
			u.must(append(append([]string{"update"}, strings.Fields(c.args)...), "c")...)
			u.has(c.args, map[string]string{"burst": c.want})
		}
	})
	t.Run("idle", func(t *testing.T) {
		u.t = t
		u.has("at first", map[string]string{"idle": "0"})
		for _, n := range []string{"1", "0", "1"} {
			u.mustTake(`{"cpu":{"idle":` + n + `}}`)
			u.has("JSON", map[string]string{"idle": n})
		}
		for _, n := range []string{"1", "0", "1"} {
			u.must("update", "--cpu-idle", n, "c")
			u.has("option", map[string]string{"idle": n})
		}
		for _, bad := range []string{"-1", "2", "3"} {
			u.refused(1, "linux.resources.cpu.idle", "update", "--cpu-idle", bad, "c")
		}
		u.must("update", "--cpu-period", "10000", "c")
		u.has("after another limit", map[string]string{"idle": "1"})
	})
}

// A quota without a period, and the other way round, in the configuration and in an update.
func TestQuotaAndPeriodAlone(t *testing.T) {
	for _, c := range []struct {
		first      specs.LinuxCPU
		args, want string
	}{
		{specs.LinuxCPU{Period: new(uint64(1000000))}, "", "max 1000000"},
		{specs.LinuxCPU{Quota: new(int64(5000))}, "", "5000 100000"},
		{specs.LinuxCPU{}, "--cpu-period 50000", "max 50000"},
		{specs.LinuxCPU{}, "--cpu-quota 30000", "30000 100000"},
	} {
		u := runUpdated(t, func(r *specs.LinuxResources) { r.CPU = &c.first })
		if c.args != "" {
			u.must(append(append([]string{"update"}, strings.Fields(c.args)...), "c")...)
		}
		u.has(c.args, map[string]string{"quota": c.want})
		u.must("delete", "--force", "c")
	}
	h := newScene(t)
	h.configure("true", func(s *specs.Spec) { s.Linux.Resources.CPU = &specs.LinuxCPU{Period: new(uint64(100))} })
	h.refused(1, "linux.resources.cpu.period", "run", "c")
}

// Below a cgroup with a quota of its own (a pod), v1 refuses a larger part, and takes a smaller one with
// another period.
func TestUpdateBelowALimit(t *testing.T) {
	h := newScene(t)
	const cpu = "/sys/fs/cgroup/cpu"
	if _, err := os.Stat(cpu + "/cpu.cfs_quota_us"); err != nil {
		t.Skip("needs the cpu controller of cgroup v1: in v2 a part may be larger than the whole")
	}
	u := &updated{house: h}
	var pod string
	h.configure("sleep 1000", func(s *specs.Spec) {
		pod = s.Linux.CgroupsPath
		s.Linux.CgroupsPath += "/c"
		u.path = s.Linux.CgroupsPath
	})
	if err := os.Mkdir(cpu+pod, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.call("delete", "--force", "c")
		if err := cgroup.RemoveEmpty(pod); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(cpu+pod+"/cpu.cfs_quota_us", []byte("50000"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.must("run", "-d", "c")
	h.refused(1, "linux.resources.cpu.quota", "update", "--cpu-quota", "60000", "c")
	h.must("update", "--cpu-period", "10000", "--cpu-quota", "3000", "c")
	u.has("a smaller part", map[string]string{"quota": "3000 10000"})
}

func TestUpdateRealtime(t *testing.T) {
	h := newScene(t)
	const cpu = "/sys/fs/cgroup/cpu"
	if _, err := os.Stat(cpu + "/cpu.rt_runtime_us"); err != nil {
		t.Skip("this kernel has no groups of realtime scheduling, or not in cgroup v1")
	}
	u := &updated{house: h}
	var pod string
	h.configure("sleep 1000", func(s *specs.Spec) {
		pod = s.Linux.CgroupsPath
		s.Linux.CgroupsPath += "/c"
		u.path = s.Linux.CgroupsPath
	})
	if err := os.Mkdir(cpu+pod, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.call("delete", "--force", "c")
		if err := cgroup.RemoveEmpty(pod); err != nil {
			t.Error(err)
		}
	})
	// A cgroup has no time of realtime until it is given some of that of its parent.
	if err := os.WriteFile(cpu+pod+"/cpu.rt_runtime_us", []byte("700000"), 0o644); err != nil {
		t.Skipf("the host has no time of realtime to give: %v", err)
	}
	h.must("run", "-d", "c")
	for _, c := range []struct{ json, args, want string }{
		{`{"cpu":{"realtimeRuntime":500001}}`, "", "500001 1000000"},
		{`{"cpu":{"realtimePeriod":800001,"realtimeRuntime":500001}}`, "", "500001 800001"},
		{"", "--cpu-rt-period 900001 --cpu-rt-runtime 600001", "600001 900001"},
		{"", "--cpu-rt-period 10000 --cpu-rt-runtime 3000", "3000 10000"},
		{"", "--cpu-rt-period 100000 --cpu-rt-runtime 20000", "20000 100000"},
	} {
		if c.json != "" {
			u.mustTake(c.json)
		} else {
			u.must(append(append([]string{"update"}, strings.Fields(c.args)...), "c")...)
		}
		u.has(c.json+c.args, map[string]string{"realtime": c.want})
	}
}

// An update is about limits: it leaves a container paused, and its devices as they are at every moment.
func TestUpdateLeavesTheRest(t *testing.T) {
	u := runUpdated(t, func(r *specs.LinuxResources) { r.Memory = nil })
	u.must("pause", "c")
	u.must("update", "--pids-limit", "30", "c")
	if status := u.status("c"); status != "paused" {
		t.Errorf("it is %s", status)
	}
	u.must("resume", "c")
	u.must("delete", "--force", "c")

	u.configure("while :; do head -c 100 /dev/kmsg 2>/dev/null; done", func(s *specs.Spec) {
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Type: "c", Major: new(int64(1)), Minor: new(int64(11)), Access: "rwm"})
		s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11}}
		for _, set := range []*[]string{&s.Process.Capabilities.Bounding, &s.Process.Capabilities.Effective, &s.Process.Capabilities.Permitted} {
			*set = append(*set, "CAP_SYSLOG")
		}
	})
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := u.command("run", "-d", "c")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		u.must("update", "--pids-limit", "30", "c")
	}
	u.must("delete", "--force", "c")
	if text, err := os.ReadFile(out.Name()); err != nil || len(text) > 0 {
		t.Errorf("a device could be read, or the null device not be written: %q, %v", text, err)
	}
}

func TestUpdateMemoryInUse(t *testing.T) {
	u := runUpdated(t, nil)
	for _, more := range []string{"", `"swap":2048,`} {
		if r := u.resources(`{"memory":{"limit":1024,` + more + `"checkBeforeUpdate":true}}`); r.code != 1 || !strings.Contains(r.err, "expected at least the current usage") {
			t.Errorf("%+v", r)
		}
	}
	u.has("refused", map[string]string{"memory": "33554432"})
	if status := u.status("c"); status != "running" {
		t.Errorf("it is %s", status)
	}
	// Unasked, v1 refuses it too, and v2 kills what uses too much.
	if r := u.call("update", "--memory", "1024", "c"); r.code == 0 || u.v2 {
		u.eventually("c", "stopped")
	} else if !strings.Contains(r.err, "more is in use") {
		t.Errorf("%+v", r)
	}
}

func TestUpdateBlockDevices(t *testing.T) {
	found, _ := filepath.Glob("/sys/block/*/dev")
	if len(found) == 0 {
		t.Skip("this machine has no block device")
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	device := strings.TrimSpace(string(text))
	var major, minor int64
	if _, err := fmt.Sscanf(device, "%d:%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	one := specs.LinuxThrottleDevice{Rate: 485760}
	one.Major, one.Minor = major, minor
	u := runUpdated(t, func(r *specs.LinuxResources) {
		r.BlockIO = &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{one, one}} // twice is no error
	})
	rate := func(name string, n int) string {
		return fmt.Sprintf(`"throttle%sDevice":[{"major":%d,"minor":%d,"rate":%d}]`, name, major, minor, n)
	}
	u.mustTake(`{"blockIO":{` + strings.Join([]string{rate("ReadBps", 10485760), rate("WriteBps", 9437184), rate("ReadIOPS", 1000), rate("WriteIOPS", 900)}, ",") + `}}`)
	if u.v2 {
		if got := u.read("", "io.max"); got != device+" rbps=10485760 wbps=9437184 riops=1000 wiops=900" {
			t.Errorf("io.max: %q", got)
		}
		return
	}
	for file, want := range map[string]string{"read_bps": "10485760", "write_bps": "9437184", "read_iops": "1000", "write_iops": "900"} {
		if got := u.read("blkio", "blkio.throttle."+file+"_device"); got != device+" "+want {
			t.Errorf("%s: %q, expected %s", file, got, want)
		}
	}
}

func TestUpdateUnified(t *testing.T) {
	u := runUpdated(t, nil)
	if !u.v2 {
		if r := u.resources(`{"unified":{"pids.max":"10"}}`); r.code != 1 || !strings.Contains(r.err, "linux.resources.unified.pids.max") {
			t.Errorf("a file of v2 on v1: %+v", r)
		}
		return
	}
	u.mustTake(`{"unified":{"cpu.max":"max 100000","cpu.weight":"16","pids.max":"10"}}`)
	u.has("unified", map[string]string{"quota": "max 100000", "pids": "10"})
	if got := u.read("", "cpu.weight"); got != "16" {
		t.Errorf("cpu.weight %s", got)
	}
	if runtime.NumCPU() > 1 {
		for _, cpus := range []string{"0", "1", "0-1"} {
			u.mustTake(`{"unified":{"cpuset.cpus":"` + cpus + `"}}`)
			u.has("unified", map[string]string{"cpus": cpus})
		}
	}
}
