package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func (h *house) pid(id string) int {
	h.t.Helper()
	var s state
	if err := json.Unmarshal([]byte(h.must("state", id)), &s); err != nil {
		h.t.Fatal(err)
	}
	return s.Pid
}

// joining gives namespaces of a spec, by their types, a path.
func joining(paths map[specs.LinuxNamespaceType]string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		for i := range s.Linux.Namespaces {
			n := &s.Linux.Namespaces[i]
			n.Path = paths[n.Type]
			if n.Path == "" {
				continue
			}
			switch n.Type { // they have what was set for them when they were made
			case specs.UserNamespace:
				s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
			case specs.TimeNamespace:
				s.Linux.TimeOffsets = nil
			case specs.UTSNamespace:
				s.Hostname = ""
			}
		}
		s.Linux.CgroupsPath += "-joined"
	}
}

// What the container's root cannot reach is opened before, for several binds and for exec.
func TestUnreachableBinds(t *testing.T) {
	h := newScene(t)
	h.own()
	var mounts []specs.Mount
	for _, name := range []string{"one", "two"} {
		private := filepath.Join(h.bundle, name)
		if err := os.MkdirAll(private+"/dir", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(private+"/dir/file", []byte(name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(private, 0o700); err != nil {
			t.Fatal(err)
		}
		mounts = append(mounts, specs.Mount{Source: name + "/dir", Destination: "/mnt-" + name, Options: []string{"bind"}})
	}
	h.configure("cat /mnt-one/file /mnt-two/file", withMounts(mounts...), inUserNamespace)
	h.shows("one\ntwo")
	h.configure("sleep 1000", withMounts(mounts...), inUserNamespace)
	h.must("run", "-d", "c")
	if out := h.must("exec", "c", "cat", "/mnt-one/file", "/mnt-two/file"); out != "one\ntwo\n" {
		t.Errorf("exec: %q", out)
	}
	h.must("delete", "--force", "c")
	// A bind before the mount of the cgroups, which without a cgroup namespace are binds too.
	h.configure("cat /mnt-one/file; cat /sys/fs/cgroup/pids/tasks /sys/fs/cgroup/cgroup.procs 2>/dev/null | grep -c .", inUserNamespace, func(s *specs.Spec) {
		s.Mounts = slices.Insert(s.Mounts, len(s.Mounts)-1, mounts[0])
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
	})
	if out := h.must("run", "c"); !strings.HasPrefix(out, "one\n") || strings.HasSuffix(out, "\n0\n") {
		t.Errorf("%q", out)
	}
}

// A container in all namespaces of another but that of mounts, and an exec in it.
func TestJoinAllNamespaces(t *testing.T) {
	h := newScene(t)
	h.own()
	base := func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 7881, Nanosecs: 2718281}, "boottime": {Secs: 1337, Nanosecs: 3141519}}
	}
	h.configure("sleep 1000", inUserNamespace, base)
	h.must("run", "-d", "first")
	paths := map[specs.LinuxNamespaceType]string{}
	for kind, file := range map[specs.LinuxNamespaceType]string{
		specs.UserNamespace: "user", specs.TimeNamespace: "time", specs.PIDNamespace: "pid", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc",
		specs.UTSNamespace: "uts", specs.CgroupNamespace: "cgroup",
	} {
		paths[kind] = fmt.Sprintf("/proc/%d/ns/%s", h.pid("first"), file)
	}
	h.configure("sleep 1000", inUserNamespace, base, joining(paths))
	h.must("run", "-d", "second")
	const script = "ps | grep -c '[s]leep 1000'; tr -s ' ' ' ' </proc/self/uid_map; tr -s ' ' ' ' </proc/self/gid_map; tr -s ' ' ' ' </proc/self/timens_offsets"
	want := "2\n 0 100000 65534\n 0 200000 65534\nmonotonic 7881 2718281\nboottime 1337 3141519\n"
	if out := h.must("exec", "second", "sh", "-c", script); out != want {
		t.Errorf("%q, expected %q", out, want)
	}
	h.must("delete", "--force", "second")
}

// Namespaces by files that outlive the container that made them, also of different owners.
func TestJoinNamespacesByFiles(t *testing.T) {
	h := newScene(t)
	h.own()
	user, network := filepath.Join(h.bundle, "user"), filepath.Join(h.bundle, "network")
	for _, name := range []string{user, network} {
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.configure("sleep 1000", inUserNamespace)
	h.must("run", "-d", "first")
	inOwnMounts(t, func() {
		for at, from := range map[string]string{user: fmt.Sprintf("/proc/%d/ns/user", h.pid("first")), network: "/proc/self/ns/net"} {
			if err := unix.Mount(from, at, "", unix.MS_BIND, ""); err != nil {
				t.Error(err)
				return
			}
		}
		h.must("delete", "--force", "first")
		var inode [2]unix.Stat_t
		for i, name := range []string{user, network} {
			if err := unix.Stat(name, &inode[i]); err != nil {
				t.Error(err)
				return
			}
		}
		const script = "tr -s ' ' ' ' </proc/self/uid_map; readlink /proc/self/ns/user; readlink /proc/self/ns/net"
		h.configure(script, inUserNamespace, joining(map[specs.LinuxNamespaceType]string{specs.UserNamespace: user}))
		if out, want := h.must("run", "c"), fmt.Sprintf(" 0 100000 65534\nuser:[%d]\n", inode[0].Ino); !strings.HasPrefix(out, want) {
			t.Errorf("%q, expected %q", out, want)
		}
		// The network is of another user namespace, and with it sysfs: that is bound.
		h.configure("sleep 1000", inUserNamespace, joining(map[specs.LinuxNamespaceType]string{specs.UserNamespace: user, specs.NetworkNamespace: network}), func(s *specs.Spec) {
			i := slices.IndexFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "sysfs" })
			s.Mounts[i] = specs.Mount{Destination: "/sys", Source: "/sys", Type: "bind", Options: []string{"rbind"}}
		})
		h.must("run", "-d", "c")
		if out, want := h.must("exec", "c", "sh", "-c", script), fmt.Sprintf(" 0 100000 65534\nuser:[%d]\nnet:[%d]\n", inode[0].Ino, inode[1].Ino); out != want {
			t.Errorf("%q, expected %q", out, want)
		}
		h.must("delete", "--force", "c")
	})
}
