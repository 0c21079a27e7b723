package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup"
)

// The tests of the files conduct_*_test.go are about what a caller sees of the program, told by the
// scenarios of runc's integration suite; tests/conformance/runc-scenarios-*.tsv says which is about which.

// newScene is a house with all programs of busybox, whose container is changed by configure.
func newScene(t *testing.T) *house {
	t.Helper()
	needRoot(t, "containers without a user namespace are made")
	h := newHouse(t, nil)
	list, err := exec.Command("busybox", "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(string(list)) {
		if err := os.Symlink("busybox", h.bundle+"/rootfs/bin/"+name); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	return h
}

// configure writes the bundle's config.json anew: a shell script, and what the functions change.
func (h *house) configure(script string, change ...func(*specs.Spec)) {
	h.t.Helper()
	text, err := os.ReadFile(h.bundle + "/config.json")
	if err != nil {
		h.t.Fatal(err)
	}
	var first specs.Spec
	if err := json.Unmarshal(text, &first); err != nil {
		h.t.Fatal(err)
	}
	s := example()
	s.Process.Args, s.Process.Terminal, s.Root.Readonly = []string{"sh", "-c", script}, false, false
	s.Linux.CgroupsPath = first.Linux.CgroupsPath
	for _, f := range change {
		f(s)
	}
	if text, err = json.Marshal(s); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.bundle+"/config.json", text, 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// shows runs a container and compares what it prints.
func (h *house) shows(want string, what ...string) {
	h.t.Helper()
	if r := h.call("run", "c"); r.code != 0 || strings.TrimSpace(r.out) != want {
		h.t.Errorf("%s: exit status %d, %q, error %q; expected %q", what, r.code, r.out, r.err, want)
	}
}

// inUserNamespace gives the spec a user namespace; own gives its root the bundle.
func inUserNamespace(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65534}}
	s.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: 200000, Size: 65534}}
}

func (h *house) own() {
	h.t.Helper()
	for _, dir := range []string{filepath.Dir(filepath.Dir(h.bundle)), filepath.Dir(h.bundle), h.bundle} {
		if err := os.Chmod(dir, 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	err := filepath.Walk(h.bundle+"/rootfs", func(name string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(name, 100000, 200000)
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// withMounts adds mounts to a spec.
func withMounts(mounts ...specs.Mount) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Mounts = append(s.Mounts, mounts...) }
}

// inOwnMounts calls a function, and what it starts, in a mount namespace that ends with it.
func inOwnMounts(t *testing.T, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "")
		}
		if err != nil {
			t.Error(err)
			return
		}
		do()
	}()
	<-done
}

func needRoot(t *testing.T, what string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: " + what)
	}
}

// needCgroup skips what a user can do only where a cgroup is delegated, which a login session's is not.
func needCgroup(t *testing.T) {
	t.Helper()
	if !hasCgroup() {
		t.Skip("needs root, or a cgroup that is delegated to the user")
	}
}

func hasCgroup() bool {
	name := "/sys/fs/cgroup" + cgroup.Delegated()
	procs, err := os.ReadFile(name + "/cgroup.procs")
	return os.Geteuid() == 0 || err == nil && len(procs) == 0 && unix.Access(name+"/cgroup.subtree_control", unix.W_OK) == nil
}

// A user to whom no cgroup is delegated has containers without; what needs one says so.
func TestWithoutCgroup(t *testing.T) {
	if hasCgroup() {
		t.Skip("needs a user to whom no cgroup is delegated")
	}
	h := newHouse(t, nil)
	h.must("run", "-d", "c")
	const words = "no cgroup of its own"
	for _, args := range [][]string{{"pause", "c"}, {"resume", "c"}, {"ps", "c"}, {"update", "--pids-limit", "50", "c"}, {"events", "--stats", "c"}} {
		h.refused(1, words, args...)
	}
	h.refused(execFailed, words, "exec", "--cgroup", "x", "c", "true")
	h.must("exec", "c", "true")
	h.must("kill", "--all", "c", "9")
	h.eventually("c", "stopped")
	h.must("delete", "c")
}
