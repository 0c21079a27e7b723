// Package protocol is what the monitor and its clients say to each other over the unix socket.
//
// A frame is a header of 12 bytes, big-endian, and a body of JSON:
//
//	0       2          3      4            8             12
//	+-------+----------+------+------------+-------------+------ ...
//	| magic | 0 | more | fds  | request id | body length | body
//	+-------+----------+------+------------+-------------+------ ...
//
// A client sends a Request under an id that it chose, and may send more before the first is
// answered. The monitor answers each with one Response under the same id, in any order; only to
// "watch" it answers with many. Verb "cancel" names in its id the request that is given up.
//
// Files travel as SCM_RIGHTS control data (unix(7)) of the first byte of their frame. The kernel
// takes at most 253 in one message: more are sent ahead, in frames without a body that have the
// bit `more` and the id of the frame they belong to.
package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// Version is the protocol's version; "hello" compares it. A monitor outlives the daemon that
// started it, so that after an upgrade the two may differ.
const Version = 2

const (
	magic      = 0x534d // "SM"
	headerSize = 12
	moreFiles  = 1

	// maxBody bounds a frame. The largest thing sent is a container's spec; the kernel takes at most
	// 6 MiB of arguments and environment (execve(2)).
	maxBody = 16 << 20
	// maxFilesFrame is below SCM_MAX_FD, 253.
	maxFilesFrame = 250
	// maxFiles bounds the files of one request: two sockets for each port of a machine.
	maxFiles = 2 * 65536
)

// Conn is one end of a connection. Send may be called in parallel, Receive not.
type Conn struct {
	unix *net.UnixConn

	sending sync.Mutex
	out     []byte

	header  [headerSize]byte
	oob     []byte
	pending map[uint32][]*os.File // sent ahead of their frame
}

// NewConn wraps a connected socket.
func NewConn(c *net.UnixConn) *Conn {
	return &Conn{unix: c, pending: map[uint32][]*os.File{}}
}

// Frame is one received frame. Files belong to the receiver.
type Frame struct {
	ID    uint32
	Body  []byte
	Files []*os.File
}

// Close ends the connection. A Receive or Send in progress returns an error.
func (c *Conn) Close() { _ = c.unix.Close() }

// Unix returns the socket.
func (c *Conn) Unix() *net.UnixConn { return c.unix }

// Unsent is an error of Send before anything was written: the connection is as it was.
type Unsent struct{ Err error }

func (e *Unsent) Error() string { return e.Err.Error() }
func (e *Unsent) Unwrap() error { return e.Err }

// Send writes one frame with duplicates of the files.
func (c *Conn) Send(id uint32, body []byte, files []*os.File) error {
	if len(body) > maxBody {
		return &Unsent{fault.New(fault.Invalid, "message of %d bytes: expected at most %d", len(body), maxBody)}
	}
	if len(files) > maxFiles {
		return &Unsent{fault.New(fault.Invalid, "%d files: expected at most %d", len(files), maxFiles)}
	}
	fds, err := descriptors(files)
	if err != nil {
		return &Unsent{err}
	}
	defer runtime.KeepAlive(files)
	c.sending.Lock()
	defer c.sending.Unlock()
	for len(fds) > maxFilesFrame {
		if err := c.send(id, moreFiles, nil, fds[:maxFilesFrame]); err != nil {
			return err
		}
		fds = fds[maxFilesFrame:]
	}
	return c.send(id, 0, body, fds)
}

