package runtime

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// The tests of this package run as an ordinary user too: their containers are then in a user namespace,
// and those skip that need root around them. Those of this file are about the ordinary user alone, and
// root runs them as one.

// single maps root to the own ids and nothing else, which needs no right.
func single(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: uint32(os.Geteuid()), Size: 1}}
	s.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: uint32(os.Getegid()), Size: 1}}
	for i, m := range s.Mounts {
		if m.Type == "devpts" { // the group of terminals has no number
			s.Mounts[i].Options = []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
		}
	}
}

// rootless adds the subordinate ids (subuid(5)), which newuidmap(1) gives, where the user has some.
func rootless(s *specs.Spec) {
	uids, gids := subordinate("/etc/subuid"), subordinate("/etc/subgid")
	if uids == nil || gids == nil {
		single(s)
		return
	}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: uint32(os.Geteuid()), Size: 1}, *uids}
	s.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: uint32(os.Getegid()), Size: 1}, *gids}
}

func subordinate(file string) *specs.LinuxIDMapping {
	text, _ := os.ReadFile(file) // no file, no ids
	_, err := exec.LookPath("newuidmap")
	u, userErr := user.Current()
	if err != nil || userErr != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 || f[0] != u.Username {
			continue
		}
		first, err1 := strconv.ParseUint(f[1], 10, 32)
		size, err2 := strconv.ParseUint(f[2], 10, 32)
		if err1 == nil && err2 == nil {
			return &specs.LinuxIDMapping{ContainerID: 1, HostID: uint32(first), Size: uint32(size)}
		}
	}
	return nil
}

// ordinary is an ordinary user on a machine where nothing is prepared for it: no subordinate ids and no
// cgroup.
const ordinary = 54321

// asOrdinary runs the test again as an ordinary user when root runs it, and reports whether it did.
func asOrdinary(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return false
	}
	needUserNamespaces(t)
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("busybox is not installed")
	}
	dir, err := os.MkdirTemp("", "sampan-rootless")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, ordinary, ordinary); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.v", "-test.run", "^"+t.Name()+"$")
	cmd.Dir, cmd.Env = "/", append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("as user %d: %v\n%s", ordinary, err, out)
	}
	return true
}

// kinds are the mappings that an ordinary user has.
func kinds() map[string]func(*specs.Spec) {
	k := map[string]func(*specs.Spec){"a single mapping": single}
	if subordinate("/etc/subuid") != nil && subordinate("/etc/subgid") != nil {
		k["subordinate ids"] = rootless
	}
	return k
}

func TestRootless(t *testing.T) {
	if asOrdinary(t) {
		return
	}
	for kind, mapped := range kinds() {
		b := newBench(t)
		data := t.TempDir()
		if err := os.WriteFile(filepath.Join(data, "file"), []byte("bound\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name, script, want string
			change             func(*specs.Spec)
		}{
			{name: "root inside", script: "echo $$; id -u; id -g; stat -c %u:%g /bin", want: "1\n0\n0\n0:0"},
			{name: "devices", script: "echo x >/dev/null && head -c 2 /dev/zero | wc -c; stat -c %t,%T /dev/null", want: "2\n1,3"},
			{name: "masked", script: "cat /proc/cpuinfo; ls /sys/firmware; echo x 2>/dev/null >/proc/sys/kernel/domainname || echo refused", want: "refused"},
			{name: "a sysctl", script: "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", want: "0"},
			{name: "no groups to give up", script: "cat /proc/self/setgroups", want: map[string]string{"a single mapping": "deny", "subordinate ids": "allow"}[kind]},
			{name: "a bind", script: "cat /data/file; echo more >/data/more; stat -c %u /data/more; rm /data/more", want: "bound\n0", change: func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Source: data, Options: []string{"rbind", "nosuid"}})
			}},
			{name: "the host's network", script: "ls -d /sys/class/net/lo", want: "/sys/class/net/lo", change: func(s *specs.Spec) {
				s.Linux.Namespaces = append(s.Linux.Namespaces[:2:2], s.Linux.Namespaces[3:]...)
				s.Linux.Sysctl = nil
			}},
			{name: "standard streams", script: "echo again >/dev/stdout", want: "again"},
		} {
			t.Run(kind+"/"+c.name, func(t *testing.T) {
				b.t = t
				spec := rootSpec(c.script)
				mapped(spec)
				if c.change != nil {
					c.change(spec)
				}
				if out, status := b.run(spec); out != c.want || status != 0 {
					t.Errorf("got %q, status %d; want %q", out, status, c.want)
				}
			})
		}
	}
}

