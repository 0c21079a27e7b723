package systemd

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		path string
		user bool
		want Unit
		at   string
	}{
		{"", false, Unit{Name: "sampan-web.scope", Slice: "system.slice"}, "/system.slice/sampan-web.scope"},
		{"", true, Unit{Name: "sampan-web.scope", Slice: "user.slice", User: true}, "/user.slice/sampan-web.scope"},
		{"machine.slice:libpod:123", false, Unit{Name: "libpod-123.scope", Slice: "machine.slice"}, "/machine.slice/libpod-123.scope"},
		{"a-b-c.slice:p:n", false, Unit{Name: "p-n.scope", Slice: "a-b-c.slice"}, "/a.slice/a-b.slice/a-b-c.slice/p-n.scope"},
		{"-:p:n", false, Unit{Name: "p-n.scope", Slice: "-.slice"}, "/p-n.scope"},
		{"-.slice:p:n", false, Unit{Name: "p-n.scope", Slice: "-.slice"}, "/p-n.scope"},
		{"::n", false, Unit{Name: "-n.scope", Slice: "system.slice"}, "/system.slice/-n.scope"},
		{"kubepods.slice:p:kubepods-burstable.slice", false, Unit{Name: "kubepods-burstable.slice", Slice: "kubepods.slice"}, "/kubepods.slice/kubepods-burstable.slice"},
	} {
		got, err := Parse(c.path, "web", c.user)
		if err != nil {
			t.Errorf("%q: %v", c.path, err)
			continue
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q: -want +got\n%s", c.path, diff)
		}
		for root, want := range map[string]string{"": c.at, "/user.slice/user@7.service": "/user.slice/user@7.service" + c.at} {
			if at, err := got.Path(root); err != nil || at != want {
				t.Errorf("%q below %q: %s, %v; expected %s", c.path, root, at, err, want)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	long := strings.Repeat("x", 300)
	for path, words := range map[string]string{
		"/sampan/web":          `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "/sampan/web" instead`,
		"a:b":                  "got \"a:b\"",
		"a:b:c:d":              "got \"a:b:c:d\"",
		long + long:            "...",
		"machine:p:n":          `"machine"`,
		".slice:p:n":           `".slice"`,
		"a--b.slice:p:n":       `"a--b.slice"`,
		"-a.slice:p:n":         `"-a.slice"`,
		"a-.slice:p:n":         `"a-.slice"`,
		"a.slice/b.slice:p:n":  `"a.slice/b.slice"`,
		"../../a.slice:p:n":    `"../../a.slice"`,
		"a.slice:../p:n":       "a unit's name",
		"a.slice:p:../../n":    "a unit's name",
		"a.slice:p:n m":        "a unit's name",
		"a.slice:p:n\n":        "a unit's name",
		"a.slice:p:@":          "a unit's name",
		"a.slice:p:" + long:    "a unit's name",
		long + ".slice:p:n":    "a slice's name",
		"a.slice:p:-.slice":    "below the root",
		"a.slice:p:b--c.slice": `"b--c.slice"`,
		"a.slice:p:../b.slice": `"../b.slice"`,
	} {
		_, err := Parse(path, "web", false)
		if err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 300 {
			t.Errorf("%q: %v; expected one line with %q", path, err, words)
		}
	}
}

// texts are properties as text, in order.
func texts(list []Property) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.Name+" "+p.Value.Signature().String()+" "+p.Value.String())
	}
	return out
}

