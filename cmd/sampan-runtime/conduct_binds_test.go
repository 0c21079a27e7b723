package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A bind has the flags of its source, but for those that its options name. runc clears all others as soon as
// one option is given, as a remount does, and so loses a "nosuid" that nobody spoke of; the specification
// asks for neither. What the configuration asks for holds in a user namespace too, though a process in it
// could not have it.
func TestBindsKeepFlags(t *testing.T) {
	cases := []struct{ source, options, want string }{
		{"ro,noexec,nosymfollow,nodiratime", "bind", "ro,noexec,nodiratime,relatime,nosymfollow"},
		{"ro,noexec,nosymfollow,nodiratime", "bind,dev", "ro,noexec,nodiratime,relatime,nosymfollow"},
		{"ro", "bind,nosuid,nodev,rprivate", "ro,nosuid,nodev,relatime"},
		{"ro", "bind,rw,nosuid,nodev,rprivate", "rw,nosuid,nodev,relatime"},
		{"nosuid,nodev,noexec,noatime", "bind,dev,suid,exec,atime", "rw,relatime"},
		{"nosuid,nodev,noexec,noatime", "bind,ro", "ro,nosuid,nodev,noexec,noatime"},
		{"nodev,nosymfollow", "bind,ro,symfollow", "ro,nodev,relatime"},
		{"nodev,nosymfollow", "bind,rw", "rw,nodev,relatime,nosymfollow"},
		{"nodev,nosuid,noatime", "bind,ro,exec", "ro,nosuid,nodev,noatime"},
		// How times of access are kept: strictatime has no word in /proc/mounts. An option that only takes
		// back another changes nothing.
		{"noatime", "bind", "rw,noatime"},
		{"noatime", "bind,norelatime", "rw,noatime"},
		{"noatime,nodiratime", "bind,norelatime", "rw,noatime,nodiratime"},
		{"noatime", "bind,relatime", "rw,relatime"},
		{"noatime", "bind,strictatime", "rw"},
		{"noatime", "bind,nodiratime", "rw,noatime,nodiratime"},
		{"noatime", "bind,nodiratime,strictatime", "rw,nodiratime"},
		{"nodiratime", "bind,diratime", "rw,relatime"},
		{"nodiratime", "bind,strictatime", "rw,nodiratime"},
		{"relatime", "bind,norelatime", "rw,relatime"},
		{"strictatime", "bind", "rw"},
		{"strictatime", "bind,nostrictatime", "rw"},
		{"strictatime", "bind,noatime", "rw,noatime"},
	}
	h := newScene(t)
	h.own()
	dir := t.TempDir()
	inOwnMounts(t, func() {
		var mounts []specs.Mount
		for i, c := range cases {
			source := filepath.Join(dir, strconv.Itoa(i))
			err := os.Mkdir(source, 0o755)
			if err == nil {
				err = unix.Mount("tmpfs", source, "tmpfs", 0, "")
			}
			if err == nil {
				err = remount(source, c.source)
			}
			if err != nil {
				t.Error(err)
				return
			}
			mounts = append(mounts, specs.Mount{Source: source, Destination: "/mnt" + strconv.Itoa(i), Options: strings.Split(c.options, ",")})
		}
		for name, change := range map[string]func(*specs.Spec){"plain": func(*specs.Spec) {}, "in a user namespace": inUserNamespace} {
			h.configure("grep ' /mnt' /proc/mounts | cut -d' ' -f4", withMounts(mounts...), change)
			r := h.call("run", "c")
			lines := strings.Split(strings.TrimSpace(r.out), "\n")
			if len(lines) != len(cases) {
				t.Errorf("%s: %q, %s", name, r.out, r.err)
				continue
			}
			for i, c := range cases {
				got := slices.DeleteFunc(strings.Split(lines[i], ","), func(word string) bool { return strings.Contains(word, "=") || word == "inode64" })
				if strings.Join(got, ",") != c.want {
					t.Errorf("%s: %s of %s: %v, expected %s", name, c.options, c.source, got, c.want)
				}
			}
		}
	})
}

// remount gives a mount exactly these flags.
func remount(dir, flags string) error {
	bits := map[string]uintptr{
		"ro": unix.MS_RDONLY, "noexec": unix.MS_NOEXEC, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "nosymfollow": unix.MS_NOSYMFOLLOW,
		"nodiratime": unix.MS_NODIRATIME, "noatime": unix.MS_NOATIME, "relatime": unix.MS_RELATIME, "strictatime": unix.MS_STRICTATIME,
	}
	set := uintptr(unix.MS_REMOUNT | unix.MS_BIND)
	// Without one of them the kernel keeps what there was.
	if !strings.Contains(flags, "noatime") && !strings.Contains(flags, "strictatime") {
		set |= unix.MS_RELATIME
	}
	for flag := range strings.SplitSeq(flags, ",") {
		set |= bits[flag]
	}
	return unix.Mount("", dir, "", set, "")
}
