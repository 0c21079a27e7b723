package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
)

// The test program is its own init.
func TestMain(m *testing.M) {
	if os.Getenv(asSpy) != "" {
		spy()
	}
	status := m.Run()
	if err := cgroup.RemoveEmpty(testCgroup("")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// testCgroup is a container's cgroup: for an ordinary user where one is delegated.
func testCgroup(id string) string { return path.Join(path.Dir(defaultPath(id)), "sampan-test", id) }

// needRoot skips what an ordinary user may not do: not a container, but what the test does around it.
func needRoot(t testing.TB, what string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: " + what)
	}
}

// needCgroup skips what a user can do only where a cgroup is delegated, which a login session's is not.
func needCgroup(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 && !delegates(t) {
		t.Skip("needs root, or a cgroup that is delegated to the user")
	}
}

// bench is a runtime with a bundle of busybox.
type bench struct {
	*Runtime
	t      testing.TB
	bundle string
}

func newBench(t testing.TB) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		needUserNamespaces(t)
	}
	init, err := SealSelf()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { init.Close() })
	dir := t.TempDir()
	r, err := New(Options{Root: filepath.Join(dir, "state"), Init: init})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{Runtime: r, t: t, bundle: filepath.Join(dir, "bundle")}
	bin := filepath.Join(b.bundle, "rootfs/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("busybox is not installed")
	}
	if err := os.WriteFile(filepath.Join(bin, "busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields("sh cat echo id ls sleep hostname mount stat touch grep env pwd readlink true head chmod ln mkdir tr wc cut") {
		if err := os.Symlink("busybox", filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// shellSpec is a container that runs a script: an ordinary user's in a user namespace, with the
// subordinate ids where there are some.
func shellSpec(script string) *specs.Spec {
	s := rootSpec(script)
	if os.Geteuid() != 0 {
		rootless(s)
	}
	return s
}

func rootSpec(script string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE"}
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin", "A=b"}, Cwd: "/",
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Hostname: "inside",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: "pid"}, {Type: "mount"}, {Type: "network"}, {Type: "ipc"}, {Type: "uts"}, {Type: "cgroup"},
			},
			MaskedPaths:   []string{"/proc/cpuinfo", "/proc/acpi", "/sys/firmware", "/proc/nothing"},
			ReadonlyPaths: []string{"/proc/sys", "/proc/nothing"},
			Sysctl:        map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"},
		},
	}
}

var ids int

// create makes a container whose output goes to the returned function's result.
func (b *bench) create(spec *specs.Spec, change ...func(*CreateOptions)) (*Container, func() string, error) {
	b.t.Helper()
	ids++
	id := fmt.Sprintf("test-%d-%d", os.Getpid(), ids)
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	spec.Linux.CgroupsPath = testCgroup(id)
	o := CreateOptions{Bundle: b.bundle, Spec: spec, Stdout: w, Stderr: w, ClampDefaults: true}
	for _, f := range change {
		f(&o)
	}
	c, err := b.Create(b.t.Context(), id, o)
	w.Close()
	if err != nil {
		r.Close()
		return nil, nil, err
	}
	b.t.Cleanup(func() {
		r.Close()
		if err := c.Delete(context.Background(), true); err != nil && !fault.Is(err, fault.NotFound) {
			b.t.Errorf("delete: %v", err)
		}
		linux.Wait(c.pidfd) //nolint:errcheck // most have waited
		_ = c.Close()
	})
	return c, func() string {
		out, err := io.ReadAll(r)
		if err != nil {
			b.t.Error(err)
		}
		return strings.TrimSpace(string(out))
	}, nil
}

