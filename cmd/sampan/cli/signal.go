package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// forceAfter is how many times Ctrl-C ends the program whatever it is doing, also where it passes
// signals on to a container that does not end by them. It is Docker's number.
const forceAfter = 3

// signals says who gets the signals that end a program, and which one has ended this.
type signals struct {
	taken atomic.Bool
	ended atomic.Int32 // the signal that cancelled the context, 0 for none
}

// Code returns the exit code for err, as the package's Code does: of a command that a signal ended it
// is the shell's for that signal, 130 for SIGINT and 143 for SIGTERM.
func (c *CLI) Code(err error) int {
	code := Code(err)
	if s := c.signals.ended.Load(); code == CodeInterrupt && s != 0 {
		return 128 + int(s)
	}
	return code
}

// Interruptible returns a context that ends with SIGINT or SIGTERM, unless a command has taken the
// signals to pass them on. The third one ends the program in either case. What was caught stays so to the
// program's end: to give signals back is an exchange with a thread for each, at the moment at which somebody
// waits for the end.
func (c *CLI) Interruptible(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	ch := make(chan os.Signal, forceAfter)
	signal.Notify(ch, unix.SIGINT, unix.SIGTERM)
	go func() {
		for count := 1; ; count++ {
			s := <-ch
			if count == forceAfter {
				c.In.reset()
				fmt.Fprintf(c.Err, "\ngot %d SIGTERM/SIGINTs, forcefully exiting\n", forceAfter)
				os.Exit(CodeFailed)
			}
			if c.signals.taken.Load() {
				continue
			}
			if n, ok := s.(syscall.Signal); ok {
				c.signals.ended.CompareAndSwap(0, int32(n))
			}
			cancel()
			c.In.interrupt()
		}
	}()
	return ctx, cancel
}

// own are the signals that are about this process: its faults, its children, its terminal, Go's
// scheduler, and those that nobody can catch.
var own = []syscall.Signal{
	unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGWINCH, unix.SIGTSTP, unix.SIGTTIN,
	unix.SIGTTOU, unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS, unix.SIGPROF,
}

// Taken are the signals that can be passed on to a container.
type Taken struct {
	C <-chan os.Signal

	signals *signals
	caught  chan struct{} // closed when they come to C
}

// TakeSignals begins to catch all signals that can be passed on to a container. It takes an exchange with a thread
// for each, and is done beside what the caller does: what ends the program ends it until Hold.
func (c *CLI) TakeSignals() *Taken {
	ch := make(chan os.Signal, 128)
	t := &Taken{C: ch, signals: &c.signals, caught: make(chan struct{})}
	var passed []os.Signal
	for s := unix.SIGHUP; s < 65; s++ { // to SIGRTMAX
		if !slices.Contains(own, s) && unix.SignalName(s) != "" {
			passed = append(passed, s)
		}
	}
	go func() {
		defer close(t.caught)
		signal.Notify(ch, passed...)
	}()
	return t
}

// Hold returns when all come to C, and none of them ends the program any more.
func (t *Taken) Hold() {
	<-t.caught
	t.signals.taken.Store(true)
}

// Release lets those that end a program end this one again. The others are caught to its end, which is near.
func (t *Taken) Release() { t.signals.taken.Store(false) }

// SignalName returns the name that the API takes, such as TERM.
func SignalName(s os.Signal) string {
	n, ok := s.(syscall.Signal)
	if !ok {
		return ""
	}
	name := unix.SignalName(n)
	if len(name) < 3 {
		return ""
	}
	return name[3:]
}
