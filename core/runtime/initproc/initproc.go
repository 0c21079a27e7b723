// Package initproc is what runs inside a container before its own program does: it makes the
// filesystem, gives up what the container must not have, and executes the program.
//
// The process is sampan-runtime, sealed against writing and started by core/runtime straight into the
// container's namespaces and cgroup (core/linux, Spawn), with these files:
//
//	0 1 2   standard streams of the program
//	3       the channel to core/runtime: configuration in; console, warnings, outcome out
//	4...    the files that the caller passes on to the program
//
// With Create's configuration come the listening socket on which Start calls, and what joins the cgroups that were
// made meanwhile. Create's process does everything up to the program's last step, says so on the channel, and waits
// for a call on the listening socket. Whoever calls, in whatever process, is told the outcome of
// execve(2) there: an error, or a "go" followed by the end of file that the close-on-exec flag makes.
// Exec's process goes on at once, and tells it on the channel.
//
// Nothing of the host may be reached from in here by what the container can arrange: every path of
// the container is resolved below a handle of its root (linux.Root), /proc is only written through
// a procfs that this process mounted itself, and all files but the program's own are close-on-exec.
package initproc

import (
	"errors"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
)

// Files of the process.
const (
	channelFile = 3
	firstExtra  = 4
)

// Config is what core/runtime sends first, in the form of package wire: both run the same program.
type Config struct {
	// Spec is the container's, or for Exec one that has only a Process. Its seccomp profile is taken
	// out and comes compiled, as Filter.
	Spec *specs.Spec
	// Exec: join only, make nothing.
	Exec bool

	Bundle     string
	Rootfs     string        // absolute path of a plain bundle's root filesystem
	RootMounts []mount.Mount // makes the root filesystem, in place of Rootfs
	Place      string        // where RootMounts are made: a directory of which the container needs nothing
	Made       uint64        // CLONE_NEW* that were made and not joined
	Trees      bool          // binds and Rootfs are asked of the parent: this process may not reach them

	// CgroupMounts are shown below /sys/fs/cgroup where the spec has a mount of type cgroup: by
	// controller or file name, a directory of the host. Unified: there is one hierarchy alone.
	CgroupMounts map[string]string
	Unified      bool

	// Joins: so many files of cgroups come along after the socket for Start, which this process joins first, as it was started before they
	// were made. OwnCgroup: after that it makes a cgroup namespace.
	Joins     int
	OwnCgroup bool

	Filter *Filter
	Extra  int  // files that are passed on to the program from number 3
	Hooks  bool // wait for the parent to run prestart and createRuntime hooks
	State  specs.State
	// NoNewKeyring: the session keyring of the caller stays. NoPivot: the root is moved to /.
	NoNewKeyring, NoPivot bool
	// Clamp: a limit that the host does not permit is lowered with a warning. Scored: the OOM score adjustment is set.
	Clamp, Scored bool
}

// Filter is a compiled seccomp program for seccomp(2).
type Filter struct {
	Program []byte // struct sock_filter, 8 bytes each in the machine's order
	Flags   uint
	// Notify: the program hands system calls to an agent, who is to be given their file.
	Notify bool
}

// process is the state of one run of this package.
type process struct {
	Config
	parent channel
	start  *os.File // on which Start calls; nil for Exec
	root   *linux.Root
	proc   *os.File   // root of a procfs of our own pid namespace; nil until procfs is called
	late   []*os.File // mounts that become read-only when all is in them
	shown  *os.File   // root of what the container sees at /proc; nil when nothing was mounted there
}

// Verb is the argument that makes the program that has this package this process, and no other.
const Verb = "init"

// The process is over before main begins. So most packages that it does not need are not initialised, which costs every
// container (docs/performance.md). And it is the program's first thread, in which the Go runtime keeps the
// initialisation: credentials, capabilities, cgroups of v1 and seccomp filters belong to a thread, the one that calls
// execve(2) gives its own to the program, and the first one is what others see as the process.
func init() {
	if len(os.Args) == 2 && os.Args[1] == Verb {
		run()
	}
}

// run is the whole process. It does not return.
func run() {
	p := &process{parent: newChannel(os.NewFile(channelFile, "channel"))}
	if err := p.run(); err != nil {
		p.parent.fail(err)
	}
	os.Exit(1)
}

