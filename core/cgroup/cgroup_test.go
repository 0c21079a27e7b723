package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// parent is where the tests' cgroups are, of an ordinary user where one is delegated. It is removed when
// nothing else is below.
var parent = func() string {
	if os.Geteuid() == 0 {
		return "/sampan-test-cgroup"
	}
	return path.Join(Delegated(), "sampan-test-cgroup")
}()

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: device rules, and cgroups that are delegated to nobody")
	}
}

// needCgroups skips for an ordinary user to whom no cgroup is delegated, or only the one that the test
// itself is in (cgroups(7), "no internal processes").
func needCgroups(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	procs, err := readFile("/sys/fs/cgroup" + path.Dir(parent) + "/cgroup.procs")
	if err != nil || procs != "" || unix.Access("/sys/fs/cgroup"+path.Dir(parent)+"/cgroup.subtree_control", unix.W_OK) != nil {
		t.Skip("needs root, or a cgroup that is delegated to the user")
	}
}

func name(t *testing.T) string {
	return path.Join(parent, fmt.Sprintf("%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-")))
}

// permitted are limits that the user may set: device rules take root.
func permitted(r *specs.LinuxResources) *specs.LinuxResources {
	if os.Geteuid() == 0 {
		return r
	}
	if r == nil {
		r = &specs.LinuxResources{}
	}
	r.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	return r
}

func create(t *testing.T, r *specs.LinuxResources, o Options) *Manager {
	t.Helper()
	needCgroups(t)
	t.Cleanup(removeParent)
	m, err := New(name(t), permitted(r), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Delete(); err != nil {
			t.Error(err)
		}
	})
	m.Release()
	return m
}

func removeParent() {
	h, err := thisHost()
	if err != nil {
		return
	}
	for _, x := range h.all {
		os.Remove(x.mount + parent)
	}
}

// sleeper starts a process in the cgroup.
func sleeper(t *testing.T, m *Manager, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "read go; "+script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // killed
	})
	if err := m.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "go")
	return cmd
}

func pointer64[T any](v T) *T { return &v }

func TestLimitsAreWritten(t *testing.T) {
	m := create(t, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: pointer64[int64](64 << 20), Reservation: pointer64[int64](32 << 20)},
		CPU:    &specs.LinuxCPU{Shares: pointer64[uint64](512), Quota: pointer64[int64](50000), Period: pointer64[uint64](100000), Cpus: "0", Mems: "0"},
		Pids:   &specs.LinuxPids{Limit: pointer64[int64](77)},
	}, Options{})
	v1 := map[string]string{
		"memory/memory.limit_in_bytes": "67108864", "memory/memory.soft_limit_in_bytes": "33554432", "cpu/cpu.shares": "512",
		"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000", "cpuset/cpuset.cpus": "0", "pids/pids.max": "77",
	}
	v2 := map[string]string{
		"memory/memory.max": "67108864", "memory/memory.low": "33554432", "cpu/cpu.weight": "59",
		"cpu/cpu.max": "50000 100000", "cpuset/cpuset.cpus": "0", "pids/pids.max": "77",
	}
	for _, wanted := range []map[string]string{v1, v2} {
		for key, want := range wanted {
			controller, file, _ := strings.Cut(key, "/")
			h := m.host.of(controller)
			if _, isV1 := v1[key]; h == nil || h.unified == isV1 && key != "pids/pids.max" && controller != "cpuset" {
				continue
			}
			if got, err := readFile(h.mount + m.path + "/" + file); err != nil || got != want {
				t.Errorf("%s: %q, %v; expected %q", file, got, err, want)
			}
		}
	}
	s, err := m.Stats()
	if err != nil || s.Memory.Limit != 64<<20 || s.Pids.Limit != 77 {
		t.Errorf("statistics %+v, %v", s, err)
	}
}

