package main

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/cgroup"
)

// serviceManager is a socket for sd_notify messages.
func serviceManager(t *testing.T) *net.UnixConn {
	t.Helper()
	name := filepath.Join(t.TempDir(), "manager.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return conn
}

func TestReadinessIsPassedOn(t *testing.T) {
	manager := serviceManager(t)
	h := newHouse(t, func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs"})
	})
	h.must("create", "c")
	started := make(chan result, 1)
	go func() { started <- h.call("start", "c") }()
	inside := filepath.Join(h.root, ".notify", "c", notifyFile)
	var client net.Conn
	for range 200 {
		var err error
		if client, err = net.Dial("unixgram", inside); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if client == nil {
		t.Fatal("start does not listen")
	}
	defer client.Close()
	if out := h.must("exec", "c", "sh", "-c", "ls /run/notify; echo $NOTIFY_SOCKET"); out != "notify.sock\n/run/notify/notify.sock\n" {
		t.Errorf("inside: %q", out)
	}
	for _, m := range []string{"STATUS=soon", "STATUS=now\nREADY=1"} {
		if _, err := client.Write([]byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 200)
	if err := manager.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := manager.Read(buf)
	if err != nil || !strings.HasPrefix(string(buf[:n]), "READY=1\nMAINPID=") {
		t.Errorf("the manager hears %q, %v", buf[:n], err)
	}
	if r := <-started; r.code != 0 {
		t.Errorf("start: %+v", r)
	}
	h.must("delete", "--force", "c")
	if _, err := os.Stat(filepath.Join(h.root, ".notify")); !os.IsNotExist(err) {
		t.Errorf("left: %v", err)
	}
}

func TestNobodyIsReady(t *testing.T) {
	serviceManager(t)
	h := newHouse(t, func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs"})
	}, "true")
	h.must("run", "--detach", "c") // it ends without a word, and so does run
	h.must("delete", "c")
}

func TestSubCgroups(t *testing.T) {
	for given, want := range map[string]cgroup.Sub{"a/b": {"": "a/b"}, "cpu,memory:x": {"cpu": "x", "memory": "x"}} {
		got, err := subCgroups([]string{given})
		if err != nil || len(got) != len(want) {
			t.Errorf("%s: %v, %v", given, got, err)
		}
		for k, v := range want {
			if got[k] != v {
				t.Errorf("%s: %v", given, got)
			}
		}
	}
	for _, bad := range [][]string{{""}, {":x"}, {"cpu:"}, {"a:b:c"}, {"x", "y"}} {
		if got, err := subCgroups(bad); err == nil {
			t.Errorf("%q is %v", bad, got)
		}
	}
}

func TestExecOptionsAreHeeded(t *testing.T) {
	needCgroup(t)
	h := newHouse(t, nil)
	h.must("run", "-d", "c")
	status := func(args ...string) string {
		return h.must(append(append([]string{"exec"}, args...), "c", "cat", "/proc/self/status")...)
	}
	const line = "CapEff:\t"
	field := func(text string) string {
		_, after, _ := strings.Cut(text, line)
		value, _, _ := strings.Cut(after, "\n")
		return value
	}
	if with, without := field(status("--cap", "CAP_SYS_TIME")), field(status()); with == without || with == "" {
		t.Errorf("capabilities %s, without --cap %s", with, without)
	}
	if text := status("--no-new-privs"); !strings.Contains(text, "NoNewPrivs:\t1") {
		t.Error(text)
	}
	if _, err := os.Stat("/sys/kernel/security/apparmor"); err != nil {
		h.refused(execFailed, "apparmor", "exec", "--apparmor", "some", "c", "true")
	}
	h.refused(execFailed, "below the container's cgroup", "exec", "--cgroup", "../..", "c", "true")
	h.must("exec", "--cgroup", "/", "c", "true")
	h.must("pause", "c")
	h.refused(execFailed, "paused", "exec", "c", "true")
	h.must("resume", "c")
}

func TestOptionsOfCreate(t *testing.T) {
	h := newHouse(t, func(s *specs.Spec) { s.Root.Readonly = false }, "ls", "/")
	out := strings.Fields(h.must("run", "--no-pivot", "--no-new-keyring", "c"))
	if !slices.Contains(out, "proc") || slices.Contains(out, "root") {
		t.Errorf("%q", out)
	}
}
