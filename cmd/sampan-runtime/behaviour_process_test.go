package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The tests of the files behaviour_*_test.go are, as those of conduct_*_test.go, what runc's scenarios tell of a
// runtime; tests/conformance/runc-scenarios-*.tsv says which is about which.

const capabilityLines = `grep -E '^(Cap|NoNew)' /proc/self/status | tr -d '\t' | tr '\n' ' '`

func capabilitiesOf(inheritable, permitted, effective, bounding, ambient uint64) string {
	return fmt.Sprintf("CapInh:%016x CapPrm:%016x CapEff:%016x CapBnd:%016x CapAmb:%016x", inheritable, permitted, effective, bounding, ambient)
}

func TestCapabilitySets(t *testing.T) {
	const (
		kill, bind, admin, audit = 1 << 5, 1 << 10, 1 << 21, 1 << 29

		usual = kill | bind | audit
	)
	for _, c := range []struct {
		name, want, warning string
		change              func(*specs.Process)
	}{
		{"as written by spec", capabilitiesOf(0, usual, usual, usual, 0) + " NoNewPrivs:1", "", func(*specs.Process) {}},
		{"with new privileges", capabilitiesOf(0, usual, usual, usual, 0) + " NoNewPrivs:0", "", func(p *specs.Process) { p.NoNewPrivileges = false }},
		{"unknown ones", capabilitiesOf(0, 0, 0, 0, 0) + " NoNewPrivs:1", `unknown capability \"UNKNOWN_CAP\"`, func(p *specs.Process) {
			p.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_UNKNOWN", "UNKNOWN_CAP"}}
		}},
		{"what is not bounding is not effective after execve", capabilitiesOf(0, admin, admin, admin, 0) + " NoNewPrivs:1", "", func(p *specs.Process) {
			p.Capabilities.Bounding = []string{"CAP_SYS_ADMIN"}
			p.Capabilities.Permitted = append(p.Capabilities.Permitted, "CAP_SYS_ADMIN")
		}},
		{"ambient but not inheritable", capabilitiesOf(kill, usual, usual, usual, kill) + " NoNewPrivs:1", "process.capabilities.ambient: 0x1 ", func(p *specs.Process) {
			p.Capabilities.Permitted = append(p.Capabilities.Permitted, "CAP_CHOWN")
			p.Capabilities.Inheritable, p.Capabilities.Ambient = []string{"CAP_KILL"}, []string{"CAP_KILL", "CAP_CHOWN"}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newScene(t)
			h.configure(capabilityLines, func(s *specs.Spec) { c.change(s.Process) })
			r := h.call("run", "c")
			if got := strings.TrimSpace(r.out); got != c.want || r.code != 0 || !strings.Contains(r.err, c.warning) {
				t.Errorf("%q, exit status %d, error %q; expected %q and %q", got, r.code, r.err, c.want, c.warning)
			}
		})
	}
}

