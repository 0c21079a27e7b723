package runtime

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/runtime/criu"
)

// needCRIU skips where CRIU is not installed, or cannot work with this kernel.
func needCRIU(t *testing.T) *criu.Program {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("checkpoints are made by root")
	}
	if out, err := exec.Command("criu", "check").CombinedOutput(); err != nil {
		t.Skipf("CRIU cannot work here: %v: %s", err, bytes.TrimSpace(out))
	}
	p, err := criu.Find(t.Context())
	if err != nil {
		t.Skip(err)
	}
	return p
}

// counting is a program that has a number in its memory alone, and tells it in a file and, each time that the
// file /ask is there, on its output.
const counting = `trap 'exit 7' TERM; i=0; while :; do i=$((i+1)); echo $i >/dev/n; mv /dev/n /dev/count; [ -e /dev/ask ] && { rm /dev/ask; echo told $i; }; sleep 0.01; done`

// cr is a bench whose containers are written to disk and made again.
type cr struct {
	*bench
	images string
}

func newCR(t *testing.T) *cr {
	needCRIU(t)
	b := &cr{newBench(t), filepath.Join(t.TempDir(), "images")}
	for _, name := range []string{"mv", "rm", "nc", "tty"} {
		if err := os.Symlink("busybox", filepath.Join(b.bundle, "rootfs/bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// begin starts a container.
func (b *cr) begin(spec *specs.Spec) *Container {
	b.t.Helper()
	c, _, err := b.create(spec)
	if err == nil {
		err = c.Start(b.t.Context())
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *cr) options() CheckpointOptions {
	return CheckpointOptions{ImageOptions: ImageOptions{ImagePath: b.images}}
}

// restore makes a container from the images, under an id of its own. What it writes comes from the file.
func (b *cr) restore(spec *specs.Spec, change ...func(*RestoreOptions)) (*Container, *os.File, error) {
	b.t.Helper()
	ids++
	id := fmt.Sprintf("test-%d-%d", os.Getpid(), ids)
	spec.Linux.CgroupsPath = testCgroup(id)
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { r.Close() })
	o := RestoreOptions{CreateOptions: CreateOptions{Bundle: b.bundle, Spec: spec, Stdout: w, Stderr: w, ClampDefaults: true}, ImageOptions: ImageOptions{ImagePath: b.images}}
	for _, f := range change {
		f(&o)
	}
	c, err := b.Restore(b.t.Context(), id, o)
	w.Close()
	if err != nil {
		b.gone(id, spec)
		return nil, r, err
	}
	b.t.Cleanup(func() {
		if err := c.Delete(context.Background(), true); err != nil && !fault.Is(err, fault.NotFound) {
			b.t.Errorf("delete: %v", err)
		}
		linux.Wait(c.pidfd) //nolint:errcheck // some have waited
		_ = c.Close()
	})
	return c, r, nil
}

// gone checks that nothing of a container is left.
func (b *cr) gone(id string, spec *specs.Spec) {
	b.t.Helper()
	if _, err := b.Load(id); !fault.Is(err, fault.NotFound) {
		b.t.Errorf("the record is left: %v", err)
	}
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/pids"} {
		if _, err := os.Stat(dir + spec.Linux.CgroupsPath); err == nil {
			b.t.Errorf("the cgroup is left in %s", dir)
		}
	}
	b.noMounts()
	if pid, _ := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid > 0 { //nolint:errcheck // no child is as good
		b.t.Errorf("process %d is left", pid)
	}
}

func (b *cr) noMounts() {
	b.t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		b.t.Fatal(err)
	}
	if strings.Contains(string(mounts), filepath.Dir(b.bundle)) {
		b.t.Errorf("a mount is left on the host: %s", mounts)
	}
}

func (b *cr) checkpoint(c *Container, change ...func(*CheckpointOptions)) {
	b.t.Helper()
	o := b.options()
	for _, f := range change {
		f(&o)
	}
	if err := c.Checkpoint(b.t.Context(), o); err != nil {
		b.t.Fatal(err)
	}
}

// count reads the number that a container counts to.
func count(t *testing.T, c *Container) int {
	t.Helper()
	for range 1000 {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/dev/count", c.Pid()))
		if n, perr := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && perr == nil {
			return n
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it does not count")
	return 0
}

// counts waits until the number is above another.
func counts(t *testing.T, c *Container, above int) {
	t.Helper()
	for range 3000 {
		if count(t, c) > above {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("it does not count on from %d", above)
}

func statusOf(t *testing.T, b *bench, c *Container) specs.ContainerState {
	t.Helper()
	loaded, err := b.Load(c.ID())
	if err != nil {
		t.Fatal(err)
	}
	s, err := loaded.State()
	if err != nil {
		t.Fatal(err)
	}
	return s.Status
}

func (b *cr) exec(c *Container, script string) string {
	b.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	p := *c.Spec().Process
	p.Args, p.Terminal = []string{"sh", "-c", script}, false
	made, err := c.Exec(b.t.Context(), ExecOptions{Process: &p, Stdout: w, Stderr: w, ClampDefaults: true})
	w.Close()
	if err != nil {
		b.t.Fatalf("exec: %v", err)
	}
	defer made.PidFD().Close()
	var out bytes.Buffer
	out.ReadFrom(r)          //nolint:errcheck // what is missing shows
	linux.Wait(made.PidFD()) //nolint:errcheck // its output counts
	return strings.TrimSpace(out.String())
}

func TestCheckpointRestore(t *testing.T) {
	b := newCR(t)
	marks, volume := t.TempDir(), t.TempDir()
	if err := os.WriteFile(volume+"/text", []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	mark := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/busybox", Args: []string{"sh", "-c", "echo " + name + " >>" + marks + "/hooks; cat >/dev/null"}}}
	}
	limit := int64(55)
	describe := func() *specs.Spec {
		s := shellSpec(counting)
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Source: volume, Options: []string{"bind", "ro"}},
			specs.Mount{Destination: "/etc/text", Source: volume + "/text", Options: []string{"bind"}})
		s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
		s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/zero2", Type: "c", Major: 1, Minor: 5}}
		//nolint:staticcheck // prestart is deprecated and still used
		s.Hooks = &specs.Hooks{Prestart: mark("prestart"), CreateRuntime: mark("createRuntime"), Poststart: mark("poststart"), Poststop: mark("poststop")}
		return s
	}
	first := b.begin(describe())
	counts(t, first, 5)
	os.Remove(marks + "/hooks")
	b.checkpoint(first)
	if s, err := linux.Wait(first.PidFD()); err != nil || s.Signal() != unix.SIGKILL {
		t.Errorf("the first process: %v, %v; want that it was killed", s, err)
	}
	if s := statusOf(t, b.bench, first); s != specs.StateStopped {
		t.Errorf("status %s, want stopped", s)
	}
	if err := first.Delete(t.Context(), true); err != nil {
		t.Fatal(err)
	}

	spec := describe()
	limit = 44
	second, output, err := b.restore(spec, func(o *RestoreOptions) { o.Stdin = nil })
	if err != nil {
		t.Fatal(err)
	}
	counts(t, second, 5)
	if s := statusOf(t, b.bench, second); s != specs.StateRunning {
		t.Errorf("status %s, want running", s)
	}
	for script, want := range map[string]string{
		"hostname":       "inside",
		"cat /data/text": "of the host", "cat /etc/text": "of the host",
		"touch /data/x 2>/dev/null || echo refused":                              "refused",
		"cat /proc/cpuinfo":                                                      "",
		"stat -c %t,%T /dev/zero2":                                               "1,5",
		"cat /sys/class/net/lo/flags":                                            "0x9",
		"readlink /proc/1/ns/pid | grep -c pid":                                  "1",
		"grep -c . /proc/1/mountinfo | grep -v '^[01]$' >/dev/null && echo many": "many",
	} {
		if out := b.exec(second, script); out != want {
			t.Errorf("%s: %q, want %q", script, out, want)
		}
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", second.Pid()))
	if err != nil || !strings.Contains(string(groups), second.ID()) || strings.Contains(string(groups), first.ID()) {
		t.Errorf("cgroups %s, %v; want those of %s alone", groups, err, second.ID())
	}
	m, err := second.cgroups()
	if err != nil {
		t.Fatal(err)
	}
	dir := m.Paths()["pids"]
	if m.Unified() {
		dir = m.Paths()[""]
	}
	if text, err := os.ReadFile(dir + "/pids.max"); err != nil || strings.TrimSpace(string(text)) != "44" {
		t.Errorf("pids.max %q, %v; want the spec's", text, err)
	}
	for _, p := range m.Paths() {
		if old := filepath.Join(filepath.Dir(p), first.ID()); exists(old) {
			t.Errorf("%s: the cgroup of the first container is back", old)
		}
	}
	if err := second.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := second.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.exec(second, "touch /dev/ask")
	buf := make([]byte, 100)
	if n, err := output.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "told ") {
		t.Errorf("its output: %q, %v", buf[:n], err)
	}
	b.noMounts()
	if err := second.Kill(unix.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if s, err := linux.Wait(second.PidFD()); err != nil || s.ExitStatus() != 7 {
		t.Errorf("exit status %v, %v; want 7", s, err)
	}
	if err := second.Delete(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	b.gone(second.ID(), spec)
	want := "poststop\nprestart\ncreateRuntime\npoststop\n"
	if text, err := os.ReadFile(marks + "/hooks"); err != nil || string(text) != want {
		t.Errorf("hooks %q, %v; want %q", text, err, want)
	}
}

func exists(name string) bool { _, err := os.Stat(name); return err == nil }

func TestCheckpointLeaveRunning(t *testing.T) {
	b := newCR(t)
	c := b.begin(shellSpec(counting))
	counts(t, c, 5)
	leave := func(o *CheckpointOptions) { o.LeaveRunning = true }
	b.checkpoint(c, leave)
	counts(t, c, count(t, c)+3)
	if s := statusOf(t, b.bench, c); s != specs.StateRunning {
		t.Errorf("status %s, want running", s)
	}

	// A paused one stays paused, and what is made from it runs.
	if err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	at := count(t, c)
	b.checkpoint(c, leave)
	if s := statusOf(t, b.bench, c); s != "paused" || count(t, c) != at {
		t.Errorf("status %s, count %d; want paused at %d", s, count(t, c), at)
	}
	second, _, err := b.restore(shellSpec(counting))
	if err != nil {
		t.Fatal(err)
	}
	counts(t, second, at)
	if s := statusOf(t, b.bench, second); s != specs.StateRunning {
		t.Errorf("the second's status %s, want running", s)
	}
	if err := c.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	counts(t, c, at)

	// And one that is ended.
	if err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.checkpoint(c)
	if err := c.Delete(t.Context(), true); err != nil {
		t.Error(err)
	}
}

// What cannot be written to disk is told in one line, and goes on.
func TestCheckpointRefused(t *testing.T) {
	b := newCR(t)
	c := b.begin(shellSpec("(while :; do sleep 1; done) | nc -l -p 99 127.0.0.1 & sleep 0.2; (while :; do sleep 1; done) | nc 127.0.0.1 99 & " + counting))
	established := func() bool { return strings.Contains(b.exec(c, "cat /proc/net/tcp"), " 01 ") }
	for range 300 {
		if established() {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !established() {
		t.Fatal("no connection")
	}
	err := c.Checkpoint(t.Context(), b.options())
	if err == nil || !strings.Contains(err.Error(), "--tcp-established") || !strings.Contains(err.Error(), b.images+"/dump.log") || strings.Contains(err.Error(), "\n") {
		t.Errorf("an established connection: %v", err)
	}
	if s := statusOf(t, b.bench, c); s != specs.StateRunning {
		t.Errorf("status %s, want running", s)
	}
	counts(t, c, count(t, c)+3)
	if !established() {
		t.Error("the connection is gone")
	}

	for _, r := range []struct {
		words  string
		change func(*CheckpointOptions)
	}{
		{`--image-path ""`, func(o *CheckpointOptions) { o.ImagePath = "" }},
		{`--manage-cgroups-mode "all"`, func(o *CheckpointOptions) { o.CgroupsMode = "all" }},
		{`--empty-ns "pid"`, func(o *CheckpointOptions) { o.EmptyNS = []string{"network", "pid"} }},
		{`--page-server "nowhere"`, func(o *CheckpointOptions) { o.PageServer = "nowhere" }},
		{`--page-server "a:99999"`, func(o *CheckpointOptions) { o.PageServer = "a:99999" }},
		{`--image-path`, func(o *CheckpointOptions) { o.ImagePath = "/proc/none" }},
	} {
		o := b.options()
		r.change(&o)
		if err := c.Checkpoint(t.Context(), o); err == nil || !strings.Contains(err.Error(), r.words) {
			t.Errorf("got %v, want %s", err, r.words)
		}
	}
	created, _, err := b.create(shellSpec("true"))
	if err != nil {
		t.Fatal(err)
	}
	if err := created.Checkpoint(t.Context(), b.options()); !fault.Is(err, fault.Conflict) {
		t.Errorf("one that is created: %v, want class conflict", err)
	}
}

// A restore that fails leaves nothing.
func TestRestoreRefused(t *testing.T) {
	b := newCR(t)
	c := b.begin(shellSpec(counting))
	counts(t, c, 5)
	b.checkpoint(c, func(o *CheckpointOptions) { o.LeaveRunning = true })
	_, _, err := b.restore(shellSpec(counting), func(o *RestoreOptions) { o.ImagePath = b.bundle })
	if err == nil || !strings.Contains(err.Error(), "--image-path "+b.bundle+": expected the images of a checkpoint") {
		t.Errorf("no images: %v", err)
	}
	spec := shellSpec(counting)
	spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/busybox", Args: []string{"sh", "-c", "echo no such luck >&2; exit 3"}}}}
	if _, _, err := b.restore(spec); err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("a hook that fails: %v", err)
	}
	cores, err := filepath.Glob(b.images + "/core-*.img")
	if err != nil || len(cores) == 0 {
		t.Fatalf("images %v, %v", cores, err)
	}
	if err := os.Truncate(cores[0], 10); err != nil {
		t.Fatal(err)
	}
	_, _, err = b.restore(shellSpec(counting))
	if err == nil || !strings.Contains(err.Error(), b.images+"/restore.log") || strings.Contains(err.Error(), "\n") {
		t.Errorf("images that are not whole: %v", err)
	}
	if _, err := b.Restore(t.Context(), c.ID(), RestoreOptions{CreateOptions: CreateOptions{Bundle: b.bundle, Spec: shellSpec(counting)}, ImageOptions: ImageOptions{ImagePath: b.images}}); !fault.Is(err, fault.Exists) {
		t.Errorf("an id that exists: %v, want class exists", err)
	}
	counts(t, c, count(t, c))
}

func TestRestorePlaces(t *testing.T) {
	b := newCR(t)
	volume := t.TempDir()
	if err := unix.Mount("tmpfs", volume, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(volume, unix.MNT_DETACH) //nolint:errcheck // it is the test's
	if err := unix.Mount("", volume, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(volume+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", volume+"/sub", "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(volume+"/sub", unix.MNT_DETACH) //nolint:errcheck // it is the test's
	if err := os.WriteFile(volume+"/sub/text", []byte("below"), 0o644); err != nil {
		t.Fatal(err)
	}
	nested := t.TempDir()
	if err := os.Symlink("/real", b.bundle+"/rootfs/link"); err != nil {
		t.Fatal(err)
	}
	ns := namedNetwork(t)
	describe := func() *specs.Spec {
		s := shellSpec(counting)
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/volume", Source: volume, Options: []string{"rbind"}},
			specs.Mount{Destination: "/link", Source: nested, Options: []string{"bind"}},
			specs.Mount{Destination: "/link/deep/er", Source: nested, Options: []string{"bind"}},
			specs.Mount{Destination: "/scratch", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=64k"}})
		at := slices.IndexFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
		s.Linux.Namespaces[at].Path = ns
		return s
	}
	c := b.begin(describe())
	b.exec(c, "echo kept >/scratch/text")
	counts(t, c, 5)
	b.checkpoint(c)
	if err := c.Delete(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	// Create has made it, and so has the restore to.
	if err := os.RemoveAll(nested + "/deep"); err != nil {
		t.Fatal(err)
	}
	if second, _, err := b.restore(describe()); err != nil {
		t.Error(err)
	} else {
		counts(t, second, 5)
		if out := b.exec(second, "cat /volume/sub/text; cat /scratch/text; ls /real"); out != "belowkept\ndeep" {
			t.Errorf("got %q", out)
		}
		var st, own unix.Stat_t
		if unix.Stat(ns, &st) != nil || unix.Stat(fmt.Sprintf("/proc/%d/ns/net", second.Pid()), &own) != nil || st.Ino != own.Ino {
			t.Error("it is not in the network namespace of the spec")
		}
		if err := second.Delete(t.Context(), true); err != nil {
			t.Error(err)
		}
	}
}

// namedNetwork is a network namespace that a file holds.
func namedNetwork(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "net")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := linux.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", name, "", unix.MS_BIND, "")
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(name, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return name
}

func TestRestoreTerminal(t *testing.T) {
	b := newCR(t)
	describe := func() *specs.Spec {
		s := shellSpec("while read line; do echo got $line; tty; done")
		s.Process.Terminal = true
		return s
	}
	c := b.begin(describe())
	console := c.Console()
	defer console.Close()
	talk := func(f *os.File, say, want string) {
		t.Helper()
		if _, err := f.WriteString(say + "\n"); err != nil {
			t.Fatal(err)
		}
		var all []byte
		for buf := make([]byte, 1000); !strings.Contains(string(all), want); {
			n, err := f.Read(buf)
			if err != nil {
				t.Fatalf("%q: %v", all, err)
			}
			all = append(all, buf[:n]...)
		}
	}
	talk(console, "one", "got one")
	b.checkpoint(c)
	if err := c.Delete(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	second, _, err := b.restore(describe())
	if err != nil {
		t.Fatal(err)
	}
	again := second.Console()
	if again == nil {
		t.Fatal("no terminal")
	}
	defer again.Close()
	talk(again, "two", "got two")
}

// The memory is written while the container goes on, and then what has changed since.
func TestCheckpointInSteps(t *testing.T) {
	p := needCRIU(t)
	b := newCR(t)
	features, err := p.Features(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := b.begin(shellSpec(counting))
	counts(t, c, 5)
	parent := filepath.Join(filepath.Dir(b.images), "parent")
	step := CheckpointOptions{ImageOptions: ImageOptions{ImagePath: parent}, PreDump: true}
	err = c.Checkpoint(t.Context(), step)
	if !features.MemoryTracking {
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "--pre-dump: this kernel does not track changes of memory") {
			t.Errorf("got %v, want that the kernel cannot", err)
		}
		counts(t, c, count(t, c))
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	at := count(t, c)
	counts(t, c, at)
	for _, bad := range []string{parent, "../nothing"} {
		o := b.options()
		o.ParentPath = bad
		if err := c.Checkpoint(t.Context(), o); err == nil || !strings.Contains(err.Error(), "--parent-path") {
			t.Errorf("parent %s: %v", bad, err)
		}
	}
	b.checkpoint(c, func(o *CheckpointOptions) { o.ParentPath = "../parent" })
	if err := c.Delete(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	second, _, err := b.restore(shellSpec(counting))
	if err != nil {
		t.Fatal(err)
	}
	counts(t, second, at)
}

func TestCheckpointUserNamespace(t *testing.T) {
	needUserNamespaces(t)
	b := newCR(t)
	describe := func() *specs.Spec {
		s := shellSpec(counting)
		b.mapped(s)
		return s
	}
	c := b.begin(describe())
	counts(t, c, 5)
	b.checkpoint(c)
	if err := c.Delete(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	second, _, err := b.restore(describe())
	if err != nil {
		t.Fatal(err)
	}
	counts(t, second, 5)
	if out := b.exec(second, "id -u"); out != "0" {
		t.Errorf("exec: %q, want root of the user namespace", out)
	}
}