func (p *process) run() error {
	unix.CloseOnExec(channelFile)
	if err := p.parent.config(&p.Config); err != nil {
		return err
	}
	if !p.Exec {
		if p.start = p.parent.in.Take(); p.start == nil {
			return errors.New("read the configuration: expected the socket for the start")
		}
	}
	// A fresh session: no terminal of the caller can be reached, and signals of its group do not
	// come here.
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("setsid: %w", err)
	}
	// Nobody may look into this process, which still has more rights than the container.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("set not dumpable: %w", err)
	}
	if err := p.join(); err != nil {
		return err
	}
	if p.Exec {
		return p.exec()
	}
	return p.create()
}

// join joins the cgroups that the caller has made meanwhile. The threads that the Go runtime has beside this one
// stay where they are: they do nothing of their own, and end with execve(2).
func (p *process) join() error {
	if p.Joins > 0 && unix.Gettid() != unix.Getpid() {
		return fmt.Errorf("join cgroup: thread %d is not the first of process %d", unix.Gettid(), unix.Getpid())
	}
	for range p.Joins {
		f := p.parent.in.Take()
		if f == nil {
			return fmt.Errorf("join cgroup: expected %d files", p.Joins)
		}
		// A thread that moves itself takes no system-wide lock (core/linux, Spawn).
		_, err := linux.RetryValue(func() (int, error) { return unix.Write(int(f.Fd()), []byte("0")) })
		if err != nil {
			name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd())) //nolint:errcheck // then it has no name
			return fmt.Errorf("join cgroup %s: %w", name, err)
		}
		f.Close()
	}
	if p.Joins > 0 {
		p.leaveLimits()
	}
	if !p.OwnCgroup {
		return nil
	}
	// It begins where this process is now.
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	return nil
}

// leaveLimits closes what the Go runtime holds open of processor limits: those of the cgroup in which it began, the
// caller's. It opens them before all else, so they are the first numbers that were free. It does not look again, as
// it was told how many processors to use.
func (p *process) leaveLimits() {
	for fd := firstExtra + p.Extra; ; fd++ {
		var fs unix.Statfs_t
		err := unix.Fstatfs(fd, &fs)
		if err != nil || fs.Type != unix.CGROUP_SUPER_MAGIC && fs.Type != unix.CGROUP2_SUPER_MAGIC {
			return
		}
		unix.Close(fd)
	}
}

// exec is the way of a further process.
func (p *process) exec() error {
	if p.Spec.Process.Terminal {
		pts, err := linux.OpenAt(nil, "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NOCTTY, 0)
		if err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		if err := p.terminal(pts, nil); err != nil {
			return err
		}
	}
	return p.finish(func() error { return p.parent.send(kindGo, nil, nil) })
}

// create is the way of a container's first process.
func (p *process) create() error {
	if p.Made&unix.CLONE_NEWNET != 0 {
		if err := loopbackUp(); err != nil {
			return err
		}
	}
	// Before hooks: what they mount in here must not show on the host.
	if err := p.separate(); err != nil {
		return err
	}
	if p.Hooks {
		if err := p.parent.ask(); err != nil {
			return err
		}
	}
	if err := p.names(); err != nil {
		return err
	}
	if err := p.filesystem(); err != nil {
		return err
	}
	if err := p.seal(); err != nil {
		return err
	}
	if err := p.parent.send(kindReady, nil, nil); err != nil {
		return err
	}
	p.parent.socket.Close()

	call, err := linux.Accept(p.start)
	if err != nil {
		return err
	}
	p.start.Close()
	p.parent = newChannel(call)
	return p.finish(func() error { return p.parent.send(kindGo, nil, nil) })
}

// loopbackUp sets IFF_UP on lo (netdevice(7)): a network namespace is made with it down, and callers rely
// on a runtime to do it, as runc and crun do.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("linux.namespaces: network: %w", os.NewSyscallError("socket", err))
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err == nil {
		request.SetUint16(unix.IFF_UP)
		err = linux.Retry(func() error { return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request) })
	}
	if err != nil {
		return fmt.Errorf("linux.namespaces: network: set lo up: %w", err)
	}
	return nil
}

// names sets host and domain name of a UTS namespace that was made.
func (p *process) names() error {
	if p.Spec.Hostname != "" {
		if err := unix.Sethostname([]byte(p.Spec.Hostname)); err != nil {
			return fmt.Errorf("set hostname %q: %w", p.Spec.Hostname, err)
		}
	}
	if p.Spec.Domainname != "" {
		if err := unix.Setdomainname([]byte(p.Spec.Domainname)); err != nil {
			return fmt.Errorf("set domainname %q: %w", p.Spec.Domainname, err)
		}
	}
	return nil
}