func TestRootlessLife(t *testing.T) {
	if asOrdinary(t) {
		return
	}
	for kind, mapped := range kinds() {
		t.Run(kind, func(t *testing.T) {
			b := newBench(t)
			spec := rootSpec("echo on; trap 'exit 3' TERM; while :; do sleep 0.05; done")
			mapped(spec)
			c, _, err := b.create(spec)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if out := b.inside(c, "id -u; hostname; ls /proc/self/fd | head -3"); out != "0\ninside\n0\n1\n2" {
				t.Errorf("exec: got %q", out)
			}
			if err := c.Kill(unix.SIGKILL, false); err != nil {
				t.Fatal(err)
			}
			if _, err := linux.Wait(c.PidFD()); err != nil {
				t.Fatal(err)
			}
			if err := c.Delete(t.Context(), false); err != nil {
				t.Error(err)
			}
		})
	}
}

// inside is what a further process of the container writes.
func (b *bench) inside(c *Container, script string) string {
	b.t.Helper()
	out, err := b.exec(c, ExecOptions{Process: &specs.Process{Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"}, Cwd: "/"}})
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// Others' ids are refused to the user, in one line, and nothing is left.
func TestRootlessRefusals(t *testing.T) {
	if asOrdinary(t) {
		return
	}
	b := newBench(t)
	for want, change := range map[string]func(*specs.Spec){
		"expected one of type user": func(*specs.Spec) {},
		"newuidmap": func(s *specs.Spec) {
			single(s)
			s.Linux.UIDMappings[0].HostID = 0
		},
	} {
		spec := rootSpec("true")
		change(spec)
		_, _, err := b.create(spec)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || !fault.Is(err, fault.Forbidden) {
			t.Errorf("got %v (%v), want one line with %q", err, fault.ClassOf(err), want)
		}
		if left, _ := os.ReadDir(b.options.Root); len(left) > 0 {
			t.Errorf("%v is left", left)
		}
	}
}

// Where a cgroup is delegated, limits hold. Where none is, they are refused, and a container without
// limits does without.
func TestRootlessCgroup(t *testing.T) {
	if asOrdinary(t) {
		return
	}
	b := newBench(t)
	limit := int64(25)
	spec := shellSpec("while :; do sleep 0.05; done")
	spec.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
	// Without clamping, as the runtime's command line has it.
	strict := func(o *CreateOptions) { o.ClampDefaults = false }
	c, _, err := b.create(spec, strict)
	if !delegates(t) {
		if !fault.Is(err, fault.Forbidden) || !strings.Contains(err.Error(), "linux.resources") {
			t.Errorf("a limit without a cgroup: got %v, want class forbidden", err)
		}
		if out, status := b.run(shellSpec("echo here"), strict); out != "here" || status != 0 {
			t.Errorf("without limits: got %q, status %d", out, status)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := "/sys/fs/cgroup" + testCgroup(c.ID())
	if got, err := os.ReadFile(dir + "/pids.max"); err != nil || string(got) != "25\n" {
		t.Errorf("pids.max is %q, %v", got, err)
	}
	if out := b.inside(c, "cat /proc/self/cgroup"); out != "0::/" {
		t.Errorf("exec: the cgroup is %q", out)
	}
	for _, step := range []func(context.Context) error{c.Pause, c.Resume} {
		if err := step(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := c.Delete(t.Context(), true); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
}

// delegates reports whether the user can limit what is in cgroups of its own.
func delegates(t *testing.T) bool {
	t.Helper()
	name := "/sys/fs/cgroup" + cgroup.Delegated()
	procs, err := os.ReadFile(name + "/cgroup.procs")
	return err == nil && len(procs) == 0 && unix.Access(name+"/cgroup.subtree_control", unix.W_OK) == nil
}
