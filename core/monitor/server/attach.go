package server

import (
	"encoding/binary"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/monitor/jsonlog"
)

// headerSize is the size of the header before each frame of an attached stream.
const headerSize = 8

// How much may be queued for a client that does not read, beside what the kernel holds in the
// socket (net.core.wmem_default, usually 208 KiB).
const (
	// queueLive is for a process that runs: one that writes more is held back.
	queueLive = 64 << 10
	// queueEnded is for one that has ended. All that its pipe can hold must fit (fs.pipe-max-size
	// is 1 MiB), so that a client that does not read delays neither log nor exit.
	queueEnded = 2 << 20
)

// attachment is one client's end of a process's streams. The process's pumps send to it; when the
// socket is full the rest is queued, and a goroutine that lives only so long writes it.
type attachment struct {
	file   *os.File
	want   monitor.AttachConfig
	framed bool // not a terminal

	mu      sync.Mutex
	changed sync.Cond
	queue   []byte
	writing bool // whether a goroutine writes the queue
	limit   int  // of the queue
	ended   bool // no more output will come
	gone    bool // hung up
}

// newAttachment returns an attachment and the client's end of its socket. Both ends do not block, so
// that Go's poller takes care of them here and there.
func newAttachment(want monitor.AttachConfig, framed bool) (*attachment, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	a := &attachment{file: os.NewFile(uintptr(fds[0]), "attached"), want: want, framed: framed, limit: queueLive}
	a.changed.L = &a.mu
	return a, os.NewFile(uintptr(fds[1]), "attached client"), nil
}

// putHeader writes the frame header for the output that follows it in frame.
func putHeader(frame []byte, s jsonlog.Stream) {
	frame[0], frame[1], frame[2], frame[3] = byte(s), 0, 0, 0
	binary.BigEndian.PutUint32(frame[4:], uint32(len(frame)-headerSize))
}

// send sends output, which stands in frame behind its header. It returns when the socket has it, or it
// is queued within the limit, or the client is gone.
func (a *attachment) send(s jsonlog.Stream, frame []byte) {
	if s == jsonlog.Stdout && !a.want.Stdout || s == jsonlog.Stderr && !a.want.Stderr {
		return
	}
	if !a.framed {
		frame = frame[headerSize:]
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone || a.ended {
		return
	}
	if !a.writing {
		n, ok := a.try(frame)
		if !ok {
			a.hangUpLocked()
			return
		}
		if n == len(frame) {
			return
		}
		frame = frame[n:]
		a.writing = true
		go a.write()
	}
	a.queue = append(a.queue, frame...)
	for len(a.queue) > a.limit && !a.gone {
		a.changed.Wait()
	}
}

// try writes what the socket takes at once.
func (a *attachment) try(b []byte) (n int, ok bool) {
	raw, err := a.file.SyscallConn()
	if err != nil {
		return 0, false
	}
	var errno error
	err = raw.Control(func(fd uintptr) {
		for {
			n, errno = unix.Write(int(fd), b)
			if errno != unix.EINTR {
				return
			}
		}
	})
	switch {
	case err != nil:
		return 0, false
	case errno == unix.EAGAIN:
		return 0, true
	}
	return max(n, 0), errno == nil
}

// write writes the queue until it is empty.
func (a *attachment) write() {
	for {
		a.mu.Lock()
		b := a.queue
		a.queue = nil
		a.changed.Broadcast()
		if len(b) == 0 || a.gone {
			a.writing = false
			if a.ended {
				a.hangUpLocked()
			}
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
		if _, err := a.file.Write(b); err != nil {
			a.hangUp()
		}
	}
}

// hurry lifts the limit of the queue, because the process has ended.
func (a *attachment) hurry(limit int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limit = limit
	a.changed.Broadcast()
}

// end hangs up when the client has been sent all that is queued.
func (a *attachment) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	if !a.writing {
		a.hangUpLocked()
	}
}

// hangUp ends both directions: the client reads what it was sent, and then the end. The file is
// closed by receive, which wakes up by this and first takes what input is still there: closing a
// socket with unread input would give the client ECONNRESET in place of the end (net/unix/af_unix.c,
// unix_release_sock).
func (a *attachment) hangUp() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hangUpLocked()
}

func (a *attachment) hangUpLocked() {
	if a.gone {
		return
	}
	a.gone = true
	a.queue = nil
	a.changed.Broadcast()
	if raw, err := a.file.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_RDWR) }) //nolint:errcheck // the client may be gone
	}
}

// receive passes the client's input on until it ends, and closes the stream when the client is gone or
// was hung up on.
func (a *attachment) receive(in *input) {
	defer a.file.Close()
	defer a.hangUp()
	raw, err := a.file.SyscallConn()
	if err != nil {
		return
	}
	input := in != nil && a.want.Stdin
	err = raw.Read(func(fd uintptr) bool {
		return readAll(int(fd), func(frame []byte) bool {
			if input {
				in.write(frame[headerSize:])
			}
			return true
		})
	})
	if input {
		in.clientEnded()
	}
	if err == nil {
		// The client has ended its input. It may still read: only a hang-up of both directions says
		// that it is gone, and that is not noticed by reading.
		raw.Read(func(fd uintptr) bool { //nolint:errcheck // an error means closed, too
			p := []unix.PollFd{{Fd: int32(fd)}}
			_, err := unix.Poll(p, 0)
			return err == nil && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
		})
	}
}

// output spreads what a process writes: to its log and to the attached clients.
type output struct {
	log jsonlog.Log // nil: no log
	cut atomic.Bool // whether the pumps are to stop, though the stream has not ended

	mu       sync.Mutex
	attached []*attachment
	limit    int // of the clients' queues; 0 while the process lives
	ended    bool
}

// attach adds a client. It gets what is written from now on; nothing when the process has ended.
func (o *output) attach(a *attachment) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		a.end()
		return
	}
	if o.limit > 0 {
		a.hurry(o.limit)
	}
	o.attached = append(o.attached, a)
}

func (o *output) detach(a *attachment) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if i := slices.Index(o.attached, a); i >= 0 {
		o.attached = slices.Delete(o.attached, i, i+1)
	}
}

// send sends one piece of output to every client.
func (o *output) send(s jsonlog.Stream, frame []byte) {
	o.mu.Lock()
	clients := o.attached
	if len(clients) > 0 {
		clients = slices.Clone(clients)
	}
	o.mu.Unlock()
	if len(clients) == 0 {
		return
	}
	putHeader(frame, s)
	for _, a := range clients {
		a.send(s, frame)
	}
}

// hurry lets no client hold the output back beyond the limit any more.
func (o *output) hurry(limit int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.limit = limit
	for _, a := range o.attached {
		a.hurry(limit)
	}
}

// end ends every client's stream after what is queued for it.
func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	for _, a := range o.attached {
		a.end()
	}
	o.attached = nil
}
