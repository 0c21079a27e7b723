package external

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/runtime"
)

func simple() *specs.Spec {
	return &specs.Spec{
		Version: specs.Version, Root: &specs.Root{Path: "rootfs"}, Domainname: "example.org",
		Process: &specs.Process{Args: []string{"sh"}, Cwd: "/", Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1 << 40, Hard: 1 << 40}}},
		Linux: &specs.Linux{CgroupsPath: "/c", Namespaces: []specs.LinuxNamespace{
			{Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace, Path: "/before"},
		}},
	}
}

func TestAdapted(t *testing.T) {
	given := simple()
	ns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	s, err := adapted("kata", runtime.CreateOptions{Spec: given, Bundle: "/bundle", NetNS: ns, ClampDefaults: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(simple(), given); diff != "" {
		t.Errorf("the caller's specification changed: %s", diff)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// The namespace is opened by another process: what it finds there must be that one.
	path := s.Linux.Namespaces[1].Path
	var there, here unix.Stat_t
	if err := unix.Stat(path, &there); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fstat(int(ns.Fd()), &here); err != nil || there.Ino != here.Ino {
		t.Errorf("the network namespace is %s: another one (%v)", path, err)
	}
	want := simple()
	want.Version, want.Domainname, want.Root.Path = "1.0.2", "", "/bundle/rootfs"
	want.Linux.Sysctl = map[string]string{"kernel.domainname": "example.org"}
	want.Linux.Namespaces[1].Path = path
	want.Process.Rlimits[0].Soft, want.Process.Rlimits[0].Hard = limit.Max, limit.Max
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("adapted: %s", diff)
	}

	s, err = adapted("kata", runtime.CreateOptions{Spec: given, RootMounts: []mount.Mount{{}}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Root.Path != "rootfs" || s.Process.Rlimits[0].Hard != 1<<40 {
		t.Errorf("root %s, limit %d: expected it in the bundle, and what the user asked for", s.Root.Path, s.Process.Rlimits[0].Hard)
	}
}

func TestAdaptedRefuses(t *testing.T) {
	for _, c := range []struct {
		change func(s *specs.Spec)
		class  fault.Class
		want   string
	}{
		{func(s *specs.Spec) { s.Linux.Namespaces[0].Type = specs.UserNamespace }, fault.NotImplemented, "runtime kata: a user namespace"},
		{func(s *specs.Spec) { s.Linux.RootfsPropagation = "shared" }, fault.NotImplemented, "runtime kata: mount propagation shared"},
		{func(s *specs.Spec) { s.Linux = nil }, fault.Invalid, "spec: expected"},
	} {
		s := simple()
		c.change(s)
		_, err := adapted("kata", runtime.CreateOptions{Spec: s})
		if !fault.Is(err, c.class) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func TestCgroupOf(t *testing.T) {
	for _, c := range []struct {
		path      string
		bySystemd bool
		want      string
	}{
		{"/sampan/x", false, "/sampan/x"},
		{"sampan/x", false, ""},
		{"a-b.slice:sampan:x", true, "/a.slice/a-b.slice/sampan-x.scope"},
		{"a:b", true, ""},
	} {
		got, err := cgroupOf("x", c.path, c.bySystemd)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", c.path, got, err, c.want)
		}
	}
}

func TestLastError(t *testing.T) {
	for _, c := range []struct{ log, want string }{
		{"", ""},
		{"no JSON\n", ""},
		{`{"level":"error","msg":"one"}` + "\n" + `{"level":"debug","msg":"two"}` + "\n", "one"},
		{`{"level":"error","msg":"one"}` + "\n" + `{"level":"fatal","msg":"three"}`, "three"},
		{`{"level":"error","msg":"one"}` + "\n" + `{"level":"error","ms`, "one"},
	} {
		if got := lastError([]byte(c.log)); got != c.want {
			t.Errorf("%q: %q, want %q", c.log, got, c.want)
		}
	}
}