func TestAnnotations(t *testing.T) {
	got, err := Annotations(map[string]string{
		"other":                         "ignored",
		annotation + "CollectMode":      "'inactive-or-failed'",
		annotation + "TimeoutStopUSec":  "uint64 123456789",
		annotation + "TimeoutStartSec":  "uint32 7",
		annotation + "RuntimeMaxSec":    "1.5",
		annotation + "After":            "['a.service', \"b.service\"]",
		annotation + "SendSIGHUP":       "true",
		annotation + "JobTimeoutSECSec": "uint64 5",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`After as ["a.service", "b.service"]`,
		`CollectMode s "inactive-or-failed"`,
		`JobTimeoutSECSec t @t 5`, // no lower-case letter in front of Sec
		`RuntimeMaxUSec t @t 1500000`,
		`SendSIGHUP b true`,
		`TimeoutStartUSec t @t 7000000`,
		`TimeoutStopUSec t @t 123456789`,
	}
	if diff := cmp.Diff(want, texts(got)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestAnnotationsRefuse(t *testing.T) {
	for key, value := range map[string]string{
		"":               "1",
		"Ab":             "1",
		"Memory_Max":     "1",
		"Métrique":       "1",
		"CollectMode":    "",
		"CollectMod":     "((",
		"TimeoutStopSec": "'x'",
		"RestartSec":     "-1",
		"StartSec":       "uint64 18446744073709551615",
		"StopSec":        "1e300",
		"Panic":          "@b []",
		"OtherDigits":    "٩ 1",
		"OtherEscaped":   "'\\\\' ٩ 'x'",
		"Long":           strings.Repeat("[", maxValue+1),
	} {
		list, err := Annotations(map[string]string{annotation + key: value})
		if err == nil || !strings.Contains(err.Error(), annotation+key) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 400 {
			t.Errorf("%s=%.40q: %v, %v; expected one line that names it", key, value, texts(list), err)
		}
	}
}

func FuzzAnnotation(f *testing.F) {
	for _, s := range []string{"uint64 5", "'text'", "['a', 'b']", "(1, 'x')", "{'a': <1>}", "@as []", "b'x'", "[[", "-1", "objectpath '/'", "<<1>>", "\\", "'\\'' ٩", "'é'"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, value string) {
		Annotations(map[string]string{annotation + "TimeoutStopSec": value}) //nolint:errcheck // it must not panic
	})
}

func pointer[T any](v T) *T { return &v }

func TestLimits(t *testing.T) {
	v2, v1 := Dialect{Unified: true, Version: 257}, Dialect{Version: 252}
	infinity := "@t 18446744073709551615"
	for _, c := range []struct {
		name    string
		dialect Dialect
		r       specs.LinuxResources
		want    []string
	}{
		{"nothing", v2, specs.LinuxResources{Memory: &specs.LinuxMemory{}, CPU: &specs.LinuxCPU{}, Pids: &specs.LinuxPids{}, BlockIO: &specs.LinuxBlockIO{}}, nil},
		{"memory", v2, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: pointer(int64(100)), Swap: pointer(int64(150)), Reservation: pointer(int64(50))}},
			[]string{"MemoryMax t @t 100", "MemoryLow t @t 50", "MemorySwapMax t @t 50"}},
		{"memory without limit", v2, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: pointer(int64(-1))}},
			[]string{"MemoryMax t " + infinity, "MemorySwapMax t " + infinity}},
		{"swap without limit", v2, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: pointer(int64(100)), Swap: pointer(int64(-1))}},
			[]string{"MemoryMax t @t 100", "MemorySwapMax t " + infinity}},
		{"no swap", v2, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: pointer(int64(100)), Swap: pointer(int64(100))}},
			[]string{"MemoryMax t @t 100", "MemorySwapMax t @t 0"}},
		{"memory, v1", v1, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: pointer(int64(100)), Swap: pointer(int64(150)), Reservation: pointer(int64(50))}},
			[]string{"MemoryLimit t @t 100"}},
		{"cpu", v2, specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: pointer(uint64(1024)), Quota: pointer(int64(25000)), Period: pointer(uint64(50000)), Cpus: "0-2,9", Mems: "0"}},
			[]string{"CPUWeight t @t 100", "CPUQuotaPeriodUSec t @t 50000", "CPUQuotaPerSecUSec t @t 500000", `AllowedCPUs ay @ay [0x7, 0x2]`, `AllowedMemoryNodes ay @ay [0x1]`}},
		{"cpu, v1", v1, specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: pointer(uint64(1)), Quota: pointer(int64(-1))}},
			[]string{"CPUShares t @t 2", "CPUQuotaPerSecUSec t " + infinity}},
		{"quota alone", v2, specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: pointer(int64(12345))}}, []string{"CPUQuotaPerSecUSec t @t 130000"}},
		{"idle", v2, specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: pointer(int64(1)), Shares: pointer(uint64(1024))}}, []string{"CPUWeight t @t 0"}},
		{"old systemd", Dialect{Unified: true, Version: 239}, specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: pointer(int64(1)), Quota: pointer(int64(50000)), Period: pointer(uint64(50000)), Cpus: "0"}},
			[]string{"CPUQuotaPerSecUSec t @t 1000000"}},
		{"pids", v2, specs.LinuxResources{Pids: &specs.LinuxPids{Limit: pointer(int64(5))}}, []string{"TasksMax t @t 5"}},
		{"any number of pids", v2, specs.LinuxResources{Pids: &specs.LinuxPids{Limit: pointer(int64(-1))}}, []string{"TasksMax t " + infinity}},
		{"weight", v2, specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: pointer(uint16(500))}}, []string{"IOWeight t @t 4950"}},
		{"weight, v1", v1, specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: pointer(uint16(500))}}, []string{"BlockIOWeight t @t 500"}},
		{"files", v2, specs.LinuxResources{Unified: map[string]string{
			"cpu.max": "10000 50000", "cpu.weight": " 42\n", "cpuset.cpus": "1", "cpuset.mems": "0", "hugetlb.2MB.max": "5",
			"memory.high": "1", "memory.low": "2", "memory.max": "max", "memory.min": "3", "memory.swap.max": "4", "pids.max": "0",
		}}, []string{
			"CPUQuotaPeriodUSec t @t 50000", "CPUQuotaPerSecUSec t @t 200000", "CPUWeight t @t 42", `AllowedCPUs ay @ay [0x2]`, `AllowedMemoryNodes ay @ay [0x1]`,
			"MemoryHigh t @t 1", "MemoryLow t @t 2", "MemoryMax t " + infinity, "MemoryMin t @t 3", "MemorySwapMax t @t 4", "TasksMax t @t 1",
		}},
		{"files, any quota", v2, specs.LinuxResources{Unified: map[string]string{"cpu.max": "max"}}, []string{"CPUQuotaPerSecUSec t " + infinity}},
		{"files, idle", v2, specs.LinuxResources{Unified: map[string]string{"cpu.idle": "1", "cpu.weight": "5"}}, []string{"CPUWeight t @t 0"}},
	} {
		got, err := c.dialect.Limits(&c.r)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(c.want, texts(got)); diff != "" {
			t.Errorf("%s: -want +got\n%s", c.name, diff)
		}
	}
}

