package store

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// streams is the raft.StreamLayer that the store was given, with the address that others dial, and with a Close
// that ends every connection: Raft leaves those that it was called on to their other end.
type streams struct {
	raft.StreamLayer
	addr advertised

	mu     sync.Mutex
	open   map[*stream]bool
	closed chan struct{}
}

// advertised is the address of the store for other managers, which is not always the one that it listens on.
type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }

// stream is a connection of streams.
type stream struct {
	net.Conn
	of *streams
}

func newStreams(layer raft.StreamLayer, addr string) *streams {
	return &streams{StreamLayer: layer, addr: advertised(addr), open: map[*stream]bool{}, closed: make(chan struct{})}
}

func (s *streams) Addr() net.Addr { return s.addr }

func (s *streams) Accept() (net.Conn, error) {
	c, err := s.StreamLayer.Accept()
	if err != nil {
		return nil, err
	}
	return s.add(c)
}

// Dial does not wait for a peer that does not answer once the streams are closed.
func (s *streams) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	type answer struct {
		conn net.Conn
		err  error
	}
	dialled := make(chan answer, 1)
	go func() {
		c, err := s.StreamLayer.Dial(addr, timeout)
		if err == nil {
			c, err = s.add(c)
		}
		dialled <- answer{c, err}
	}()
	select {
	case a := <-dialled:
		return a.conn, a.err
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *streams) add(c net.Conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		c.Close()
		return nil, net.ErrClosed
	default:
	}
	added := &stream{c, s}
	s.open[added] = true
	return added, nil
}

func (s *stream) Close() error {
	s.of.mu.Lock()
	delete(s.of.open, s)
	s.of.mu.Unlock()
	return s.Conn.Close()
}

func (s *streams) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		return nil
	default:
	}
	close(s.closed)
	for c := range s.open {
		c.Conn.Close()
	}
	clear(s.open)
	return s.StreamLayer.Close()
}

// transport is Raft's transport over streams. It sees how far the others have followed, and lets this node
// campaign at once.
type transport struct {
	*raft.NetworkTransport
	in   chan raft.RPC
	stop chan struct{}
	once sync.Once

	mu      sync.Mutex
	matched map[raft.ServerID]uint64 // the last entry that a manager is known to have
	moved   chan struct{}            // closed when one of them moves
}

func newTransport(s *streams, timeout time.Duration, l *logger) *transport {
	t := &transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: s, MaxPool: 3, Timeout: timeout, Logger: l,
			MaxRPCsInFlight: 1, // every answer comes by AppendEntries
		}),
		in: make(chan raft.RPC), stop: make(chan struct{}),
		matched: map[raft.ServerID]uint64{}, moved: make(chan struct{}),
	}
	go t.pump()
	return t
}

// Consumer is where Raft gets its requests from.
func (t *transport) Consumer() <-chan raft.RPC { return t.in }

func (t *transport) pump() {
	for {
		select {
		case rpc := <-t.NetworkTransport.Consumer():
			select {
			case t.in <- rpc:
			case <-t.stop:
				return
			}
		case <-t.stop:
			return
		}
	}
}

// Close ends the transport and its streams. Raft calls it when it is shut down.
func (t *transport) Close() error {
	t.once.Do(func() { close(t.stop) })
	return t.NetworkTransport.Close()
}

// AppendEntries sends entries, or a heartbeat, which has no previous entry.
func (t *transport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, q *raft.AppendEntriesRequest, a *raft.AppendEntriesResponse) error {
	err := t.NetworkTransport.AppendEntries(id, addr, q, a)
	if err == nil && a.Success && q.PrevLogEntry+uint64(len(q.Entries)) > 0 {
		t.match(id, q.PrevLogEntry+uint64(len(q.Entries)))
	}
	return err
}

func (t *transport) match(id raft.ServerID, index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.matched[id] = index
	close(t.moved)
	t.moved = make(chan struct{})
}

// following says how far a manager has followed, and when to ask again.
func (t *transport) following(id raft.ServerID) (index uint64, moved <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.matched[id], t.moved
}

// campaign has this node try to become the leader without waiting for the silence of another.
func (t *transport) campaign(stop <-chan struct{}) error {
	answer := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}, RespChan: answer}
	select {
	case t.in <- rpc:
	case <-stop:
		return errors.New("the store is closed")
	}
	select {
	case a := <-answer:
		return a.Error
	case <-stop:
		return errors.New("the store is closed")
	}
}
