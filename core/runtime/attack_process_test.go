package runtime

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
)

// A container holds on to /proc/PID/exe of the runtime's process inside of it, and writes to it once it
// can: when the process has ended. What it would overwrite is the runtime of the host. The first case
// has no defence, and shows that the attack is one.
func TestCVE2019_5736(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		seal   func(*os.File) (*os.File, error)
		ptrace bool
		want   string
	}{
		{"not sealed", func(f *os.File) (*os.File, error) { return os.Open(f.Name()) }, true, "written"},
		{"a mount of its own", readonlyMount, true, "Read-only file system"},
		{"a copy in memory", func(f *os.File) (*os.File, error) { return sealedCopy(f, 0o755) }, true, "Operation not permitted"},
		{"without the right to trace", func(f *os.File) (*os.File, error) { return os.Open(f.Name()) }, false, "hidden"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			if c.name == "a mount of its own" {
				needRoot(t, "a mount is made")
			}
			name := filepath.Join(t.TempDir(), "runtime")
			if err := os.WriteFile(name, self, 0o755); err != nil {
				t.Fatal(err)
			}
			program, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer program.Close()
			sealed, err := c.seal(program)
			if err != nil {
				t.Fatal(err)
			}
			defer sealed.Close()
			if b.Runtime, err = New(Options{Root: b.options.Root, Init: sealed}); err != nil {
				t.Fatal(err)
			}
			if out := b.overwrite(c.ptrace); !strings.Contains(out, c.want) {
				t.Errorf("the attacker says %q, want %q", out, c.want)
			}
			after, err := os.ReadFile(name)
			if err != nil || (len(after) == len(self)) == (c.want == "written") {
				t.Errorf("the program has %d bytes, %v; it had %d", len(after), err, len(self))
			}
		})
	}
}

// overwrite lets a container attack the init of another one in its pid namespace.
func (b *bench) overwrite(ptrace bool) string {
	b.t.Helper()
	spec := shellSpec(`until [ -s /victim ]; do sleep 0.01; done; exe=/proc/$(cat /victim)/exe
		if 2>/dev/null true <$exe; then exec 3<$exe; echo opened >/answer; else echo hidden | tee /answer; fi
		until [ -s /gone ]; do sleep 0.01; done
		echo overwritten >/proc/self/fd/3 && echo written`)
	if ptrace {
		for _, set := range []*[]string{&spec.Process.Capabilities.Bounding, &spec.Process.Capabilities.Effective, &spec.Process.Capabilities.Permitted} {
			*set = append([]string{"CAP_SYS_PTRACE"}, *set...)
		}
	}
	rootfs := filepath.Join(b.bundle, "rootfs")
	if err := os.Symlink("busybox", filepath.Join(rootfs, "bin/tee")); err != nil {
		b.t.Fatal(err)
	}
	attacker, output, err := b.create(spec)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := attacker.Start(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	spec = shellSpec("true")
	spec.Linux.Namespaces[0].Path = "/proc/" + strconv.Itoa(attacker.Pid()) + "/ns/pid"
	if user := namespace(spec, specs.UserNamespace); user != nil {
		user.Path = "/proc/" + strconv.Itoa(attacker.Pid()) + "/ns/user" // which owns the other
		spec.Linux.UIDMappings, spec.Linux.GIDMappings = nil, nil
	}
	victim, _, err := b.create(spec)
	if err != nil {
		b.t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/" + strconv.Itoa(victim.Pid()) + "/status")
	if err != nil {
		b.t.Fatal(err)
	}
	_, numbers, _ := strings.Cut(string(status), "NSpid:")
	numbers, _, _ = strings.Cut(numbers, "\n")
	fields := strings.Fields(numbers)
	plant(b.t, rootfs, map[string]string{"victim": fields[len(fields)-1]})
	await(b.t, filepath.Join(rootfs, "answer"))
	if err := victim.Kill(unix.SIGKILL, false); err != nil {
		b.t.Error(err)
	}
	if _, err := linux.Wait(victim.PidFD()); err != nil {
		b.t.Error(err)
	}
	plant(b.t, rootfs, map[string]string{"gone": "1"})
	return output()
}

// A process of exec had inheritable capabilities, with which a program with such file capabilities
// regains them. Here the caller itself has all of them: they must not get through.
func TestCVE2022_29162(t *testing.T) {
	b := newBench(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	have, err := linux.Capabilities()
	if err != nil {
		t.Fatal(err)
	}
	if err := linux.SetCapabilities(have, have, have); err != nil {
		t.Fatal(err)
	}
	defer linux.SetCapabilities(have, have, 0) //nolint:errcheck // as it was
	c, _, err := b.create(shellSpec("grep CapInh /proc/self/status >/answer; while :; do sleep 1; done"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	const none = "CapInh:\t0000000000000000"
	if got := await(t, b.bundle+"/rootfs/answer"); got != none {
		t.Errorf("the first process has %q", got)
	}
	p := &specs.Process{Args: []string{"grep", "CapInh", "/proc/self/status"}, Env: []string{"PATH=/bin"}, Cwd: "/"}
	p.Capabilities = c.Spec().Process.Capabilities
	if got, err := b.exec(c, ExecOptions{Process: p}); got != none || err != nil {
		t.Errorf("exec has %q, %v", got, err)
	}
}

// exec returns the output of a process.
func (b *bench) exec(c *Container, o ExecOptions) (string, error) {
	b.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	o.Stdout, o.Stderr = w, w
	p, err := c.Exec(b.t.Context(), o)
	w.Close()
	if err != nil {
		return "", err
	}
	defer p.PidFD().Close()
	out, err := io.ReadAll(r)
	if err != nil {
		b.t.Error(err)
	}
	if _, err := linux.Wait(p.PidFD()); err != nil {
		b.t.Error(err)
	}
	return strings.TrimSpace(string(out)), nil
}

// The runtime leaked a directory of the host, and a working directory of /proc/self/fd/N was it. Here
// the engine leaks some that are not close-on-exec, and even passes one on.
func TestCVE2024_21626(t *testing.T) {
	b := newBench(t)
	const most = 16
	for range most {
		fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd) //nolint:errcheck // of the test
	}
	host, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	c, _, err := b.create(shellSpec("ls /proc/self/fd >/list; mkdir /done; echo 1 >/done/x; while :; do sleep 1; done"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, b.bundle+"/rootfs/done/x")
	// The fourth is of the directory that ls reads.
	if got := await(t, b.bundle+"/rootfs/list"); got != "0\n1\n2\n3" {
		t.Errorf("the container has the files %q", got)
	}
	for n := range most + 4 {
		dir := "/proc/self/fd/" + strconv.Itoa(n)
		spec := shellSpec("pwd; ls")
		spec.Process.Cwd = dir
		b.refused(spec, "process.cwd")
		for _, extra := range [][]*os.File{nil, {host}, {host, host}} {
			out, err := b.exec(c, ExecOptions{
				Process:    &specs.Process{Args: []string{"ls"}, Env: []string{"PATH=/bin"}, Cwd: dir},
				ExtraFiles: extra,
			})
			if err == nil || !strings.Contains(err.Error(), "process.cwd") {
				t.Errorf("exec in %s with %d files: got %q, %v", dir, len(extra), out, err)
			}
		}
	}
}
