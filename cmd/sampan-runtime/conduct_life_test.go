package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
)

// pidfdSocket is a socket to be sent a file, and what waits for it.
func pidfdSocket(t *testing.T) (path string, receive func(word string) *os.File) {
	t.Helper()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	listener, err := linux.Listen(dir, "pidfd", 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return dir.Name() + "/pidfd", func(word string) *os.File {
		socket, err := linux.Accept(listener)
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		r := linux.Receiver{Socket: socket}
		buf := make([]byte, 100)
		n, err := r.Read(buf)
		if err != nil || string(buf[:n]) != word {
			t.Errorf("%q, %v; expected %q", buf[:n], err, word)
		}
		f := r.Take()
		if f == nil {
			t.Fatal("no file came")
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
}

// The file that comes through --pidfd-socket is the process, whatever becomes of its number.
func TestPidFDSocket(t *testing.T) {
	h := newScene(t)
	path, receive := pidfdSocket(t)
	signal := func(f *os.File) {
		t.Helper()
		if err := unix.PidfdSendSignal(int(f.Fd()), unix.SIGKILL, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	h.configure("sleep 1000")
	h.must("create", "--pidfd-socket", path, "c")
	signal(receive("standard"))
	h.eventually("c", "stopped")
	h.must("delete", "c")

	h.must("run", "-d", "--pidfd-socket", path, "c")
	first := receive("standard")
	pidFile := filepath.Join(t.TempDir(), "pid")
	h.must("exec", "-d", "--pid-file", pidFile, "--pidfd-socket", path, "c", "sleep", "1000")
	second := receive("setns")
	signal(second)
	// It is not our child; a pidfd is readable when its process has ended (pidfd_open(2)).
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(second.Fd()), Events: unix.POLLIN}}, 15000); n != 1 {
		t.Errorf("the process does not end: %v", err)
	}
	if status := h.status("c"); status != "running" {
		t.Errorf("after the end of the second process: %s", status)
	}
	signal(first)
	h.eventually("c", "stopped")
	h.must("delete", "c")

	// Nobody listens: nothing is left.
	h.refused(1, "--pidfd-socket", "create", "--pidfd-socket", path+".none", "c")
	if out := h.must("list", "-q"); out != "" {
		t.Errorf("left: %q", out)
	}
}

func TestWhatIsNotThere(t *testing.T) {
	h := newScene(t)
	h.configure("sleep 1000")
	h.must("run", "-d", "c")
	h.must("pause", "c")
	h.refused(1, "container does not exist", "pause", "other")
	if status := h.status("c"); status != "paused" {
		t.Errorf("it is %s", status)
	}
	h.refused(1, "container does not exist", "resume", "other")
	h.must("resume", "c")
	// Another root has other containers.
	other := *h
	other.root += "-other"
	h.configure("sleep 1000", func(s *specs.Spec) { s.Linux.CgroupsPath += "-other" })
	other.must("run", "-d", "--bundle", h.bundle, "d2")
	h.refused(1, "container does not exist", "state", "d2")
	other.refused(1, "container does not exist", "state", "c")
	other.must("delete", "--force", "d2")
}

func TestProcesses(t *testing.T) {
	h := newScene(t)
	h.configure("sleep 1000")
	pidFile := filepath.Join(t.TempDir(), "pid")
	h.must("run", "-d", "--pid-file", pidFile, "c")
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	if out := h.must("ps", "c"); !regexp.MustCompile(`UID +PID +PPID +C +STIME +TTY +TIME +CMD`).MatchString(out) || !regexp.MustCompile(`root +`+string(pid)).MatchString(out) {
		t.Errorf("%q", out)
	}
	if out := h.must("ps", "c", "-e", "-x"); !regexp.MustCompile(` +PID +TTY +STAT +TIME +COMMAND`).MatchString(out) || !strings.Contains(out, string(pid)) {
		t.Errorf("%q", out)
	}
	h.must("kill", "c", "KILL")
	h.eventually("c", "stopped")
	if out := h.must("ps", "c"); !strings.Contains(out, "PID") || strings.Contains(out, string(pid)) {
		t.Errorf("after its end: %q", out)
	}
}

func TestRunInPlaces(t *testing.T) {
	h := newScene(t)
	h.configure("echo hello")
	// The bundle by its path, from another directory, with a pid file that is relative to that.
	cmd := h.command("run", "--pid-file", "pid", "--bundle", h.bundle, "c")
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "hello\n" {
		t.Errorf("%q, %v", out, err)
	}
	if text, err := os.ReadFile(cmd.Dir + "/pid"); err != nil || !regexp.MustCompile(`^[0-9]+$`).Match(text) {
		t.Errorf("pid file %q, %v", text, err)
	}
	// A bundle whose root filesystem is the bundle itself.
	text, err := os.ReadFile(h.bundle + "/config.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.bundle+"/rootfs/config.json", []byte(strings.Replace(string(text), `"path":"rootfs"`, `"path":"."`, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := h.must("run", "--bundle", h.bundle+"/rootfs", "c"); out != "hello\n" {
		t.Errorf("%q", out)
	}
	// Kept, so is its cgroup.
	h.must("run", "--keep", "c")
	if status := h.status("c"); status != "stopped" {
		t.Errorf("kept: %s", status)
	}
	var s specs.Spec
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	if found, _ := filepath.Glob("/sys/fs/cgroup/*" + s.Linux.CgroupsPath); len(found) == 0 {
		if _, err := os.Stat("/sys/fs/cgroup" + s.Linux.CgroupsPath); err != nil {
			t.Errorf("the cgroup of a container that is kept: %v", err)
		}
	}
	h.must("delete", "c")
	h.refused(1, "container does not exist", "state", "c")
}

func TestUsers(t *testing.T) {
	h := newScene(t)
	if err := os.WriteFile(h.bundle+"/rootfs/etc/passwd", []byte("one:x:2000:2000:one:/home/one:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	user := func(s *specs.Spec) { s.Process.User = specs.User{UID: 2000, GID: 100} }
	h.configure("id -u; id -g; echo $HOME", user, func(s *specs.Spec) { s.Process.Cwd = "/root" })
	h.shows("2000\n100\n/home/one")
	h.configure("sleep 1000", user)
	h.must("run", "-d", "c")
	if status := h.status("c"); status != "running" {
		t.Errorf("it is %s", status)
	}
	h.must("delete", "--force", "c")
	// A program that only root may execute, and a user with the right to pass over that.
	if err := os.WriteFile(h.bundle+"/rootfs/script", []byte("#!/bin/sh\necho done\n"), 0o744); err != nil {
		t.Fatal(err)
	}
	run := func(s *specs.Spec) { s.Process.Args = []string{"/script"} }
	h.configure("", user, run)
	h.refused(1, "permission denied", "run", "c")
	h.configure("", user, run, func(s *specs.Spec) {
		c := s.Process.Capabilities
		for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted, &c.Inheritable, &c.Ambient} {
			*set = append(*set, "CAP_DAC_OVERRIDE")
		}
	})
	h.shows("done")
	// An interpreter that is not there is told in one line.
	if err := os.WriteFile(h.bundle+"/rootfs/script", []byte("#!/none such\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.configure("", run)
	if r := h.call("run", "c"); r.code != 1 || strings.Count(r.err, "\n") != 1 || !strings.Contains(r.err, "/script: no such file or directory") {
		t.Errorf("%+v", r)
	}
}

// Without pivot_root the host's /proc stays below: nothing in the container may mount another that is bare.
func TestNoPivotKeepsProcCovered(t *testing.T) {
	h := newScene(t)
	more := []string{"CAP_SETFCAP"}
	change := func(s *specs.Spec) {
		s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, more...)
		s.Process.Capabilities.Permitted = append(s.Process.Capabilities.Permitted, more...)
	}
	h.configure("unshare -mrpf sh -c 'mount -t proc none /proc && echo mounted'", change)
	r := h.call("run", "--no-pivot", "c")
	if strings.Contains(r.err, "unshare: unshare(") {
		t.Skipf("no user namespace can be made on this machine: %s", r.err)
	}
	if r.code == 0 || strings.Contains(r.out, "mounted") || !strings.Contains(r.err, "mount") {
		t.Errorf("%+v", r)
	}
}

func TestStandardStreams(t *testing.T) {
	h := newScene(t)
	h.configure("sleep 1000")
	// Detached, it must not hold what the caller waits for: the end of its output.
	for _, args := range [][]string{{"create", "c"}, {"run", "-d", "c"}} {
		cmd := h.command(args...)
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = null, null, null
		err = cmd.Run()
		null.Close()
		if err != nil {
			t.Fatal(err)
		}
		if args[0] == "create" {
			h.must("start", "c")
		}
		if status := h.status("c"); status != "running" {
			t.Errorf("%v: it is %s", args, status)
		}
		h.must("kill", "c", "KILL")
		h.eventually("c", "stopped")
		h.must("delete", "c")
	}
}

// A terminal is made also when the caller's own streams are none, and belongs to the program's user.
func TestTerminals(t *testing.T) {
	h := newScene(t)
	const script = "for n in 0 1 2; do test -t $n && readlink /proc/self/fd/$n; done; stat -c %u:%g $(tty)"
	terminal := func(s *specs.Spec) { s.Process.Terminal = true }
	for _, uid := range []uint32{0, 1000} {
		user := func(s *specs.Spec) { s.Process.User = specs.User{UID: uid, GID: uid / 10} }
		// 5 is the group of the devpts in the configuration.
		want := fmt.Sprintf("/dev/pts/0\r\n/dev/pts/0\r\n/dev/pts/0\r\n%d:5\r\n", uid)
		h.configure(script, terminal, user)
		if out := h.must("run", "c"); out != want {
			t.Errorf("run: %q, expected %q", out, want)
		}
		h.configure("sleep 1000", user)
		h.must("run", "-d", "c")
		if out := h.must("exec", "-t", "c", "sh", "-c", script); out != want {
			t.Errorf("exec: %q, expected %q", out, want)
		}
		h.must("delete", "--force", "c")
	}
}

// The size that process.json gives a terminal is there before its program runs.
func TestConsoleSizeOfExec(t *testing.T) {
	h := newScene(t)
	h.configure("sleep 1000")
	h.must("run", "-d", "c")
	text, err := json.Marshal(specs.Process{Terminal: true, ConsoleSize: &specs.Box{Height: 10, Width: 110}, Args: []string{"/bin/stty", "size"}, Cwd: "/"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "process.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	path, receive := pidfdSocket(t)
	h.must("exec", "-d", "--console-socket", path, "--process", file, "c")
	if out := readAll(receive("/dev/ptmx")); out != "10 110\r\n" {
		t.Errorf("%q", out)
	}
}

// What `spec` writes runs as it is, and is what the specification's schema asks for at its top.
func TestSpecAsItIs(t *testing.T) {
	h := newScene(t)
	if err := os.Remove(h.bundle + "/config.json"); err != nil {
		t.Fatal(err)
	}
	h.must("spec")
	master, slave := openTerminal(t)
	cmd := h.command("run", "c")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	fmt.Fprint(master, "echo $((6*7)); exit 3\n")
	err := cmd.Run()
	slave.Close()
	if out := readAll(master); cmd.ProcessState.ExitCode() != 3 || !strings.Contains(out, "42\r\n") {
		t.Errorf("%v, %q", err, out)
	}
}
