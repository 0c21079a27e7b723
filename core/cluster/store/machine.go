package store

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// machine is the state as Raft changes it: entry after entry, or by a snapshot. Once it has met an entry that it
// cannot read it stands still, and the store is stopped: the managers never differ.
type machine struct {
	*board
	failed func(error)
	wake   func() // the managers have changed

	mu       sync.Mutex
	bytes    int   // of the entries since the last snapshot that was asked for
	broken   error // why it stands still
	restored error // why the last snapshot was not taken
	running  bool  // the store is open: a snapshot comes from the leader
}

// Apply is raft.FSM's. It answers with nil or an error.
func (m *machine) Apply(l *raft.Log) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return m.broken
	}
	next, err := apply(*m.current(), l.Index, l.Data)
	switch {
	case errors.Is(err, errStale):
		return err
	case err != nil:
		m.stop(err)
		return err
	}
	m.bytes += len(l.Data)
	m.show(&next)
	return nil
}

// taken reports whether the entries have come to so many bytes, and begins to count anew if they have.
func (m *machine) taken(limit int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bytes < limit {
		return false
	}
	m.bytes = 0
	return true
}

// Snapshot is raft.FSM's.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return nil, m.broken
	}
	return snapshot{*m.current()}, nil
}

// Restore is raft.FSM's. The state is exchanged when all of the snapshot has been read, or not at all.
func (m *machine) Restore(r io.ReadCloser) error {
	defer r.Close()
	s, err := readSnapshot(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.restored = err; err != nil {
		if m.running {
			m.stop(err)
		}
		return err
	}
	m.show(&s)
	return nil
}

// StoreConfiguration is raft.ConfigurationStore's.
func (m *machine) StoreConfiguration(uint64, raft.Configuration) { m.wake() }

// why adds to an error of Raft's what it does not tell: why a snapshot could not be read.
func (m *machine) why(err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.restored != nil {
		return fmt.Errorf("%w: %w", err, m.restored)
	}
	return err
}

func (m *machine) stop(err error) {
	m.broken = err
	m.failed(err)
}
