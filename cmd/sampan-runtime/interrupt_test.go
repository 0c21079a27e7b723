package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A signal that ends the program while the container is made takes back what was begun.
func TestInterruptedCreation(t *testing.T) {
	for _, verb := range []string{"create", "run"} {
		t.Run(verb, func(t *testing.T) {
			h := newScene(t)
			reached := filepath.Join(t.TempDir(), "reached")
			h.configure("true", func(s *specs.Spec) {
				s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{
					Path: "/bin/sh", Args: []string{"sh", "-c", `touch "$0"; exec sleep 1000`, reached}, Env: []string{"PATH=/bin:/usr/bin"},
				}}}
			})
			cmd := h.command(verb, "c")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for range 1000 {
				if _, err := os.Stat(reached); err == nil {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("%v, expected exit status 1", err)
			}
			if left, err := os.ReadDir(h.root); err != nil || len(left) > 0 {
				t.Errorf("%v is left, %v", left, err)
			}
			h.refused(1, "container does not exist", "state", "c")
		})
	}
}

// Whenever the signal comes: before anything is made it ends the program at once.
func TestInterruptedAnyTime(t *testing.T) {
	for _, verb := range []string{"create", "run"} {
		t.Run(verb, func(t *testing.T) {
			var group string
			h := newHouse(t, func(s *specs.Spec) { group = s.Linux.CgroupsPath }, "sleep", "0.02")
			for after := time.Duration(0); after < 16*time.Millisecond; after += 200 * time.Microsecond {
				cmd := h.command(verb, "c")
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(after)
				cmd.Process.Signal(unix.SIGTERM)           //nolint:errcheck // it may have ended
				if cmd.Wait() == nil && verb == "create" { // it has created
					if r := h.call("delete", "--force", "c"); r.code != 0 {
						t.Fatal(r.err)
					}
				}
				if left, err := os.ReadDir(h.root); err == nil && len(left) > 0 {
					t.Fatalf("signalled after %v, ended with %v: %v is left", after, cmd.ProcessState, left)
				}
				for _, pattern := range []string{"/sys/fs/cgroup" + group, "/sys/fs/cgroup/*" + group} {
					if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
						t.Fatalf("signalled after %v, ended with %v: %v is left, %v", after, cmd.ProcessState, left, err)
					}
				}
			}
		})
	}
}

// Whenever the program is killed, `delete --force` finds all that is left of the container, and its id is free.
func TestKilledCreation(t *testing.T) {
	for _, verb := range []string{"create", "run"} {
		t.Run(verb, func(t *testing.T) {
			mark := fmt.Sprintf("1000.%d", os.Getpid())
			h := newHouse(t, nil, "sleep", mark)
			for after := time.Duration(0); after < 16*time.Millisecond; after += 400 * time.Microsecond {
				cmd := h.command(verb, "c")
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(after)
				cmd.Process.Kill() //nolint:errcheck // create may have ended
				cmd.Wait()         //nolint:errcheck // it was killed
				if r := h.call("delete", "--force", "c"); r.code != 0 {
					t.Fatalf("killed after %v: %s", after, r.err)
				}
				if left, err := os.ReadDir(h.root); err == nil && len(left) > 0 {
					t.Errorf("killed after %v: %v is left", after, left)
				}
			}
			// The last process that was killed may still be on its way out.
			for range 200 {
				if len(processes(t, mark)) == 0 {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if left := processes(t, mark); len(left) > 0 {
				t.Errorf("processes %v are left", left)
			}
		})
	}
}

// processes are those of the program under test but this one, and those that have the argument.
func processes(t *testing.T, argument string) (pids []string) {
	t.Helper()
	program, err := os.Stat(under)
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		pid := filepath.Base(dir)
		exe, err := os.Stat(dir + "/exe")
		ours := err == nil && os.SameFile(exe, program) && pid != strconv.Itoa(os.Getpid())
		line, err := os.ReadFile(dir + "/cmdline")
		if ours || err == nil && slices.Contains(strings.Split(string(line), "\x00"), argument) {
			pids = append(pids, pid)
		}
	}
	return pids
}
