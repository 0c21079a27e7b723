package mesh

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sampan-project/sampan/core/cluster/session"
)

// How long a port is waited for that somebody else has, and a listener rests after an error.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// port is a published port of this node.
type port struct {
	m      *Mesh
	number uint16
	route  atomic.Pointer[session.Route]
	turn   atomic.Uint64 // whose it is

	ctx      context.Context
	cancel   context.CancelFunc
	mu       sync.Mutex
	listener net.Listener
}

func newPort(m *Mesh, number uint16, r *session.Route) *port {
	p := &port{m: m, number: number}
	p.route.Store(r)
	p.ctx, p.cancel = context.WithCancel(m.ctx)
	return p
}

// close gives the port back. Its connections go on.
func (p *port) close() {
	p.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
	}
}

// run listens, again and again where that fails: the port may be another program's, and the service runs all the same.
func (p *port) run() {
	failed := false
	for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
		l, err := p.m.o.Listen(p.number)
		switch {
		case err == nil:
			if failed {
				p.m.log.Info("a published port is there now", "port", p.number)
			}
			failed, retry = false, firstRetry
			p.accept(l)
		case !failed:
			failed = true
			p.m.log.Error("a published port cannot be had on this node, it is tried again", "port", p.number, "service", p.route.Load().Service, "error", err)
		}
		if !p.rest(retry) {
			return
		}
	}
}

// rest waits; it reports whether the port is still wanted.
func (p *port) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.ctx.Done():
		return false
	}
}

// accept takes connections until the listener is closed.
func (p *port) accept(l net.Listener) {
	p.mu.Lock()
	p.listener = l
	p.mu.Unlock()
	defer func() { _ = l.Close() }()
	for retry := firstRetry; p.ctx.Err() == nil; {
		conn, err := l.Accept()
		if err != nil {
			if p.ctx.Err() != nil {
				return
			}
			p.m.log.Warn("accept on a published port", "port", p.number, "error", err)
			if retry *= 2; retry > lastRetry || !p.rest(retry) {
				return // and a new listener
			}
			continue
		}
		retry = firstRetry
		// When all places are taken connections wait in the kernel.
		select {
		case p.m.out <- struct{}{}:
		case <-p.ctx.Done():
			_ = conn.Close()
			return
		}
		p.m.work.Go(func() {
			defer func() { <-p.m.out }()
			p.m.carry(p, conn)
		})
	}
}