func (c *Conn) send(id uint32, flags byte, body []byte, fds []int) error {
	b := c.out[:0]
	b = binary.BigEndian.AppendUint16(b, magic)
	b = append(b, flags, byte(len(fds)))
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = append(b, body...)
	if cap(b) <= 16<<10 {
		c.out = b // a large one is not kept for the life of the connection
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	n, _, err := c.unix.WriteMsgUnix(b, rights, nil)
	if err != nil {
		return err
	}
	if n < len(b) { // the kernel took a part; the files went with it
		_, err = c.unix.Write(b[n:])
	}
	return err
}

func descriptors(files []*os.File) ([]int, error) {
	fds := make([]int, len(files))
	for i, f := range files {
		// Through SyscallConn and not Fd, which in some versions of Go takes a file out of the poller.
		raw, err := f.SyscallConn()
		if err != nil {
			return nil, fmt.Errorf("send file %s: %w", f.Name(), err)
		}
		if err := raw.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
			return nil, fmt.Errorf("send file %s: %w", f.Name(), err)
		}
	}
	return fds, nil
}

// Receive reads the next frame. io.EOF means that the other end closed between two frames.
func (c *Conn) Receive() (Frame, error) {
	for {
		f, flags, err := c.receive()
		if err != nil {
			closeAll(f.Files)
			c.dropPending()
			return Frame{}, err
		}
		if flags&moreFiles == 0 {
			if ahead, ok := c.pending[f.ID]; ok {
				f.Files = append(ahead, f.Files...)
				delete(c.pending, f.ID)
			}
			return f, nil
		}
		c.pending[f.ID] = append(c.pending[f.ID], f.Files...)
		if len(c.pending[f.ID]) > maxFiles {
			c.dropPending()
			return Frame{}, fmt.Errorf("more than %d files in one request", maxFiles)
		}
	}
}

func (c *Conn) dropPending() {
	for id, files := range c.pending {
		closeAll(files)
		delete(c.pending, id)
	}
}

func (c *Conn) receive() (f Frame, flags byte, err error) {
	if c.oob == nil {
		c.oob = make([]byte, unix.CmsgSpace(maxFilesFrame*4))
	}
	// Reading never goes beyond a frame, so that files are taken with the frame they came with.
	for n := 0; n < headerSize; {
		m, oobn, mflags, _, err := c.unix.ReadMsgUnix(c.header[n:], c.oob)
		if err != nil {
			return f, 0, noEOF(err, n)
		}
		files, err := filesOf(c.oob[:oobn])
		f.Files = append(f.Files, files...)
		switch {
		case err != nil:
			return f, 0, err
		case mflags&syscall.MSG_CTRUNC != 0:
			return f, 0, errors.New("files of a message were lost: too many, or the limit of open files is reached")
		case m == 0:
			return f, 0, noEOF(io.EOF, n)
		}
		n += m
	}
	length := binary.BigEndian.Uint32(c.header[8:])
	switch {
	case binary.BigEndian.Uint16(c.header[:]) != magic:
		return f, 0, errors.New("the peer does not speak the monitor's protocol")
	case length > maxBody:
		return f, 0, fmt.Errorf("message of %d bytes: expected at most %d", length, maxBody)
	case int(c.header[3]) != len(f.Files):
		return f, 0, fmt.Errorf("%d files came with a message that has %d", len(f.Files), c.header[3])
	}
	f.ID = binary.BigEndian.Uint32(c.header[4:])
	f.Body, err = readBody(c.unix, int(length))
	return f, c.header[2], err
}

// readBody grows with what arrives, so that a length alone costs no memory.
func readBody(r io.Reader, length int) ([]byte, error) {
	const step = 64 << 10
	body := make([]byte, min(length, step))
	for n := 0; ; {
		m, err := io.ReadFull(r, body[n:])
		if err != nil {
			return nil, noEOF(err, 1)
		}
		if n += m; n == length {
			return body, nil
		}
		body = append(body, make([]byte, min(length-n, n))...)
	}
}

// noEOF turns the end of the stream inside a frame into an error, and between two into io.EOF itself.
func noEOF(err error, n int) error {
	switch {
	case !errors.Is(err, io.EOF):
		return err
	case n > 0:
		return io.ErrUnexpectedEOF
	}
	return io.EOF
}

func filesOf(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // other control data, such as credentials
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
