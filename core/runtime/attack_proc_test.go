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

	"github.com/sampan-project/sampan/core/linux"
)

// ownDevices makes /dev a volume, whose files somebody else may change at any time.
func ownDevices(spec *specs.Spec, dir string) {
	spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m specs.Mount) bool { return strings.HasPrefix(m.Destination, "/dev") })
	spec.Mounts = append(spec.Mounts, bind(dir, "/dev"))
}

func mknod(t *testing.T, name string, major, minor uint32) {
	t.Helper()
	needRoot(t, "a device node is made")
	if err := unix.Mknod(name, unix.S_IFCHR|0o666, int(unix.Mkdev(major, minor))); err != nil {
		t.Fatal(err)
	}
}

// What hides masked paths is the container's /dev/null: when that is a symlink, its target was bound in
// the place of the masked file, and when it is missing, nothing was hidden.
func TestCVE2025_31133(t *testing.T) {
	const shown = "stat -c %t:%T /proc/cpuinfo"
	b := newBench(t)
	for name, files := range map[string]map[string]string{
		"a symlink": {"null": "->/proc/sys/kernel/core_pattern"}, "a file": {"null": "x"}, "another device": {"real": ""}, "nothing": {},
	} {
		t.Run(name, func(t *testing.T) {
			b.t = t
			dir := volume(t, files)
			if name == "another device" {
				mknod(t, dir+"/null", 1, 5)
			}
			spec := shellSpec(shown)
			ownDevices(spec, dir)
			b.refused(spec, "linux.maskedPaths")
		})
	}
	// Somebody with the same root filesystem moves the mounted /proc away while the container is made.
	// What is masked is the procfs, wherever it is; a hook stands for that somebody.
	t.Run("another /proc", func(t *testing.T) {
		needRoot(t, "the hook enters the host's mount namespace")
		b.t = t
		root := filepath.Join(b.bundle, "rootfs")
		spec := shellSpec("cat /moved/version; cat /proc/version")
		spec.Linux.MaskedPaths = []string{"/proc/version"}
		spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{
			Path: "/bin/busybox", Args: []string{
				"nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", os.Getpid()), "/bin/busybox", "sh", "-c",
				`cd "$0" && mv proc moved && mkdir proc && echo decoy >proc/version`, root,
			},
		}}}
		t.Cleanup(func() {
			if err := errors.Join(os.RemoveAll(root+"/proc"), os.Rename(root+"/moved", root+"/proc")); err != nil {
				t.Error(err)
			}
		})
		if out, err := b.attempt(spec); err != nil || out != "decoy" {
			t.Errorf("got %q, %v; want the masked file to be empty", out, err)
		}
	})
	t.Run("a race", func(t *testing.T) {
		b.t = t
		dir := volume(t, map[string]string{"decoy": "->/proc/version"})
		mknod(t, dir+"/null", 1, 3)
		won := 0
		race(t, dir+"/null", dir+"/decoy", func() {
			spec := shellSpec(shown)
			ownDevices(spec, dir)
			switch out, err := b.attempt(spec); {
			case err == nil && out != "1:3":
				t.Errorf("the masked file is device %q, want the null device", out)
			case err == nil:
				won++
			case !strings.Contains(err.Error(), "linux.maskedPaths"):
				t.Error(err)
			}
		})
		if won == 0 {
			t.Error("no container was made: the race was not one")
		}
	})
}

