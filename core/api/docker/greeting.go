package docker

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// greetingWait bounds how long the first output is held back for a client that does not read.
const greetingWait = time.Second

// greeted returns when the client has read the header of the answer, so that output comes to it as
// a second piece. Docker's Python client reads the header through a buffer and goes on without it: what arrived
// together with the header is lost to it (docker-py, APIClient._get_raw_response_socket takes the raw
// socket from below the response). Docker's own daemon is too slow for anybody to notice.
//
// Only a unix socket tells what its reader has not read (SIOCOUTQ, net/unix/af_unix.c, unix_outq_len); TCP
// tells what was not acknowledged.
func (c *conversation) greeted() {
	conn, ok := c.conn.(*net.UnixConn)
	if !ok {
		return
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	pause := 50 * time.Microsecond
	for waited := time.Duration(0); waited < greetingWait && unread(raw) > 0; waited += pause {
		time.Sleep(pause)
		pause = min(2*pause, 2*time.Millisecond)
	}
}

// unread is how many bytes, by the kernel's account, the reader of a unix socket has still to read.
func unread(raw syscall.RawConn) (n int) {
	_ = raw.Control(func(fd uintptr) {
		n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) //nolint:errcheck // 0: nothing to wait for
	})
	return n
}
