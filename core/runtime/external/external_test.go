package external

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/runtime"
)

// house is Runtimes with runc and a root filesystem of busybox.
type house struct {
	*Runtimes
	t      *testing.T
	runc   Command
	rootfs string
	parent string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("runc needs root here")
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("runc is not installed")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("busybox is not installed")
	}
	dir := t.TempDir()
	h := &house{Runtimes: New(filepath.Join(dir, "root"), nil), t: t, runc: Command{Name: "runc", Path: runc, Args: []string{"--debug"}},
		rootfs: filepath.Join(dir, "fs"), parent: "/sampan-external-" + filepath.Base(filepath.Dir(dir))}
	if err := os.MkdirAll(filepath.Join(h.rootfs, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.rootfs, "bin/busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "sleep", "cat", "tty"} {
		if err := os.Symlink("busybox", filepath.Join(h.rootfs, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	// What runc leaves is to become this process's.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cgroup.RemoveEmpty(h.parent); err != nil {
			t.Error(err)
		}
		if left, err := filepath.Glob("/sys/fs/cgroup/*" + h.parent); err != nil || len(left) > 0 {
			t.Errorf("cgroups are left: %v %v", left, err)
		}
	})
	return h
}

func (h *house) options(id string, args ...string) runtime.CreateOptions {
	return runtime.CreateOptions{
		RootMounts: []mount.Mount{{Type: "bind", Source: h.rootfs, Target: "/", Options: []string{"bind"}}},
		Spec: &specs.Spec{
			Root: &specs.Root{Path: "rootfs"}, Hostname: "inside",
			Process: &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}},
			Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/dev/pts", Type: "devpts", Source: "devpts"}},
			Linux: &specs.Linux{CgroupsPath: h.parent + "/" + id, Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
			}},
		},
	}
}

// create makes a container that is removed at the end.
func (h *house) create(id string, o runtime.CreateOptions) *Container {
	h.t.Helper()
	c, err := h.Create(h.t.Context(), id, h.runc, o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := c.Delete(context.Background(), true); err != nil {
			h.t.Error(err)
		}
		reap(c.Pid())
	})
	return c
}