// The terminal was bound to /dev/console by its name in /dev/pts, where something else can be put: that
// is what the container then had as /dev/console, before anything was masked.
func TestCVE2025_52565(t *testing.T) {
	b := newBench(t)
	terminal := func(dir string, pts bool) *specs.Spec {
		spec := shellSpec("stat -c %t /dev/console")
		spec.Linux.MaskedPaths = nil
		spec.Process.Terminal = true
		ownDevices(spec, dir)
		if pts {
			spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}})
		}
		return spec
	}
	for name, files := range map[string]map[string]string{
		"a symlink": {"pts/ptmx": "->/proc/version", "pts/0": "->/proc/version"},
		"a file":    {"pts/ptmx": "x", "pts/0": "x"},
	} {
		t.Run(name, func(t *testing.T) {
			b.t = t
			dir := volume(t, files)
			b.refused(terminal(dir, false), "terminal")
			spec := terminal(dir, false)
			spec.Process.Terminal = false
			spec.Process.Args = []string{"sleep", "100"}
			c, _, err := b.create(spec)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, err = b.exec(c, ExecOptions{Process: &specs.Process{Args: []string{"true"}, Env: []string{"PATH=/bin"}, Cwd: "/", Terminal: true}})
			if err == nil || !strings.Contains(err.Error(), "terminal") {
				t.Errorf("exec: got %v", err)
			}
		})
	}
	t.Run("console in /proc", func(t *testing.T) {
		b.t = t
		b.refused(terminal(volume(t, map[string]string{"console": "->/proc/sys/kernel/core_pattern"}), true), "leads into /proc")
	})
	t.Run("a race", func(t *testing.T) {
		b.t = t
		dir := volume(t, map[string]string{"decoy/ptmx": "->/proc/version", "decoy/0": "->/proc/version", "pts/x": ""})
		race(t, dir+"/pts", dir+"/decoy", func() {
			c, _, err := b.create(terminal(dir, true))
			if err != nil {
				return // refused
			}
			console := c.Console()
			defer console.Close()
			if err := c.Start(t.Context()); err != nil {
				t.Error(err)
			}
			// Of the slave's own number or, when the race was lost meanwhile, nothing at all; no other file.
			if out, _ := io.ReadAll(linux.Master{File: console}); strings.TrimSpace(string(out)) != "88" {
				t.Errorf("/dev/console is %q, want device 88", out)
			}
		})
	})
}

// Another container that shares mounts with this one mounts over what the runtime is about to write to
// in /proc. The write then goes nowhere, and a label or sysctl is never set, or to a file that does harm.
// A hook stands for the other container here: it does it at exactly the right time, without a race.
func TestCVE2025_52881(t *testing.T) {
	b := newBench(t)
	proc := filepath.Join(b.bundle, "rootfs/proc")
	fake := volume(t, map[string]string{"file": "", "net/ipv4/ip_default_ttl": ""})
	score := 500
	for _, c := range []struct {
		name, source, target string
		change               func(*specs.Spec)
	}{
		{"a sysctl to a file", fake + "/file", "sys/net/ipv4/ip_default_ttl", nil},
		{"a sysctl to another sysctl", proc + "/sys/net/ipv4/tcp_keepalive_time", "sys/net/ipv4/ip_default_ttl", nil},
		{"a directory of sysctls", fake, "sys", nil},
		{"a file of the process", fake + "/file", "1/oom_score_adj", func(s *specs.Spec) { s.Process.OOMScoreAdj = &score }},
		{"a file of the process to another", proc + "/1/timerslack_ns", "1/oom_score_adj", func(s *specs.Spec) { s.Process.OOMScoreAdj = &score }},
		{"the whole process", proc + "/1/task", "1", func(s *specs.Spec) { s.Process.OOMScoreAdj = &score }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			spec := shellSpec("cat /proc/sys/net/ipv4/tcp_keepalive_time")
			spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_default_ttl": "77"}
			if c.change != nil {
				spec.Linux.Sysctl = nil
				c.change(spec)
			}
			spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{
				Path: "/bin/busybox", Args: []string{"mount", "-o", "bind", c.source, filepath.Join(proc, c.target)},
			}}}
			b.refused(spec, "something is mounted over it")
		})
	}
	if text, err := os.ReadFile(fake + "/file"); err != nil || len(text) > 0 {
		t.Errorf("the file has got %q, %v", text, err)
	}
}
