package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// A published port is translated by the kernel, and its socket only reserves it. The kernel has no way
// from IPv6 to a container that has only IPv4, nor from ::1 to any container: what goes there reaches
// the socket itself, and the forwarder carries it to the container.
//
// The client's address is lost on the way: the container sees the host's.
type forwarder struct {
	target atomic.Pointer[netip.AddrPort] // zero: nobody, whoever comes is refused

	mu     sync.Mutex
	open   map[io.Closer]bool // what close closes; nil after it
	socket io.Closer          // the one that clients reach
}

const (
	// maxForwarded bounds the connections, or the clients of a UDP port, that one forwarder serves at a
	// time; further connections wait, further datagrams are lost.
	maxForwarded = 1024
	dialTimeout  = 10 * time.Second
	// datagramIdle is how long an answer to a datagram is waited for.
	datagramIdle = 90 * time.Second
	maxDatagram  = 65535
)

// newForwarder begins to serve a socket that was held. The socket stays the caller's.
func newForwarder(held *os.File, target netip.AddrPort) (*forwarder, error) {
	raw, err := held.SyscallConn()
	if err != nil {
		return nil, err
	}
	var kind int
	controlled := raw.Control(func(fd uintptr) {
		if kind, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
			return
		}
		// With the filter that it was reserved with (core/network/port) it drops everything.
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return
		}
		if kind == unix.SOCK_STREAM {
			err = unix.Listen(int(fd), maxForwarded)
			return
		}
		// So that the answer has the address that the question went to.
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	})
	if err := errors.Join(controlled, err); err != nil {
		return nil, fault.New(fault.Invalid, "forward %s to %s: %w", held.Name(), target, err)
	}
	f := &forwarder{open: map[io.Closer]bool{}}
	f.target.Store(&target)
	if kind == unix.SOCK_STREAM {
		l, err := net.FileListener(held)
		if err != nil {
			return nil, fault.New(fault.Invalid, "forward to %s: %w", target, err)
		}
		f.socket = l
		go f.accept(l)
		return f, nil
	}
	c, err := net.FilePacketConn(held)
	if err != nil {
		return nil, fault.New(fault.Invalid, "forward to %s: %w", target, err)
	}
	u, ok := c.(*net.UDPConn)
	if !ok {
		c.Close() //nolint:errcheck // it is of no use
		return nil, fault.New(fault.Invalid, "forward to %s: the socket is neither of TCP nor of UDP", target)
	}
	f.socket = u
	go f.receive(u)
	return f, nil
}

// aim sends further clients elsewhere. Those of UDP are so at once; connections go on as they are.
func (f *forwarder) aim(target netip.AddrPort) {
	if old := f.target.Swap(&target); *old == target {
		return
	}
	if _, datagrams := f.socket.(*net.UDPConn); datagrams {
		f.mu.Lock()
		defer f.mu.Unlock()
		for c := range f.open {
			c.Close() //nolint:errcheck // its reader ends
		}
	}
}

// close ends everything.
func (f *forwarder) close() {
	f.socket.Close() //nolint:errcheck // its reader ends
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.open {
		c.Close() //nolint:errcheck // as above
	}
	f.open = nil
}

// keep notes what is to be closed at the end; false: the end is there.
func (f *forwarder) keep(c io.Closer) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		c.Close() //nolint:errcheck // nobody uses it
		return false
	}
	f.open[c] = true
	return true
}

func (f *forwarder) drop(c io.Closer) {
	c.Close() //nolint:errcheck // what was to be sent was sent
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, c)
}

func (f *forwarder) accept(l net.Listener) {
	slots := make(chan struct{}, maxForwarded)
	for {
		slots <- struct{}{}
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptor or memory just now: accept(2)
			<-slots
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go func() {
			defer func() { <-slots }()
			f.carry(c.(*net.TCPConn))
		}()
	}
}

// carry connects a client with the container until both have said all.
func (f *forwarder) carry(client *net.TCPConn) {
	if !f.keep(client) {
		return
	}
	defer f.drop(client)
	target := *f.target.Load()
	if !target.IsValid() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", target.String())
	if err != nil {
		_ = client.SetLinger(0) // the client sees a reset, which is the nearest to a refusal
		return
	}
	server := c.(*net.TCPConn)
	if !f.keep(server) {
		return
	}
	defer f.drop(server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		relay(server, client)
	}()
	relay(client, server)
	<-done
}

// relay copies until the end, which it passes on, or an error, which ends both directions.
func relay(to, from *net.TCPConn) {
	_, err := io.Copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		to.Close()   //nolint:errcheck // the other direction ends
		from.Close() //nolint:errcheck // as above
	}
}

// answering is the way back to one client of a UDP port.
type answering struct {
	*net.UDPConn        // to the container
	source       []byte // control data: from which address the client is answered
}

func (f *forwarder) receive(u *net.UDPConn) {
	var mu sync.Mutex
	clients := map[netip.AddrPort]*answering{}
	packet, control := make([]byte, maxDatagram), make([]byte, 256)
	for {
		n, m, _, client, err := u.ReadMsgUDPAddrPort(packet, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // an ICMP message about an answer
			continue
		}
		mu.Lock()
		a := clients[client]
		full := len(clients) >= maxForwarded
		mu.Unlock()
		if a == nil {
			target := *f.target.Load()
			if full || !target.IsValid() {
				continue
			}
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(target))
			if err != nil || !f.keep(c) {
				continue
			}
			a = &answering{c, append([]byte(nil), control[:m]...)}
			mu.Lock()
			clients[client] = a
			mu.Unlock()
			go func() {
				f.answer(u, a, client)
				mu.Lock()
				delete(clients, client)
				mu.Unlock()
				f.drop(c)
			}()
		}
		_ = a.SetReadDeadline(time.Now().Add(datagramIdle))
		_, _ = a.Write(packet[:n]) // a datagram may be lost
	}
}

// answer returns when the container has said nothing for a while.
func (f *forwarder) answer(u *net.UDPConn, a *answering, client netip.AddrPort) {
	packet := make([]byte, maxDatagram)
	for {
		n, err := a.Read(packet)
		switch {
		case errors.Is(err, unix.ECONNREFUSED): // nobody listens in the container yet
			continue
		case err != nil:
			return
		}
		_ = a.SetReadDeadline(time.Now().Add(datagramIdle))
		if _, _, err := u.WriteMsgUDPAddrPort(packet[:n], a.source, client); errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// forwardAll serves those of the held sockets that have a target.
func forwardAll(hold []*os.File, targets []netip.AddrPort) (list []*forwarder, err error) {
	if len(targets) == 0 {
		return nil, nil
	}
	list = make([]*forwarder, len(hold))
	for i, t := range targets {
		if i >= len(hold) {
			break
		}
		if !t.IsValid() {
			continue
		}
		if list[i], err = newForwarder(hold[i], t); err != nil {
			closeForwarders(list)
			return nil, err
		}
	}
	return list, nil
}

func closeForwarders(list []*forwarder) {
	for _, f := range list {
		if f != nil {
			f.close()
		}
	}
}

// forward gives the container's forwarders other targets.
func (c *container) forward(targets []netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, f := range c.forwarders {
		if f == nil {
			continue
		}
		var t netip.AddrPort
		if i < len(targets) {
			t = targets[i]
		}
		f.aim(t)
	}
}
