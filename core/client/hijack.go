package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/sampan-project/sampan/core/fault"
)

// Hijacked is a connection that the server took over for a container's streams. What was sent by
// the server before the caller reads is in Reader: read there, never from Conn.
type Hijacked struct {
	Conn   net.Conn
	Reader *bufio.Reader
	TTY    bool // the bytes are raw; otherwise they are frames for StdCopy
}

// CloseWrite ends the container's standard input, and leaves its output open.
func (h *Hijacked) CloseWrite() error {
	if c, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// Close ends both directions.
func (h *Hijacked) Close() error { return h.Conn.Close() }

// The content types of a hijacked stream since API v1.42.
const (
	rawStream         = "application/vnd.docker.raw-stream"
	multiplexedStream = "application/vnd.docker.multiplexed-stream"
)

// hijack sends r on a connection of its own and hands that over once the server has agreed. It
// lives until Close, whatever becomes of ctx.
func (c *Client) hijack(ctx context.Context, r request) (*Hijacked, error) {
	r.upgrade = true
	var conn net.Conn
	var reader *bufio.Reader
	resp, err := c.exchange(ctx, r, func(req *http.Request) (_ *http.Response, err error) { //nolint:bodyclose // it is the connection, which is handed over or closed below
		if conn, err = c.dialer.dial(ctx); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				conn.Close()
			}
		}()
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		if err := req.Write(conn); err != nil {
			return nil, err
		}
		reader = bufio.NewReaderSize(conn, 32*1024)
		resp, err := http.ReadResponse(reader, req)
		if err != nil {
			return nil, err
		}
		if !taken(resp) {
			defer conn.Close()
			data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20)) // what came is all there is to tell
			resp.Body = io.NopCloser(bytes.NewReader(data))
		}
		return resp, nil
	})
	if err != nil {
		return nil, err
	}
	if !taken(resp) {
		return nil, fault.New(fault.Unavailable, "the server did not hand over the connection: it answered %s", resp.Status)
	}
	return &Hijacked{Conn: conn, Reader: reader, TTY: resp.Header.Get("Content-Type") == rawStream}, nil
}

// taken reports whether the connection is now the stream: 101, or 200 from servers before 1.24's Upgrade.
func taken(resp *http.Response) bool {
	return resp.StatusCode == http.StatusSwitchingProtocols || resp.StatusCode == http.StatusOK
}

// The streams of a frame's first byte.
const (
	frameStdin = iota
	frameStdout
	frameStderr
	frameError // the server's own message, which ends the stream
)

// frameHeader is the stream, three zeros, and the length of what follows, big-endian.
const frameHeader = 8

// StdCopy takes Docker's frames from src apart until its end and returns the bytes written to
// both. A stream that ends inside of a frame is an error.
func StdCopy(stdout, stderr io.Writer, src io.Reader) (int64, error) {
	var total int64
	var header [frameHeader]byte
	buf := make([]byte, 32*1024)
	for {
		if n, err := io.ReadFull(src, header[:]); err != nil {
			if err == io.EOF && n == 0 {
				return total, nil
			}
			if n == 0 { // what broke is the connection, and no frame
				return total, err
			}
			return total, fmt.Errorf("read the output's frame: %w", err)
		}
		size := int64(binary.BigEndian.Uint32(header[4:]))
		var dst io.Writer
		switch header[0] {
		case frameStdin, frameStdout:
			dst = stdout
		case frameStderr:
			dst = stderr
		case frameError:
			text, err := io.ReadAll(io.LimitReader(src, min(size, 64*1024)))
			if err != nil {
				return total, err
			}
			return total, fmt.Errorf("error from daemon in stream: %s", text)
		default:
			return total, fmt.Errorf("read the output's frame: stream %d: expected 0, 1, 2 or 3", header[0])
		}
		n, err := io.CopyBuffer(onlyWriter{dst}, io.LimitReader(src, size), buf)
		total += n
		if err != nil {
			return total, err
		}
		if n < size {
			return total, fmt.Errorf("read the output's frame: %w", io.ErrUnexpectedEOF)
		}
	}
}

// onlyWriter hides ReadFrom, which would make io.CopyBuffer allocate a buffer per frame.
type onlyWriter struct{ io.Writer }