func TestCapabilitiesOfExec(t *testing.T) {
	const chown, kill, audit, syslog = 1 << 0, 1 << 5, 1 << 29, 1 << 34
	for _, c := range []struct {
		name, plain, more string
		given             *specs.LinuxCapabilities
		option            []string
	}{
		{
			"from none", capabilitiesOf(0, 0, 0, 0, 0), capabilitiesOf(0, kill|audit, kill|audit, kill|audit, 0),
			&specs.LinuxCapabilities{}, []string{"--cap", "CAP_KILL", "--cap", "CAP_AUDIT_WRITE"},
		},
		{
			"where some are inheritable", capabilitiesOf(chown|syslog, chown|kill, chown|kill, chown|kill|syslog, chown),
			capabilitiesOf(chown|syslog, chown|kill|syslog, chown|kill|syslog, chown|kill|syslog, chown|syslog),
			&specs.LinuxCapabilities{
				Inheritable: []string{"CAP_CHOWN", "CAP_SYSLOG"}, Permitted: []string{"CAP_KILL", "CAP_CHOWN"}, Effective: []string{"CAP_KILL"},
				Bounding: []string{"CAP_KILL", "CAP_CHOWN", "CAP_SYSLOG"}, Ambient: []string{"CAP_CHOWN"},
			}, []string{"--cap", "CAP_SYSLOG"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newScene(t)
			h.configure("sleep 1000", func(s *specs.Spec) { s.Process.Capabilities = c.given })
			h.must("run", "-d", "c")
			process := h.process(specs.Process{Args: []string{"/bin/sh", "-c", "PATH=/bin; " + capabilityLines}, Cwd: "/", NoNewPrivileges: true})
			show := []string{"c", "sh", "-c", capabilityLines}
			for _, call := range []struct {
				args []string
				want string
			}{
				{append([]string{"exec"}, show...), c.plain},
				{append(append([]string{"exec"}, c.option...), show...), c.more},
				// What process.json leaves out is the container's.
				{[]string{"exec", "--process", process, "c"}, c.plain},
			} {
				if got, want := strings.TrimSpace(h.must(call.args...)), call.want+" NoNewPrivs:1"; got != want {
					t.Errorf("%v: %q, expected %q", call.args, got, want)
				}
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	const PATH = "PATH=/bin"
	for _, c := range []struct {
		name, want string
		env        []string
	}{
		{"a HOME that is given", "HOME=/override PATH=/bin", []string{PATH, "HOME=/override"}},
		{"an empty HOME", "HOME=/root PATH=/bin", []string{"HOME=", PATH}},
		{"an empty HOME that is last", "HOME=/root PATH=/bin", []string{"HOME=/override", "HOME=", PATH}},
		{"no HOME", "HOME=/root PATH=/bin", []string{PATH}},
		{"the last of two", "HOME=/root ONE=three PATH=/bin", []string{"ONE=two", PATH, "ONE=three"}},
		{"the last of two is empty", "HOME=/root ONE= PATH=/bin", []string{"ONE=two", "ONE=", PATH}},
		{"a line feed", "\n HOME=/root LINE= PATH=/bin", []string{"LINE=\n", PATH}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newScene(t)
			h.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nguest:x:2000:2000::/home/guest:/bin/sh\n")
			// What is seen is what execve(2) was given: a shell would have made a variable of two one.
			h.configure("", func(s *specs.Spec) { s.Process.Env, s.Process.Args = c.env, []string{"env"} })
			lines := strings.Split(strings.TrimSuffix(h.must("run", "c"), "\n"), "\n")
			slices.Sort(lines)
			if got := strings.Join(lines, " "); strings.TrimSpace(got) != strings.TrimSpace(c.want) {
				t.Errorf("%q, expected %q", got, c.want)
			}
		})
	}
	h := newScene(t)
	h.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nguest:x:2000:2000::/home/guest:/bin/sh\n")
	h.configure("sleep 1000", func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "MARK=config") })
	h.must("run", "-d", "c")
	process := h.process(specs.Process{Args: []string{"/bin/env"}, Cwd: "/", Env: []string{"FOO=bar"}})
	for _, c := range []struct {
		want string
		args []string
	}{
		{"/home/guest config set", []string{"-u", "2000", "--env", "MORE=set", "c", "sh", "-c", "echo $HOME $MARK $MORE"}},
		{"/ config", []string{"-u", "1000", "c", "sh", "-uc", "echo $HOME $MARK"}}, // nobody in passwd
		{"FOO=bar\nHOME=/root", []string{"--process", process, "c"}},
		{"HOME=/root", []string{"--process", h.process(specs.Process{Args: []string{"/bin/env"}, Cwd: "/"}), "c"}},
	} {
		if got := strings.TrimSpace(h.must(append([]string{"exec"}, c.args...)...)); got != c.want {
			t.Errorf("exec %v: %q, expected %q", c.args, got, c.want)
		}
	}
}

// write makes a file of the container.
func (h *house) write(name, text string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.bundle, "rootfs", name), []byte(text), 0o755); err != nil {
		h.t.Fatal(err)
	}
}

// process is the name of a process.json.
func (h *house) process(p specs.Process) string {
	h.t.Helper()
	name := filepath.Join(h.t.TempDir(), "process.json")
	text, err := json.Marshal(p)
	if err == nil {
		err = os.WriteFile(name, text, 0o600)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return name
}

// onCPU calls the program as taskset(1) would.
func (h *house) onCPU(cpu int, args ...string) result {
	h.t.Helper()
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			h.t.Error(err)
		}
		done <- h.call(args...)
	}()
	return <-done
}

func TestCPUAffinityOfTheCallerIsNotTheContainers(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two processors")
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, all, _ := strings.Cut(string(status), "Cpus_allowed_list:\t")
	all, _, _ = strings.Cut(all, "\n")
	const show = "grep Cpus_allowed_list: /proc/self/status | tr -dc 0-9,-"
	for _, c := range []struct{ name, cpus, want string }{
		{"no cpuset", "", all}, {"a larger cpuset", "0-1", "0-1"}, {"another cpuset", "1", "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newScene(t)
			limit := func(s *specs.Spec) {
				if c.cpus != "" {
					s.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: c.cpus, Mems: "0"}
				}
			}
			h.configure(show, limit)
			if r := h.onCPU(0, "run", "c"); r.out != c.want {
				t.Errorf("run: %+v, expected %s", r, c.want)
			}
			h.configure("sleep 1000", limit)
			h.onCPU(0, "run", "-d", "c")
			if r := h.onCPU(0, "exec", "c", "sh", "-c", show); r.out != c.want {
				t.Errorf("exec: %+v, expected %s", r, c.want)
			}
		})
	}
}

