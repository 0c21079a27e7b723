package api

import (
	"net"
	"sync"
)

// maxConnections is how many connections a TCP listener has at once. Whoever comes by TCP has not proven
// who he is before the handshake, and must not use up the descriptors that the unix socket needs.
const maxConnections = 1024

// limit returns the listener with at most n connections at once: the others wait in the kernel's queue.
func limit(l net.Listener, n int) net.Listener {
	return &limited{Listener: l, places: make(chan struct{}, n), closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	places chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	leave := sync.OnceFunc(func() { <-l.places })
	if tcp, ok := conn.(*net.TCPConn); ok {
		return &counted{TCPConn: tcp, leave: leave}, nil
	}
	leave() // what has no ports is not counted
	return conn, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// counted is a connection with a place. It is a TCPConn in all else: attach ends one of its halves.
type counted struct {
	*net.TCPConn
	leave func()
}

func (c *counted) Close() error {
	defer c.leave()
	return c.TCPConn.Close()
}
