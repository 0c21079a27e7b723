package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// The tests of this file are about what only a host with cgroup v2 alone has.

func needUnified(t *testing.T, controllers ...string) {
	t.Helper()
	h, err := thisHost()
	if err != nil {
		t.Fatal(err)
	}
	if !h.pure() {
		t.Skip("needs a host with cgroup v2 alone")
	}
	needCgroups(t)
	for _, c := range controllers {
		list, err := readFile(h.unified.mount + filepath.Dir(parent) + "/cgroup.controllers")
		if err != nil || !strings.Contains(" "+list+" ", " "+c+" ") {
			t.Skipf("needs the controller %s, there are %q, %v", c, list, err)
		}
	}
}

// disk is a block device that can be throttled, as config.json names it.
func disk(t *testing.T) specs.LinuxBlockIODevice {
	t.Helper()
	list, _ := filepath.Glob("/sys/block/[hsv]d?/dev") //nolint:errcheck // the pattern is right
	if len(list) == 0 {
		t.Skip("needs a disk")
	}
	text, err := readFile(list[0])
	if err != nil {
		t.Fatal(err)
	}
	e, ok := blockEntry(text, "read", "0")
	if !ok {
		t.Fatalf("%s: %q", list[0], text)
	}
	var d specs.LinuxBlockIODevice
	d.Major, d.Minor = int64(e.Major), int64(e.Minor)
	return d
}

func TestUnifiedFiles(t *testing.T) {
	needUnified(t, "memory", "pids")
	m := create(t, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: pointer64[int64](64 << 20), Swap: pointer64[int64](96 << 20)},
		CPU:    &specs.LinuxCPU{Quota: pointer64[int64](50000), Burst: pointer64[uint64](10000)},
		Unified: map[string]string{
			"memory.high": "33554432", "memory.oom.group": "1", "pids.max": "33", "memory.min": "1048576",
		},
	}, Options{})
	for file, want := range map[string]string{
		"memory.max": "67108864", "memory.swap.max": "33554432", "memory.high": "33554432", "memory.oom.group": "1", "pids.max": "33",
		"memory.min": "1048576", "cpu.max": "50000 100000", "cpu.max.burst": "10000",
	} {
		if got, err := readFile(m.host.unified.mount + m.path + "/" + file); err != nil || got != want {
			t.Errorf("%s: %q, %v; expected %q", file, got, err, want)
		}
	}
	for key, words := range map[string]string{
		"cgroup.procs": "the name of a controller's file", "nothing.max": "no nothing cgroup controller", "memory.nothing": "this kernel has no memory.nothing",
		"pids.maximum": "no pids.maximum",
	} {
		if err := m.Set(&specs.LinuxResources{Unified: map[string]string{key: "1"}}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v; expected %q", key, err, words)
		}
	}
}

func TestUnifiedBlockLimits(t *testing.T) {
	needUnified(t, "io")
	d := disk(t)
	limit := func(rate uint64) []specs.LinuxThrottleDevice {
		return []specs.LinuxThrottleDevice{{LinuxBlockIODevice: d, Rate: rate}}
	}
	m := create(t, &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{
		ThrottleReadBpsDevice: limit(1 << 20), ThrottleWriteBpsDevice: limit(2 << 20),
		ThrottleReadIOPSDevice: limit(300), ThrottleWriteIOPSDevice: limit(400),
	}}, Options{})
	file := m.host.unified.mount + m.path + "/io.max"
	if got, err := readFile(file); err != nil || !strings.HasSuffix(got, "rbps=1048576 wbps=2097152 riops=300 wiops=400") {
		t.Errorf("io.max: %q, %v", got, err)
	}
	if err := m.Set(&specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: limit(0)}}); err != nil {
		t.Error(err)
	}
	if got, err := readFile(file); err != nil || !strings.HasSuffix(got, "rbps=max wbps=2097152 riops=300 wiops=400") {
		t.Errorf("without a limit of reading: %q, %v", got, err)
	}
}

func TestUnifiedCpuset(t *testing.T) {
	needUnified(t, "cpuset")
	m := create(t, &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0", Mems: "0"}}, Options{})
	for _, file := range []string{"cpuset.cpus", "cpuset.mems", "cpuset.cpus.effective", "cpuset.mems.effective"} {
		if got, err := readFile(m.host.unified.mount + m.path + "/" + file); err != nil || got != "0" {
			t.Errorf("%s: %q, %v; expected 0", file, got, err)
		}
	}
	if err := m.Set(&specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "x"}}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "cpu.cpus") {
		t.Errorf("no list of processors: %v", err)
	}
}

// With memory.oom.group the kernel kills all of a container or nothing.
func TestOOMKillsTheGroup(t *testing.T) {
	needUnified(t, "memory")
	m := create(t, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: pointer64[int64](16 << 20)}, Unified: map[string]string{"memory.oom.group": "1", "memory.swap.max": "0"},
	}, Options{})
	cmd := sleeper(t, m, "sleep 1000 & tail /dev/zero; echo survived; exit 0")
	if err := cmd.Wait(); err == nil {
		t.Error("the shell was not killed")
	}
	// The shell may be gone before the kernel has come to the last of them.
	var n uint64
	var err error
	for range 500 {
		if n, err = m.OOMKills(); err != nil || n >= 3 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil || n < 3 {
		t.Errorf("%d kills, %v; expected the shell and both that it started", n, err)
	}
}

func TestEnterBelow(t *testing.T) {
	needUnified(t)
	m := create(t, nil, Options{})
	dir := m.host.unified.mount + m.path + "/below"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f, tasks, err := m.Enter(Sub{"": "below"})
	if err != nil || f == nil || len(tasks) != 0 || f.Name() != dir {
		t.Fatalf("%v, %v, %v; expected %s", f, tasks, err, dir)
	}
	f.Close()
	for below, want := range map[string]error{"nothing": unix.ENOENT} {
		if _, _, err := m.Enter(Sub{"": below}); !errors.Is(err, want) || !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", below, err)
		}
	}
	for _, sub := range []Sub{{"memory": "below"}, {"": "../x"}} {
		if _, _, err := m.Enter(sub); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "cgroup") {
			t.Errorf("%v: %v", sub, err)
		}
	}
}
