package runtime

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
)

// The flags of a profile are those of seccomp(2); without a list SPEC_ALLOW holds, with an empty one nothing.
func TestFilterFlags(t *testing.T) {
	const tsync, log, spec, wait = specs.LinuxSeccompFlag("SECCOMP_FILTER_FLAG_TSYNC"), specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, specs.LinuxSeccompFlagWaitKillableRecv
	bits := map[specs.LinuxSeccompFlag]uint{
		log: unix.SECCOMP_FILTER_FLAG_LOG, spec: unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, wait: unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
	}
	flagsOf := func(action specs.LinuxSeccompAction, flags []specs.LinuxSeccompFlag) uint {
		t.Helper()
		f, err := compileFilter(&specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Flags: flags, ListenerPath: "/agent", Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: action}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return f.Flags &^ unix.SECCOMP_FILTER_FLAG_TSYNC // about the threads of the init
	}
	if got := flagsOf(specs.ActErrno, nil); got != unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW {
		t.Errorf("without flags: %#x", got)
	}
	all := []specs.LinuxSeccompFlag{tsync, log, spec}
	for set := range 1 << len(all) {
		flags, want := []specs.LinuxSeccompFlag{}, uint(0)
		for i, f := range all {
			if set&(1<<i) != 0 {
				flags, want = append(flags, f), want|bits[f]
			}
		}
		if got := flagsOf(specs.ActErrno, flags); got != want {
			t.Errorf("%v: %#x, expected %#x", flags, got, want)
		}
	}
	if got := flagsOf(specs.ActNotify, []specs.LinuxSeccompFlag{wait}); got != bits[wait] {
		t.Errorf("with an agent: %#x", got)
	}
}

// permissive is an agent that lets every call go on. quit ends it, and with it what it has.
func permissive(t *testing.T) (path string, listeners <-chan *os.File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "agent.sock")
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	files := make(chan *os.File, 4)
	go func() {
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
			buf := make([]byte, 64<<10)
			if _, err := r.Read(buf); err != nil {
				t.Error(err)
			}
			listener := r.Take()
			f.Close()
			if listener == nil {
				t.Error("no file came along")
				return
			}
			files <- listener
		}
	}()
	return path, files
}

// letPass answers notifications with SECCOMP_USER_NOTIF_FLAG_CONTINUE until nobody is left to ask.
func letPass(listener *os.File) {
	defer listener.Close()
	const receive, send = 0xc0502100, 0xc0182101 // SECCOMP_IOCTL_NOTIF_RECV and _SEND
	for {
		poll := []unix.PollFd{{Fd: int32(listener.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, 15000); err != nil && err != unix.EINTR || poll[0].Revents&unix.POLLHUP != 0 {
			return
		}
		var request [80]byte
		switch ioctl(listener, receive, request[:]) {
		case 0:
		case unix.ENOENT, unix.EINTR: // a signal has taken the call back, as those that Go sends its threads
			continue
		default:
			return
		}
		var response [24]byte
		copy(response[:8], request[:8])
		response[20] = 1 // flags, after id, val and error
		_ = ioctl(listener, send, response[:])
	}
}

func notifying(script, agent string, flags []specs.LinuxSeccompFlag, names ...string) *specs.Spec {
	s := shellSpec(script)
	s.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, ListenerPath: agent, Flags: flags, Syscalls: []specs.LinuxSyscall{{Names: names, Action: specs.ActNotify}},
	}
	return s
}

// The agent may have the calls that the runtime itself, or a hook, makes before the program.
func TestAgentOfImportantCalls(t *testing.T) {
	b := newBench(t)
	path, listeners := permissive(t)
	go func() {
		for l := range listeners {
			go letPass(l)
		}
	}()
	wait := []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}
	for _, noNewPrivileges := range []bool{false, true} {
		for _, spec := range []*specs.Spec{
			notifying("cat /proc/self/status >/dev/null && echo done", path, nil, "execve", "openat", "open", "read", "close", "fcntl"),
			notifying("ls / >/dev/null && echo done", path, wait, "getdents64"),
			notifying("cat /said", path, nil, "mkdir", "openat"),
		} {
			spec.Process.NoNewPrivileges = noNewPrivileges
			want := "done"
			if spec.Process.Args[2] == "cat /said" {
				// No file beside its own three and the directory that it reads.
				want = "4"
				spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "ls /proc/self/fd | wc -l >/said"}, Env: []string{"PATH=/bin"}}}}
			}
			if out, status := b.run(spec); out != want || status != 0 {
				t.Errorf("%v: %q, status %d; expected %q", spec.Linux.Seccomp.Syscalls, out, status, want)
			}
		}
	}
}

// When the agent is gone its calls are answered with ENOSYS, and nobody waits for ever.
func TestAgentThatEnds(t *testing.T) {
	b := newBench(t)
	path, listeners := permissive(t)
	c, output, err := b.create(notifying("mkdir /made 2>&1; true", path, nil, "mkdir", "mkdirat"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	(<-listeners).Close()
	if out := output(); !strings.Contains(out, "Function not implemented") {
		t.Errorf("%q", out)
	}
}

func TestListenerPaths(t *testing.T) {
	b := newBench(t)
	// A path is not looked at where no rule asks for an agent.
	spec := notifying("echo done", "/none/such", nil, "mkdir")
	spec.Linux.Seccomp.Syscalls[0].Action = specs.ActErrno
	if out, status := b.run(spec); out != "done" || status != 0 {
		t.Errorf("%q, status %d", out, status)
	}
	b.refused(notifying("true", "", nil, "mkdir"), "linux.seccomp.listenerPath")
	for _, path := range []string{"/none/such.sock", "@nobody-listens-here"} {
		c, _, err := b.create(notifying("true", path, nil, "mkdir"))
		if err == nil {
			err = c.Start(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), "linux.seccomp.listenerPath") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