func TestSet(t *testing.T) {
	m := create(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: pointer64[int64](64 << 20), Swap: pointer64[int64](64 << 20)}}, Options{})
	cmd := sleeper(t, m, "x=$(printf %1000000s x); read forever")
	for _, r := range []*specs.LinuxResources{
		// Up and down: the order in which memory and swap can be written differs.
		{Memory: &specs.LinuxMemory{Limit: pointer64[int64](256 << 20), Swap: pointer64[int64](512 << 20)}},
		{Memory: &specs.LinuxMemory{Limit: pointer64[int64](32 << 20), Swap: pointer64[int64](48 << 20)}},
		{Memory: &specs.LinuxMemory{Limit: pointer64[int64](-1)}},
		// A controller that the container had not joined.
		{CPU: &specs.LinuxCPU{Cpus: "0"}},
		{CPU: &specs.LinuxCPU{Quota: pointer64[int64](20000)}},
		{CPU: &specs.LinuxCPU{Period: pointer64[uint64](50000)}},
	} {
		if err := m.Set(r); err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
	}
	if s, err := m.Stats(); err != nil || s.Memory.Limit != math.MaxUint64 {
		t.Errorf("memory %+v, %v; expected no limit", s.Memory, err)
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(cmd.Process.Pid, &set); err != nil || set.Count() != 1 {
		t.Errorf("the process may use %d CPUs, %v; expected 1", set.Count(), err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if s, err := m.Stats(); err != nil || time.Now().After(end) {
			t.Fatalf("the process uses %d bytes, %v", s.Memory.Usage, err)
		} else if s.Memory.Usage > 1<<16 {
			break
		}
	}
	err := m.Set(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: pointer64[int64](4096), CheckBeforeUpdate: pointer64(true)}})
	if !fault.Is(err, fault.Conflict) {
		t.Errorf("a limit below the usage: %v", err)
	}
}

func TestRefusedLimits(t *testing.T) {
	needRoot(t)
	bad := &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000"}}
	_, err := New(name(t), bad, Options{})
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `linux.resources.cpu.cpus "4000"`) {
		t.Errorf("error %v, expected one that names the limit", err)
	}
	if h, _ := thisHost(); exists(h.all[0].mount + name(t)) {
		t.Error("a cgroup is left behind")
	}
	var log bytes.Buffer
	create(t, bad, Options{Clamp: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if !strings.Contains(log.String(), "linux.resources.cpu.cpus") {
		t.Errorf("log %q, expected a warning", log.String())
	}
	for want, r := range map[string]*specs.LinuxResources{
		`hugepageLimits.pageSize "../x"`:     {HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "../x"}}},
		`unified "cgroup.procs"`:             {Unified: map[string]string{"cgroup.procs": "1"}},
		`unified "memory.max/../../x"`:       {Unified: map[string]string{"memory.max/../../x": "1"}},
		`swappiness "101"`:                   {Memory: &specs.LinuxMemory{Swappiness: pointer64[uint64](101)}},
		`priorities.name "eth0 1\nlo"`:       {Network: &specs.LinuxNetwork{Priorities: []specs.LinuxInterfacePriority{{Name: "eth0 1\nlo"}}}},
		"no nothere cgroup controller":       {Unified: map[string]string{"nothere.max": "1"}},
		`linux.resources.devices[0].type "x`: {Devices: []specs.LinuxDeviceCgroup{{Type: "x"}}},
	} {
		if _, err := New(name(t)+"-bad", r, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, expected %s", err, want)
		}
	}
}

