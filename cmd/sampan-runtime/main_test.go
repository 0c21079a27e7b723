package main

import (
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/linux"
)

// asProgram makes the test's own program sampan-runtime.
const asProgram = "SAMPAN_RUNTIME_TEST"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run(os.Args[1:]))
	}
	// A program with the race detector sleeps for a second before it ends, and the tests start hundreds.
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0") //nolint:errcheck // a valid name
	}
	os.Exit(testStatic(m))
}

// under is the program under test.
var under = "/proc/self/exe"

// testStatic runs the tests with a program that needs no libraries: in the container there are none. With
// cgo the test's own does, and one without is built.
func testStatic(m *testing.M) int {
	self, err := elf.Open(under)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer self.Close() //nolint:errcheck // the test is over
	if slices.ContainsFunc(self.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		dir, err := os.MkdirTemp("", "sampan-runtime")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		under = filepath.Join(dir, "sampan-runtime")
		build := exec.Command("go", "build", "-o", under, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v: %s", err, out)
			return 1
		}
	}
	return m.Run()
}

// house is a bundle and a root for one test.
type house struct {
	t            *testing.T
	root, bundle string
}

// result is what a call of the program came to.
type result struct {
	code     int
	out, err string
}

// newHouse's container is one that the user can make: an ordinary one in a user namespace alone.
func newHouse(t *testing.T, change func(*specs.Spec), args ...string) *house {
	t.Helper()
	return furnish(t, func(s *specs.Spec) {
		if os.Geteuid() != 0 {
			withoutRoot(s)
		}
		if change != nil {
			change(s)
		}
	}, args...)
}

// furnish leaves it to the caller to think of the user.
func furnish(t *testing.T, change func(*specs.Spec), args ...string) *house {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox, Debian's package busybox-static")
	}
	dir := t.TempDir()
	h := &house{t: t, root: dir + "/root", bundle: dir + "/bundle"}
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(h.bundle, "rootfs", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.bundle+"/rootfs/bin/busybox", program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "sleep", "cat", "echo", "true", "id", "tty", "stty", "ls", "env", "pwd"} {
		if err := os.Symlink("busybox", h.bundle+"/rootfs/bin/"+name); err != nil {
			t.Fatal(err)
		}
	}
	if len(args) == 0 {
		args = []string{"sleep", "1000"}
	}
	s := example()
	s.Process.Args, s.Process.Terminal, s.Root.Readonly = args, false, false
	s.Linux.CgroupsPath = fmt.Sprintf("%s/sampan-test-%d-%s", parent(), os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))
	if change != nil {
		change(s)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.bundle+"/config.json", text, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.clean)
	return h
}

// parent is the cgroup below which containers are made: for an ordinary user what is delegated.
func parent() string {
	if os.Geteuid() == 0 {
		return ""
	}
	return cgroup.Delegated()
}

