package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// result is what one run of one program came to.
type result struct {
	TAP      tap
	Status   int // exit status
	TimedOut bool
	// Refusal: the program wants the runtime to refuse its container, and says nothing when it did.
	Refusal bool
}

func (r result) passed() bool {
	silent := r.Refusal && r.TAP.Planned < 0 && r.TAP.Held == 0
	return !r.TimedOut && r.Status == 0 && r.TAP.Failed+r.TAP.Stray == 0 && (silent || r.TAP.complete())
}

func (r result) String() string {
	checks := fmt.Sprintf("%d/%d", r.TAP.Held, r.TAP.Held+r.TAP.Failed)
	switch {
	case r.TimedOut:
		return "timeout " + checks
	case r.passed() && r.TAP.Held == 0:
		return "pass"
	case r.passed() && r.TAP.Held == r.TAP.Skipped:
		return "skips"
	case r.TAP.Stray > 0:
		return "fail"
	case r.passed():
		return "pass " + checks
	case r.TAP.Failed > 0:
		return "fail " + checks
	case r.Status != 0:
		return fmt.Sprintf("ends with status %d after %s", r.Status, checks)
	}
	return "incomplete " + checks
}

// run runs a program with a runtime in directories of their own, in a mount namespace of its own:
// no mount that a runtime leaves behind can reach the host or what is removed here.
func (s *suite) run(ctx context.Context, program, side, runtimePath string, timeout time.Duration) (result, error) {
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return result{}, err
	}
	defer os.RemoveAll(dir)
	// What some runtimes do in a user namespace needs a way to the bundle.
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // see above
		return result{}, err
	}
	wrapper, err := s.furnish(dir, runtimePath)
	if err != nil {
		return result{}, err
	}
	defer clean(wrapper)

	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(limited, filepath.Join(s.bin(), program))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "RUNTIME="+wrapper, "TMPDIR="+filepath.Join(dir, "tmp"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second // a container may hold the pipes
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) && limited.Err() == nil {
		return result{}, err
	}
	if ctx.Err() != nil {
		return result{}, ctx.Err()
	}
	r := result{TAP: parseTAP(out.Bytes()), Status: cmd.ProcessState.ExitCode(), TimedOut: limited.Err() != nil}
	r.Refusal = program == "process_rlimits_fail" || program == "process_capabilities_fail"
	return r, os.WriteFile(filepath.Join(s.outputs, program+"."+side+".tap"), append(out.Bytes(), errs.Bytes()...), 0o600)
}

// furnish puts into a directory what the programs expect in their working directory, and returns
// a program that is the runtime with its state in there too.
func (s *suite) furnish(dir, runtimePath string) (string, error) {
	if err := os.Symlink(filepath.Join(s.dir, rootfs), filepath.Join(dir, rootfs)); err != nil {
		return "", err
	}
	// This one they copy into bundles, and a link would be copied as a link.
	inside, err := os.ReadFile(filepath.Join(s.bin(), "runtimetest"))
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "runtimetest"), inside, 0o755); err != nil { //nolint:gosec // it is executed
		return "", err
	}
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o755); err != nil {
		return "", err
	}
	wrapper := filepath.Join(dir, "runtime")
	command, err := wrapped(runtimePath)
	if err != nil {
		return "", err
	}
	script := fmt.Sprintf("#!/bin/sh\nexec %s --root '%s/state' \"$@\"\n", command, dir)
	return wrapper, os.WriteFile(wrapper, []byte(script), 0o755) //nolint:gosec // it is executed
}

// clean ends the containers that a program has left.
func clean(wrapper string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, wrapper, "list", "-q").Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance: list containers:", err)
		return
	}
	for _, id := range strings.Fields(string(out)) {
		if out, err := exec.CommandContext(ctx, wrapper, "delete", "--force", id).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "conformance: delete %s: %v: %s\n", id, err, out)
		}
	}
}

// versionOf is what a runtime says of itself.
func versionOf(ctx context.Context, runtimePath string) string {
	out, err := exec.CommandContext(ctx, runtimePath, "--version").Output()
	if err != nil {
		return filepath.Base(runtimePath)
	}
	return firstLine(out)
}

func firstLine(text []byte) string {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return strings.TrimSpace(string(line))
}
