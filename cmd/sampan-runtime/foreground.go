package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/sampan-project/sampan/core/linux"
)

// forwarded says of a signal that it is not about this process but about the container's.
func forwarded(s unix.Signal) bool {
	switch s {
	case unix.SIGCHLD, unix.SIGURG, unix.SIGWINCH, unix.SIGPIPE:
		return false
	case unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE: // Go's own: a fault of this program
		return false
	}
	return true
}

// foreground is a process that is waited for: signals go to it, and its terminal is connected with ours.
type foreground struct {
	pid      int
	pidfd    *os.File
	terminal *terminal // nil: none
	signals  chan os.Signal
	rest     *time.Timer
}

// common are the signals that people and programs send to end or steer a container.
var common = []os.Signal{
	unix.SIGCHLD, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT, unix.SIGWINCH,
}

// foregroundSignals are those for newForeground.
func foregroundSignals() chan os.Signal {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, common...)
	return signals
}

// newForeground makes a child of ours the one in the foreground. signals are those that have come since
// foregroundSignals was called, console is its terminal, or nil.
func newForeground(signals chan os.Signal, console *os.File, pid int, pidfd *os.File) (*foreground, error) {
	f := &foreground{pid: pid, pidfd: pidfd, signals: signals}
	// Each signal costs the Go runtime a round between threads, all of them several milliseconds: what is
	// rarely sent can wait until the container has outlived that.
	f.rest = time.AfterFunc(50*time.Millisecond, func() { signal.Notify(f.signals) })
	if console != nil {
		t, err := newTerminal(console)
		if err != nil {
			f.stop()
			return nil, err
		}
		f.terminal = t
	}
	return f, nil
}

// stop gives the terminal back.
func (f *foreground) stop() {
	if f == nil {
		return
	}
	// The signals stay with us: this program ends next, and giving them back costs as much as taking them.
	f.rest.Stop()
	if f.terminal != nil {
		f.terminal.close()
	}
}

// wait waits for the process to end, and for its output. The status is the process's, or 128 and the
// signal that ended it. Other children, which came to us as subreaper, are reaped on the way.
func (f *foreground) wait() (int, error) {
	defer f.stop()
	for {
		status, ended, err := f.reap()
		switch {
		case err != nil:
			return 0, err
		case !ended:
			f.handle(<-f.signals)
			continue
		}
		if f.terminal != nil {
			f.terminal.drain()
		}
		if status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return status.ExitStatus(), nil
	}
}

// reap waits for the children that have ended.
func (f *foreground) reap() (status unix.WaitStatus, ended bool, err error) {
	for {
		pid, err := linux.RetryValue(func() (int, error) { return unix.Wait4(-1, &status, unix.WNOHANG|unix.WALL, nil) })
		switch {
		case err != nil:
			return 0, false, fmt.Errorf("wait for process %d: %w", f.pid, err)
		case pid == f.pid:
			return status, true, nil
		case pid == 0:
			return 0, false, nil
		}
	}
}

func (f *foreground) handle(sig os.Signal) {
	switch s, ok := sig.(unix.Signal); {
	case sig == unix.SIGWINCH && f.terminal != nil:
		f.terminal.resize()
	case ok && forwarded(s):
		linux.Signal(f.pidfd, s) //nolint:errcheck // it may have ended
	}
}

// terminal connects a container's terminal with ours.
type terminal struct {
	console *os.File
	old     *term.State // of our stdin, before it was made raw
	output  chan struct{}
}

// drainWait bounds the wait for output after the process has ended: processes outside of the
// container's pid namespace may hold its terminal for ever.
const drainWait = 2 * time.Second

func newTerminal(console *os.File) (*terminal, error) {
	// With the poller a read can be ended by a deadline.
	fd, err := unix.FcntlInt(console.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	console.Close()
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	t := &terminal{console: os.NewFile(uintptr(fd), "console"), output: make(chan struct{})}
	if in := int(os.Stdin.Fd()); term.IsTerminal(in) {
		t.resize()
		if t.old, err = term.MakeRaw(in); err != nil {
			t.console.Close()
			return nil, fmt.Errorf("terminal: %w", err)
		}
	}
	go io.Copy(t.console, os.Stdin) //nolint:errcheck // ends with the program
	go func() {
		defer close(t.output)
		if _, err := io.Copy(os.Stdout, linux.Master{File: t.console}); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, os.ErrClosed) {
			fmt.Fprintf(os.Stderr, "%s: terminal: %v\r\n", name, err)
		}
	}()
	return t, nil
}

// resize gives the container's terminal the size of ours.
func (t *terminal) resize() {
	size, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return // ours is none
	}
	conn, err := t.console.SyscallConn()
	if err != nil {
		return
	}
	conn.Control(func(fd uintptr) { unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) }) //nolint:errcheck // the size is only advice
}

// drain waits for the rest of the output.
func (t *terminal) drain() {
	t.console.SetReadDeadline(time.Now().Add(drainWait)) //nolint:errcheck // then it is read to its end
	<-t.output
}

func (t *terminal) close() {
	if t.old != nil {
		term.Restore(int(os.Stdin.Fd()), t.old) //nolint:errcheck // nothing else can be done
		t.old = nil
	}
	t.console.Close()
}