// reap waits for a process that has become ours.
func reap(pid int) (status unix.WaitStatus) {
	for {
		if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != unix.EINTR {
			return status
		}
	}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func TestLife(t *testing.T) {
	h := newHouse(t)
	o := h.options("one", "sh", "-c", "trap 'exit 5' TERM; echo begun; cat; while :; do sleep 0.05; done")
	r, w := pipe(t)
	in, typed := pipe(t)
	o.Stdout, o.Stdin = w, in
	c := h.create("one", o)
	w.Close()
	if st, err := c.State(); err != nil || st.Status != specs.StateCreated || st.Pid != c.Pid() {
		t.Fatalf("state %+v, %v; want created", st, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(c.dir)) {
		t.Errorf("the root is mounted on the host (%v)", err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := typed.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	typed.Close()
	said := make([]byte, len("begun\nhello"))
	if _, err := io.ReadFull(r, said); err != nil || string(said) != "begun\nhello" {
		t.Fatalf("it says %q (%v)", said, err)
	}
	h.runsAs(c)

	// Another process finds it, and its end.
	again, err := h.List()
	if err != nil || len(again) != 1 || again[0].ID() != "one" || again[0].Pid() != c.Pid() {
		t.Fatalf("list: %v, %v", again, err)
	}
	if err := again[0].Delete(t.Context(), false); !fault.Is(err, fault.Conflict) {
		t.Errorf("delete of one that runs: %v, want a conflict", err)
	}
	if err := again[0].Kill(unix.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if status := reap(c.Pid()); status.ExitStatus() != 5 {
		t.Errorf("it ended with %v, want 5", status)
	}
	if st, err := again[0].State(); err != nil || st.Status != specs.StateStopped {
		t.Errorf("state %+v, %v; want stopped", st, err)
	}
	if err := c.Kill(unix.SIGTERM, false); !fault.Is(err, fault.Conflict) {
		t.Errorf("kill of one that has ended: %v, want a conflict", err)
	}
	if err := again[0].Delete(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.dir); !os.IsNotExist(err) {
		t.Errorf("the directory is left (%v)", err)
	}
}

// runsAs tries what a container that runs can do.
func (h *house) runsAs(c *Container) {
	t := h.t
	t.Helper()
	ctx := t.Context()
	if err := c.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if st, err := c.State(); err != nil || st.Status != "paused" {
		t.Errorf("state %+v, %v; want paused", st, err)
	}
	if err := c.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	limit := int64(64 << 20)
	if err := c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Stats(); err != nil || s.Memory.Limit != uint64(limit) {
		t.Errorf("stats %+v, %v; want a limit of %d", s.Memory, err, limit)
	}
	if pids, err := c.Pids(); err != nil || len(pids) == 0 {
		t.Errorf("processes %v, %v", pids, err)
	}
	if n, err := c.OOMKills(); err != nil || n != 0 {
		t.Errorf("%d killed for want of memory, %v", n, err)
	}
	r, w := pipe(t)
	p, err := c.Exec(ctx, runtime.ExecOptions{Stdout: w, Process: &specs.Process{Args: []string{"sh", "-c", "cat /proc/sys/kernel/hostname; exit 9"}, Cwd: "/", Env: []string{"PATH=/bin"}}})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	said, err := io.ReadAll(r)
	if status := reap(p.Pid()); err != nil || string(said) != "inside\n" || status.ExitStatus() != 9 {
		t.Errorf("exec says %q (%v) and ends with %v", said, err, status)
	}
	_, err = c.Exec(ctx, runtime.ExecOptions{Process: &specs.Process{Args: []string{"nosuch"}, Cwd: "/", Env: []string{"PATH=/bin"}}})
	if err == nil || !strings.Contains(err.Error(), `"nosuch": executable file not found in $PATH`) {
		t.Errorf("exec of what is not there: %v", err)
	}
	h.terminal(c)
}

// terminal executes a process on a terminal.
func (h *house) terminal(c *Container) {
	t := h.t
	t.Helper()
	p, err := c.Exec(t.Context(), runtime.ExecOptions{Process: &specs.Process{Terminal: true, Args: []string{"tty"}, Cwd: "/", Env: []string{"PATH=/bin"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Console().Close()
	said := make([]byte, 100)
	n, err := p.Console().Read(said)
	if status := reap(p.Pid()); err != nil || !strings.HasPrefix(string(said[:n]), "/dev/pts/") || status.ExitStatus() != 0 {
		t.Errorf("the terminal shows %q (%v), %v", said[:n], err, status)
	}
}

func TestKillAll(t *testing.T) {
	h := newHouse(t)
	o := h.options("two", "sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000 & wait")
	// In the host's pid namespace the kernel ends nobody with the first process.
	o.Spec.Linux.Namespaces = o.Spec.Linux.Namespaces[1:]
	c := h.create("two", o)
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for pids, err := c.Pids(); len(pids) < 3; pids, err = c.Pids() {
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	before, err := c.Pids()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(unix.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	for _, pid := range before { // the orphans come to us
		reap(pid)
	}
	if pids, err := c.Pids(); err != nil || len(pids) > 0 {
		t.Errorf("%v are left (%v)", pids, err)
	}
}

func TestCreateThatFailsLeavesNothing(t *testing.T) {
	h := newHouse(t)
	missing := Command{Name: "gone", Path: "/nowhere/runc"}
	for _, c := range []struct {
		command Command
		options runtime.CreateOptions
		want    string
	}{
		{h.runc, h.options("three", "nosuch"), `OCI runtime create failed: .*"nosuch": executable file not found in $PATH`},
		{missing, h.options("three", "sh"), "runtime gone: program /nowhere/runc: not found"},
		{Command{Name: "false", Path: "/bin/false"}, h.options("three", "sh"), "OCI runtime create failed: exit status 1"},
		{Command{Name: "true", Path: "/bin/true"}, h.options("three", "sh"), "runtime true: create: open"},
	} {
		_, err := h.Create(t.Context(), "three", c.command, c.options)
		for part := range strings.SplitSeq(c.want, ".*") {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: got %v, want %q", c.command.Name, err, c.want)
			}
		}
		if left, err := os.ReadDir(h.root); err != nil || len(left) > 0 {
			t.Errorf("%s: %v is left (%v)", c.command.Name, left, err)
		}
	}
}

func TestListClears(t *testing.T) {
	h := New(t.TempDir(), nil)
	if err := os.MkdirAll(filepath.Join(h.root, "half", rootDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if list, err := h.List(); err != nil || len(list) != 0 {
		t.Errorf("list: %v, %v", list, err)
	}
	if left, err := os.ReadDir(h.root); err != nil || len(left) > 0 {
		t.Errorf("%v is left (%v)", left, err)
	}
	if _, err := h.Load("half"); !fault.Is(err, fault.NotFound) {
		t.Errorf("load: %v, want not found", err)
	}
}

// A runtime that goes on with a create when nobody is there to hear of it leaves a process that it does not
// know when it is told to delete the container.
func TestDeleteSweeps(t *testing.T) {
	h := newHouse(t)
	c := &Container{log: h.log, dir: filepath.Join(h.root, "left"), record: record{ID: "left", Command: Command{Name: "true", Path: "/bin/true"}, Cgroup: h.parent + "/left"}}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := cgroup.New(c.record.Cgroup, &specs.LinuxResources{}, cgroup.Options{})
	if err != nil {
		t.Fatal(err)
	}
	left := exec.Command("sleep", "1000")
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- left.Wait() }() // at once, as a zombie is in its cgroup still
	if err := m.Add(left.Process.Pid); err != nil {
		left.Process.Kill() //nolint:errcheck // it fails already
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), true); err != nil {
		left.Process.Kill() //nolint:errcheck // it fails already
		t.Fatal(err)
	}
	if pids, err := m.Pids(); err != nil || len(pids) > 0 {
		left.Process.Kill() //nolint:errcheck // it fails already
		t.Errorf("%v are left (%v)", pids, err)
	}
	if err := <-ended; err == nil {
		t.Error("it was not killed")
	}
}
