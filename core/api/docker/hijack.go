package docker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/moby/term"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/fault"
)

const (
	rawStream         = "application/vnd.docker.raw-stream"
	multiplexedStream = "application/vnd.docker.multiplexed-stream"

	// linger is how long a connection whose output has ended waits for the client to close it.
	// Closing at once with input unread would reset it, and could destroy output on the way.
	linger = 3 * time.Second
	// hangUpInterval is how often a client that ended its input is looked after.
	hangUpInterval = time.Second
)

// streamType is the type of output: raw with a terminal. Clients before v1.42 know one name for both.
func streamType(tty bool, v route.Version) string {
	if tty || v < 42 {
		return rawStream
	}
	return multiplexedStream
}

// detachKeys reads a detach sequence such as "ctrl-p,ctrl-q", which is also the default.
func detachKeys(given string) ([]byte, error) {
	if given == "" {
		given = "ctrl-p,ctrl-q"
	}
	keys, err := term.ToBytes(given)
	if err != nil {
		return nil, fault.New(fault.Invalid, "Invalid detach keys (%s) provided: expected letters or ctrl-x, joined by commas", given)
	}
	return keys, nil
}

// A conversation is a connection taken over from HTTP, between a client and a container's stream.
//
//	client ──stdin──▶ conn ──▶ (detach keys) ──▶ stream      end of input: CloseWrite, output goes on
//	client ◀─output── conn ◀── stream                        end of output: the conversation is over
type conversation struct {
	conn net.Conn
	in   *bufio.Reader // the connection's bytes, of which HTTP may have read some
	// stdin says whether input goes to the stream; otherwise it is read to see the client go.
	stdin bool
	// keys end the conversation when they come from a terminal; nil: no keys do.
	keys []byte
	// whole says that the connection has no halves: the end of its input is its end.
	whole bool
}

// hijack takes the connection over and sends the answer's header.
func hijack(w http.ResponseWriter, r *route.Request, contentType string) (*conversation, error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over the connection: %w", err)
	}
	status := "200 OK\r\nContent-Type: " + rawStream + "\r\n"
	if r.Header.Get("Upgrade") != "" {
		status = "101 UPGRADED\r\nContent-Type: " + contentType + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
	}
	w.Header().Del("Content-Type")
	out := bufio.NewWriter(conn)
	fmt.Fprintf(out, "HTTP/1.1 %s", status)
	if err := errors.Join(w.Header().Write(out), writeString(out, "\r\n"), out.Flush()); err != nil {
		conn.Close()
		return nil, fmt.Errorf("answer the upgrade: %w", err)
	}
	return &conversation{conn: conn, in: buffered.Reader}, nil
}

func writeString(w io.Writer, s string) error {
	_, err := io.WriteString(w, s)
	return err
}

// fail ends the conversation with a text, as output of the process that could not be had. Clients
// print it; the exit code they get from inspect.
func (c *conversation) fail(err error, tty bool) {
	c.greeted()
	text := err.Error() + "\r\n"
	if !tty {
		header := [8]byte{0: 1} // stdout
		binary.BigEndian.PutUint32(header[4:], uint32(len(text)))
		text = string(header[:]) + text
	}
	_ = writeString(c.conn, text)
	c.close(nil)
}

// run copies both ways until the output has ended, the client has gone or detached, or the server
// stops. It closes the stream and the connection, and returns when no goroutine of it is left.
func (c *conversation) run(s container.Stream, stopping <-chan struct{}) {
	over := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-stopping:
			s.Close()
		case <-over:
		}
	}()
	inputDone := make(chan struct{})
	go func() {
		defer close(inputDone)
		c.input(s, over)
	}()
	c.greeted()
	_, _ = io.Copy(c.conn, s) // ends with the output, or when the client or the stream is closed
	close(over)
	s.Close()
	<-stopped
	c.close(inputDone)
}

// close shows the client the end of the output and waits a moment for it to close its side.
func (c *conversation) close(inputDone <-chan struct{}) {
	if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(linger))
	if inputDone != nil {
		<-inputDone
	} else {
		_, _ = io.Copy(io.Discard, c.in)
	}
	c.conn.Close()
}

// input copies the client's bytes to the stream until the client has no more, then waits until
// the conversation is over or the client has gone altogether.
func (c *conversation) input(s container.Stream, over <-chan struct{}) {
	var err error
	if c.stdin {
		from := io.Reader(c.in)
		if c.keys != nil {
			from = term.NewEscapeProxy(c.in, c.keys)
		}
		_, err = io.Copy(streamInput{s}, from)
		var detached term.EscapeError
		var refused *refusedError
		switch {
		case errors.As(err, &detached):
			s.Close()
			return
		case errors.As(err, &refused): // the process closed its stdin; its output goes on
			_, err = io.Copy(io.Discard, c.in)
		default:
			_ = s.CloseWrite()
		}
	} else {
		_, err = io.Copy(io.Discard, c.in)
	}
	if err != nil || c.whole { // the connection broke, or its time to linger is over
		s.Close()
		return
	}
	c.waitHangUp(s, over)
}

// streamInput marks the errors of the stream, so that they can be told from the connection's.
type streamInput struct{ io.Writer }

type refusedError struct{ error }

func (w streamInput) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil {
		err = &refusedError{err}
	}
	return n, err
}

// waitHangUp closes the stream when the client, which has ended its input, closes the connection
// too. A read cannot tell the two apart; poll(2) can, for a unix socket: POLLHUP comes when both
// directions are shut. Over TCP it comes with a reset: when something is written to a client that
// has gone, or when keep-alive finds nobody.
func (c *conversation) waitHangUp(s container.Stream, over <-chan struct{}) {
	conn := c.conn
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = t.NetConn()
	}
	ticker := time.NewTicker(hangUpInterval)
	defer ticker.Stop()
	for !hungUp(conn) {
		select {
		case <-over:
			return
		case <-ticker.C:
		}
	}
	s.Close()
}

// hungUp reports whether both directions of the connection are shut.
func hungUp(conn net.Conn) bool {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(poll, 0)
		gone = err == nil && n > 0 && poll[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone || err != nil
}
