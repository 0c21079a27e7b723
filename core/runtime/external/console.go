package external

import (
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// socketName is that of a console socket, in a directory of its own.
const socketName = "tty"

// terminal is the socket on which the runtime hands over the master of the terminal that it makes
// (runc, docs/terminals.md, "Detached new terminal"). The nil one is of a process that has no terminal.
type terminal struct {
	dir      string
	handle   *os.File
	listener *os.File
	received chan received
}

type received struct {
	file *os.File
	err  error
}

// terminal makes the socket when the process is to have a terminal, and adds the argument that names it. The
// path is short, whatever the directory's is: the kernel takes 107 bytes.
func (c *Container) terminal(p *specs.Process, args []string) (*terminal, []string, error) {
	if p == nil || !p.Terminal {
		return nil, args, nil
	}
	dir, err := os.MkdirTemp(c.dir, "console-")
	if err != nil {
		return nil, nil, err
	}
	t := &terminal{dir: dir, received: make(chan received, 1)}
	t.handle, err = linux.OpenAt(nil, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil {
		t.listener, err = linux.Listen(t.handle, socketName, 1)
	}
	if err != nil {
		t.close()
		return nil, nil, fmt.Errorf("console socket: %w", err)
	}
	go t.receive()
	path := fmt.Sprintf("/proc/%d/fd/%d/%s", os.Getpid(), t.handle.Fd(), socketName)
	return t, append(args, "--console-socket", path), nil
}

// receive takes one file from the first that connects.
func (t *terminal) receive() {
	conn, err := linux.Accept(t.listener)
	if err != nil {
		t.received <- received{err: err}
		return
	}
	defer conn.Close()
	r := linux.Receiver{Socket: conn}
	defer r.Close()
	name := make([]byte, 4096) // the terminal's, which is of no use here
	if _, err := r.Read(name); err != nil {
		t.received <- received{err: err}
		return
	}
	t.received <- received{file: r.Take()}
}

// master is what has come, when the runtime has ended well: it is sent before. It is the caller's.
func (t *terminal) master() (*os.File, error) {
	if t == nil {
		return nil, nil
	}
	// Whoever has connected is still accepted, nobody is waited for.
	unix.Shutdown(int(t.listener.Fd()), unix.SHUT_RDWR) //nolint:errcheck // it is a socket
	got := <-t.received
	t.received <- received{err: os.ErrClosed} // for close
	if got.file == nil {
		return nil, fault.New(fault.Internal, "the runtime gave no terminal: %v", got.err)
	}
	return got.file, nil
}

// close ends the receiving and removes the socket.
func (t *terminal) close() {
	if t == nil {
		return
	}
	if t.listener != nil {
		unix.Shutdown(int(t.listener.Fd()), unix.SHUT_RDWR) //nolint:errcheck // it is a socket
		if got := <-t.received; got.file != nil {
			got.file.Close()
		}
		t.listener.Close()
	}
	if t.handle != nil {
		os.Remove(filepath.Join(t.dir, socketName))
		t.handle.Close()
	}
	os.Remove(t.dir)
}
