package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func withFilter(action specs.LinuxSeccompAction, errno *uint, names ...string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: names, Action: action, ErrnoRet: errno}}}
	}
}

func TestSeccompActions(t *testing.T) {
	h := newScene(t)
	down := uint(100)
	for _, noNewPrivileges := range []bool{false, true} {
		own := func(s *specs.Spec) { s.Process.NoNewPrivileges = noNewPrivileges }
		for _, c := range []struct {
			script, want string
			change       func(*specs.Spec)
		}{
			{"mkdir /dev/shm/x 2>&1", "mkdir: can't create directory '/dev/shm/x': Operation not permitted", withFilter(specs.ActErrno, nil, "mkdir", "mkdirat")},
			{"mkdir /dev/shm/x 2>&1", "mkdir: can't create directory '/dev/shm/x': Network is down", withFilter(specs.ActErrno, &down, "mkdir", "mkdirat")},
			// A rule that says what holds anyhow, about a call that this kernel may not have.
			{"echo hello", "hello", withFilter(specs.ActAllow, nil, "bdflush")},
			// The filter is about the program: that the runtime needs these to make the container is its own affair.
			{"echo hello", "hello", func() func(*specs.Spec) {
				enosys := uint(38)
				return withFilter(specs.ActErrno, &enosys, "close_range", "fsopen", "fsconfig", "fspick", "openat2", "open_tree", "move_mount", "mount_setattr")
			}()},
		} {
			h.configure(c.script+"; true", own, c.change)
			h.shows(c.want, fmt.Sprintf("noNewPrivileges %v", noNewPrivileges))
		}
		h.configure("mkdir /dev/shm/x; echo not killed", own, withFilter(specs.ActKill, nil, "mkdir", "mkdirat"))
		if r := h.call("run", "c"); strings.Contains(r.err, "not permitted") || r.code != 0 && r.code != 159 || !strings.Contains(r.out+r.err, "Bad system call") && r.code != 159 {
			t.Errorf("killed: %+v", r)
		}
	}
}

// A startContainer hook is a file of the container: it has its filter, its user and its capabilities, and no file
// of the runtime.
func TestStartHookIsConfined(t *testing.T) {
	h := newScene(t)
	hook := func(script string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"}}}}
			s.Process.User.UID = 1000
			s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = nil, nil
		}
	}
	if err := os.Mkdir(h.bundle+"/rootfs/open", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(h.bundle+"/rootfs/open", 0o777); err != nil {
		t.Fatal(err)
	}
	h.configure("cat /open/said", hook("id -u >/open/said; grep CapEff /proc/self/status >>/open/said; ls /proc/self/fd | wc -l >>/open/said"))
	h.shows("1000\nCapEff:\t0000000000000000\n4")
	h.configure("true", hook("mkdir /dev/shm/x"), withFilter(specs.ActKillProcess, nil, "mkdir", "mkdirat"))
	h.refused(1, "startContainer hook 0, /bin/sh: signal: bad system call", "run", "c")
}