func TestFreezeAndKill(t *testing.T) {
	m := create(t, nil, Options{})
	cmd := sleeper(t, m, "while :; do /bin/true; done")
	if err := m.Freeze(); err != nil {
		t.Fatal(err)
	}
	if frozen, err := m.Frozen(); err != nil || !frozen {
		t.Errorf("frozen: %v, %v", frozen, err)
	}
	before, _ := m.Stats()
	time.Sleep(20 * time.Millisecond)
	after, err := m.Stats()
	if err != nil || before.CPU.Total != after.CPU.Total || before.CPU.Total == 0 {
		t.Errorf("processor time went from %d to %d while frozen, %v", before.CPU.Total, after.CPU.Total, err)
	}
	if err := m.Thaw(); err != nil {
		t.Fatal(err)
	}
	if pids, err := m.Pids(); err != nil || len(pids) == 0 {
		t.Errorf("processes %v, %v", pids, err)
	}
	if err := m.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := m.Kill(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(interface{ Signal() unix.Signal }).Signal() != unix.SIGKILL {
		t.Errorf("ended with %v, expected killed", err)
	}
}

func TestAnExistingCgroup(t *testing.T) {
	m := create(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: pointer64[int64](5)}}, Options{})
	again, err := New(m.path, permitted(nil), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := again.Stats(); err != nil || s.Pids.Limit != math.MaxUint64 {
		t.Errorf("the limit of before is %d, %v; expected none", s.Pids.Limit, err)
	}
	sleeper(t, again, "exec sleep 60")
	again.Release()
	if _, err := New(m.path, permitted(nil), Options{}); !fault.Is(err, fault.Conflict) {
		t.Errorf("error %v, expected a conflict", err)
	}
	if pids, err := again.Pids(); err != nil || len(pids) == 0 {
		t.Errorf("after a refused New: processes %v, %v", pids, err)
	}
	// They are the second one's now, and the first one has nothing to do with them.
	if pids, err := m.Pids(); err != nil || len(pids) > 0 {
		t.Errorf("the first one's processes: %v, %v; expected none", pids, err)
	}
	if err := errors.Join(m.Kill(unix.SIGKILL), m.Delete()); err != nil || !m.DeleteEmpty() {
		t.Errorf("the end of what was replaced: %v", err)
	}
	if pids, err := again.Pids(); err != nil || len(pids) == 0 || len(again.joined()) != len(again.made) {
		t.Errorf("after the end of what was replaced: processes %v in %d hierarchies of %d, %v", pids, len(again.joined()), len(again.made), err)
	}
	if err := errors.Join(again.Kill(unix.SIGKILL), again.Delete()); err != nil {
		t.Error(err)
	}
}

func TestDeleteNested(t *testing.T) {
	m := create(t, nil, Options{})
	for _, h := range m.joined() {
		if err := os.MkdirAll(h.mount+m.path+"/a/b/c", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Delete(); err != nil {
		t.Fatal(err)
	}
	if err := m.Delete(); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if joined := m.joined(); len(joined) > 0 {
		t.Errorf("left: %v", joined)
	}
	if pids, err := m.Pids(); err != nil || len(pids) > 0 {
		t.Errorf("processes of nothing: %v, %v", pids, err)
	}
}

func TestDeleteWaits(t *testing.T) {
	m := create(t, nil, Options{})
	sleeper(t, m, "exec sleep 0.2")
	if err := m.Delete(); err != nil {
		t.Errorf("a process that ends soon: %v", err)
	}
}

func TestOOMKillsAreCounted(t *testing.T) {
	m := create(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: pointer64[int64](16 << 20), Swap: pointer64[int64](16 << 20)}}, Options{Clamp: true})
	cmd := sleeper(t, m, "exec tail /dev/zero")
	if err := cmd.Wait(); err == nil {
		t.Error("the process was not killed")
	}
	if n, err := m.OOMKills(); err != nil || n == 0 {
		t.Errorf("%d kills, %v", n, err)
	}
}

