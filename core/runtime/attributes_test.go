package runtime

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/linux"
)

func TestAttributesOfTheProgram(t *testing.T) {
	b := newBench(t)
	// The field of /proc/self/stat after the name: nice is the 19th of all, policy the 41st.
	const stat = `read x </proc/self/stat; set -- ${x##*) }; echo nice ${17} policy ${39}`
	for _, c := range []struct {
		name, script, want string
		change             func(*specs.Spec)
	}{
		{"a 32 bit personality", "cat /proc/self/personality", "00000008", func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} }},
		{"a memory policy", "grep -c bind:0 /proc/self/numa_maps | grep -qv '^0$' && echo bound", "bound", func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"}
		}},
		{"a scheduler", stat, "nice 7 policy 3", func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 7}
		}},
		{"an io priority", "ionice -p $$", "best-effort: prio 6", func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			link := filepath.Join(b.bundle, "rootfs/bin/ionice")
			if err := os.Symlink("busybox", link); err != nil && !os.IsExist(err) {
				t.Fatal(err)
			}
			s := shellSpec(c.script)
			c.change(s)
			if out, status := b.run(s); out != c.want || status != 0 {
				t.Errorf("%q, status %d; expected %q", out, status, c.want)
			}
		})
	}
}

func TestRefusedAttributes(t *testing.T) {
	for words, change := range map[string]func(*specs.Spec){
		"linux.personality.domain":   func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "BSD"} },
		"process.scheduler.policy":   func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_FAIR"} },
		"process.scheduler.nice":     func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 20} },
		"process.scheduler.priority": func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Priority: 1} },
		"process.ioPriority.class":   func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "BE"} },
		"process.ioPriority.priority": func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_RT, Priority: 8}
		},
		"execCPUAffinity.final":      func(s *specs.Spec) { s.Process.ExecCPUAffinity = &specs.CPUAffinity{Final: "3-1"} },
		"linux.intelRdt.closID":      func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "../x"} },
		"linux.intelRdt \"MB:0=1\\n": func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{MemBwSchema: "MB:0=1\nL3:0=f"} },
	} {
		s := shellSpec("true")
		change(s)
		if err := validate(s, false); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%v; expected %q", err, words)
		}
	}
	s := shellSpec("true")
	s.Linux.MountLabel = "system_u:object_r:container_file_t:s0:c1,c2"
	if err := validate(s, false); (err == nil) != hasSELinux() {
		t.Errorf("mountLabel: %v with SELinux %v", err, hasSELinux())
	}
}

func TestClassOfService(t *testing.T) {
	root := t.TempDir() // files in place of resctrl's
	own := &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f", MemBwSchema: "MB:0=20"}
	if err := joinRDT(root, "c", own, 42); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"schemata": "L3:0=f\nMB:0=20\n", "tasks": "42"} {
		if got, err := os.ReadFile(filepath.Join(root, "c", file)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", file, got, err)
		}
		os.Remove(filepath.Join(root, "c", file))
	}
	if err := leaveRDT(root, "c", own); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "c")); !os.IsNotExist(err) {
		t.Errorf("the class is left: %v", err)
	}
}

func TestNoPivot(t *testing.T) {
	b := newBench(t)
	out, status := b.run(shellSpec("ls /; ls /proc/1/root/; grep -c ' / ' /proc/self/mounts"), func(o *CreateOptions) { o.NoPivot = true })
	if want := "bin\ndev\nproc\nsys\nbin\ndev\nproc\nsys\n1"; out != want || status != 0 {
		t.Errorf("%q, status %d; expected %q", out, status, want)
	}
}

func TestNoNewKeyring(t *testing.T) {
	b := newBench(t)
	if _, err := os.Stat("/proc/keys"); err != nil {
		t.Skip("the kernel does not show keys")
	}
	find := func() *specs.Spec {
		return shellSpec(fmt.Sprintf("grep -c '_ses.test-%d-%d:' /proc/keys", os.Getpid(), ids+1))
	}
	own, _ := b.run(find())
	kept, _ := b.run(find(), func(o *CreateOptions) { o.NoNewKeyring = true })
	if own == "0" || kept != "0" {
		t.Errorf("session keyrings of our own: %s, with NoNewKeyring %s", own, kept)
	}
}

// notified answers every notification with an error number until the file is closed.
func notified(t *testing.T, socket *net.UnixListener, states chan<- specs.ContainerProcessState) {
	for {
		conn, err := socket.AcceptUnix()
		if err != nil {
			return
		}
		f, err := conn.File()
		_ = conn.Close()
		if err != nil {
			t.Error(err)
			return
		}
		r := &linux.Receiver{Socket: f}
		var state specs.ContainerProcessState
		if err := json.NewDecoder(r).Decode(&state); err != nil {
			t.Error(err)
		}
		listener := r.Take()
		f.Close()
		if listener == nil {
			t.Error("no file came along")
			return
		}
		states <- state
		go answer(t, listener)
	}
}

