package server

import (
	"context"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/monitor/protocol"
)

// toldWait is how long the file of an exit waits for a client that watches and does not read.
const toldWait = 10 * time.Millisecond

// watch is a client's wish to be told of every end. What it has not been sent is queued: a client
// that does not read must not hold up the announcement of an end to others.
type watch struct {
	mu     sync.Mutex
	events []toldEvent
	wake   chan struct{} // of one element
}

// toldEvent is an event, and where to say that it is sent; nil: nobody asks.
type toldEvent struct {
	monitor.Event
	sent chan<- struct{}
}

func (w *watch) put(e monitor.Event, sent chan<- struct{}) {
	w.mu.Lock()
	w.events = append(w.events, toldEvent{e, sent})
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watch) take() []toldEvent {
	w.mu.Lock()
	defer w.mu.Unlock()
	events := w.events
	w.events = nil
	return events
}

// watch sends the ends of all containers that are known, and then each end as it comes.
func (c *session) watch(ctx context.Context, id uint32) error {
	w := &watch{wake: make(chan struct{}, 1)}
	s := c.s
	s.mu.Lock()
	for _, k := range s.containers {
		if k != nil {
			k.replay(w)
		}
	}
	s.watches[w] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watches, w)
		s.mu.Unlock()
	}()
	for {
		for _, e := range w.take() {
			result, err := protocol.Encode(e.Event)
			if err != nil {
				return err
			}
			body, err := protocol.Encode(protocol.Response{Result: result})
			if err != nil {
				return err
			}
			if err := c.conn.Send(id, body, nil); err != nil {
				return err
			}
			if e.sent != nil {
				e.sent <- struct{}{}
			}
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// replay gives a watch the ends that were announced before it began.
func (c *container) replay(w *watch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.execs {
		if isClosed(e.exited) {
			w.put(monitor.Event{ID: c.id, ExecID: e.id, Started: true, Exit: e.exit}, nil)
		}
	}
	if c.ended() {
		w.put(monitor.Event{ID: c.id, Started: !c.started.IsZero(), Exit: c.init.exit}, nil)
	}
}

// heard reports whether somebody is told of the ends of containers.
func (s *Server) heard() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.watches) > 0
}

// announce makes an end known: to those who wait, and to every watch. A watch that is just beginning
// either finds the end among those that were, or is told it here. What is returned has as much room as there are
// watches, and each of them puts one thing there when it has sent the end.
func (s *Server) announce(exited chan struct{}, e monitor.Event) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(exited)
	sent := make(chan struct{}, len(s.watches))
	for w := range s.watches {
		w.put(e, sent)
	}
	return sent
}

// sent waits until an end that was announced is sent to every watch, but not for long: one may not read, or be gone.
func (s *Server) sent(sent <-chan struct{}) {
	timer := time.NewTimer(s.told)
	defer timer.Stop()
	for range cap(sent) {
		select {
		case <-sent:
		case <-timer.C:
			return
		}
	}
}
