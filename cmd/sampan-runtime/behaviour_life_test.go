package main

import (
	"bytes"
	"encoding/json"
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
)

// sharingPids takes the container's pid namespace away.
func sharingPids(s *specs.Spec) {
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
}

// haveEnded waits until none of the processes runs: one without a parent that waits for it stays as a zombie.
func haveEnded(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		for end := time.Now().Add(15 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
			if _, state, _ := strings.Cut(string(stat), ") "); err != nil || strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X") {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("process %d is still there", pid)
			}
		}
	}
}

func TestContainersInThePidNamespaceOfTheHost(t *testing.T) {
	for _, c := range []struct {
		name   string
		orphan bool // the first process has ended
		args   []string
	}{
		{"kill", false, []string{"kill", "c", "KILL"}}, {"kill of those that are left", true, []string{"kill", "c", "KILL"}},
		{"delete of those that are left", true, []string{"delete", "c"}}, {"forced delete of those that are left", true, []string{"delete", "--force", "c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newScene(t)
			h.configure("exec sleep 1000", sharingPids)
			h.must("run", "-d", "c")
			for range 3 {
				h.must("exec", "-d", "c", "sleep", "1000")
			}
			pids := h.pids("c")
			if len(pids) != 4 {
				t.Fatalf("processes %v, expected 4", pids)
			}
			if c.orphan {
				first := h.state("c").Pid
				if err := unix.Kill(first, unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				haveEnded(t, []int{first})
			}
			h.must(c.args...)
			haveEnded(t, pids)
			if c.args[0] == "kill" {
				if left := h.pids("c"); len(left) > 0 || h.status("c") != "stopped" {
					t.Errorf("left: %v, status %s", left, h.status("c"))
				}
				h.refused(1, "container not running", "kill", "c", "KILL")
				h.must("delete", "c")
			}
			h.refused(1, "container does not exist", "state", "c")
		})
	}
}

func (h *house) state(id string) (s state) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.must("state", id)), &s); err != nil {
		h.t.Fatal(err)
	}
	return s
}

func (h *house) pids(id string) (pids []int) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.must("ps", "-f", "json", id)), &pids); err != nil {
		h.t.Fatal(err)
	}
	return pids
}

func TestKillInAJoinedPidNamespace(t *testing.T) {
	h := newScene(t)
	h.configure("exec sleep 1000")
	h.must("run", "-d", "target")
	pid := strconv.Itoa(h.state("target").Pid)
	h.configure("exec sleep 1000", func(s *specs.Spec) {
		s.Linux.CgroupsPath += "-joined"
		for i, n := range s.Linux.Namespaces {
			if n.Type == specs.PIDNamespace {
				s.Linux.Namespaces[i].Path = "/proc/" + pid + "/ns/pid"
			}
		}
	})
	h.must("run", "-d", "joined")
	h.must("kill", "joined", "9")
	h.eventually("joined", "stopped")
	h.must("delete", "--force", "joined")
	if status := h.status("target"); status != "running" {
		t.Errorf("the one that was joined is %s", status)
	}
}

func TestKillOfAStoppedContainer(t *testing.T) {
	h := newScene(t)
	h.configure("exec sleep 1000")
	h.must("run", "-d", "c")
	h.must("kill", "c", "KILL")
	h.eventually("c", "stopped")
	h.refused(1, "container not running", "kill", "c", "0")
	h.must("kill", "-a", "c", "0")
	h.must("delete", "c")
}

func TestDeleteOfAPausedContainer(t *testing.T) {
	h := newScene(t)
	h.configure("sleep 1000")
	h.must("run", "-d", "c")
	h.must("pause", "c")
	h.must("delete", "--force", "c")
	h.refused(1, "container does not exist", "state", "c")
}

func TestCreatedContainers(t *testing.T) {
	h := newScene(t)
	h.configure("sleep 1000")
	elsewhere := t.TempDir()
	cmd := h.command("create", "--pid-file", "pid.txt", "-b", h.bundle, "c")
	cmd.Dir = elsewhere
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(h.state("c").Pid)
	if text, err := os.ReadFile(elsewhere + "/pid.txt"); err != nil || string(text) != pid {
		t.Errorf("pid file %q, %v, expected %s", text, err, pid)
	}
	// Nothing of the host but the caller's standard streams: sockets and memory of the init, which go at the start.
	files, err := filepath.Glob("/proc/" + pid + "/fd/*")
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if n, _ := strconv.Atoi(filepath.Base(f)); n < 3 {
			continue
		}
		to, err := os.Readlink(f)
		if err == nil && !slices.ContainsFunc([]string{"socket:", "anon_inode:", "pipe:", "/proc", "/sampan-runtime", "/memfd:"}, func(p string) bool { return strings.HasPrefix(to, p) }) {
			t.Errorf("descriptor %s is %s", filepath.Base(f), to)
		}
	}
	h.must("exec", "c", "true")
	if status := h.status("c"); status != "created" {
		t.Errorf("after exec: %s", status)
	}
	cmd = h.command("exec", "--pid-file", "pid.txt", "c", "echo", "hello")
	cmd.Dir = elsewhere
	if out, err := cmd.Output(); err != nil || string(out) != "hello\n" {
		t.Errorf("exec: %q, %v", out, err)
	}
	if text, err := os.ReadFile(elsewhere + "/pid.txt"); err != nil || string(text) == pid {
		t.Errorf("pid file of exec %q, %v", text, err)
	}
	h.refused(execFailed, "--pid-file", "exec", "--pid-file", "/nothing/here", "c", "true")
	h.must("start", "c")
	h.eventually("c", "running")
}