// run runs a container to its end.
func (b *bench) run(spec *specs.Spec, change ...func(*CreateOptions)) (string, int) {
	b.t.Helper()
	c, output, err := b.create(spec, change...)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := c.Start(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	out := output()
	status, err := linux.Wait(c.PidFD())
	if err != nil {
		b.t.Fatal(err)
	}
	if status.Signaled() {
		return out, 128 + int(status.Signal())
	}
	return out, status.ExitStatus()
}

func TestRun(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		name, script, want string
		status             int
		change             func(*specs.Spec)
	}{
		{name: "its own namespaces", script: "echo $$ $(hostname) $(id -u) $A $HOME; exit 7", want: "1 inside 0 b /", status: 7},
		{name: "its own root", script: "ls /", want: "bin\ndev\nproc\nsys"},
		{name: "devices and links", script: "ls /dev; readlink /dev/fd; stat -c %a,%t,%T /dev/null",
			want: "fd\nfull\nnull\nptmx\npts\nrandom\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n/proc/self/fd\n666,1,3"},
		{name: "masked and read-only paths", script: "cat /proc/cpuinfo; ls /sys/firmware; echo x 2>/dev/null >/proc/sys/kernel/domainname || echo refused", want: "refused"},
		{name: "a sysctl", script: "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", want: "0"},
		{name: "no file but its own", script: "ls /proc/self/fd | head -4", want: "0\n1\n2\n3"},
		{name: "another user", script: "id -u; id -g; id -G; grep CapEff /proc/self/status; pwd", want: "1000\n1001\n1001 7\nCapEff:\t0000000000000000\n/work",
			change: func(s *specs.Spec) {
				s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{7}}
				s.Process.Cwd = "/work"
				s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = nil, nil
			}},
		{name: "a read-only root", script: "touch /x 2>/dev/null || echo refused; touch /dev/x && echo written", want: "refused\nwritten",
			change: func(s *specs.Spec) { s.Root.Readonly = true }},
		{name: "no new privileges", script: "grep NoNewPrivs /proc/self/status", want: "NoNewPrivs:\t1",
			change: func(s *specs.Spec) { s.Process.NoNewPrivileges = true }},
		{name: "a loopback interface that is up", script: "cat /sys/class/net/lo/flags", want: "0x9"},
		{name: "a mount that is shared", script: "grep ' /data ' /proc/self/mountinfo | grep -o shared", want: "shared",
			change: func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Source: t.TempDir(), Options: []string{"bind", "rshared"}})
			}},
		{name: "capabilities", script: "grep CapBnd /proc/self/status", want: "CapBnd:\t00000000000000e3"},
		{name: "limits", script: "ulimit -n; ulimit -c", want: "77\n0",
			change: func(s *specs.Spec) {
				s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 77}, {Type: "RLIMIT_CORE"}}
			}},
		{name: "a limit above the host's", script: "ulimit -n", want: hardFiles(t),
			change: func(s *specs.Spec) {
				s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1 << 40, Hard: 1 << 40}}
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			spec := shellSpec(c.script)
			if c.change != nil {
				c.change(spec)
			}
			out, status := b.run(spec)
			if out != c.want || status != c.status {
				t.Errorf("got %q, status %d; want %q, status %d", out, status, c.want, c.status)
			}
		})
	}
}

func hardFiles(t *testing.T) string {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(l.Max)
}

func TestRootMounts(t *testing.T) {
	b := newBench(t)
	upper, work := t.TempDir(), t.TempDir()
	overlay := mount.Mount{Type: "overlay", Source: "overlay", Target: "/", Options: []string{
		"lowerdir=" + b.bundle + "/rootfs", "upperdir=" + upper, "workdir=" + work,
	}}
	spec := shellSpec("echo hi >/written; mount | grep -c ' / '")
	out, status := b.run(spec, func(o *CreateOptions) { o.RootMounts = []mount.Mount{overlay} })
	if out != "1" || status != 0 {
		t.Errorf("got %q, status %d; want one root mount", out, status)
	}
	if text, err := os.ReadFile(upper + "/written"); err != nil || string(text) != "hi\n" {
		t.Errorf("the upper directory has %q, %v; want what was written", text, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), b.bundle) {
		t.Error("a mount of the container is on the host")
	}
}