func TestCPUAffinityOfExec(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two processors")
	}
	const show = "grep Cpus_allowed_list: /proc/self/status | tr -dc 0-9,-"
	h := newScene(t)
	h.configure("sleep 1000", func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "1"} })
	h.must("run", "-d", "c")
	if out := h.must("exec", "c", "sh", "-c", show); out != "1" {
		t.Errorf("of config.json: %q, expected 1", out)
	}
	for _, c := range []struct {
		want     string
		affinity specs.CPUAffinity
	}{
		{"1", specs.CPUAffinity{Initial: "1"}}, {"0-1", specs.CPUAffinity{Initial: "0-1"}}, {"0", specs.CPUAffinity{Initial: "0"}},
		{"1", specs.CPUAffinity{Initial: "1", Final: "1"}}, {"0-1", specs.CPUAffinity{Initial: "0,1", Final: "0,1"}}, {"0", specs.CPUAffinity{Initial: "0-1", Final: "0"}},
	} {
		name := h.process(specs.Process{Args: []string{"/bin/sh", "-c", "PATH=/bin; " + show}, Cwd: "/", ExecCPUAffinity: &c.affinity})
		if out := h.must("exec", "--process", name, "c"); out != c.want {
			t.Errorf("%+v: %q, expected %s", c.affinity, out, c.want)
		}
	}
}

func TestWorkingDirectories(t *testing.T) {
	h := newScene(t)
	for _, dir := range []string{"root", "home"} {
		if err := os.Mkdir(filepath.Join(h.bundle, "rootfs", dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(h.bundle, "rootfs/root"), 42, 42); err != nil {
		t.Fatal(err)
	}
	as42 := func(dir string) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Process.Cwd, s.Process.User.UID = dir, 42 }
	}
	h.configure("pwd", as42("/home")) // only root may enter, and the runtime is root
	h.shows("/home")
	h.configure("sleep 1000", as42("/root")) // root without CAP_DAC_OVERRIDE may not enter
	h.must("run", "-d", "c")
	h.must("exec", "--user", "0", "c", "true")
	if out := h.must("exec", "--cwd", "/bin", "c", "pwd"); out != "/bin\n" {
		t.Errorf("exec --cwd: %q", out)
	}
	h.must("delete", "-f", "c")
	h.own()
	if err := os.Chown(filepath.Join(h.bundle, "rootfs/root"), 100042, 200042); err != nil {
		t.Fatal(err)
	}
	h.configure("pwd", as42("/root"), inUserNamespace)
	h.shows("/root")
}

func TestDebugMessages(t *testing.T) {
	for form, words := range map[string]string{"": "level=debug msg=", "text": "level=debug msg=", "json": `"level":"debug","msg":`} {
		t.Run("form "+form, func(t *testing.T) {
			h := newScene(t)
			h.configure("sleep 1000")
			log := filepath.Join(t.TempDir(), "log")
			args := []string{"--debug"}
			if form != "" {
				args = append(args, "--log", log, "--log-format", form)
			}
			text := ""
			for _, call := range [][]string{{"run", "-d", "c"}, {"exec", "c", "true"}} {
				r := h.call(append(args, call...)...)
				text += r.err
				if form != "" && r.err != "" || r.code != 0 {
					t.Errorf("%v: exit status %d, %q on stderr beside the log", call, r.code, r.err)
				}
			}
			if form != "" {
				data, err := os.ReadFile(log)
				if err != nil {
					t.Fatal(err)
				}
				text = string(data)
			}
			for _, want := range []string{"created", "started", "executed"} {
				if !strings.Contains(strings.ReplaceAll(text, `"`+want+`"`, want), words+want) {
					t.Errorf("log %q, expected %s of level debug", text, want)
				}
			}
		})
	}
}

