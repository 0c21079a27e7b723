package cli

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// forceAfter is how many times Ctrl-C ends the program whatever it is doing.
const forceAfter = 3

// signals says who gets the signals that end a program.
type signals struct{ taken atomic.Bool }

// Interruptible returns a context that ends with SIGINT or SIGTERM, unless a command has taken the
// signals to pass them on.
func (c *CLI) Interruptible(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	ch := make(chan os.Signal, forceAfter)
	signal.Notify(ch, unix.SIGINT, unix.SIGTERM)
	go func() {
		count := 0
		for range ch {
			if c.signals.taken.Load() {
				continue
			}
			cancel()
			c.In.interrupt()
			if count++; count == forceAfter {
				os.Exit(CodeInterrupt)
			}
		}
	}()
	return ctx, func() {
		signal.Stop(ch)
		cancel()
	}
}

// own are the signals that are about this process: its faults, its children, its terminal, Go's
// scheduler, and those that nobody can catch.
var own = []syscall.Signal{
	unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGWINCH, unix.SIGTSTP, unix.SIGTTIN,
	unix.SIGTTOU, unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS, unix.SIGPROF,
}

// TakeSignals returns all signals that can be passed on to a container, which end the program no
// more until release is called.
func (c *CLI) TakeSignals() (_ <-chan os.Signal, release func()) {
	ch := make(chan os.Signal, 128)
	c.signals.taken.Store(true)
	var passed []os.Signal
	for s := unix.SIGHUP; s < 65; s++ { // to SIGRTMAX
		if !slices.Contains(own, s) && unix.SignalName(s) != "" {
			passed = append(passed, s)
		}
	}
	signal.Notify(ch, passed...)
	return ch, func() {
		signal.Stop(ch)
		c.signals.taken.Store(false)
	}
}

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