func TestLimitsRefuse(t *testing.T) {
	for field, r := range map[string]specs.LinuxResources{
		"cpu.quota":           {CPU: &specs.LinuxCPU{Quota: pointer(int64(math.MaxInt64))}},
		"cpu.cpus":            {CPU: &specs.LinuxCPU{Cpus: "0-4294967295"}},
		"cpu.mems":            {CPU: &specs.LinuxCPU{Mems: "3-1"}},
		"unified.cpu.max":     {Unified: map[string]string{"cpu.max": "1 2 3"}},
		"unified.cpu.weight":  {Unified: map[string]string{"cpu.weight": "x"}},
		"unified.memory.max":  {Unified: map[string]string{"memory.max": "-5"}},
		"unified.cpuset.cpus": {Unified: map[string]string{"cpuset.cpus": ","}},
	} {
		if list, err := (Dialect{Unified: true, Version: 257}).Limits(&r); err == nil || !strings.Contains(err.Error(), "linux.resources."+field) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, %v", field, texts(list), err)
		}
	}
	if _, err := (Dialect{Unified: true, Version: 257}).Properties(&specs.LinuxResources{Unified: map[string]string{"memory.oom.group": "2"}}, nil); err == nil {
		t.Error("memory.oom.group 2 was taken")
	}
}

// systemd keeps hundredths of a CPU: what is told it and what is written to the file are the same.
func TestRound(t *testing.T) {
	for _, c := range []struct {
		quota  int64
		period uint64
		want   int64
	}{
		{10000, 100000, 10000}, {10001, 100000, 11000}, {12345, 0, 13000}, {25500, 50000, 25500}, {1, 1000000, 10000}, {-1, 50000, -1}, {0, 50000, 0},
	} {
		r := specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &c.quota}}
		if c.period != 0 {
			r.CPU.Period = &c.period
		}
		got, err := Round(&r)
		if err != nil || *got.CPU.Quota != c.want {
			t.Errorf("%d in %d: %d, %v; expected %d", c.quota, c.period, *got.CPU.Quota, err, c.want)
		}
	}
	if r, err := Round(nil); r != nil || err != nil {
		t.Error(r, err)
	}
}

