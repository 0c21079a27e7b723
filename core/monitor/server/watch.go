package server

import (
	"context"
	"sync"

	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/monitor/protocol"
)

// watch is a client's wish to be told of every end. What it has not been sent is queued: a client
// that does not read must not hold up the announcement of an end to others.
type watch struct {
	mu     sync.Mutex
	events []monitor.Event
	wake   chan struct{} // of one element
}

func (w *watch) put(e monitor.Event) {
	w.mu.Lock()
	w.events = append(w.events, e)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watch) take() []monitor.Event {
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
			result, err := protocol.Encode(e)
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
			w.put(monitor.Event{ID: c.id, ExecID: e.id, Started: true, Exit: e.exit})
		}
	}
	if c.ended() {
		w.put(monitor.Event{ID: c.id, Started: !c.started.IsZero(), Exit: c.init.exit})
	}
}
