package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestMaskedPaths(t *testing.T) {
	h := newScene(t)
	for _, dir := range []string{"/one", "/two", "/three"} {
		if err := os.MkdirAll(h.bundle+"/rootfs"+dir+"/below", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(h.bundle+"/rootfs/file", []byte("secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	mask := func(s *specs.Spec) {
		s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/one", "/file", "/two", "/one", "/three", "/file")
	}
	readonly := func(s *specs.Spec) { s.Root.Readonly = true }
	// Before Linux 6.15 a mount that is attached nowhere cannot be cloned, and each has a filesystem of its own.
	shared := ""
	if newerThan(t, 6, 15) {
		shared = "shared\n"
	}
	for _, c := range []struct{ name, script, want string }{
		{"a file is empty and stays", "cat /file; rm -f /file 2>/dev/null || echo kept; umount /file 2>/dev/null || echo held", "kept\nheld"},
		{"a directory is empty and read-only",
			"ls /one; touch /one/x 2>&1; rmdir /one/below 2>/dev/null || echo gone; rmdir /one 2>/dev/null || echo kept; umount /one 2>/dev/null || echo held",
			"touch: /one/x: Read-only file system\ngone\nkept\nheld"},
		{"a path named twice is masked once", "grep -c ' /one ' /proc/mounts; grep -c ' /file ' /proc/mounts", "1\n1"},
		{"directories share one filesystem", "set -- $(stat -c %d /one /two /three); test $1 = $2 && test $2 = $3 && echo shared; touch /two/x 2>/dev/null || echo refused", shared + "refused"},
	} {
		h.configure(c.script, mask)
		h.shows(c.want, c.name)
		h.configure(c.script, mask, readonly)
		h.shows(c.want, c.name, "read-only root")
	}
}

func TestFreshMounts(t *testing.T) {
	h := newScene(t)
	root := h.bundle + "/rootfs"
	for _, dir := range []string{"/copied/below", "/real", "/setgid", "/own", "/all"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{
		"/copied/below": 0o777, "/setgid": 0o755 | os.ModeSetgid | os.ModeSetuid | os.ModeSticky, "/own": 0o710, "/all": 0o777 | os.ModeSetgid | os.ModeSetuid | os.ModeSticky,
	} {
		if err := os.Chmod(root+name, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/real", root+"/link"); err != nil {
		t.Fatal(err)
	}
	tmpfs := func(at string, options ...string) specs.Mount {
		return specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: at, Options: options}
	}
	// The options of the superblock, where a mode that is not the default is shown.
	const mode = `stat -c %%a %[1]s; grep ' %[1]s ' /proc/mounts | tr , '\n' | grep mode= | cut -d' ' -f1`
	for _, c := range []struct {
		name, script, want string
		mount              specs.Mount
	}{
		{"tmpcopyup keeps modes", "stat -c %a /copied/below", "777", tmpfs("/copied", "tmpcopyup")},
		{"a read-only tmpfs", "grep -c '^tmpfs /mnt tmpfs ro,' /proc/mounts", "1", tmpfs("/mnt", "ro", "nodev", "nosuid", "mode=755")},
		{"through an absolute symlink", "grep -c ' /real/stack ' /proc/mounts", "1", tmpfs("/link/stack", "ro", "nodev", "nosuid")},
		{"below a directory with the setgid bit", "true", "", tmpfs("/setgid/a/b/c", "ro")},
		{"the mode of what is there", fmt.Sprintf(mode, "/own"), "710\nmode=710", tmpfs("/own", "nosuid")},
		{"all bits of what is there", "stat -c %a /all", "7777", tmpfs("/all", "noexec", "nosuid", "nodev", "rprivate")},
		{"a mode that is asked for", fmt.Sprintf(mode, "/own"), "1500\nmode=1500", tmpfs("/own", "mode=1500")},
		{"the default where nothing is", fmt.Sprintf(mode, "/new/a/b"), "1777", tmpfs("/new/a/b", "rw", "nodev")},
		{"a mode where nothing is", "stat -c %a /asked", "444", tmpfs("/asked", "mode=0444")},
		{"a mode where something is by now", "stat -c %a /asked", "444", tmpfs("/asked", "mode=0444")},
		{"a relative source", "ls /bound/config.json", "/bound/config.json", specs.Mount{Source: ".", Destination: "/bound", Options: []string{"bind"}}},
	} {
		h.configure(c.script, withMounts(c.mount))
		h.shows(c.want, c.name)
	}
	for name, want := range map[string]string{
		"/setgid": "u=rwxr-xr-x", "/setgid/a": "g=rwxr-xr-x", "/setgid/a/b/c": "g=rwxr-xr-x", "/own": "-rwx--x---", "/new": "-rwxr-xr-x", "/new/a/b": "-rwxr-xr-x",
	} {
		info, err := os.Stat(root + name)
		if err != nil {
			t.Fatal(err)
		}
		bits := "-"
		switch {
		case info.Mode()&os.ModeSetuid != 0:
			bits = "u="
		case info.Mode()&os.ModeSetgid != 0:
			bits = "g="
		}
		if got := bits + info.Mode().Perm().String()[1:]; got != want {
			t.Errorf("%s is %s on disk, expected %s", name, got, want)
		}
	}
	h.configure("grep -c '^tmpfs /dev tmpfs ro,' /proc/mounts; test -c /dev/null && echo there; echo x >/dev/null && echo written", func(s *specs.Spec) {
		s.Mounts[1].Options = append(s.Mounts[1].Options, "ro")
	})
	h.shows("1\nthere\nwritten", "a read-only /dev")
}

// A container sees its cgroups read-only (CVE-2023-25809), with a cgroup namespace and without.
func TestCgroupsAreReadOnly(t *testing.T) {
	h := newScene(t)
	for _, without := range []bool{false, true} {
		h.configure("grep ' /sys/fs/cgroup' /proc/mounts | cut -d' ' -f4 | cut -d, -f1 | sort -u", func(s *specs.Spec) {
			if without {
				s.Linux.Namespaces = s.Linux.Namespaces[:5]
			}
		})
		h.shows("ro", fmt.Sprintf("without a cgroup namespace: %v", without))
	}
}

// Binds are made in their order, so that one can take what those before it have put into the rootfs.
func TestOrderOfBinds(t *testing.T) {
	for _, mapped := range []bool{false, true} {
		h := newScene(t)
		source := filepath.Join(filepath.Dir(h.bundle), "source")
		for _, name := range []string{"a/x", "b/y", "c/z"} {
			if err := os.MkdirAll(filepath.Join(source, name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(source, name, "file"), []byte(name+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("b", source+"/link"); err != nil {
			t.Fatal(err)
		}
		rootfs := h.bundle + "/rootfs"
		if err := os.MkdirAll(rootfs+"/mnt", 0o755); err != nil {
			t.Fatal(err)
		}
		bind := func(from, to string) specs.Mount {
			return specs.Mount{Source: from, Destination: to, Type: "bind", Options: []string{"rbind", "rprivate"}}
		}
		changes := []func(*specs.Spec){withMounts(bind(source+"/a", "/mnt"), bind(source+"/link", "/mnt/x"), bind(source+"/c", "/mnt/x/y"))}
		if mapped {
			// A source that its root may not reach. What is mounted in the container cannot be a source then: the
			// sources are opened outside, where it is not seen.
			h.own()
			changes = append(changes, inUserNamespace)
			if err := os.Chmod(source, 0o700); err != nil {
				t.Fatal(err)
			}
			h.configure("cat /mnt/x/y/z/file", changes...)
			h.shows("c/z", "in a user namespace")
			continue
		}
		changes = append(changes, withMounts(bind(rootfs+"/mnt/x", "/final")))
		h.configure("cat /mnt/x/y/z/file /final/y/z/file; grep -c ' /final/y ' /proc/mounts", changes...)
		h.shows("c/z\nc/z\n1")
	}
}

// A bind lands where dangling symlinks of the image lead to, inside of the root.
func TestBindsThroughDanglingLinks(t *testing.T) {
	h := newScene(t)
	for name, to := range map[string]string{"/jump": "/tmp/foo/bar", "/etc/hosts": "/jump/baz/hosts", "/etc/last": "/tmp/last", "/etc/dir": "/tmp/dir"} {
		if err := os.Symlink(to, h.bundle+"/rootfs"+name); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ source, at, real string }{
		{"./config.json", "/etc/hosts", "/tmp/foo/bar/baz/hosts"}, {"./config.json", "/etc/last", "/tmp/last"}, {".", "/etc/dir", "/tmp/dir"},
	} {
		h.configure("stat -c %i "+c.real+"; grep -c ' "+c.real+" ' /proc/mounts", withMounts(specs.Mount{Source: c.source, Destination: c.at, Options: []string{"bind"}}))
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(h.bundle, c.source), &st); err != nil {
			t.Fatal(err)
		}
		h.shows(fmt.Sprintf("%d\n1", st.Ino), c.at)
	}
}

func TestRootfsPropagation(t *testing.T) {
	h := newScene(t)
	inOwnMounts(t, func() {
		if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
			t.Error(err)
			return
		}
		for name, want := range map[string]string{"shared": "shared", "slave": "master", "private": "-"} {
			// proc_pid_mountinfo(5): optional fields are between the sixth and a dash.
			h.configure(`awk '$5 == "/" { sub(":.*", "", $7); print $7 }' /proc/self/mountinfo`, func(s *specs.Spec) { s.Linux.RootfsPropagation = name })
			h.shows(want, name)
		}
	})
}

func TestRecursiveOptions(t *testing.T) {
	h := newScene(t)
	dir := t.TempDir()
	inOwnMounts(t, func() {
		for _, at := range []string{dir, dir + "/below"} {
			err := os.MkdirAll(at, 0o755)
			if err == nil {
				err = unix.Mount("tmpfs", at, "tmpfs", 0, "")
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
		const script = `for i in 0 1 2; do for at in /mnt$i /mnt$i/below; do touch $at/x 2>/dev/null && echo written || echo refused; done; done
grep ' /mnt[3-9]' /proc/mounts | cut -d' ' -f4 | sed 's/,inode64.*//'`
		options := []string{"ro", "ro,rro", "rro", "ratime", "rnoatime", "rstrictatime", "rnostrictatime", "rrelatime", "rnorelatime"}
		want := []string{"refused", "written", "refused", "refused", "refused", "refused"}
		for _, shown := range []string{"rw,relatime", "rw,noatime", "rw", "rw,relatime", "rw,relatime", "rw,relatime"} {
			want = append(want, shown, shown)
		}
		var mounts []specs.Mount
		for i, o := range options {
			mounts = append(mounts, specs.Mount{Source: dir, Destination: fmt.Sprintf("/mnt%d", i), Options: strings.Split("rbind,"+o, ",")})
		}
		h.configure(script, withMounts(mounts...))
		h.shows(strings.Join(want, "\n"))
	})
}

// newerThan reports whether the kernel has at least this version.
func newerThan(t *testing.T, major, minor int) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	var a, b int
	if _, err := fmt.Sscanf(string(text), "%d.%d", &a, &b); err != nil {
		t.Fatal(err)
	}
	return a > major || a == major && b >= minor
}
