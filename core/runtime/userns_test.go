package runtime

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
)

// needUserNamespaces skips where the kernel makes none, as in a chroot (user_namespaces(7), EPERM).
func needUserNamespaces(t testing.TB) {
	t.Helper()
	own := func(id int) []linux.IDMapping { return []linux.IDMapping{{Inside: 0, Outside: uint32(id), Size: 1}} }
	ns, err := linux.UserNamespace(own(os.Geteuid()), own(os.Getegid()))
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		t.Skipf("no user namespace can be made on this machine: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
}

// needLinux63 skips on older kernels, where execve(2) does not enter a time namespace and the ids of a
// tmpfs cannot be mapped.
func needLinux63(t *testing.T) {
	t.Helper()
	var u unix.Utsname
	var major, minor int
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err == nil && (major < 6 || major == 6 && minor < 3) {
		t.Skipf("the kernel is %s, and it takes 6.3", release)
	}
}

// mapped gives the spec a user namespace whose root is 100000 outside, and that user the bundle.
func (b *bench) mapped(s *specs.Spec) {
	b.t.Helper()
	needRoot(b.t, "files are given to other users")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
	err := filepath.Walk(filepath.Join(b.bundle, "rootfs"), func(name string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(name, 100000, 200000)
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func TestUserNamespace(t *testing.T) {
	needUserNamespaces(t)
	b := newBench(t)
	// Nobody but root reaches the bundle: its mounts are made by the parent.
	private := filepath.Join(filepath.Dir(b.bundle), "private")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(private+"/file", []byte("bound\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(b.bundle), 0o700); err != nil {
		t.Fatal(err)
	}
	bind := func(options ...string) specs.Mount {
		return specs.Mount{Destination: "/file", Source: private + "/file", Options: append(options, "bind")}
	}
	for _, c := range []struct {
		name, script, want string
		change             func(*specs.Spec)
	}{
		{name: "root inside", script: "id -u; id -g; cat /proc/self/uid_map | tr -s ' '; stat -c %u:%g /bin", want: "0\n0\n 0 100000 65536\n0:0"},
		{name: "a user", script: "id -u; id -G; grep CapEff /proc/self/status", want: "1000\n7 8\nCapEff:\t0000000000000000", change: func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 1000, GID: 7, AdditionalGids: []uint32{8}}
			s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = nil, nil
		}},
		{name: "devices", script: "echo x >/dev/null && head -c 2 /dev/zero | wc -c; stat -c %t,%T /dev/null", want: "2\n1,3"},
		{name: "masked", script: "cat /proc/cpuinfo; ls /sys/firmware; echo x 2>/dev/null >/proc/sys/kernel/domainname || echo refused", want: "refused"},
		{name: "a sysctl", script: "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", want: "0"},
		{name: "a bind that it cannot reach", script: "cat /file; stat -c %u /file", want: "bound\n65534", change: func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind()) }},
		{name: "a mapped bind", script: "stat -c %u:%g /file", want: "0:0", change: func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind("idmap")) }},
		{name: "the host's network", script: "ls -d /sys/class/net/lo", want: "/sys/class/net/lo", change: func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces[:2:2], s.Linux.Namespaces[3:]...)
			s.Linux.Sysctl = nil
		}},
		{name: "standard streams", script: "stat -L -c %u /proc/self/fd/1; echo again >/dev/stdout", want: "5\nagain", change: func(s *specs.Spec) { s.Process.User.UID = 5 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "a mapped bind" {
				needLinux63(t)
			}
			b.t = t
			spec := shellSpec(c.script)
			b.mapped(spec)
			if c.change != nil {
				c.change(spec)
			}
			if out, status := b.run(spec); out != c.want || status != 0 {
				t.Errorf("got %q, status %d; want %q", out, status, c.want)
			}
		})
	}
}