// deviceDir is a directory whose device nodes can be opened, as those of a /tmp with nodev cannot.
func deviceDir(t *testing.T) string {
	t.Helper()
	var fs unix.Statfs_t
	dir := t.TempDir()
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Flags&unix.ST_NODEV == 0 {
		return dir
	}
	dir, err := os.MkdirTemp("/dev", "sampan-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestDeviceRulesHold(t *testing.T) {
	needRoot(t)
	null := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: pointer64[int64](10), Minor: pointer64[int64](200), Access: "r"}
	m := create(t, &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}, null}}, Options{})
	dir := deviceDir(t)
	for file, dev := range map[string]uint64{"tun": unix.Mkdev(10, 200), "kmsg": unix.Mkdev(1, 11), "null": unix.Mkdev(1, 3)} {
		if err := unix.Mknod(dir+"/"+file, unix.S_IFCHR|0o600, int(dev)); err != nil {
			t.Fatal(err)
		}
	}
	run := func() string {
		out := dir + "/out"
		os.Remove(out)
		cmd := sleeper(t, m, fmt.Sprintf(`exec >%s 2>&1; cd %s
			(: <null) && echo null
			(: >null) && echo null-w
			if ! (: <tun) 2>err && grep -q permitted err; then echo no-tun; fi
			if ! (: >tun) 2>err && grep -q permitted err; then echo no-tun-w; fi
			if ! (: <kmsg) 2>err && grep -q permitted err; then echo no-kmsg; fi`, out, dir))
		cmd.Wait() //nolint:errcheck // the output tells
		data, _ := os.ReadFile(out)
		return strings.Join(strings.Fields(string(data)), " ")
	}
	if got, want := run(), "null null-w no-tun-w no-kmsg"; got != want {
		t.Errorf("%q, expected %q", got, want)
	}
	if err := m.Set(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}); err != nil {
		t.Fatal(err)
	}
	if got, want := run(), "null null-w"; got != want {
		t.Errorf("all allowed: %q, expected %q", got, want)
	}
	if err := m.Set(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}}); err != nil {
		t.Fatal(err)
	}
	if got, want := run(), "null null-w no-tun no-tun-w no-kmsg"; got != want {
		t.Errorf("forbidden again: %q, expected %q", got, want)
	}
}

func TestTasksJoin(t *testing.T) {
	m := create(t, nil, Options{})
	files, err := m.Tasks()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := m.FD()
	if err != nil {
		t.Fatal(err)
	}
	if m.Unified() != (dir != nil) || m.Unified() != (len(files) == 0) {
		t.Errorf("unified %v: directory %v, %d tasks files", m.Unified(), dir, len(files))
	}
	for _, f := range files {
		f.Close()
	}
	if dir != nil {
		dir.Close()
	}
}

// A program that finds no cpuset on v1 may take no notice of any limit.
func TestCpusetIsInherited(t *testing.T) {
	m := create(t, nil, Options{})
	h := m.host.of("cpuset")
	if h == nil || h.unified {
		t.Skip("needs a host with the cpuset controller of cgroup v1")
	}
	sleeper(t, m, "exec sleep 100")
	for _, file := range []string{"/cpuset.cpus", "/cpuset.mems"} {
		got, err := readFile(h.mount + m.path + file)
		want, wantErr := readFile(h.mount + file)
		if err != nil || wantErr != nil || got == "" || got != want {
			t.Errorf("%s is %q, %v; want that of the root, %q, %v", file, got, err, want, wantErr)
		}
	}
	if pids, err := readFile(h.mount + m.path + "/cgroup.procs"); err != nil || pids == "" {
		t.Errorf("the process is not in the cpuset: %q, %v", pids, err)
	}
	if handed, err := readFile(h.mount + path.Dir(m.path) + "/cgroup.clone_children"); err != nil || handed != "1" {
		t.Errorf("the parent's clone_children is %q, %v", handed, err)
	}
}

