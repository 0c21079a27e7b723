package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// board is the state that readers see, and how they learn of the next one.
type board struct {
	mu      sync.Mutex
	state   *state
	changed chan struct{}
}

func newBoard(s state) *board { return &board{state: &s, changed: make(chan struct{})} }

// Reader answers with the state as it is now.
func (b *board) Reader() Reader { return b.current() }

// View calls fn with the state as it is now.
func (b *board) View(fn func(Reader)) { fn(b.current()) }

// Changed is closed at the next change. Who waits for a change takes the channel first, then looks, then waits.
func (b *board) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

func (b *board) current() *state {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

// show exchanges the state, or without one only wakes who waits.
func (b *board) show(s *state) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s != nil {
		b.state = s
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// Memory is the tables of a Store alone: one leader, no other managers, no disk. It is for tests, and panics
// when an object was changed in place, which the managers of a swarm would not notice.
type Memory struct {
	*board
	now  func() time.Time
	turn sync.Mutex
	seen map[key][]byte // each object as it was put
}

// NewMemory returns empty tables. now is asked for the time of each Update.
func NewMemory(now func() time.Time) *Memory {
	return &Memory{board: newBoard(newState()), now: now, seen: map[key][]byte{}}
}

// IsLeader is true.
func (m *Memory) IsLeader() bool { return true }

// Barrier does nothing: the state is always the newest.
func (m *Memory) Barrier(ctx context.Context) error { return ctx.Err() }

// Update is Store.Update.
func (m *Memory) Update(ctx context.Context, fn func(Writer) error) error {
	m.turn.Lock()
	defer m.turn.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	base := *m.current()
	d := newDraft(base, m.now())
	if err := fn(d); err != nil {
		return err
	}
	entry, err := d.entry()
	m.check(base)
	if err != nil || entry == nil {
		return err
	}
	next, err := apply(base, base.index+1, entry)
	if err != nil {
		return err
	}
	clear(m.seen)
	for _, r := range next.rows() {
		m.seen[key{r.kind, r.id}], _ = json.Marshal(r.object)
	}
	m.show(&next)
	return nil
}

// check panics when an object of s is not as it was put.
func (m *Memory) check(s state) {
	for _, r := range s.rows() {
		if is, err := json.Marshal(r.object); err != nil || !bytes.Equal(is, m.seen[key{r.kind, r.id}]) {
			panic(fmt.Sprintf("%s %s was changed in place: put a copy\nwas %s\nis  %s", r.kind, r.id, m.seen[key{r.kind, r.id}], is))
		}
	}
}
