package cli

import (
	"context"
	"os"
	"os/signal"
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

// TakeSignals returns all signals that can be passed on to a container, which end the program no
// more until release is called.
func (c *CLI) TakeSignals() (_ <-chan os.Signal, release func()) {
	ch := make(chan os.Signal, 128)
	c.signals.taken.Store(true)
	signal.Notify(ch)
	// Not those that are about this process: its children, its terminal and Go's scheduler.
	signal.Reset(unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGWINCH, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU)
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
