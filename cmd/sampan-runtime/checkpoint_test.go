package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
)

// needCRIU skips where CRIU is not installed, or cannot work with this kernel.
func needCRIU(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("criu", "check").CombinedOutput(); err != nil {
		t.Skipf("CRIU cannot work here: %v: %s", err, bytes.TrimSpace(out))
	}
}

// newCounter is a bundle whose program counts in memory, and writes the number to /tmp/count.
func newCounter(t *testing.T) *house {
	needCRIU(t)
	h := newHouse(t, nil, "sh", "-c", `trap "exit 9" TERM; i=0; while :; do i=$((i+1)); echo $i >/tmp/n; mv /tmp/n /tmp/count; sleep 0.01; done`)
	if err := os.Symlink("busybox", h.bundle+"/rootfs/bin/mv"); err != nil {
		t.Fatal(err)
	}
	return h
}

// counts waits until the number is above another.
func (h *house) counts(above int) int {
	h.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(h.bundle + "/rootfs/tmp/count")
		n, nerr := strconv.Atoi(strings.TrimSpace(string(text)))
		if err == nil && nerr == nil && n > above {
			return n
		}
		if time.Now().After(end) {
			h.t.Fatalf("it does not count on from %d: %q, %v", above, text, err)
		}
	}
}

func TestCheckpointRestore(t *testing.T) {
	h := newCounter(t)
	pidFile := filepath.Join(t.TempDir(), "pid")
	h.must("run", "-d", "c")
	h.counts(3)
	h.must("checkpoint", "c")
	h.refused(1, "container does not exist", "state", "c")
	at := h.counts(0)
	for range 2 {
		os.Remove(h.bundle + "/rootfs/tmp/count")
		h.must("restore", "-d", "--pid-file", pidFile, "--no-pivot", "--empty-ns", "network", "other")
		at = h.counts(at)
		var s state
		if err := json.Unmarshal([]byte(h.must("state", "other")), &s); err != nil {
			t.Fatal(err)
		}
		if pid, err := os.ReadFile(pidFile); err != nil || string(pid) != strconv.Itoa(s.Pid) || s.Status != "running" {
			t.Errorf("pid file %q, %v; state %+v", pid, err, s)
		}
		if out := h.must("exec", "other", "echo", "inside"); out != "inside\n" {
			t.Errorf("exec: %q", out)
		}
		h.must("pause", "other")
		h.must("checkpoint", "other")
	}
	h.must("restore", "-d", "c")
	h.refused(1, "container with given ID already exists", "restore", "-d", "c")
	h.must("kill", "c", "TERM")
	h.eventually("c", "stopped")
	h.must("delete", "c")
}

// A restore in the foreground waits, passes signals on, and ends as the program does.
func TestRestoreInForeground(t *testing.T) {
	h := newCounter(t)
	images := t.TempDir()
	h.must("run", "-d", "c")
	h.counts(3)
	h.must("checkpoint", "--image-path", images, "--work-path", images+"/work", "--leave-running", "c")
	if _, err := os.Stat(images + "/work/dump.log"); err != nil {
		t.Error(err)
	}
	h.must("delete", "-f", "c")
	at := h.counts(0)
	os.Remove(h.bundle + "/rootfs/tmp/count")
	cmd := h.command("restore", "--image-path", images, "c")
	// Files as those that run gave it: CRIU puts nothing in the place of an open file that is of another kind.
	for _, to := range []*io.Writer{&cmd.Stdout, &cmd.Stderr} {
		f, err := os.CreateTemp(t.TempDir(), "output")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		*to = f
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.counts(at - 3)
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 9 {
		t.Errorf("%v, expected exit status 9", err)
	}
	if out := h.must("list", "-q"); out != "" {
		t.Errorf("left: %q", out)
	}
}

func TestRestoreSendsTheTerminal(t *testing.T) {
	needCRIU(t)
	h := newHouse(t, func(s *specs.Spec) { s.Process.Terminal = true }, "sh", "-c", "read line; echo got $line; exit 4")
	dir, err := linux.OpenAt(nil, t.TempDir(), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	listener, err := linux.Listen(dir, "console", 2)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	console := func() *os.File {
		socket, err := linux.Accept(listener)
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		r := linux.Receiver{Socket: socket}
		if _, err := r.Read(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		return r.Take()
	}
	h.must("run", "-d", "--console-socket", dir.Name()+"/console", "c")
	first := console()
	defer first.Close()
	h.must("checkpoint", "c")
	h.refused(1, "cannot allocate tty", "restore", "-d", "c")
	h.must("restore", "-d", "--console-socket", dir.Name()+"/console", "c")
	second := console()
	defer second.Close()
	if _, err := second.WriteString("this\n"); err != nil {
		t.Fatal(err)
	}
	if got := readAll(second); !strings.Contains(got, "got this\r\n") {
		t.Errorf("%q", got)
	}
}

func TestCheckpointRefusals(t *testing.T) {
	needRoot(t, "users are refused before anything else is looked at")
	h := newHouse(t, nil)
	h.must("run", "-d", "c")
	defer h.call("delete", "-f", "c")
	images := t.TempDir()
	for _, c := range []struct {
		words string
		args  []string
	}{
		{`--manage-cgroups-mode "none"`, []string{"checkpoint", "--manage-cgroups-mode", "none", "c"}},
		{`--empty-ns "uts"`, []string{"checkpoint", "--empty-ns", "uts", "c"}},
		{`--page-server "x"`, []string{"checkpoint", "--page-server", "x", "c"}},
		{`--status-fd "77"`, []string{"checkpoint", "--status-fd", "77", "c"}},
		{`--status-fd "0"`, []string{"checkpoint", "--status-fd", "0", "c"}},
		{`expected the images of a checkpoint`, []string{"restore", "--image-path", images, "other"}},
		{`unknown flag: --nothing`, []string{"restore", "--nothing", "other"}},
		{`JSON specification file /nowhere/config.json not found`, []string{"restore", "-b", "/nowhere", "other"}},
	} {
		h.refused(1, c.words, c.args...)
	}
	if err := os.WriteFile(images+"/inventory.img", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	missing := "CRIU is needed and not installed"
	h.refused(1, missing, "checkpoint", "--image-path", images+"/new", "c")
	h.refused(1, missing, "restore", "--image-path", images, "other")
	if _, err := os.Stat(images + "/new"); err == nil {
		t.Error("a directory was made for nothing")
	}
	h.refused(1, "container does not exist", "state", "other")
	if s := h.status("c"); s != "running" {
		t.Errorf("status %s, expected running", s)
	}
}

func TestFeaturesNameCheckpoints(t *testing.T) {
	h := newHouse(t, nil)
	var f features.Features
	if err := json.Unmarshal([]byte(h.must("features")), &f); err != nil {
		t.Fatal(err)
	}
	if f.Annotations["org.opencontainers.runc.checkpoint.enabled"] != "true" {
		t.Errorf("annotations %v", f.Annotations)
	}
	if diff := cmp.Diff([]string{"org.criu.config"}, f.PotentiallyUnsafeConfigAnnotations); diff != "" {
		t.Error(diff)
	}
	// Podman looks whether the verb is there by its help.
	if out := h.must("checkpoint", "--help"); !strings.Contains(out, "--tcp-skip-in-flight") {
		t.Errorf("help: %q", out)
	}
}
