package scenario

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Engine is a daemon that a test started for itself, and has the image busybox.
type Engine struct {
	Name   string // sampand or dockerd
	Root   string // where all of its files are
	Socket string // of the Docker API
	Log    string
}

// Pair starts our daemon and Debian's dockerd with runc beside it, each with a root and a network
// namespace of its own, so that what the one has of ports, bridges and addresses the other can have as
// well. Both end with the test, which fails if they leave anything.
func Pair(t *testing.T) (ours, theirs Engine) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("two daemons need root: they make namespaces, cgroups and mounts")
	}
	bin := programs(t)
	image, err := BusyboxRootfs()
	if err != nil {
		t.Fatal(err)
	}
	us := single(t, bin)
	if err := us.start(nil); err != nil {
		t.Fatal(err)
	}
	if err := us.sampan(bytes.NewReader(image), "import", "-c", `CMD ["sh"]`, "-", "busybox"); err != nil {
		t.Fatal(err)
	}
	them := single(t, bin)
	them.tidy()
	if err := (peer{state: them}).dockerdWith(); err != nil {
		t.Fatal(err)
	}
	return Engine{Name: "sampand", Root: us.root, Socket: filepath.Join(us.root, "s.sock"), Log: filepath.Join(us.root, "log")},
		Engine{Name: "dockerd", Root: them.root, Socket: filepath.Join(them.root, "d.sock"), Log: filepath.Join(them.root, "dockerd.log")}
}

// single is the state of a daemon without a scenario.
func single(t *testing.T, bin string) *state {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "sp")
	if err != nil {
		t.Fatal(err)
	}
	s := &state{root: root, bin: bin, bridge: "docker0", apart: true}
	if s.before, err = observe(root); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := s.leaks()
		if os.Getenv("SAMPAN_LEAKS") == "tolerate" {
			err = nil // somebody else is at work on this machine
		}
		// A mount that leaked must not turn the clean-up into the removal of its source.
		if mounts, merr := mountsBelow(root); merr != nil || len(mounts) > 0 {
			err = errors.Join(err, merr)
		} else {
			err = errors.Join(err, os.RemoveAll(root))
		}
		if err != nil {
			t.Error(err)
		}
	})
	return s
}

// ownNetwork has a command run in a new network namespace with a loopback device that is up.
func ownNetwork(cmd *exec.Cmd) {
	cmd.Args = append([]string{"sh", "-c", `ip link set lo up && exec "$@"`, "sh", cmd.Path}, cmd.Args[1:]...)
	if sh, err := exec.LookPath("sh"); err == nil {
		cmd.Path = sh
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
}