func TestDevicesOfTheSpec(t *testing.T) {
	h := newScene(t)
	node := func(path string, major, minor int64) specs.LinuxDevice {
		return specs.LinuxDevice{Path: path, Type: "c", Major: major, Minor: minor}
	}
	// The two that every container has, once more.
	h.configure("stat -c '%n %a %u %g %t %T' /dev/tty; stat -Lc '%a %u %g %t %T' /dev/ptmx", func(s *specs.Spec) {
		s.Linux.Devices = []specs.LinuxDevice{node("/dev/tty", 5, 0), node("/dev/ptmx", 5, 2)}
	})
	h.shows("/dev/tty 666 0 0 5 0\n666 0 0 5 2")

	// Misc devices have no open of their own here: it is the rule that decides, then the absent driver.
	const probe = `for m in r w; do
		case $m in r) e=$( (: </dev/probe) 2>&1);; w) e=$( (: >/dev/probe) 2>&1);; esac
		case $e in *"not permitted"*) echo -n "$m denied ";; *) echo -n "$m passed ";; esac
	done`
	rules := func(more ...specs.LinuxDeviceCgroup) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{node("/dev/probe", 10, 250)}
			s.Linux.Resources.Devices = append([]specs.LinuxDeviceCgroup{{Access: "rwm"}}, more...)
			s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_MKNOD")
			s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = s.Process.Capabilities.Bounding, s.Process.Capabilities.Bounding
		}
	}
	h.configure("sleep 1000", rules())
	h.must("run", "-d", "c")
	show := []string{"exec", "c", "sh", "-c", probe}
	for _, when := range []string{"from the start", "after an update of something else"} {
		if out := h.must(show...); out != "r denied w denied " {
			t.Errorf("%s: %q", when, out)
		}
		h.must("update", "--pids-limit", "42", "c")
	}
	h.must("delete", "-f", "c")
	major, minor := int64(10), int64(250)
	h.configure(probe, rules(specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rw"}))
	h.shows("r passed w passed")
	block, number := int64(7), int64(3) // mknod asks the rules, not the driver
	h.configure("mknod /dev/b b 7 3 && mknod /dev/d b 7 4 2>/dev/null || echo other refused; stat -c %t,%T /dev/b",
		rules(specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: &block, Minor: &number, Access: "r"},
			specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: &block, Minor: &number, Access: "m"}))
	if r := h.call("run", "c"); !strings.HasSuffix(strings.TrimSpace(r.out), "7,3") {
		t.Errorf("a block device: %+v", r)
	}
}

func TestIOPriorityOfExec(t *testing.T) {
	h := newScene(t)
	h.configure("sleep 1000", func(s *specs.Spec) {
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 4}
	})
	h.must("run", "-d", "c")
	idle := h.process(specs.Process{Args: []string{"/bin/ionice"}, Cwd: "/", IOPriority: &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}})
	for want, args := range map[string][]string{
		"best-effort: prio 4": {"c", "ionice"}, "best-effort: prio 4\n": {"c", "ionice", "-p", "1"}, "idle": {"--process", idle, "c"},
	} {
		if out := h.must(append([]string{"exec"}, args...)...); !strings.HasPrefix(out, strings.TrimSpace(want)) {
			t.Errorf("%v: %q, expected %q", args, out, want)
		}
	}
}

func TestScriptsWithoutAnInterpreter(t *testing.T) {
	h := newScene(t)
	h.write("run.sh", "#!/nothing/here x\n")
	h.configure("sleep 1000")
	h.must("run", "-d", "c")
	r := h.call("exec", "c", "/run.sh")
	if r.code != execFailed || !strings.Contains(r.err, "/run.sh: no such file or directory") || strings.Count(r.err, "\n") != 1 {
		t.Errorf("%+v, expected one line", r)
	}
}

func TestExecLeavesTheHostsNullDeviceAlone(t *testing.T) {
	h := newScene(t)
	h.configure("sleep 1000")
	h.must("run", "-d", "c")
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, args := range [][]string{{"exec", "--user", "1000:1000", "c", "id"}, {"exec", "-d", "--user", "1000:1000", "c", "id"}} {
		cmd := h.command(args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = null, null, null
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(null.Fd()), &st); err != nil || st.Uid != 0 || st.Gid != 0 {
		t.Errorf("/dev/null is of %d:%d, %v", st.Uid, st.Gid, err)
	}
	if out := h.must("exec", "--user", "1000:1000", "--additional-gids", "100", "--additional-gids", "65534", "c", "id", "-G"); out != "1000 100 65534\n" {
		t.Errorf("groups %q", out)
	}
}

func TestExecPreservesFiles(t *testing.T) {
	h := newScene(t)
	h.configure("sleep 1000")
	h.must("run", "-d", "c")
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	for range 2 {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	cmd := h.command("exec", "--preserve-fds=2", "c", "cat", "/proc/self/fd/4")
	cmd.ExtraFiles = files
	if out, err := cmd.Output(); err != nil || string(out) != "hello" {
		t.Errorf("%q, %v", out, err)
	}
}