func TestListsOfContainers(t *testing.T) {
	h := newScene(t)
	var path string
	for _, id := range []string{"box1", "box2", "box3"} {
		h.configure("sleep 1000", func(s *specs.Spec) {
			if path == "" {
				path = s.Linux.CgroupsPath
			}
			s.Linux.CgroupsPath = path + "-" + id
		})
		h.must("run", "-d", id)
	}
	if out := h.must("list", "-q"); out != "box1\nbox2\nbox3\n" {
		t.Errorf("-q: %q", out)
	}
	for _, args := range [][]string{{"list"}, {"list", "--format", "table"}} {
		lines := strings.Split(h.must(args...), "\n")
		if strings.Join(strings.Fields(lines[0]), " ") != "ID PID STATUS BUNDLE CREATED OWNER" || len(lines) != 5 {
			t.Errorf("%v: %q", args, lines)
		}
		for i, line := range lines[1:4] {
			if f := strings.Fields(line); len(f) != 6 || f[0] != "box"+strconv.Itoa(i+1) || f[2] != "running" || f[3] != h.bundle {
				t.Errorf("%v: %q", args, line)
			}
		}
	}
	var list []state
	if err := json.Unmarshal([]byte(h.must("list", "--format", "json")), &list); err != nil || len(list) != 3 ||
		list[1].ID != "box2" || list[1].Pid == 0 || list[1].Status != "running" || list[1].Rootfs != h.bundle+"/rootfs" || list[1].Version != specs.Version {
		t.Errorf("json: %+v, %v", list, err)
	}
	h.refused(1, `--format "xml"`, "list", "--format", "xml")
	other := *h
	other.root = "/nothing/here"
	other.refused(1, "/nothing/here: no such file or directory", "list")
}

func TestListWithoutContainers(t *testing.T) {
	// The root that is not given may be missing: nothing was made yet.
	p := &program{root: filepath.Join(t.TempDir(), "missing")}
	flags := newFlags("list", false)
	do := listFlags(p, flags)
	if err := flags.Parse([]string{"-q"}); err != nil {
		t.Fatal(err)
	}
	if err := do(nil); err != nil {
		t.Error(err)
	}
	p.rootGiven = true
	if err := do(nil); err == nil {
		t.Error("a root that was given and is not there: expected an error")
	}
}

func TestHelpOfVerbs(t *testing.T) {
	h := newHouse(t, nil)
	for _, v := range verbs() {
		for _, option := range []string{"-h", "--help"} {
			if out := h.must(v.name, option); !strings.HasPrefix(out, "Usage: sampan-runtime "+v.name+" ") {
				t.Errorf("%s %s: %q", v.name, option, out)
			}
		}
	}
	for _, option := range []string{"-h", "--help", "help"} {
		if out := h.must(option); !strings.Contains(out, "sampan-runtime") || !strings.Contains(out, "checkpoint") {
			t.Errorf("%s: %q", option, out)
		}
	}
	h.refused(1, `command "foo"`, "foo", "-h")
}

func TestHooksThatFail(t *testing.T) {
	fine, failing := specs.Hook{Path: "/bin/true"}, specs.Hook{Path: "/bin/false"}
	put := map[string]func(*specs.Hooks, []specs.Hook){
		"prestart":        func(h *specs.Hooks, l []specs.Hook) { h.Prestart = l }, //nolint:staticcheck // callers still use it
		"createRuntime":   func(h *specs.Hooks, l []specs.Hook) { h.CreateRuntime = l },
		"createContainer": func(h *specs.Hooks, l []specs.Hook) { h.CreateContainer = l },
		"startContainer":  func(h *specs.Hooks, l []specs.Hook) { h.StartContainer = l },
		"poststart":       func(h *specs.Hooks, l []specs.Hook) { h.Poststart = l },
	}
	for kind, set := range put {
		t.Run(kind, func(t *testing.T) {
			h := newScene(t)
			script := "echo ran"
			if kind == "poststart" {
				script = "sleep 1000" // it runs already
			}
			h.configure(script, func(s *specs.Spec) {
				s.Hooks = &specs.Hooks{}
				set(s.Hooks, []specs.Hook{fine, failing})
			})
			for _, verb := range []string{"run", "create"} {
				if verb == "create" && strings.Contains(kind, "start") && kind != "prestart" {
					h.must("create", "c")
					verb = "start"
				}
				if r := h.call(verb, "c"); r.code != 1 || !strings.Contains(r.err, kind+" hook 1, /bin/false: exit status 1") || r.out != "" {
					t.Errorf("%s: %+v", verb, r)
				}
				if verb == "start" {
					h.eventually("c", "stopped")
					h.must("delete", "c")
				}
				h.refused(1, "container does not exist", "state", "c")
			}
		})
	}
}

