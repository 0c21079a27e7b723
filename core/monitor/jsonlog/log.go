package jsonlog

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Log takes the entries of a container's output: a Writer, or what sends them elsewhere. Its methods may
// be called in parallel.
type Log interface {
	// Begin begins a run of entries that stay together. Its End must follow soon.
	Begin() Batch
	// Close ends the log. What is added afterwards is dropped.
	Close() error
	// Dropped returns how many bytes were lost.
	Dropped() int64
}

// Batch is a run of entries. The text of an entry is valid during Add.
type Batch interface {
	Add(text []byte, s Stream, t time.Time)
	End()
}

// Tee is a log that puts every entry into several others.
type Tee []Log

// Begin begins a run in each of them.
func (t Tee) Begin() Batch {
	all := make(batches, len(t))
	for i, l := range t {
		all[i] = l.Begin()
	}
	return all
}

// Close closes them.
func (t Tee) Close() error {
	var errs []error
	for _, l := range t {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// Dropped is what they lost together.
func (t Tee) Dropped() (n int64) {
	for _, l := range t {
		n += l.Dropped()
	}
	return n
}

type batches []Batch

func (b batches) Add(text []byte, s Stream, at time.Time) {
	for _, one := range b {
		one.Add(text, s, at)
	}
}

func (b batches) End() {
	for _, one := range b {
		one.End()
	}
}

// Ring is a log in front of another that never makes the container wait: entries queue up to a number
// of bytes, and what comes when the queue is full is lost (Docker's mode=non-blocking).
type Ring struct {
	to  Log
	max int64

	mu      sync.Mutex
	more    sync.Cond
	queue   []queued
	size    int64
	closed  bool
	drained chan struct{}
	lost    atomic.Int64
}

type queued struct {
	text   []byte
	stream Stream
	time   time.Time
}

// NewRing returns a ring of so many bytes in front of the log, which it closes.
func NewRing(to Log, max int64) *Ring {
	r := &Ring{to: to, max: max, drained: make(chan struct{})}
	r.more.L = &r.mu
	go r.drain()
	return r
}

// Begin locks the queue for a run of entries.
func (r *Ring) Begin() Batch {
	r.mu.Lock()
	return (*ringBatch)(r)
}

type ringBatch Ring

// Add queues an entry. As with Docker one that is larger than the queue is taken when that is empty.
func (b *ringBatch) Add(text []byte, s Stream, t time.Time) {
	if n := int64(len(text)); b.closed || b.size+n > b.max && len(b.queue) > 0 {
		b.lost.Add(n)
		return
	}
	b.queue = append(b.queue, queued{append([]byte(nil), text...), s, t})
	b.size += int64(len(text))
}

// End wakes who writes.
func (b *ringBatch) End() {
	b.mu.Unlock()
	b.more.Signal()
}

func (r *Ring) drain() {
	defer close(r.drained)
	for {
		r.mu.Lock()
		for len(r.queue) == 0 && !r.closed {
			r.more.Wait()
		}
		queue, closed := r.queue, r.closed
		r.queue, r.size = nil, 0
		r.mu.Unlock()
		if len(queue) > 0 {
			b := r.to.Begin()
			for _, e := range queue {
				b.Add(e.text, e.stream, e.time)
			}
			b.End()
		}
		if closed && len(queue) == 0 {
			return
		}
	}
}

// Close waits until what is queued was written.
func (r *Ring) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.more.Signal()
	<-r.drained
	return r.to.Close()
}

// Dropped counts what the queue had no room for, and what the log behind it lost.
func (r *Ring) Dropped() int64 { return r.lost.Load() + r.to.Dropped() }
