package docker

import (
	"crypto/tls"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// greetingWait bounds how long the first output is held back for a client that does not read.
const greetingWait = time.Second

// greeted returns when the client has read the header of the answer, so that output comes to it as
// a second piece. Docker's Python client reads the header through a buffer and goes on without it: what arrived
// together with the header is lost to it (docker-py, APIClient._get_raw_response_socket takes the raw
// socket from below the response). Docker's own daemon is too slow for anybody to notice.
//
// A unix socket tells what its reader has not read (SIOCOUTQ, net/unix/af_unix.c, unix_outq_len). TCP tells only
// what was not acknowledged; but without TLS the reader is on this host, and sock_diag(7) tells what its socket
// holds. With TLS the header is a record of its own, and no read gives more than one.
func (c *conversation) greeted() {
	unread := c.unread()
	if unread == nil {
		return
	}
	pause := 50 * time.Microsecond
	for waited := time.Duration(0); waited < greetingWait && unread() > 0; waited += pause {
		time.Sleep(pause)
		pause = min(2*pause, 2*time.Millisecond)
	}
}

// unread returns what counts the bytes that the client has still to read, by the kernel's account; nil where
// nothing can, or need. A count that cannot be had is 0: there is nothing to wait for.
func (c *conversation) unread() func() int {
	if conn, ok := c.conn.(*net.UnixConn); ok {
		raw, err := conn.SyscallConn()
		if err != nil {
			return nil
		}
		return func() (n int) {
			_ = raw.Control(func(fd uintptr) {
				n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) //nolint:errcheck // see above
			})
			return n
		}
	}
	here, ok := c.conn.LocalAddr().(*net.TCPAddr)
	if _, sealed := c.conn.(*tls.Conn); !ok || sealed || !here.IP.IsLoopback() {
		return nil
	}
	return func() int {
		// The client's socket has our addresses the other way round.
		s, err := netlink.SocketGet(c.conn.RemoteAddr(), here)
		if err != nil {
			return 0
		}
		return int(s.RQueue)
	}
}
