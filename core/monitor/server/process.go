package server

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/monitor/jsonlog"
)

// drainWait is how long the output of a process that has ended is waited for, when a descendant
// keeps the pipe open. It is Docker's.
const drainWait = 2 * time.Second

// process is one process whose streams and end the monitor takes care of: the init of a container,
// or an exec process. An idle one costs a goroutine for its end and one for each output stream.
type process struct {
	terminal bool
	out      output
	in       *input     // nil: stdin is /dev/null
	sources  []*os.File // what the pumps read: the ends of two pipes, or the master of the terminal
	pumps    sync.WaitGroup

	pid   int
	pidfd *os.File // pollable
	child bool     // ours, to be reaped; not so when another monitor made it

	exited chan struct{} // closed when exit is set and the log complete
	exit   monitor.Exit
}

// stdio are the ends of a process's streams that are handed to the runtime.
type stdio struct{ stdin, stdout, stderr *os.File }

func (s *stdio) close() {
	for _, f := range []*os.File{s.stdin, s.stdout, s.stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// newProcess makes the streams of a process that is about to be created.
func newProcess(terminal, openStdin, once bool, log jsonlog.Log) (p *process, theirs stdio, err error) {
	p = &process{terminal: terminal, out: output{log: log}, exited: make(chan struct{})}
	if terminal {
		if openStdin {
			p.in = &input{} // its file is the console, which the runtime makes
		}
		return p, theirs, nil
	}
	defer func() {
		if err != nil {
			theirs.close()
			p.closeStreams()
		}
	}()
	for _, their := range []**os.File{&theirs.stdout, &theirs.stderr} {
		ours, file, err := pipe(true)
		if err != nil {
			return nil, theirs, fmt.Errorf("output pipe: %w", err)
		}
		p.sources, *their = append(p.sources, ours), file
	}
	if openStdin {
		ours, file, err := pipe(false)
		if err != nil {
			return nil, theirs, fmt.Errorf("input pipe: %w", err)
		}
		p.in, theirs.stdin = &input{file: ours, once: once}, file
	}
	return p, theirs, nil
}

// closeStreams closes our ends of the streams.
func (p *process) closeStreams() {
	for _, f := range p.sources {
		f.Close()
	}
	if p.in != nil {
		p.in.close()
	}
	if p.out.log != nil {
		_ = p.out.log.Close() // what the disk did not take is counted in Dropped
	}
	p.out.end()
}

// take takes the process over from the runtime. When it fails the process must be ended by the
// caller.
func (p *process) take(o ociProcess, height, width uint16) (err error) {
	p.pid, p.child = o.Pid(), true
	if p.terminal {
		if err := p.takeConsole(o.Console(), height, width); err != nil {
			return err
		}
	}
	p.pidfd, err = openPidfd(p.pid)
	return err
}

// openPidfd returns a pidfd for Go's poller. It is not the runtime's, which blocks, and shares its
// flags with every duplicate.
func openPidfd(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("pidfd of process %d: %w", pid, err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// run lets the output flow.
func (p *process) run() {
	for i, from := range p.sources {
		s := jsonlog.Stdout
		if i == 1 {
			s = jsonlog.Stderr
		}
		p.pumps.Go(func() { pump(from, s, &p.out) })
	}
}

// abandon ends and reaps an exec process that cannot be taken care of.
func abandon(pid int) {
	unix.Kill(pid, unix.SIGKILL) //nolint:errcheck // by number: it is ours until we have reaped it
	for {
		if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != unix.EINTR {
			return
		}
	}
}

func (p *process) takeConsole(master *os.File, height, width uint16) error {
	if master == nil {
		return fault.New(fault.Internal, "the runtime gave no terminal of process %d", p.pid)
	}
	master, err := pollable(master)
	if err != nil {
		return fmt.Errorf("terminal of process %d: %w", p.pid, err)
	}
	p.sources = []*os.File{master}
	if p.in != nil {
		in, err := duplicate(master) // so that closing the input leaves the output alone
		if err != nil {
			return fmt.Errorf("terminal of process %d: %w", p.pid, err)
		}
		p.in.mu.Lock()
		p.in.file = in
		p.in.mu.Unlock()
	}
	if height > 0 || width > 0 {
		return p.resize(height, width)
	}
	return nil
}

// resize sets the size of the terminal.
func (p *process) resize(height, width uint16) error {
	if !p.terminal || len(p.sources) == 0 {
		return fault.New(fault.Conflict, "resize: the process has no terminal")
	}
	raw, err := p.sources[0].SyscallConn()
	if err != nil {
		return err
	}
	var ioctlErr error
	err = raw.Control(func(fd uintptr) {
		ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	})
	if err != nil { // the only reason is that it is closed
		return fault.New(fault.Conflict, "resize: the process has ended")
	}
	return ioctlErr
}

// attach adds a client to the process's streams and returns the client's end.
func (p *process) attach(want monitor.AttachConfig) (*os.File, error) {
	a, client, err := newAttachment(want, !p.terminal)
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	p.out.attach(a)
	go func() {
		a.receive(p.in)
		p.out.detach(a)
	}()
	return client, nil
}

// wait returns when the process has ended and all that it wrote is in the log.
func (p *process) wait() {
	p.exit = p.reap()
	// Nobody may hold back the output any more. Usually the pumps are at its end now: it ends with
	// the last process that has the pipe.
	p.out.hurry(queueEnded)
	overdue := time.AfterFunc(drainWait, func() {
		p.out.cut.Store(true)
		p.out.hurry(math.MaxInt)
		for _, f := range p.sources {
			f.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // pollable has made them pollable
		}
	})
	p.pumps.Wait()
	overdue.Stop()
	p.pidfd.Close()
	p.closeStreams()
}

// reap waits for the process without a thread and takes its exit status.
func (p *process) reap() monitor.Exit {
	lost := monitor.Exit{Code: 255, Lost: true}
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		lost.At = time.Now()
		return lost
	}
	var status unix.WaitStatus
	known := false
	raw.Read(func(fd uintptr) bool { //nolint:errcheck // the file is closed by nobody else
		if !p.child {
			status, known, err = exitOfOther(int(fd))
			return !errors.Is(err, unix.EAGAIN)
		}
		for {
			// By its number: it is ours until we have reaped it.
			pid, err := unix.Wait4(p.pid, &status, unix.WNOHANG|unix.WALL, nil)
			switch {
			case err == unix.EINTR:
			case err != nil:
				return true
			default:
				known = pid == p.pid
				return known
			}
		}
	})
	if !known {
		lost.At = time.Now()
		return lost
	}
	return exitOf(status)
}

// exitOf translates what wait(2) says.
func exitOf(s unix.WaitStatus) monitor.Exit {
	e := monitor.Exit{At: time.Now(), Code: s.ExitStatus()}
	if s.Signaled() {
		e.Signal = int(s.Signal())
		e.Code = 128 + e.Signal
	}
	return e
}

// pidfdInfo is struct pidfd_info of linux/pidfd.h, as of Linux 6.13.
type pidfdInfo struct {
	mask     uint64
	cgroup   uint64
	_        [11]uint32 // process ids, user and group ids
	exitCode int32
}

const (
	pidfdGetInfo  = 0xc040ff0b // _IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)
	pidfdInfoExit = 1 << 3     // since Linux 6.15; answered when the process was reaped
)

// exitOfOther returns how a process that is no child of ours ended: EAGAIN while it has not. Its
// parent takes the exit status; the kernel keeps a copy for those who hold a pidfd.
func exitOfOther(fd int) (s unix.WaitStatus, known bool, err error) {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 0); err == unix.EINTR || err == nil && n == 0 {
		return 0, false, unix.EAGAIN
	}
	for range 100 { // a moment passes until its parent has reaped it
		info := pidfdInfo{mask: pidfdInfoExit}
		if errno := ioctl(fd, pidfdGetInfo, &info); errno == 0 && info.mask&pidfdInfoExit != 0 {
			return unix.WaitStatus(info.exitCode), true, nil
		} else if errno == unix.ENOTTY || errno == unix.EINVAL {
			break // an older kernel
		}
		time.Sleep(time.Millisecond)
	}
	return 0, false, nil
}