// Containers that are the first below a parent, all at once: the parent has no processors yet for a moment.
func TestCpusetOfManyAtOnce(t *testing.T) {
	needCgroups(t)
	t.Cleanup(removeParent)
	removeParent()
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			m, err := New(name(t)+strconv.Itoa(i), permitted(nil), Options{})
			if err != nil {
				t.Error(err)
				return
			}
			if h := m.host.of("cpuset"); h != nil && !h.unified {
				if got, err := readFile(h.mount + m.path + "/cpuset.mems"); err != nil || got == "" {
					t.Errorf("memory nodes %q, %v", got, err)
				}
			}
			if err := m.Delete(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

func TestCleanPath(t *testing.T) {
	for given, want := range map[string]string{
		"/a/b": "/a/b", "a": "/a", "/../../x": "/x", "/": "", "": "", "..": "", "a:b:c": "", "/a\nb": "", "/k8s:pod:x": "/k8s:pod:x",
		strings.Repeat("x", maxPath+1): "",
	} {
		if got, err := cleanPath(given); got != want || (want == "") != (err != nil) {
			t.Errorf("cleanPath(%.20q) = %q, %v; expected %q", given, got, err, want)
		}
	}
}

func TestParseMounts(t *testing.T) {
	h := parseMounts(`31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 /part /mnt/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 31 0:29 / /sys/fs/cgroup/cpu\040x rw,relatime shared:1 - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
garbage
`)
	if len(h.all) != 2 || h.pure() || h.unified == nil || h.of("cpuacct").mount != "/sys/fs/cgroup/cpu x" || h.unified.mount != "/sys/fs/cgroup/unified" {
		t.Errorf("%+v", h)
	}
}

func TestWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 1024: 100, 262144: 10000, math.MaxUint64: 10000} {
		if got := weight(shares); got != want {
			t.Errorf("weight(%d) = %d, expected %d", shares, got, want)
		}
	}
}

func TestNumbersOfTheKernel(t *testing.T) {
	for text, want := range map[string]uint64{"max": math.MaxUint64, "-1": math.MaxUint64, "9223372036854771712": math.MaxUint64, "4096": 4096} {
		if got, ok := parseNumber(text); !ok || got != want {
			t.Errorf("%s: %d", text, got)
		}
	}
	if got := blockEntries("8:0 Read 4096\n8:0 Sync 1\nTotal 5\n8:0 Write 7\n"); len(got) != 2 || got[1] != (BlockEntry{8, 0, "write", 7}) {
		t.Errorf("%+v", got)
	}
}

func BenchmarkNewDelete(b *testing.B) {
	needCgroups(b)
	defer removeParent()
	r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: pointer64[int64](64 << 20)}, Pids: &specs.LinuxPids{Limit: pointer64[int64](64)}}
	for b.Loop() {
		m, err := New(path.Join(parent, "bench"), r, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := m.Delete(); err != nil {
			b.Fatal(err)
		}
	}
}

// On a hybrid host the unified hierarchy has the controllers that v1 does not.
func TestHybrid(t *testing.T) {
	needRoot(t)
	h, err := thisHost()
	if err != nil {
		t.Fatal(err)
	}
	if h.pure() || h.unified == nil || !h.unified.has("hugetlb") {
		t.Skip("needs a hybrid host with hugetlb in the unified hierarchy")
	}
	m := create(t, &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}}, Options{})
	if got, err := readFile(h.unified.mount + m.path + "/hugetlb.2MB.max"); err != nil || got != "4194304" {
		t.Errorf("%q, %v", got, err)
	}
	dir, err := m.FD()
	if err != nil || dir == nil {
		t.Fatalf("directory %v, %v", dir, err)
	}
	dir.Close()
	// There is no "tasks" in the unified hierarchy, and who is there already joins it as a whole.
	files, err := m.Joins()
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for i, f := range files {
		if last := i == len(files)-1; strings.HasPrefix(f.Name(), h.unified.mount+"/") != last || strings.HasSuffix(f.Name(), "/cgroup.procs") != last {
			t.Errorf("file %d of %d is %s", i, len(files), f.Name())
		}
		f.Close()
	}
	cmd := sleeper(t, m, "exec sleep 60")
	for _, hierarchy := range []*hierarchy{h.unified, h.of("memory")} {
		if procs, err := readFile(hierarchy.mount + m.path + "/cgroup.procs"); err != nil || procs != fmt.Sprint(cmd.Process.Pid) {
			t.Errorf("%s: processes %q, %v", hierarchy.mount, procs, err)
		}
	}
}
