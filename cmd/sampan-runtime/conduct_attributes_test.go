package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What the configuration gives the program, an exec has too.
func TestExecHasTheAttributesOfTheContainer(t *testing.T) {
	h := newScene(t)
	umask := uint32(0o77)
	own := func(s *specs.Spec) {
		s.Process.User.Umask = &umask
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 101}}
		s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 19}
		s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
		s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolPreferred, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFRelativeNodes}}
		s.Hostname, s.Domainname = "myhost", "mydomain"
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 7881, Nanosecs: 2718281}, "boottime": {Secs: 1337, Nanosecs: 3141519}}
		// A filter may refuse what the runtime itself has to call for these.
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"personality", "set_mempolicy", "sched_setattr"}, Action: specs.ActErrno}}}
	}
	const script = `umask; ulimit -Sn; ulimit -Hn; hostname; cat /proc/sys/kernel/domainname; cat /proc/self/personality
head -n 1 /proc/self/numa_maps | cut -d' ' -f2; tr -s ' ' ' ' </proc/self/timens_offsets
read x </proc/self/stat; set -- ${x##*) }; echo nice ${17} policy ${39}`
	machine := "myhost\nmydomain\n00000008\n"
	want := "0077\n100\n101\n" + machine + "prefer=relative:0\nmonotonic 7881 2718281\nboottime 1337 3141519\nnice 19 policy 3"
	h.configure(script, own)
	h.shows(want, "run")
	h.configure("sleep 1000", own)
	h.must("run", "-d", "c")
	if out := strings.TrimSpace(h.must("exec", "c", "sh", "-c", script)); out != want {
		t.Errorf("exec: %q, expected %q", out, want)
	}
	if runtime.GOARCH == "amd64" {
		if out := h.must("exec", "c", "uname", "-m"); out != "i686\n" {
			t.Errorf("the machine is %q", out)
		}
	}
}

func TestPersonalityOfTheMachine(t *testing.T) {
	h := newScene(t)
	own, err := exec.Command("uname", "-m").Output()
	if err != nil {
		t.Fatal(err)
	}
	linux := func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux} }
	h.configure("uname -m", linux)
	h.shows(strings.TrimSpace(string(own)))
	h.configure("sleep 1000", linux)
	h.must("run", "-d", "c")
	if out := h.must("exec", "c", "uname", "-m"); out != string(own) {
		t.Errorf("exec: %q, expected %q", out, own)
	}
}

func TestMemoryPolicies(t *testing.T) {
	h := newScene(t)
	const script = "head -n 1 /proc/self/numa_maps | cut -d' ' -f2"
	policy := func(mode specs.MemoryPolicyModeType, nodes string, flags ...specs.MemoryPolicyFlagType) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: mode, Nodes: nodes, Flags: flags}
		}
	}
	for want, change := range map[string]func(*specs.Spec){
		"interleave:0": policy(specs.MpolInterleave, "0"), "bind=static:0": policy(specs.MpolBind, "0", specs.MpolFStaticNodes), "default": policy(specs.MpolDefault, ""),
	} {
		h.configure(script, change)
		h.shows(want)
	}
	for _, c := range []struct {
		words  string
		change func(*specs.Spec)
	}{
		{`linux.memoryPolicy.mode ""`, policy("", "")},
		{`linux.memoryPolicy.mode ""`, policy("", "0-7")},
		{`linux.memoryPolicy.mode "INTERLEAVE"`, policy("INTERLEAVE", "0")},
		{`linux.memoryPolicy.flags[1] "bad"`, policy(specs.MpolPreferred, "0", specs.MpolFRelativeNodes, "bad")},
		{`MPOL_DEFAULT of nodes "0-7": invalid argument`, policy(specs.MpolDefault, "0-7")},
		{`linux.memoryPolicy.nodes "0-9876543210"`, policy(specs.MpolBind, "0-9876543210")},
	} {
		h.configure(script, c.change)
		h.refused(1, c.words, "run", "c")
	}
}

func TestSchedulers(t *testing.T) {
	h := newScene(t)
	h.configure("sleep 1000")
	h.must("run", "-d", "c")
	file := filepath.Join(t.TempDir(), "process.json")
	deadline := &specs.Scheduler{
		Policy: specs.SchedDeadline, Nice: 19, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}, Runtime: 42000, Deadline: 100000, Period: 1000000,
	}
	text, err := json.Marshal(specs.Process{Args: []string{"/bin/sleep", "600"}, Cwd: "/", Scheduler: deadline})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	if r := h.call("exec", "-d", "--pid-file", pidFile, "--process", file, "c"); strings.Contains(r.err, "operation not permitted") {
		t.Skipf("this machine does not let root schedule by deadline: %s", r.err)
	} else if r.code != 0 {
		t.Fatalf("%+v", r)
	}
	var pid int
	if text, err = os.ReadFile(pidFile); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	got, err := unix.SchedGetAttr(pid, 0)
	if err != nil || got.Policy != unix.SCHED_DEADLINE || got.Flags&unix.SCHED_FLAG_RESET_ON_FORK == 0 || got.Runtime != 42000 || got.Deadline != 100000 || got.Period != 1000000 {
		t.Errorf("%+v, %v", got, err)
	}
	if runtime.NumCPU() == 1 {
		return
	}
	// The kernel admits it on all CPUs or none (sched_setattr(2), EPERM).
	h.configure("true", func(s *specs.Spec) {
		s.Process.Scheduler = deadline
		s.Linux.CgroupsPath += "-2"
		s.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "0"}
	})
	h.refused(1, "process.scheduler: SCHED_DEADLINE", "run", "d")
}

func TestLimitsOfFiles(t *testing.T) {
	h := newScene(t)
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint64{own.Max, own.Max - 1, own.Max + 1} {
		limit := func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: n, Hard: n}}
		}
		want := fmt.Sprintf("%d\n%[1]d", n)
		h.configure("ulimit -Sn; ulimit -Hn", limit)
		if r := h.call("run", "c"); n > own.Max && r.code != 0 {
			// Above the host's it takes CAP_SYS_RESOURCE, and no more than fs.nr_open: who lacks it is told.
			if !strings.Contains(r.err, fmt.Sprintf("process.rlimits: RLIMIT_NOFILE hard limit %d: expected at most %d", n, own.Max)) {
				t.Errorf("%+v", r)
			}
			continue
		} else if strings.TrimSpace(r.out) != want {
			t.Errorf("%+v, expected %s", r, want)
		}
		h.configure("sleep 1000", limit)
		h.must("run", "-d", "c")
		if out := strings.TrimSpace(h.must("exec", "c", "sh", "-c", "ulimit -Sn; ulimit -Hn")); out != want {
			t.Errorf("exec: %q, expected %q", out, want)
		}
		h.must("delete", "--force", "c")
	}
}

func TestTimeOffsets(t *testing.T) {
	h := newScene(t)
	const script = "tr -s ' ' ' ' </proc/self/timens_offsets"
	offsets := func(s *specs.Spec) {
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 7881, Nanosecs: 2718281}, "boottime": {Secs: 1337, Nanosecs: 3141519}}
	}
	space := func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	}
	h.configure(script, offsets)
	h.refused(1, "expected a new time namespace", "run", "c")
	h.configure(script, space)
	h.shows("monotonic 0 0\nboottime 0 0", "no offsets")
	h.own()
	h.configure(script, space, offsets, inUserNamespace)
	h.shows("monotonic 7881 2718281\nboottime 1337 3141519", "in a user namespace")
}
