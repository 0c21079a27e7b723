package scenario

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Daemon is a sampand that a test starts, kills and starts again on the same root. It ends with the
// test, which fails if anything of it is left.
type Daemon struct {
	Root string
	s    *state
}

// Alone returns a daemon of the programs in bin, or of those that the scenarios use when bin is "".
// It is not started yet.
func Alone(t *testing.T, bin string) *Daemon {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a daemon needs root: it makes namespaces, cgroups and mounts")
	}
	if bin == "" {
		bin = programs(t)
	}
	s := single(t, bin)
	// A daemon that comes again must find its bridge where it was: on the host.
	s.apart, s.bridge = false, "spt"+filepath.Base(s.root)[2:min(len(filepath.Base(s.root)), 12)]
	return &Daemon{Root: s.root, s: s}
}

// Programs returns the directory of the built programs.
func Programs(t *testing.T) string { return programs(t) }

// Start starts the daemon and waits until it answers.
func (d *Daemon) Start(flags ...string) error { return d.s.start(flags) }

// Kill ends the daemon with SIGKILL.
func (d *Daemon) Kill() error { return d.s.end(syscall.SIGKILL) }

// Stop ends the daemon in order.
func (d *Daemon) Stop() error { return d.s.end(syscall.SIGTERM) }

// Pid returns the daemon's process, 0 when it does not run.
func (d *Daemon) Pid() int {
	if d.s.daemon == nil {
		return 0
	}
	return d.s.daemon.Process.Pid
}

// Lost reports whether the daemon has died by itself; then it can be started again.
func (d *Daemon) Lost() bool {
	if d.s.daemon != nil && errors.Is(syscall.Kill(d.Pid(), 0), syscall.ESRCH) {
		d.s.daemon = nil
	}
	return d.s.daemon == nil
}

// Busybox imports a busybox root filesystem as the image busybox.
func (d *Daemon) Busybox() error {
	image, err := BusyboxRootfs()
	if err != nil {
		return err
	}
	return d.s.sampan(bytes.NewReader(image), "import", "-c", `CMD ["sh"]`, "-", "busybox")
}

// Command returns a run of the client, with the root as its working directory.
func (d *Daemon) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(d.s.bin, "sampan"), args...)
	cmd.Env = append(os.Environ(), "SAMPAN_HOST=unix://"+filepath.Join(d.Root, "s.sock"), "HOME="+d.Root)
	cmd.Dir = d.Root
	return cmd
}

// Log returns the end of what the daemons have logged.
func (d *Daemon) Log() string { return tail(filepath.Join(d.Root, "log")) }

// Poll calls try until it succeeds or patience ends, and returns its last error.
func Poll(try func() error) error { return poll(try) }