func TestUserNamespaceExecAndJoin(t *testing.T) {
	needLinux63(t)
	needUserNamespaces(t)
	b := newBench(t)
	spec := shellSpec("while :; do sleep 1; done")
	b.mapped(spec)
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 100000000}}
	c, _, err := b.create(spec)
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
	p, err := c.Exec(t.Context(), ExecOptions{
		Process: &specs.Process{
			Args: []string{"sh", "-c", "id -u; cut -c1 /proc/uptime; cat /proc/self/oom_score_adj"}, Env: []string{"PATH=/bin"}, Cwd: "/", OOMScoreAdj: new(500),
		},
		Stdout: w, Stderr: w,
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.PidFD().Close()
	out, _ := io.ReadAll(r)
	if status, err := linux.Wait(p.PidFD()); string(out) != "0\n1\n500\n" || err != nil || status.ExitStatus() != 0 {
		t.Errorf("exec: got %q, %v, %v; want user 0, an uptime of years and the score", out, status, err)
	}

	joining := shellSpec("cat /proc/self/uid_map | tr -s ' '; cut -c1 /proc/uptime; hostname")
	joining.Hostname = ""
	for i, n := range joining.Linux.Namespaces {
		if n.Type == specs.UTSNamespace || n.Type == specs.NetworkNamespace {
			joining.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/%s", c.Pid(), map[specs.LinuxNamespaceType]string{"uts": "uts", "network": "net"}[n.Type])
		}
	}
	for _, name := range []string{"user", "time"} {
		joining.Linux.Namespaces = append(joining.Linux.Namespaces, specs.LinuxNamespace{Type: specs.LinuxNamespaceType(name), Path: fmt.Sprintf("/proc/%d/ns/%s", c.Pid(), name)})
	}
	if out, status := b.run(joining); out != "0 100000 65536\n1\ninside" || status != 0 {
		t.Errorf("joined: got %q, status %d", out, status)
	}
}

func TestJoinBeforeUserNamespace(t *testing.T) {
	needUserNamespaces(t)
	b := newBench(t)
	spec := shellSpec("readlink /proc/self/ns/net; id -u")
	b.mapped(spec)
	spec.Linux.Namespaces[2].Path = "/proc/self/ns/net" // the host's, over which a user namespace has no right
	spec.Linux.Sysctl = nil
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if out, status := b.run(spec); out != own+"\n0" || status != 0 {
		t.Errorf("got %q, status %d; want %s and user 0", out, status, own)
	}
}

func TestUserNamespaceTerminal(t *testing.T) {
	needUserNamespaces(t)
	b := newBench(t)
	spec := shellSpec("readlink /proc/self/fd/0; echo x >/dev/console; test -t 0 && echo terminal")
	b.mapped(spec)
	spec.Process.Terminal = true
	spec.Process.User.UID = 9
	c, _, err := b.create(spec)
	if err != nil {
		t.Fatal(err)
	}
	console := c.Console()
	defer console.Close()
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(linux.Master{File: console})
	if got := strings.Fields(string(out)); !slices.Equal(got, []string{"/dev/pts/0", "x", "terminal"}) {
		t.Errorf("got %q, want a terminal that is the user's", out)
	}
}

func TestUserNamespaceWithOverlay(t *testing.T) {
	needUserNamespaces(t)
	b := newBench(t)
	spec := shellSpec("echo hi >/written; stat -c %u /written")
	b.mapped(spec)
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), filepath.Dir(filepath.Dir(b.bundle)), filepath.Dir(b.bundle)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"", "/upper", "/work"} {
		if err := os.MkdirAll(dir+name, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir+name, 100000, 200000); err != nil {
			t.Fatal(err)
		}
	}
	overlay := mount.Mount{Type: "overlay", Source: "overlay", Target: "/", Options: []string{
		"lowerdir=" + b.bundle + "/rootfs", "upperdir=" + dir + "/upper", "workdir=" + dir + "/work", "userxattr",
	}}
	out, status := b.run(spec, func(o *CreateOptions) { o.RootMounts = []mount.Mount{overlay} })
	if out != "0" || status != 0 {
		t.Errorf("got %q, status %d", out, status)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir+"/upper/written", &st); err != nil || st.Uid != 100000 {
		t.Errorf("what was written is of %d, %v; want 100000", st.Uid, err)
	}
}

func TestTimeNamespace(t *testing.T) {
	needLinux63(t)
	b := newBench(t)
	spec := shellSpec("cat /proc/self/timens_offsets | tr -s ' '")
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 7, Nanosecs: 5}, "boottime": {Secs: 86400}}
	if out, status := b.run(spec); out != "monotonic 7 5\nboottime 86400 0" || status != 0 {
		t.Errorf("got %q, status %d", out, status)
	}
}

func TestIDMappedMount(t *testing.T) {
	needRoot(t, "files are given to other users")
	needLinux63(t)
	needUserNamespaces(t)
	b := newBench(t)
	dir := t.TempDir()
	spec := shellSpec("stat -c %u:%g /data; touch /data/made")
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: "/data", Source: dir, Options: []string{"rbind", "ridmap"},
		UIDMappings: []specs.LinuxIDMapping{{ContainerID: 1000, HostID: 0, Size: 1}},
		GIDMappings: []specs.LinuxIDMapping{{ContainerID: 2000, HostID: 0, Size: 1}},
	})
	if err := os.Chown(dir, 1000, 2000); err != nil {
		t.Fatal(err)
	}
	out, status := b.run(spec)
	if out != "0:0" || status != 0 {
		t.Errorf("got %q, status %d; want the directory of user 1000 to be root's", out, status)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir+"/made", &st); err != nil || st.Uid != 1000 || st.Gid != 2000 {
		t.Errorf("what was made is of %d:%d, %v; want 1000:2000", st.Uid, st.Gid, err)
	}
}

func TestUserNamespaceRefusals(t *testing.T) {
	mapping := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1, Size: 1}}
	for want, change := range map[string]func(*specs.Spec){
		"expected a user namespace": func(s *specs.Spec) { s.Linux.UIDMappings = mapping },
		"uidMappings: expected at least one": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		},
		"mapping of containerID 0": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 5, HostID: 1, Size: 1}}
		},
		"new time namespace":      func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}} },
		`did you mean "boottime"`: func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottim": {Secs: 1}} },
		"bind mounts alone":       func(s *specs.Spec) { s.Mounts[1].UIDMappings = mapping },
		"whose mappings are taken": func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Source: "/", Options: []string{"bind", "idmap"}})
		},
	} {
		s := rootSpec("true")
		change(s)
		if os.Geteuid() != 0 && namespace(s, specs.UserNamespace) == nil && s.Linux.UIDMappings == nil {
			if want == "whose mappings are taken" {
				continue // an ordinary user's container has some
			}
			rootless(s)
		}
		err := validate(s, false)
		if err == nil || !strings.Contains(err.Error(), want) || fault.ClassOf(err) == fault.Internal {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