func answer(t *testing.T, listener *os.File) {
	defer listener.Close()
	const receive, send = 0xc0502100, 0xc0182101 // SECCOMP_IOCTL_NOTIF_RECV and _SEND
	for {
		poll := []unix.PollFd{{Fd: int32(listener.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, 5000); err != nil && err != unix.EINTR || poll[0].Revents&unix.POLLHUP != 0 {
			return
		}
		var request [80]byte
		if ioctl(listener, receive, request[:]) != 0 {
			return
		}
		var response [24]byte
		copy(response[:8], request[:8])
		no := -int32(unix.ENOMEDIUM)
		response[16], response[17], response[18], response[19] = byte(no), byte(no>>8), byte(no>>16), byte(no>>24)
		if e := ioctl(listener, send, response[:]); e != 0 && e != unix.ENOENT {
			t.Errorf("answer: %v", e)
		}
	}
}

func TestSeccompAgent(t *testing.T) {
	b := newBench(t)
	name := filepath.Join(t.TempDir(), "agent.sock")
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close() //nolint:errcheck // the test is over
	states := make(chan specs.ContainerProcessState, 4)
	go notified(t, socket, states)
	for _, noNewPrivileges := range []bool{false, true} {
		s := shellSpec("mkdir /made 2>&1; sleep 30")
		s.Process.NoNewPrivileges = noNewPrivileges
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, ListenerPath: name, ListenerMetadata: "for us",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat", "sendmsg"}, Action: specs.ActNotify}},
		}
		c, _, err := b.create(s)
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
		process := *s.Process
		process.Args = []string{"mkdir", "/made"}
		p, err := c.Exec(t.Context(), ExecOptions{Process: &process, Stderr: w})
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		out := make([]byte, 200)
		if err := r.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, _ := r.Read(out)
		r.Close()
		linux.Wait(p.PidFD()) //nolint:errcheck // only its end counts
		p.PidFD().Close()
		if !strings.Contains(string(out[:n]), "No medium found") {
			t.Errorf("mkdir: %q", out[:n])
		}
		for _, pid := range []int{c.Pid(), p.Pid()} {
			state := <-states
			if state.Pid != pid || state.Metadata != "for us" || state.State.ID != c.ID() || len(state.Fds) != 1 || state.Fds[0] != "seccompFd" {
				t.Errorf("state %+v, expected that of process %d", state, pid)
			}
		}
	}
	s := shellSpec("true")
	s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: name + ".none",
		Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}}
	c, _, err := b.create(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "listenerPath") {
		t.Errorf("start without an agent: %v", err)
	}
}

func ioctl(f *os.File, request uintptr, data []byte) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(unsafe.SliceData(data))))
	return e
}

func TestExecPlaces(t *testing.T) {
	needCgroup(t)
	b := newBench(t)
	c, _, err := b.create(shellSpec("sleep 30"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	m, err := c.cgroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range m.Paths() {
		if err := os.Mkdir(dir+"/below", 0o755); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	run := func(o ExecOptions, script string) (string, error) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		p := *c.Spec().Process
		p.Args, p.ExecCPUAffinity = []string{"sh", "-c", script}, o.Process.ExecCPUAffinity
		o.Process, o.Stdout, o.Stderr = &p, w, w
		made, err := c.Exec(t.Context(), o)
		w.Close()
		if err != nil {
			return "", err
		}
		out := make([]byte, 4096)
		n, _ := r.Read(out)
		linux.Wait(made.PidFD()) //nolint:errcheck // only its end counts
		made.PidFD().Close()
		return strings.TrimSpace(string(out[:n])), nil
	}
	out, err := run(ExecOptions{Process: &specs.Process{}, Cgroup: cgroup.Sub{"": "below"}}, "grep -v below /proc/self/cgroup | grep pids; grep -c below /proc/self/cgroup")
	if err != nil || strings.Contains(out, "pids") || out == "0" {
		t.Errorf("below: %q, %v", out, err)
	}
	for path, words := range map[string]string{"../x": "below the container's cgroup", "nothing": "no such file"} {
		if _, err := run(ExecOptions{Process: &specs.Process{}, Cgroup: cgroup.Sub{"": path}}, "true"); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if out, err := run(ExecOptions{Process: &specs.Process{ExecCPUAffinity: &specs.CPUAffinity{Initial: "0", Final: "0"}}}, "grep Cpus_allowed_list /proc/self/status"); err != nil || out != "Cpus_allowed_list:\t0" {
		t.Errorf("affinity: %q, %v", out, err)
	}
	if err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(200*time.Millisecond, func() { _ = c.Resume(t.Context()) })
	if out, err := run(ExecOptions{Process: &specs.Process{}, IgnorePaused: true}, "echo late"); err != nil || out != "late" {
		t.Errorf("in a paused container: %q, %v", out, err)
	}
}