func TestHooksOfTheContainer(t *testing.T) {
	h := newScene(t)
	h.write("check.sh", "#!/bin/sh\necho \"$ONE $FOO $HOME\" >/hooked\n")
	hook := func(path string, args ...string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Process.Env = []string{"ONE=two", "FOO=bar", "PATH=/bin"}
			s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: path, Args: args}}}
		}
	}
	h.configure("cat /hooked", hook("/check.sh"))
	h.shows("two bar /")
	// The arguments are passed as they are, the first one too.
	for _, args := range [][]string{{"cat", "/nosuchfile"}, {"busybox", "cat", "/nosuchfile"}} {
		h.configure("true", hook("/bin/busybox", args...))
		h.refused(1, "cat: can't open '/nosuchfile'", "run", "c")
	}
	h.configure("cat /hooked", func(s *specs.Spec) {
		hook("/check.sh")(s)
		s.Hooks.StartContainer[0].Env = []string{"ONE=own"}
	})
	h.shows("own")
}

// A hook of the host's namespaces mounts into the container, one of the container's mounts before its root is
// its root, and one inside sees both: what is done for drivers of graphics cards.
func TestHooksMount(t *testing.T) {
	for _, program := range []string{"nsenter", "mount"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	h := newScene(t)
	for _, name := range []string{"runtime", "container"} {
		if err := os.WriteFile(filepath.Join(h.bundle, name), []byte("by "+name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		h.write(name, "")
	}
	shell := func(script string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}}}
	}
	h.configure("cat /both", func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{
			CreateRuntime:   shell(`pid=$(grep -o '"pid":[0-9]*' | tr -dc 0-9); nsenter -m -t $pid mount --bind ` + h.bundle + "/runtime " + h.bundle + "/rootfs/runtime"),
			CreateContainer: shell("mount --bind " + h.bundle + "/container ./container"),
			StartContainer:  shell("cat /runtime /container >/both"),
		}
	})
	h.shows("by runtime\nby container")
	for _, name := range []string{"runtime", "container"} {
		if text, err := os.ReadFile(filepath.Join(h.bundle, "rootfs", name)); err != nil || len(text) > 0 {
			t.Errorf("%s outside: %q, %v", name, text, err)
		}
	}
}

func TestMountNamespaceOfTheHost(t *testing.T) {
	h := newScene(t)
	h.configure("echo hello", func(s *specs.Spec) {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace })
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "touch " + h.bundle + "/hook.$$"}}}}
	})
	inOwnMounts(t, func() {
		// The mounts of the spec would be the host's: runc makes them there, ours says that it does not.
		if r := h.call("run", "c"); r.code != 0 || r.out != "hello\n" || !strings.Contains(r.err, "are left out") {
			t.Errorf("%+v", r)
		}
	})
	if made, err := filepath.Glob(h.bundle + "/hook.*"); err != nil || len(made) != 1 {
		t.Errorf("hooks: %v, %v; expected one", made, err)
	}
}

func TestEventsWhileItRuns(t *testing.T) {
	for _, c := range []struct {
		name, script, want string
		args               []string
	}{
		{"statistics", "sleep 1000", `{"type":"stats","id":"c","data":{`, []string{"--interval", "20ms"}},
		// Statistics of the default interval are yet to come.
		{"out of memory", "while :; do tail /dev/zero; sleep 0.1; done", `{"type":"oom","id":"c"}`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newScene(t)
			h.configure(c.script, func(s *specs.Spec) {
				limit := int64(16 << 20) // more than an init with the race detector takes
				s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
			})
			h.must("run", "-d", "c")
			cmd := h.command(append(append([]string{"events"}, c.args...), "c")...)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			first := make([]byte, 1<<16)
			n, err := out.Read(first)
			if err != nil || !bytes.HasPrefix(first[:n], []byte(c.want)) {
				t.Errorf("%q, %v; expected %s", first[:n], err, c.want)
			}
			h.must("delete", "-f", "c")
			for err == nil {
				_, err = out.Read(first)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("after the container's end: %v", err)
			}
		})
	}
}
