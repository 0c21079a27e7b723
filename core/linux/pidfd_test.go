package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// begin starts a shell script that has no output.
func begin(t *testing.T, script string) Child {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	s := Spawn{Program: shell(t), Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}, Files: []*os.File{null, null, null}}
	c, err := s.Start()
	if err != nil {
		t.Fatal(err)
	}
	stopLater(t, c)
	return c
}

// stopLater leaves nothing of a process after the test, however that ends.
func stopLater(t *testing.T, c Child) {
	t.Cleanup(func() {
		if Signal(c.PidFD, unix.SIGKILL) == nil {
			Wait(c.PidFD) //nolint:errcheck // most have waited
		}
		c.PidFD.Close()
	})
}

func TestWaitTellsHowItEnded(t *testing.T) {
	for script, want := range map[string]unix.WaitStatus{
		"exit 0": 0, "exit 7": 7 << 8, "exit 255": 255 << 8, "kill -TERM $$": unix.WaitStatus(unix.SIGTERM), "kill -KILL $$": unix.WaitStatus(unix.SIGKILL),
	} {
		c := begin(t, script)
		got, err := Wait(c.PidFD)
		if got != want || err != nil {
			t.Errorf("%s: got %#x, %v, want %#x", script, got, err, want)
		}
		if _, err := Wait(c.PidFD); !errors.Is(err, unix.ECHILD) {
			t.Errorf("%s: a second wait: %v", script, err)
		}
	}
}

func TestSignalAndEnded(t *testing.T) {
	c := begin(t, "exec sleep 100")
	if Ended(c.PidFD) {
		t.Error("ended before its signal")
	}
	if err := Signal(c.PidFD, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	status, err := Wait(c.PidFD)
	if !status.Signaled() || status.Signal() != unix.SIGKILL || err != nil {
		t.Errorf("got %#x, %v", status, err)
	}
	if !Ended(c.PidFD) {
		t.Error("not ended after it was waited for")
	}
	if err := Signal(c.PidFD, unix.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a signal to nobody: %v", err)
	}
	if f, err := PidFD(c.Pid); !errors.Is(err, unix.ESRCH) {
		t.Errorf("a handle of nobody: %v, %v", f, err)
	}
}

// A name may look like the fields that come after it.
func TestStartTimeReadsAnyName(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a) Z 1 2 (b")
	program, err := os.ReadFile(shell(t).Name())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, program, 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	s := Spawn{Program: exe, Args: []string{"sleep", "100"}, Files: []*os.File{exe, exe, exe}}
	c, err := s.Start()
	if err != nil {
		t.Fatal(err)
	}
	stopLater(t, c)
	first, state, err := StartTime(c.Pid)
	if first == 0 || state == 'Z' || err != nil {
		t.Errorf("got %d %q, %v", first, state, err)
	}
	if own, _, err := StartTime(os.Getpid()); own > first || err != nil {
		t.Errorf("its parent began at %d, after it at %d: %v", own, first, err)
	}
	if err := Signal(c.PidFD, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := unix.Waitid(unix.P_PIDFD, int(c.PidFD.Fd()), nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if again, state, err := StartTime(c.Pid); again != first || state != 'Z' || err != nil {
		t.Errorf("after its end: %d %q, %v, want %d 'Z'", again, state, err, first)
	}
	if _, err := Wait(c.PidFD); err != nil {
		t.Fatal(err)
	}
	if _, _, err := StartTime(c.Pid); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of nobody: %v", err)
	}
}

func TestCapabilityMask(t *testing.T) {
	for _, c := range []struct {
		names   []string
		mask    uint64
		unknown string
	}{
		{nil, 0, "[]"},
		{[]string{"CAP_CHOWN", "CAP_KILL", "CAP_CHOWN"}, 1<<unix.CAP_CHOWN | 1<<unix.CAP_KILL, "[]"},
		{[]string{"kill", "Cap_Sys_Admin"}, 1<<unix.CAP_KILL | 1<<unix.CAP_SYS_ADMIN, "[]"},
		{[]string{"CAP_CHECKPOINT_RESTORE"}, 1 << unix.CAP_CHECKPOINT_RESTORE, "[]"},
		{[]string{"CAP_NOPE", "CAP_BPF", "ALL", ""}, 1 << unix.CAP_BPF, "[CAP_NOPE ALL ]"},
	} {
		mask, unknown := CapabilityMask(c.names)
		if mask != c.mask || fmt.Sprint(unknown) != c.unknown {
			t.Errorf("%v: got %#x %v, want %#x %s", c.names, mask, unknown, c.mask, c.unknown)
		}
	}
	all, unknown := CapabilityMask(CapabilityNames())
	if want := uint64(1)<<(unix.CAP_LAST_CAP+1) - 1; all != want || len(unknown) != 0 {
		t.Errorf("all: %#x %v, want %#x", all, unknown, want)
	}
}
