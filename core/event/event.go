// Package event is the log of what happened: containers started, images pulled, networks removed.
//
// Nouns publish; `GET /events` subscribes. The log remembers the last events so that a client may
// ask for what was since a moment; it is memory only, as the API promises nothing more. A subscriber
// never holds up a publisher: one that does not read is cut off when its queue is full.
package event

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/wire"
)

const (
	// history is how many events are remembered: dockerd's number, which clients know.
	history = 256
	// queue bounds what waits for a slow subscriber beyond the history replayed to it.
	queue = 1024
)

// The kinds of things that events are about.
const (
	Container = "container"
	Image     = "image"
	Network   = "network"
	Volume    = "volume"
	Daemon    = "daemon"
	Builder   = "builder"
	Plugin    = "plugin"
	Node      = "node"    // of a swarm
	Service   = "service" // of a swarm
)

// Log keeps the last events and hands new ones to subscribers. Its methods may be called in parallel.
type Log struct {
	mu   sync.Mutex
	past []wire.Event // oldest first, at most history
	subs map[*subscriber]struct{}
	now  func() time.Time
}

// subscriber is one Subscribe.
type subscriber struct {
	out    chan wire.Event
	accept func(wire.Event) bool
}

// NewLog returns an empty log.
func NewLog() *Log {
	return &Log{subs: map[*subscriber]struct{}{}, now: time.Now}
}

// Emit publishes what happened to a thing now. Attributes are kept: the caller must not change them
// afterwards. This is what the nouns call.
func (l *Log) Emit(kind, action, id string, attributes map[string]string) {
	e := wire.Event{Type: kind, Action: action, Actor: wire.EventActor{ID: id, Attributes: attributes}}
	if e.Actor.Attributes == nil {
		e.Actor.Attributes = map[string]string{}
	}
	l.Publish(e)
}

// Publish adds the event to the log. A zero time is now; the deprecated twins of the fields, which
// clients of API 1.21 and older read, are filled in as dockerd does for containers and images.
func (l *Log) Publish(e wire.Event) {
	if e.Scope == "" {
		e.Scope = "local"
	}
	if e.Type == Container || e.Type == Image {
		e.Status, e.ID = e.Action, e.Actor.ID
		if e.Type == Container {
			e.From = e.Actor.Attributes["image"]
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// Stamped under the lock, so that the order in the log is the order of the times.
	if e.TimeNano == 0 {
		e.TimeNano = l.now().UnixNano()
	}
	e.Time = e.TimeNano / int64(time.Second)
	if len(l.past) == history {
		l.past = append(l.past[:0:0], l.past[1:]...)
	}
	l.past = append(l.past, e)
	for s := range l.subs {
		if !s.accept(e) {
			continue
		}
		select {
		case s.out <- e:
		default:
			// It has not read a thousand events. Cutting it off is honest: a gap would not be seen.
			delete(l.subs, s)
			close(s.out)
		}
	}
}

// Subscribers returns how many subscriptions are open.
func (l *Log) Subscribers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.subs)
}

// Subscribe returns the remembered events since then, when since is given, and all that follow. The
// channel is closed at until, when it is given, or when ctx ends. An until in the past gives the
// remembered events alone. A filter that is not known is fault.Invalid.
func (l *Log) Subscribe(ctx context.Context, since, until time.Time, filters map[string][]string) (<-chan wire.Event, error) {
	match, err := newFilter(filters)
	if err != nil {
		return nil, err
	}
	accept := func(e wire.Event) bool {
		if !until.IsZero() && e.TimeNano > until.UnixNano() {
			return false
		}
		return match(e)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var past []wire.Event
	// until alone asks for the past as well, as with dockerd.
	if !since.IsZero() || !until.IsZero() {
		past = slices.DeleteFunc(slices.Clone(l.past), func(e wire.Event) bool {
			return !since.IsZero() && e.TimeNano < since.UnixNano() || !accept(e)
		})
	}
	s := &subscriber{out: make(chan wire.Event, queue+len(past)), accept: accept}
	for _, e := range past {
		s.out <- e
	}
	if !until.IsZero() && !until.After(l.now()) {
		close(s.out)
		return s.out, nil
	}
	l.subs[s] = struct{}{}
	go l.endAt(ctx, s, until)
	return s.out, nil
}

// endAt ends the subscription with ctx or at until.
func (l *Log) endAt(ctx context.Context, s *subscriber, until time.Time) {
	var at <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(until.Sub(l.now()))
		defer timer.Stop()
		at = timer.C
	}
	select {
	case <-ctx.Done():
	case <-at:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, open := l.subs[s]; open {
		delete(l.subs, s)
		close(s.out)
	}
}
