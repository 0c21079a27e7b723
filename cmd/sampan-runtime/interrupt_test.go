package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A signal that ends the program while the container is made takes back what was begun. It is listened to
// only when the first process is on its way.
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