func TestDevices(t *testing.T) {
	rule := func(allow bool, kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		r := specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Access: access}
		if major >= 0 {
			r.Major = &major
		}
		if minor >= 0 {
			r.Minor = &minor
		}
		return r
	}
	deny, all := rule(false, "", -1, -1, "rwm"), rule(true, "", -1, -1, "rwm")
	const always = "char-* m, block-* m, /dev/char/1:3 rwm, /dev/char/1:5 rwm, /dev/char/1:7 rwm, /dev/char/1:8 rwm, " +
		"/dev/char/1:9 rwm, /dev/char/5:0 rwm, char-136 rwm, /dev/char/5:2 rwm"
	for _, c := range []struct {
		name    string
		unified bool
		rules   []specs.LinuxDeviceCgroup
		policy  string
		list    string
	}{
		{"none", true, nil, "strict", always},
		{"denied", true, []specs.LinuxDeviceCgroup{deny}, "strict", always},
		{"all", true, []specs.LinuxDeviceCgroup{all}, "auto", ""},
		{"all, v1", false, []specs.LinuxDeviceCgroup{all}, "auto", ""},
		{"some", true, []specs.LinuxDeviceCgroup{deny, rule(true, "c", 10, 229, "rw"), rule(true, "b", 8, -1, "r")}, "strict", "/dev/char/10:229 rw, block-8 r, " + always},
		{"taken away", true, []specs.LinuxDeviceCgroup{rule(true, "c", 10, 229, "rw"), deny}, "strict", always},
		{"all but one", true, []specs.LinuxDeviceCgroup{all, rule(false, "c", 10, 229, "rw")}, "auto", ""},
		{"all but one, v1", false, []specs.LinuxDeviceCgroup{all, rule(false, "c", 10, 229, "rw")}, "strict", ""},
		{"any major", true, []specs.LinuxDeviceCgroup{deny, rule(true, "c", -1, 3, "r")}, "auto", ""},
		{"any major, v1", false, []specs.LinuxDeviceCgroup{deny, rule(true, "c", -1, 3, "r")}, "strict", always},
		{"a hole", true, []specs.LinuxDeviceCgroup{deny, rule(true, "c", 10, -1, "rw"), rule(false, "c", 10, 229, "r")}, "auto", ""},
	} {
		got, err := (Dialect{Unified: c.unified, Version: 257, Devices: true}).Limits(&specs.LinuxResources{Devices: c.rules})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var list []string
		policy := got[1].Value.Value()
		for _, p := range got[2:] {
			for _, d := range p.Value.Value().([]deviceAllow) {
				list = append(list, d.Path+" "+d.Access)
			}
		}
		if first, ok := got[0].Value.Value().([]deviceAllow); !ok || len(first) > 0 || got[0].Name != "DeviceAllow" {
			t.Errorf("%s: what was allowed before is not taken away: %v", c.name, got[0])
		}
		if diff := cmp.Diff(c.list, strings.Join(list, ", ")); diff != "" || policy != c.policy {
			t.Errorf("%s: %v, -want +got\n%s", c.name, policy, diff)
		}
	}
	if _, err := (Dialect{Devices: true}).Limits(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Type: "x"}}}); err == nil {
		t.Error("type x was taken")
	}
}

func TestUnitProperties(t *testing.T) {
	scope := Unit{Name: "p-n.scope", Slice: "a.slice"}
	want := []string{`Description s "sampan container p-n"`, `Slice s "a.slice"`, "Delegate b true", "PIDs au @au [7]", "DefaultDependencies b false"}
	if diff := cmp.Diff(want, texts(scope.properties(7))); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	slice := Unit{Name: "a-b.slice", Slice: "a.slice"}
	want = []string{`Description s "sampan container a-b"`, `Wants as ["a.slice"]`, "DefaultDependencies b false"}
	if diff := cmp.Diff(want, texts(slice.properties(7))); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]int{"257.13-1~deb13u1": 257, "v245.4-1.fc32": 245, "249": 249, `"v252"`: 252, "": 0, "x": 0} {
		if got := parseVersion(text); got != want {
			t.Errorf("%q: %d, expected %d", text, got, want)
		}
	}
}

func TestAddresses(t *testing.T) {
	dir := t.TempDir()
	environment := map[string]string{}
	texts := func() (list []string) {
		for _, a := range addresses(true, func(name string) string { return environment[name] }) {
			list = append(list, a.text)
		}
		return list
	}
	if got := texts(); got != nil {
		t.Errorf("without a session: %v", got)
	}
	environment["XDG_RUNTIME_DIR"] = dir
	if err := os.WriteFile(filepath.Join(dir, "bus"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"unix:path=" + dir + "/bus"}, texts()); diff != "" {
		t.Error(diff)
	}
	if err := os.Mkdir(filepath.Join(dir, "systemd"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "systemd/private"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	environment["DBUS_SESSION_BUS_ADDRESS"] = "unixexec:path=/bin/sh;unix:path=/x,guid=1"
	if diff := cmp.Diff([]string{"unix:path=" + dir + "/systemd/private", "unix:path=/x,guid=1"}, texts()); diff != "" {
		t.Error(diff)
	}
	if got := addresses(false, os.Getenv); len(got) != 1 || !got[0].private {
		t.Errorf("root's: %v", got)
	}
}
