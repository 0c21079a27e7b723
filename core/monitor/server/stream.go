package server

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/monitor/jsonlog"
)

// readSize is how much is read at once: half of what a pipe holds by default, so that the writer goes
// on while we work.
const readSize = 32 << 10

// readBuffers hold a frame header and output behind it. An idle stream has none: a goroutine waits
// in the poller without a buffer, and takes one when there is something to read.
var readBuffers = sync.Pool{New: func() any { b := make([]byte, headerSize+readSize); return &b }}

// readAll reads what is there, for use in RawConn.Read: it returns false when the poller is to wait
// for more, true at the end of the stream. take gets each piece with room for a header before it, and
// returns false when it wants no more.
func readAll(fd int, take func(frame []byte) bool) (ended bool) {
	buf := readBuffers.Get().(*[]byte)
	defer readBuffers.Put(buf)
	for {
		n, err := linux.ReadMaster(fd, (*buf)[headerSize:]) // of all else than a terminal it is read(2)
		switch {
		case n > 0:
			if !take((*buf)[:headerSize+n]) {
				return true
			}
		case errors.Is(err, unix.EAGAIN):
			return false
		default:
			// Zero is the end of a pipe. The master of a terminal says EIO when its last slave is
			// closed (pty(7) has no word on it, drivers/tty/pty.c has).
			return true
		}
	}
}

// pump copies one stream of a process to its log and its clients until the stream ends, or until its
// deadline passes.
func pump(from *os.File, s jsonlog.Stream, out *output) {
	raw, err := from.SyscallConn()
	if err != nil {
		return
	}
	var lines *jsonlog.Lines
	if out.log != nil {
		lines = jsonlog.NewLines(out.log, s)
		defer lines.Close()
	}
	raw.Read(func(fd uintptr) bool { //nolint:errcheck // the deadline is an end like another
		return readAll(int(fd), func(frame []byte) bool {
			if lines != nil {
				lines.Write(frame[headerSize:]) //nolint:errcheck // it counts what is lost
			}
			out.send(s, frame)
			return !out.cut.Load()
		})
	})
}

// input is the stdin of a process: the end of a pipe, or the master of its terminal.
type input struct {
	once bool // the first client that ends its input ends this

	mu   sync.Mutex
	file *os.File // nil: closed
}

// write blocks until the process takes the input. When it does not want any more the input is dropped.
func (in *input) write(p []byte) {
	in.mu.Lock()
	f := in.file
	in.mu.Unlock()
	if f != nil {
		f.Write(p) //nolint:errcheck // EPIPE: the process has closed its stdin
	}
}

// clientEnded is called when an attached client has ended its input or is gone.
func (in *input) clientEnded() {
	if in.once {
		in.close()
	}
}

func (in *input) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.file != nil {
		in.file.Close()
		in.file = nil
	}
}

// pollable returns a duplicate of f that Go's poller serves, and closes f. Files that come from
// elsewhere were opened to block.
func pollable(f *os.File) (*os.File, error) {
	defer f.Close()
	return duplicate(f)
}

func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(old uintptr) {
		if fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0); dupErr == nil {
			dupErr = unix.SetNonblock(fd, true) // before NewFile, which looks at it
		}
	})
	if err = errors.Join(err, dupErr); err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// pipe returns a pipe of which our end does not block and the process's does.
func pipe(oursReads bool) (ours, theirs *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	our, their, name := fds[0], fds[1], "output"
	if !oursReads {
		our, their, name = fds[1], fds[0], "input"
	}
	// The two ends are two descriptions: the flag of ours does not reach the process.
	if err := unix.SetNonblock(our, true); err != nil {
		unix.Close(our)
		unix.Close(their)
		return nil, nil, err
	}
	return os.NewFile(uintptr(our), name), os.NewFile(uintptr(their), name), nil
}