// clean removes the containers that are left, and says when a cgroup is.
func (h *house) clean() {
	for id := range strings.FieldsSeq(h.call("list", "-q").out) {
		h.call("delete", "--force", id)
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*/sampan-test-" + strconv.Itoa(os.Getpid()) + "-" + strings.ReplaceAll(h.t.Name(), "/", "-"))
	for _, dir := range left {
		h.t.Errorf("cgroup %s is left", dir)
	}
}

func (h *house) command(args ...string) *exec.Cmd {
	h.t.Helper()
	cmd := exec.CommandContext(h.t.Context(), under, append([]string{"--root", h.root}, args...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Dir = h.bundle
	return cmd
}

func (h *house) call(args ...string) result {
	h.t.Helper()
	cmd := exec.Command(under, append([]string{"--root", h.root}, args...)...)
	cmd.Env, cmd.Dir = append(os.Environ(), asProgram+"=1"), h.bundle
	// Files and not pipes: Wait would wait for what a detached container holds open.
	dir := h.t.TempDir()
	var files [2]*os.File
	for i := range files {
		f, err := os.CreateTemp(dir, "output")
		if err != nil {
			h.t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	cmd.Stdout, cmd.Stderr = files[0], files[1]
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	var text [2]string
	for i, f := range files {
		data, err := os.ReadFile(f.Name())
		if err != nil {
			h.t.Fatal(err)
		}
		text[i] = string(data)
	}
	return result{cmd.ProcessState.ExitCode(), text[0], text[1]}
}

// must calls the program and fails the test when it does not succeed.
func (h *house) must(args ...string) string {
	h.t.Helper()
	r := h.call(args...)
	if r.code != 0 {
		h.t.Fatalf("%v: exit status %d\n%s%s", args, r.code, r.out, r.err)
	}
	return r.out
}

// refused calls the program and expects an exit status and words of the error.
func (h *house) refused(code int, words string, args ...string) {
	h.t.Helper()
	r := h.call(args...)
	if r.code != code || !strings.Contains(strings.ReplaceAll(r.err, `\"`, `"`), words) {
		h.t.Errorf("%v: exit status %d, error %q; expected %d and %q", args, r.code, r.err, code, words)
	}
}

func (h *house) status(id string) string {
	h.t.Helper()
	var s state
	if err := json.Unmarshal([]byte(h.must("state", id)), &s); err != nil {
		h.t.Fatal(err)
	}
	return s.Status
}

// eventually waits for a status: what was killed takes a moment to end.
func (h *house) eventually(id, status string) {
	h.t.Helper()
	for end := time.Now().Add(15 * time.Second); h.status(id) != status; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("%s is %s, expected %s", id, h.status(id), status)
		}
	}
}

func TestRunGivesOutputAndExitStatus(t *testing.T) {
	needCgroup(t)
	h := newHouse(t, nil, "sh", "-c", "echo out; echo err >&2; exit 7")
	if r := h.call("run", "c"); r != (result{7, "out\n", "err\n"}) {
		t.Errorf("%+v", r)
	}
	if out := h.must("list", "-q"); out != "" {
		t.Errorf("left: %q", out)
	}
	if r := h.call("run", "--keep", "c"); r.code != 7 || h.status("c") != "stopped" {
		t.Errorf("kept: %+v", r)
	}
	h.must("delete", "c")
}

func TestRunReadsStdin(t *testing.T) {
	needCgroup(t)
	h := newHouse(t, nil, "cat")
	cmd := h.command("run", "c")
	cmd.Stdin = strings.NewReader("through\n")
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "through\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestRunForwardsSignals(t *testing.T) {
	h := newHouse(t, nil, "sh", "-c", `trap "echo caught; exit 9" USR1; echo ready; while :; do sleep 0.02; done`)
	cmd := h.command("run", "c")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := out.Read(buf); err != nil || string(buf[:n]) != "ready\n" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if err := cmd.Process.Signal(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	n, _ := out.Read(buf)
	if err := cmd.Wait(); string(buf[:n]) != "caught\n" || cmd.ProcessState.ExitCode() != 9 {
		t.Errorf("%q, %v; expected exit status 9", buf[:n], err)
	}
}

func TestKilledBySignal(t *testing.T) {
	h := newHouse(t, nil)
	cmd := h.command("run", "c")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(15 * time.Second); !strings.Contains(h.call("state", "c").out, "running"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not start")
		}
	}
	h.must("kill", "c", "SIGKILL")
	cmd.Wait() //nolint:errcheck // the status tells
	if code := cmd.ProcessState.ExitCode(); code != 137 {
		t.Errorf("exit status %d, expected 137", code)
	}
}

func TestLifeCycle(t *testing.T) {
	needCgroup(t)
	h := newHouse(t, func(s *specs.Spec) { s.Annotations = map[string]string{"a": "b"} })
	pidFile := filepath.Join(t.TempDir(), "pid")
	h.must("create", "--bundle", h.bundle, "--pid-file", pidFile, "c")
	var s state
	if err := json.Unmarshal([]byte(h.must("state", "c")), &s); err != nil {
		t.Fatal(err)
	}
	pid, err := os.ReadFile(pidFile)
	if err != nil || string(pid) != strconv.Itoa(s.Pid) || s.Status != "created" || s.ID != "c" || s.Bundle != h.bundle ||
		s.Rootfs != h.bundle+"/rootfs" || s.Owner != owner() || s.Annotations["a"] != "b" || s.Version != specs.Version || time.Since(s.Created) > time.Minute {
		t.Errorf("pid file %q, %v; state %+v", pid, err, s)
	}
	h.refused(1, "container with given ID already exists", "create", "c")
	h.must("start", "c")
	h.refused(1, "cannot start an already running container", "start", "c")
	if list := h.must("list"); !strings.HasPrefix(list, "ID ") || !strings.Contains(list, "running") || !strings.Contains(list, h.bundle) {
		t.Errorf("list:\n%s", list)
	}
	if ps := h.must("ps", "c"); !strings.Contains(ps, "PID") || !strings.Contains(ps, "sleep 1000") || strings.Count(ps, "\n") != 2 {
		t.Errorf("ps:\n%s", ps)
	}
	if ps := h.must("ps", "-f", "json", "c"); ps != fmt.Sprintf("[%d]\n", s.Pid) {
		t.Errorf("ps: %q", ps)
	}
	h.must("pause", "c")
	if status := h.status("c"); status != "paused" {
		t.Errorf("status %s, expected paused", status)
	}
	h.refused(255, "cannot exec in a paused container", "exec", "c", "true")
	h.must("resume", "c")
	h.refused(1, "not paused", "resume", "c")
	h.refused(1, "cannot delete container c that is not stopped: running", "delete", "c")
	h.must("kill", "--all", "c", "9")
	h.eventually("c", "stopped")
	h.refused(1, "container not running", "kill", "c")
	h.refused(1, "cannot start a container that has stopped", "start", "c")
	h.refused(255, "cannot exec in a stopped container", "exec", "c", "true")
	h.must("delete", "c")
	for _, args := range [][]string{{"delete", "c"}, {"state", "c"}, {"start", "c"}, {"kill", "c"}, {"ps", "c"}, {"update", "c"}, {"pause", "c"}} {
		h.refused(1, "container does not exist", args...)
	}
	h.refused(255, "container does not exist", "exec", "c", "true")
	h.must("delete", "--force", "c")
	// One that was never started.
	h.must("create", "d")
	h.must("delete", "d")
}

// owner is the name of the user.
func owner() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.Username
}

func TestExec(t *testing.T) {
	needCgroup(t)
	h := newHouse(t, nil)
	h.must("run", "-d", "c")
	if r := h.call("exec", "c", "sh", "-c", "echo $0 -x; exit 3", "-y"); r.code != 3 || r.out != "-y -x\n" {
		t.Errorf("%+v", r)
	}
	who, want := []string{"-u", "5:6", "-g", "7,8"}, "uid=5 gid=6 groups=7,8\n/tmp\n12\n"
	if os.Geteuid() != 0 { // whose container has one id and no other
		who, want = []string{"-u", "0:0"}, "uid=0 gid=0 groups=0\n/tmp\n12\n"
	}
	args := slices.Concat([]string{"exec", "-e", "A=1", "--env", "B=2", "--cwd", "/tmp"}, who, []string{"c", "sh", "-c", "id; pwd; echo $A$B"})
	if r := h.call(args...); r.out != want {
		t.Errorf("%+v", r)
	}
	if r := h.call("exec", "c", "sh", "-c", "kill -9 $$"); r.code != 137 {
		t.Errorf("killed: %+v", r)
	}
	h.refused(255, `exec: "nothing": executable file not found in $PATH`, "exec", "c", "nothing")
	h.refused(255, "process args cannot be empty", "exec", "c")
	h.refused(255, `--user "x"`, "exec", "-u", "x", "c", "true")
	h.refused(255, "cannot allocate tty if runc will detach without setting console socket", "exec", "-d", "-t", "c", "true")
	h.refused(255, "no such file or directory", "exec", "--cgroup", "x", "c", "true")

	process := filepath.Join(t.TempDir(), "process.json")
	text, err := json.Marshal(specs.Process{Args: []string{"/bin/echo", "from", "json"}, Cwd: "/"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(process, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := h.must("exec", "-p", process, "c"); out != "from json\n" {
		t.Errorf("%q", out)
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	h.must("exec", "-d", "--pid-file", pidFile, "c", "sleep", "1001")
	pid, err := os.ReadFile(pidFile)
	if ps := h.must("ps", "-f", "json", "c"); err != nil || !strings.Contains(ps, string(pid)) {
		t.Errorf("processes %s, %v; expected %s", ps, err, pid)
	}
}

func TestPreserveFDs(t *testing.T) {
	needCgroup(t)
	h := newHouse(t, nil, "sh", "-c", "cat <&3; cat <&4; env | sort | grep LISTEN; ls /proc/$$/fd | wc -l")
	if err := os.Symlink("busybox", h.bundle+"/rootfs/bin/wc"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sort", "grep"} {
		if err := os.Symlink("busybox", h.bundle+"/rootfs/bin/"+name); err != nil {
			t.Fatal(err)
		}
	}
	cmd := h.command("run", "--preserve-fds", "2", "c")
	for _, text := range []string{"three\n", "four\n"} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(w, text)
		w.Close()
		defer r.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, r)
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "three\nfour\n") {
		t.Errorf("%q, %v", out, err)
	}
	h.refused(1, "descriptor 3 is not open", "run", "--preserve-fds", "1", "c")
}

func TestConsoleSocket(t *testing.T) {
	h := newHouse(t, func(s *specs.Spec) { s.Process.Terminal = true }, "sh", "-c", "tty; stty size; echo done")
	h.refused(1, "cannot allocate tty if runc will detach without setting console socket", "create", "c")
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	listener, err := linux.Listen(dir, "console", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	h.must("create", "--console-socket", dir.Name()+"/console", "c")
	socket, err := linux.Accept(listener)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	r := linux.Receiver{Socket: socket}
	buf := make([]byte, 4096)
	if _, err := r.Read(buf); err != nil {
		t.Fatal(err)
	}
	master := r.Take()
	if master == nil {
		t.Fatal("no file came")
	}
	defer master.Close()
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 99}); err != nil {
		t.Fatal(err)
	}
	h.must("start", "c")
	if got, want := readAll(master), "/dev/pts/0\r\n33 99\r\ndone\r\n"; got != want {
		t.Errorf("%q, expected %q", got, want)
	}
}

// readAll reads a terminal until the other side is closed.
func readAll(f *os.File) string {
	out, _ := io.ReadAll(linux.Master{File: f})
	return string(out)
}

func TestForegroundTerminal(t *testing.T) {
	h := newHouse(t, func(s *specs.Spec) { s.Process.Terminal = true }, "sh", "-c", "stty size; read line; echo got $line; exit 6")
	master, slave := openTerminal(t)
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 12, Col: 34}); err != nil {
		t.Fatal(err)
	}
	cmd := h.command("run", "c")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(master, "hello\n")
	cmd.Wait() //nolint:errcheck // the status tells
	after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil || after.Lflag&unix.ICANON == 0 {
		t.Errorf("the terminal is left raw: %+v, before %+v, %v", after, before, err)
	}
	slave.Close()
	out := readAll(master)
	if !strings.Contains(out, "12 34\r\n") || !strings.Contains(out, "got hello\r\n") || cmd.ProcessState.ExitCode() != 6 {
		t.Errorf("%q, exit status %d", out, cmd.ProcessState.ExitCode())
	}
}

// openTerminal is a pair of ends of a pseudoterminal (pty(7)).
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func TestUpdateAndEvents(t *testing.T) {
	needCgroup(t)
	h := newHouse(t, nil)
	h.must("run", "-d", "c")
	h.must("update", "--memory", "64m", "--pids-limit", "50", "c")
	var e event
	if err := json.Unmarshal([]byte(h.must("events", "--stats", "c")), &e); err != nil {
		t.Fatal(err)
	}
	if e.Type != "stats" || e.ID != "c" || e.Data.Memory.Usage.Limit != 64<<20 || e.Data.Pids.Limit != 50 || e.Data.Pids.Current != 1 || e.Data.CPU.Usage.Total == 0 {
		t.Errorf("%+v", e)
	}
	cmd := h.command("update", "-r", "-", "c")
	cmd.Stdin = strings.NewReader(`{"memory":{"limit":33554432},"pids":{"limit":40}}`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if err := json.Unmarshal([]byte(h.must("events", "--stats", "c")), &e); err != nil || e.Data.Memory.Usage.Limit != 32<<20 || e.Data.Pids.Limit != 40 {
		t.Errorf("%+v, %v", e.Data, err)
	}
	h.refused(1, `--memory "lots"`, "update", "--memory", "lots", "c")
	h.refused(1, "linux.intelRdt", "update", "--l3-cache-schema", "x", "c")
	h.refused(1, "interval must be greater than 0", "events", "--interval", "0s", "c")
}

func TestAProgramThatIsNotThere(t *testing.T) {
	h := newHouse(t, nil, "nothing")
	h.refused(1, `exec: "nothing": executable file not found in $PATH`, "run", "c")
	if out := h.must("list", "-q"); out != "" {
		t.Errorf("left: %q", out)
	}
}

func TestJSONLog(t *testing.T) {
	h := newHouse(t, nil)
	log := filepath.Join(t.TempDir(), "log")
	r := h.call("--log", log, "--log-format", "json", "state", "nothing")
	text, err := os.ReadFile(log)
	var line struct{ Level, Msg, Time string }
	if err != nil || json.Unmarshal(text, &line) != nil || line.Level != "error" || line.Msg != "container does not exist" {
		t.Errorf("log %q, %v", text, err)
	}
	if _, err := time.Parse(time.RFC3339, line.Time); err != nil {
		t.Error(err)
	}
	if r.code != 1 || r.err != "container does not exist\n" {
		t.Errorf("%+v", r)
	}
}

func TestUsageErrors(t *testing.T) {
	h := newHouse(t, nil)
	for _, c := range []struct {
		words string
		args  []string
	}{
		{`sampan-runtime: "create" requires exactly 1 argument(s)`, []string{"create"}},
		{`sampan-runtime: "kill" requires a minimum of 1 argument(s)`, []string{"kill"}},
		{`sampan-runtime: "kill" requires a maximum of 2 argument(s)`, []string{"kill", "a", "b", "c"}},
		{`(did you mean "create"?)`, []string{"craete", "c"}},
		{`unknown flag: --nothing`, []string{"run", "--nothing", "c"}},
		{`container does not exist`, []string{"checkpoint", "c"}},
		{`JSON specification file /nowhere/config.json not found`, []string{"run", "-b", "/nowhere", "c"}},
		{`cannot use console socket if runc will not detach or allocate tty`, []string{"run", "--console-socket", "x", "c"}},
		{`--log-format "xml"`, []string{"--log-format", "xml", "list"}},
		{`container id "../c"`, []string{"run", "../c"}},
		{`expected --`, []string{"monitor"}},
	} {
		h.refused(1, c.words, c.args...)
	}
	if out := h.must("--help"); !strings.Contains(out, "create a container") {
		t.Errorf("help: %q", out)
	}
	if out := h.must("exec", "--help"); !strings.Contains(out, "--additional-gids") {
		t.Errorf("help: %q", out)
	}
	if out := h.must("--version"); !strings.HasPrefix(out, "sampan-runtime version ") || !strings.Contains(out, "\nspec: "+specs.Version+"\n") {
		t.Errorf("version: %q", out)
	}
	// Options after the container, as runc takes them.
	h.must("run", "c", "-d")
	h.must("delete", "c", "--force")
}

func TestSpecRuns(t *testing.T) {
	h := newHouse(t, nil)
	for _, rootless := range []string{"--rootless=false", "--rootless"} {
		dir := t.TempDir()
		h.must("spec", rootless, "--bundle", dir)
		var s specs.Spec
		if err := readJSON(dir+"/config.json", &s); err != nil || s.Process.Args[0] != "sh" || s.Version != specs.Version {
			t.Errorf("%v, %+v", err, s)
		}
		h.refused(1, "exists. Remove it first", "spec", "-b", dir)
	}
}

func TestFeatures(t *testing.T) {
	h := newHouse(t, nil)
	var f struct {
		OCIVersionMax string
		MountOptions  []string
		Linux         struct {
			Capabilities []string
			Seccomp      struct{ Enabled bool }
		}
	}
	if err := json.Unmarshal([]byte(h.must("features")), &f); err != nil || f.OCIVersionMax != specs.Version || len(f.MountOptions) < 40 || f.Linux.Capabilities[0] != "CAP_CHOWN" || !f.Linux.Seccomp.Enabled {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestParseSignal(t *testing.T) {
	for given, want := range map[string]unix.Signal{
		"9": 9, "0": 0, "KILL": 9, "SIGKILL": 9, "sigterm": 15, "usr1": 10, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63, "64": 64,
	} {
		if got, err := parseSignal(given); err != nil || got != want {
			t.Errorf("%s: %d, %v; expected %d", given, got, err, want)
		}
	}
	for _, bad := range []string{"", "65", "-1", "NOTHING", "RTMIN+99", "RTMIN+x"} {
		if got, err := parseSignal(bad); err == nil {
			t.Errorf("%q is %d, expected an error", bad, got)
		}
	}
}