func TestLife(t *testing.T) {
	needCgroup(t)
	b := newBench(t)
	c, output, err := b.create(shellSpec("echo on; trap 'echo end; exit 3' TERM; while :; do sleep 0.05; done"))
	if err != nil {
		t.Fatal(err)
	}
	status := func(want specs.ContainerState) {
		t.Helper()
		loaded, err := b.Load(c.ID())
		if err != nil {
			t.Fatal(err)
		}
		s, err := loaded.State()
		if err != nil || s.Status != want {
			t.Errorf("status %q, %v; want %q", s.Status, err, want)
		}
	}
	status("created")
	if _, err := b.Create(t.Context(), c.ID(), CreateOptions{Bundle: b.bundle, Spec: shellSpec("true")}); !fault.Is(err, fault.Exists) {
		t.Errorf("a second one of the id: got %v, want class exists", err)
	}
	// By another handle, as another process would.
	other, err := b.Load(c.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	status("running")
	if err := c.Start(t.Context()); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second start: got %v, want class conflict", err)
	}
	if err := c.Delete(t.Context(), false); !fault.Is(err, fault.Conflict) {
		t.Errorf("delete while it runs: got %v, want class conflict", err)
	}
	if err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	status("paused")
	if err := c.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	status("running")
	list, err := b.List()
	if err != nil || len(list) != 1 {
		t.Errorf("list: %d containers, %v; want 1", len(list), err)
	}
	time.Sleep(100 * time.Millisecond) // the trap
	if err := c.Kill(unix.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if out := output(); out != "on\nend" {
		t.Errorf("output %q, want on and end", out)
	}
	if s, err := linux.Wait(c.PidFD()); err != nil || s.ExitStatus() != 3 {
		t.Errorf("status %v, %v; want 3", s, err)
	}
	status("stopped")
	if err := c.Kill(unix.SIGTERM, false); !fault.Is(err, fault.Conflict) {
		t.Errorf("kill after the end: got %v, want class conflict", err)
	}
	if err := c.Delete(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Load(c.ID()); !fault.Is(err, fault.NotFound) {
		t.Errorf("load after delete: got %v, want class not found", err)
	}
}

// That there is no such program is told by Create already, in the words of Start.
func TestStartErrors(t *testing.T) {
	b := newBench(t)
	os.WriteFile(b.bundle+"/rootfs/plain", []byte("x"), 0o644)  //nolint:errcheck // the case below fails
	os.WriteFile(b.bundle+"/rootfs/noise", []byte{1, 2}, 0o755) //nolint:errcheck // the case below fails
	for _, c := range []struct {
		program, want string
		errno         unix.Errno
	}{
		{"nothing", `exec: "nothing": executable file not found in $PATH`, unix.ENOENT},
		{"/nothing", `exec: "/nothing": stat /nothing: no such file or directory`, unix.ENOENT},
		{"/plain", `exec: "/plain": permission denied`, unix.EACCES},
		{"/bin", `exec: "/bin": is a directory`, unix.EISDIR},
		{"/noise", `exec: "/noise": exec format error`, unix.ENOEXEC},
	} {
		t.Run(c.program, func(t *testing.T) {
			b.t = t
			spec := shellSpec("")
			spec.Process.Args = []string{c.program}
			container, _, err := b.create(spec)
			if atStart := c.errno == unix.ENOEXEC; atStart != (err == nil) {
				t.Fatalf("create: %v", err)
			}
			if err == nil {
				err = container.Start(t.Context())
			}
			if err == nil || err.Error() != c.want || !errors.Is(err, c.errno) || !fault.Is(err, fault.Invalid) {
				t.Errorf("got %v (%v), want %s", err, fault.ClassOf(err), c.want)
			}
		})
	}
}

func TestCreateErrorsLeaveNothing(t *testing.T) {
	b := newBench(t)
	if err := os.Symlink("/proc", b.bundle+"/rootfs/link"); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*specs.Spec)
		want   string
	}{
		"a mount that is not there": {func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/nothing/here", Options: []string{"bind"}})
		}, "/nothing/here"},
		"a mount into /proc": {func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/proc/self", Type: "tmpfs"})
		}, "inside /proc"},
		"a mount through a link into /proc": {func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/link/sys", Type: "tmpfs"})
		}, "leads into /proc"},
		"a host's parameter":   {func(s *specs.Spec) { s.Linux.Sysctl["kernel.panic"] = "1" }, "kernel.panic"},
		"no such parameter":    {func(s *specs.Spec) { s.Linux.Sysctl["net.ipv4.nothing"] = "1" }, "net.ipv4.nothing"},
		"a namespace unknown":  {func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "pidd" }, `did you mean "pid"`},
		"a relative directory": {func(s *specs.Spec) { s.Process.Cwd = "x" }, "process.cwd"},
		"an unknown filesystem": {func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "nofs", Source: "x"})
		}, "nofs"},
	} {
		t.Run(name, func(t *testing.T) {
			b.t = t
			spec := shellSpec("true")
			c.change(spec)
			_, _, err := b.create(spec)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, c.want)
			}
			if left, _ := os.ReadDir(b.options.Root); len(left) > 0 {
				t.Errorf("%v is left in the state directory", left)
			}
			if _, err := os.Stat("/sys/fs/cgroup/memory" + spec.Linux.CgroupsPath); err == nil {
				t.Errorf("cgroup %s is left", spec.Linux.CgroupsPath)
			}
		})
	}
}

