// Package journal sends the entries of a container's log to the host's logger: to syslog (RFC 3164 and
// 5424, over /dev/log or to another host) and to systemd's journal (its native protocol).
//
// Both are a message to a socket, so they need no process of their own: the monitor, which has the
// output, sends them. TLS alone is another program's (forward.go). A logger that is away loses what is written meanwhile, it never ends a container.
package journal

import (
	"net"
	"strings"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor/jsonlog"
)

const (
	// patience bounds how long a logger that does not read holds up the container.
	patience = 5 * time.Second
	// pause is how long nothing is sent after a connection could not be made.
	pause = time.Second
)

// remote is a log that sends messages: the connection, and how an entry becomes a message.
type remote struct {
	network, address string
	tls              TLS // with secure
	encode           func(b, text []byte, s jsonlog.Stream, t time.Time) []byte
	stream           bool // messages are lines; otherwise datagrams

	mu      sync.Mutex
	conn    net.Conn
	retry   time.Time
	closed  bool
	b       []byte
	dropped int64
}

// connect makes the connection for the first time: a container whose logger is not there must not start.
func (r *remote) connect() (jsonlog.Log, error) {
	var err error
	if r.conn, err = r.dial(); err != nil {
		return nil, fault.New(fault.Unavailable, "log: connect to %s %s: %w", r.network, r.address, err)
	}
	return r, nil
}

// secure is Docker's name for TLS over TCP.
const secure = "tcp+tls"

func (r *remote) dial() (net.Conn, error) {
	if r.network == secure {
		return r.tls.dial(r.address)
	}
	return net.DialTimeout(r.network, r.address, patience)
}

// Begin locks the connection for a run of entries.
func (r *remote) Begin() jsonlog.Batch {
	r.mu.Lock()
	return (*batch)(r)
}

type batch remote

// Add sends an entry. One that cannot be sent is lost, after one new connection.
func (b *batch) Add(text []byte, s jsonlog.Stream, t time.Time) {
	if b.closed || len(text) == 0 {
		return
	}
	b.b = b.encode(b.b[:0], text, s, t)
	for range 2 {
		if b.send() {
			return
		}
	}
	b.dropped += int64(len(text))
}

func (b *batch) send() bool {
	if b.conn == nil {
		if time.Now().Before(b.retry) {
			return false
		}
		conn, err := (*remote)(b).dial()
		if err != nil {
			b.retry = time.Now().Add(pause)
			return false
		}
		b.conn = conn
	}
	b.conn.SetWriteDeadline(time.Now().Add(patience)) //nolint:errcheck // the write tells
	if _, err := b.conn.Write(b.b); err != nil {
		b.conn.Close()
		b.conn = nil
		return false
	}
	return true
}

func (b *batch) End() { b.mu.Unlock() }

// Close closes the connection.
func (r *remote) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.conn == nil {
		return nil
	}
	err := r.conn.Close()
	r.conn = nil
	return err
}

// Dropped returns how many bytes could not be sent.
func (r *remote) Dropped() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped
}

// The priorities of the two streams, by syslog(3): Docker's, info and error.
func priority(s jsonlog.Stream) int {
	if s == jsonlog.Stderr {
		return 3
	}
	return 6
}

// ParseAddress reads Docker's syslog-address, "" is the host's own logger.
func ParseAddress(text string) (network, address string, err error) {
	if text == "" {
		return "unixgram", "/dev/log", nil
	}
	wrong := &fault.Field{Field: "log opt syslog-address", Given: text, Expected: "udp://HOST[:PORT], tcp://HOST[:PORT], tcp+tls://HOST[:PORT], unix://PATH or unixgram://PATH"}
	network, address, ok := strings.Cut(text, "://")
	switch {
	case !ok || address == "":
		return "", "", wrong
	case network == "unix", network == "unixgram":
		if !strings.HasPrefix(address, "/") {
			return "", "", wrong
		}
		return network, address, nil
	case network != "udp" && network != "tcp" && network != secure:
		return "", "", wrong
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(strings.Trim(address, "[]"), "514")
		if _, _, err := net.SplitHostPort(address); err != nil {
			return "", "", wrong
		}
	}
	return network, address, nil
}
