package initproc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
)

// files makes empty files with their modes, and a directory where the mode is 0.
func files(t *testing.T, dir string, modes map[string]os.FileMode) {
	t.Helper()
	for name, mode := range modes {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if mode == 0 {
			err = os.MkdirAll(at, 0o755)
		} else {
			err = os.WriteFile(at, nil, mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	files(t, dir, map[string]os.FileMode{
		"a/plain": 0o644, "b/plain": 0o755, "a/dir": 0, "b/dir": 0o755, "a/only": 0o644, "b/prog": 0o755, "c/prog": 0o755, "here": 0o755,
	})
	t.Chdir(dir)
	path := "PATH=" + dir + "/a:" + dir + "/b:" + dir + "/c"
	for _, c := range []struct {
		name  string
		env   []string
		want  string
		errno unix.Errno
		text  string
	}{
		{"prog", []string{path}, dir + "/b/prog", 0, ""},
		{"plain", []string{path}, dir + "/b/plain", 0, ""}, // one that cannot be executed is passed over
		{"dir", []string{path}, dir + "/b/dir", 0, ""},
		{"prog", []string{"PATH=/none", "A=b", path}, dir + "/b/prog", 0, ""}, // the last one holds
		{"here", []string{"PATH=/none:"}, "./here", 0, ""},
		{"prog", []string{"PATH=b"}, "./b/prog", 0, ""},
		{"./here", nil, "./here", 0, ""},
		{dir + "/c/prog", nil, dir + "/c/prog", 0, ""},
		{"none", []string{path}, "", unix.ENOENT, `exec: "none": executable file not found in $PATH`},
		{"prog", []string{"PATHS=" + dir + "/b"}, "", unix.ENOENT, `exec: "prog": executable file not found in $PATH`},
		{"", []string{path}, "", unix.ENOENT, `exec: "": executable file not found in $PATH`},
		{"only", []string{path}, "", unix.EACCES, `exec: "only": permission denied`},
		{"/none/x", []string{path}, "", unix.ENOENT, `exec: "/none/x": stat /none/x: no such file or directory`},
		{dir + "/a/dir", nil, "", unix.EISDIR, `exec: "` + dir + `/a/dir": is a directory`},
		{dir + "/a/only", nil, "", unix.EACCES, `exec: "` + dir + `/a/only": permission denied`},
	} {
		got, err := find(c.name, c.env)
		switch {
		case c.errno == 0 && (got != c.want || err != nil):
			t.Errorf("%q in %v: got %q, %v, want %q", c.name, c.env, got, err, c.want)
		case c.errno != 0 && (!errors.Is(err, c.errno) || err.Error() != c.text || !fault.Is(err, fault.Invalid)):
			t.Errorf("%q in %v: got %q, %v, want %q", c.name, c.env, got, err, c.text)
		}
	}
}

func TestSysctlPath(t *testing.T) {
	for key, want := range map[string]string{
		"net.ipv4.ip_forward": "net/ipv4/ip_forward", "net/ipv4/conf/eth0.1/forwarding": "net/ipv4/conf/eth0.1/forwarding",
		"kernel.shmmax": "kernel/shmmax", "fs/mqueue.x": "fs/mqueue.x", "one": "one", "": "",
	} {
		if got := sysctlPath(key); got != want {
			t.Errorf("%q: got %q, want %q", key, got, want)
		}
	}
}

func TestMountPoint(t *testing.T) {
	for dir, want := range map[string]string{"/": "/", "/proc": "/proc", "/proc/self/task": "/proc"} {
		if got, err := mountPoint(dir); got != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", dir, got, err, want)
		}
	}
	if _, err := mountPoint("/none/at/all"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
}

func TestPropagationOf(t *testing.T) {
	for name, want := range map[string]mount.Propagation{
		"": {Type: unix.MS_SLAVE, Recursive: true}, "rshared": {Type: unix.MS_SHARED, Recursive: true}, "private": {Type: unix.MS_PRIVATE}, "unbindable": {Type: unix.MS_UNBINDABLE},
	} {
		if got, err := propagationOf(name); got != want || err != nil {
			t.Errorf("%q: got %+v, %v, want %+v", name, got, err, want)
		}
	}
	for _, name := range []string{"ro", "rbind", "secret", "Private"} {
		if _, err := propagationOf(name); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestOwnDev(t *testing.T) {
	for _, c := range []struct {
		mount specs.Mount
		want  bool
	}{
		{specs.Mount{Destination: "/dev", Type: "tmpfs"}, false},
		{specs.Mount{Destination: "/dev", Type: "none", Options: []string{"rbind"}}, true},
		{specs.Mount{Destination: "/dev/", Options: []string{"ro", "bind"}}, true},
		{specs.Mount{Destination: "/dev/shm", Options: []string{"bind"}}, false},
	} {
		p := &process{Config: Config{Spec: &specs.Spec{Mounts: []specs.Mount{c.mount}}}}
		if got := p.ownDev(); got != c.want {
			t.Errorf("%+v: got %v", c.mount, got)
		}
	}
}

// Nothing may be mounted where this process writes to, whatever way leads there.
func TestAllowed(t *testing.T) {
	dir := t.TempDir()
	files(t, dir, map[string]os.FileMode{"proc": 0, "etc": 0})
	for name, to := range map[string]string{"hidden": "/proc", "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		root string
		m    mount.Mount
		ok   bool
	}{
		{dir, mount.Mount{Type: "proc", Target: "/proc"}, true},
		{dir, mount.Mount{Type: "bind", Target: "/proc", Options: []string{"rbind"}}, true},
		{dir, mount.Mount{Type: "tmpfs", Target: "/proc"}, false},
		{dir, mount.Mount{Type: "bind", Target: "/proc/uptime"}, true},
		{dir, mount.Mount{Type: "bind", Target: "/proc/self/attr/exec"}, false},
		{dir, mount.Mount{Type: "bind", Target: "/proc/sys"}, false},
		{dir, mount.Mount{Type: "tmpfs", Target: "/etc"}, true},
		{dir, mount.Mount{Type: "tmpfs", Target: "/made/later"}, true},
		{"/", mount.Mount{Type: "tmpfs", Target: "/dev/fd"}, false}, // a link to /proc/self/fd
	} {
		root, err := linux.OpenRoot(c.root)
		if err != nil {
			t.Fatal(err)
		}
		err = allowed(c.m)
		if target, openErr := root.Open(c.m.Target, unix.O_PATH, 0); err == nil && openErr == nil {
			err = outsideProc(c.m)(target)
			target.Close()
		}
		root.Close()
		if c.ok && err != nil || !c.ok && !fault.Is(err, fault.Invalid) {
			t.Errorf("%s in %s: got %v, want allowed %v", c.m.Target, c.root, err, c.ok)
		}
	}
}

// talk is a process and its parent.
func talk(t *testing.T) (*process, *Dialogue) {
	t.Helper()
	a, b, err := linux.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return &process{parent: newChannel(a)}, NewDialogue(b)
}

func TestCapabilitiesAreThoseWeHave(t *testing.T) {
	have, err := linux.Capabilities()
	if err != nil {
		t.Fatal(err)
	}
	p, d := talk(t)
	all := linux.CapabilityNames()
	mask, _ := linux.CapabilityMask(all)
	sets, err := p.capabilities(&specs.LinuxCapabilities{Bounding: all, Effective: append(all, "CAP_NOPE")})
	if sets != (linux.CapabilitySets{Bounding: mask & have, Effective: mask & have}) || err != nil {
		t.Errorf("got %+v, %v, want %#x", sets, err, mask&have)
	}
	if err := p.parent.send(kindReady, nil, nil); err != nil {
		t.Fatal(err)
	}
	var warnings []string
	d.Warn = func(text string) { warnings = append(warnings, text) }
	if err := d.Created(); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(warnings, func(w string) bool {
		return strings.Contains(w, `process.capabilities.effective: unknown capability "CAP_NOPE"`)
	}) {
		t.Errorf("warnings: %q", warnings)
	}
}

func TestDialogue(t *testing.T) {
	failure := fault.New(fault.Conflict, "mount x: %w", unix.EBUSY)
	for name, c := range map[string]struct {
		says func(p *process) error
		want func(err error) bool
	}{
		"ready":   {func(p *process) error { return p.parent.send(kindReady, nil, nil) }, func(err error) bool { return err == nil }},
		"a death": {func(*process) error { return nil }, func(err error) bool { return errors.Is(err, ErrEnded) }},
		"a death in a word": {func(p *process) error { return linux.SendFile(p.parent.socket, []byte{kindReady, 0, 0}, nil) },
			func(err error) bool { return errors.Is(err, ErrEnded) }},
		"a failure": {func(p *process) error { p.parent.fail(failure); return nil }, func(err error) bool {
			return fault.Is(err, fault.Conflict) && errors.Is(err, unix.EBUSY) && err.Error() == failure.Error()
		}},
		"what is no failure": {func(p *process) error { return p.parent.send(kindError, []byte("{"), nil) },
			func(err error) bool { return err != nil && strings.Contains(err.Error(), `"{"`) }},
		"an unknown word": {func(p *process) error { return p.parent.send('?', nil, nil) },
			func(err error) bool { return err != nil && strings.Contains(err.Error(), "kind '?'") }},
		"too much": {func(p *process) error {
			return linux.SendFile(p.parent.socket, []byte{kindWarning, 0xff, 0xff, 0xff, 0xff}, nil)
		}, func(err error) bool { return err != nil && strings.Contains(err.Error(), "expected at most") }},
	} {
		p, d := talk(t)
		if err := c.says(p); err != nil {
			t.Fatal(err)
		}
		p.parent.socket.Close()
		if err := d.Created(); !c.want(err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// The hooks are run when the process asks, and it goes on only then.
func TestDialogueRunsHooks(t *testing.T) {
	p, d := talk(t)
	config := &Config{Bundle: "/b", Extra: 3, Spec: &specs.Spec{Hostname: "h"}}
	if err := d.Send(config); err != nil {
		t.Fatal(err)
	}
	var ran atomic.Bool // the socket orders it; the race detector does not know
	d.Hooks = func() error { ran.Store(true); return nil }
	asked := make(chan error, 1)
	go func() {
		asked <- func() error {
			var got Config
			if err := p.parent.config(&got); err != nil {
				return err
			}
			if got.Bundle != "/b" || got.Extra != 3 || got.Spec.Hostname != "h" {
				return fmt.Errorf("the configuration is %+v", got)
			}
			if err := p.parent.ask(); err != nil {
				return err
			}
			if !ran.Load() {
				return errors.New("went on before the hooks")
			}
			return p.parent.send(kindReady, nil, nil)
		}()
		p.parent.socket.Close()
	}()
	if err := d.Created(); err != nil {
		t.Error(err)
	}
	if err := <-asked; err != nil {
		t.Error(err)
	}
}

// A hook that fails ends the making of the container.
func TestDialogueFailsWithAHook(t *testing.T) {
	p, d := talk(t)
	d.Hooks = func() error { return unix.EPERM }
	if err := p.parent.send(kindHooks, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Created(); !errors.Is(err, unix.EPERM) {
		t.Errorf("a hook that fails: %v", err)
	}
}

// The end of file after "go" is the close-on-exec flag's; without it the program was not reached.
func TestDialogueExecuted(t *testing.T) {
	for said, want := range map[string]error{"g": nil, "": ErrEnded, "gx": unix.ENOEXEC} {
		p, d := talk(t)
		for _, word := range said {
			if word == 'g' {
				if err := p.parent.send(kindGo, nil, nil); err != nil {
					t.Fatal(err)
				}
			} else {
				p.parent.fail(explain("prog", unix.ENOEXEC))
			}
		}
		p.parent.socket.Close()
		if err := d.Executed(); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", said, err, want)
		}
	}
}
