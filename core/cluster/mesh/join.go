package mesh

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// pair is a connection that is carried: its two ends.
type pair struct {
	a, b  net.Conn
	half  atomic.Bool // one of them sends nothing more
	ended sync.Once
}

// abort ends both ends at once.
func (p *pair) abort() {
	p.ended.Do(func() {
		reset(p.a)
		reset(p.b)
	})
}

// join carries bytes between the two until both have ended, or one has broken. Between sockets of TCP the kernel
// moves them (splice(2)), and what one end does not take is not read from the other.
func (m *Mesh) join(a, b net.Conn) {
	p := &pair{a: a, b: b}
	m.mu.Lock()
	m.pairs[p] = struct{}{}
	closed := m.ctx.Err() != nil
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.pairs, p)
		m.mu.Unlock()
	}()
	if closed {
		p.abort()
		return
	}
	var there sync.WaitGroup
	there.Go(func() { p.copy(a, b) })
	p.copy(b, a)
	there.Wait()
	p.ended.Do(func() {
		_ = a.Close()
		_ = b.Close()
	})
}

// copy carries one direction, and hands its end on.
func (p *pair) copy(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		p.abort()
		return
	}
	p.half.Store(true)
	half, can := to.(interface{ CloseWrite() error })
	if !can {
		p.abort()
		return
	}
	if err := half.CloseWrite(); err != nil {
		p.abort()
	}
}

// sweep ends the connections over which nothing comes.
func (m *Mesh) sweep() {
	ticker := time.NewTicker(min(m.o.Idle/8, time.Minute))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-m.ctx.Done():
			return
		}
		m.mu.Lock()
		for task, until := range m.shy {
			if time.Now().After(until) {
				delete(m.shy, task)
			}
		}
		for p := range m.pairs {
			limit := m.o.Idle
			if p.half.Load() {
				limit /= 4
			}
			if p.idle() > limit {
				p.abort()
			}
		}
		m.mu.Unlock()
	}
}

// idle is for how long nothing has come or gone, as the kernel knows of it (tcp(7), TCP_INFO): nothing is
// counted while bytes are moved.
func (p *pair) idle() (d time.Duration) {
	for _, conn := range []net.Conn{p.a, p.b} {
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			continue // the other one is, and sees the same bytes
		}
		raw, err := tcp.SyscallConn()
		if err != nil {
			continue
		}
		// An error is that of a connection which has ended.
		_ = raw.Control(func(fd uintptr) {
			if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				d = time.Duration(min(info.Last_data_sent, info.Last_data_recv)) * time.Millisecond
			}
		})
		return d
	}
	return 0
}