func TestExec(t *testing.T) {
	b := newBench(t)
	c, _, err := b.create(shellSpec("while :; do sleep 1; done"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	extra, err := os.Open(b.bundle + "/rootfs/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	p, err := c.Exec(t.Context(), ExecOptions{
		Process: &specs.Process{Args: []string{"sh", "-c", "hostname; ls /proc/self/fd | head -5; readlink /proc/self/fd/3 | grep -o rootfs/bin/busybox; grep -c test- /proc/self/cgroup; exit 4"}, Env: []string{"PATH=/bin"}, Cwd: "/"},
		Stdout:  w, Stderr: w, ExtraFiles: []*os.File{extra},
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.PidFD().Close()
	out, _ := io.ReadAll(r)
	status, err := linux.Wait(p.PidFD())
	if want := "inside\n0\n1\n2\n3\n4\nrootfs/bin/busybox\n0\n"; string(out) != want || status.ExitStatus() != 4 {
		t.Errorf("got %q, status %d, %v; want %q, status 4", out, status.ExitStatus(), err, want)
	}
	if _, err := c.Exec(t.Context(), ExecOptions{Process: &specs.Process{Args: []string{"nothing"}, Env: []string{"PATH=/bin"}, Cwd: "/"}}); err == nil || !strings.Contains(err.Error(), "executable file not found in $PATH") {
		t.Errorf("a program that is not there: got %v", err)
	}
}

func TestTerminal(t *testing.T) {
	b := newBench(t)
	spec := shellSpec("stty size 2>/dev/null; readlink /proc/self/fd/0; echo x >/dev/console; test -t 0 && echo terminal")
	spec.Process.Terminal = true
	spec.Process.ConsoleSize = &specs.Box{Height: 11, Width: 22}
	c, _, err := b.create(spec)
	if err != nil {
		t.Fatal(err)
	}
	console := c.Console()
	if console == nil {
		t.Fatal("no console")
	}
	defer console.Close()
	size, err := unix.IoctlGetWinsize(int(console.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Row != 11 || size.Col != 22 {
		t.Errorf("size %+v, %v; want 11 rows of 22", size, err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(linux.Master{File: console})
	if got := strings.Fields(string(out)); !slices.Equal(got, []string{"11", "22", "/dev/pts/0", "x", "terminal"}) {
		t.Errorf("got %q, want a terminal /dev/pts/0 and text through /dev/console", out)
	}
}

func BenchmarkRun(b *testing.B) {
	bench := newBench(b)
	for b.Loop() {
		ids++
		spec := shellSpec("")
		spec.Process.Args = []string{"true"}
		spec.Linux.CgroupsPath = testCgroup(fmt.Sprintf("bench-%d-%d", os.Getpid(), ids))
		c, err := bench.Create(b.Context(), fmt.Sprintf("bench-%d", ids), CreateOptions{Bundle: bench.bundle, Spec: spec})
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		linux.Wait(c.PidFD()) //nolint:errcheck // measured
		if err := c.Delete(b.Context(), false); err != nil {
			b.Fatal(err)
		}
		_ = c.Close()
	}
}
