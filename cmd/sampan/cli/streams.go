package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"github.com/moby/term"

	"github.com/sampan-project/sampan/core/fault"
)

// In is standard input.
type In struct {
	io.Reader
	fd       uintptr
	terminal bool

	interrupted chan struct{} // closed by the first Ctrl-C
	interrupt   func()

	mu      sync.Mutex
	restore func() // of a terminal in raw mode; nil otherwise
}

// Read ends with the first Ctrl-C at a terminal: a person who is asked something can say no that way.
func (in *In) Read(p []byte) (int, error) {
	if !in.terminal {
		return in.Reader.Read(p)
	}
	type result struct {
		n    int
		err  error
		data []byte
	}
	done := make(chan result, 1)
	go func() { // left behind with a buffer of its own after an interrupt, when the program ends anyway
		data := make([]byte, len(p))
		n, err := in.Reader.Read(data)
		done <- result{n, err, data}
	}()
	select {
	case r := <-done:
		return copy(p, r.data[:r.n]), r.err
	case <-in.interrupted:
		return 0, context.Canceled
	}
}

func newIn(r io.Reader) *In {
	in := &In{Reader: r, interrupted: make(chan struct{})}
	in.interrupt = sync.OnceFunc(func() { close(in.interrupted) })
	if f, ok := r.(*os.File); ok {
		in.fd, in.terminal = f.Fd(), term.IsTerminal(f.Fd())
	}
	return in
}

// IsTerminal reports whether a person may be typing.
func (in *In) IsTerminal() bool { return in.terminal }

// Raw puts the terminal into raw mode, where each key goes to the container at once, and returns
// how to put it back, which may be called more than once. On anything but a terminal it does nothing.
func (in *In) Raw() (restore func(), err error) {
	if !in.terminal {
		return func() {}, nil
	}
	state, err := term.SetRawTerminal(in.fd)
	if err != nil {
		return nil, err
	}
	restore = sync.OnceFunc(func() { _ = term.RestoreTerminal(in.fd, state) })
	in.mu.Lock()
	defer in.mu.Unlock()
	in.restore = restore
	return restore, nil
}

// reset puts a terminal in raw mode back: the program is about to end where it stands.
func (in *In) reset() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.restore != nil {
		in.restore()
	}
}

// Hide stops the terminal from showing what is typed, and returns how to show it again.
func (in *In) Hide() (show func(), err error) {
	if !in.terminal {
		return func() {}, nil
	}
	state, err := term.SaveState(in.fd)
	if err != nil {
		return nil, err
	}
	if err := term.DisableEcho(in.fd, state); err != nil {
		return nil, err
	}
	return func() { _ = term.RestoreTerminal(in.fd, state) }, nil
}

// CheckTTY refuses a container's terminal joined to an input that is none: its line discipline
// would eat bytes of the data.
func (in *In) CheckTTY(attachStdin, tty bool) error {
	if attachStdin && tty && !in.terminal {
		return fault.As(fault.Invalid, errors.New("the input device is not a TTY"))
	}
	return nil
}

// Out is standard output or standard error.
type Out struct {
	io.Writer
	fd       uintptr
	terminal bool

	mu     sync.Mutex
	failed error // the first error of a write
}

// Write remembers that it failed: most of what is printed is printed by functions that cannot say so.
func (out *Out) Write(p []byte) (int, error) {
	n, err := out.Writer.Write(p)
	if err != nil {
		out.mu.Lock()
		defer out.mu.Unlock()
		if out.failed == nil {
			out.failed = err
		}
	}
	return n, err
}

// Failed is the error of the first write that failed, nil if all that was printed has arrived.
func (out *Out) Failed() error {
	out.mu.Lock()
	defer out.mu.Unlock()
	return out.failed
}

func newOut(w io.Writer) *Out {
	out := &Out{Writer: w}
	if f, ok := w.(*os.File); ok {
		out.fd, out.terminal = f.Fd(), term.IsTerminal(f.Fd())
	}
	return out
}

// IsTerminal reports whether a person may be reading.
func (out *Out) IsTerminal() bool { return out.terminal }

// Size is the terminal's size in characters, 0 and 0 where there is none.
func (out *Out) Size() (height, width uint) {
	if !out.terminal {
		return 0, 0
	}
	size, err := term.GetWinsize(out.fd)
	if err != nil || size == nil {
		return 0, 0
	}
	return uint(size.Height), uint(size.Width)
}

// Discard takes what is written to an Out of which nothing is wanted.
func Discard() *Out { return &Out{Writer: io.Discard} }
