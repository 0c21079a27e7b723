package container

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

// record is what a container was created as, and what update and rename made of it.
type record struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"` // without a slash
	Created time.Time `json:"created"`

	ImageID digest.Digest                     `json:"imageId"`
	Chain   digest.Digest                     `json:"chain"` // the layers below its snapshot; "" is none
	Config  wire.ContainerConfig              `json:"config"`
	Host    wire.HostConfig                   `json:"hostConfig"`
	Wanted  map[string]*wire.EndpointSettings `json:"endpoints,omitempty"` // the networks it was to join
	Mounts  []mountPoint                      `json:"mounts,omitempty"`

	// Transient: the record is in run.db and does not outlive this boot, see the package comment.
	Transient bool `json:"transient,omitempty"`
}

// phase is what a container is doing, in Docker's words.
type phase string

const (
	created    phase = "created"
	running    phase = "running"
	paused     phase = "paused"
	restarting phase = "restarting" // waits for its restart
	removing   phase = "removing"
	exited     phase = "exited"
	dead       phase = "dead" // what is left of it could not be removed
)

// runState is what a container is doing and how it ended last.
type runState struct {
	Phase      phase     `json:"phase"`
	Pid        int       `json:"pid,omitempty"`
	ExitCode   int       `json:"exitCode,omitempty"`
	Error      string    `json:"error,omitempty"` // why it could not be started
	OOMKilled  bool      `json:"oomKilled,omitempty"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	Restarts   int       `json:"restarts,omitempty"`
	// StoppedByUser: stop or kill, so that unless-stopped leaves it alone.
	StoppedByUser bool `json:"stoppedByUser,omitempty"`
	// Files says that hostname, hosts and resolv.conf were written once.
	Files bool `json:"files,omitempty"`

	Health *wire.HealthState `json:"-"` // begins anew with the daemon

	// ForCommit says that a commit has paused the container: a daemon after one that was killed resumes it.
	ForCommit bool `json:"forCommit,omitempty"`
}

// begin makes it that of a run that has begun.
func (s *runState) begin(pid int, at time.Time) {
	s.Phase, s.Pid, s.StartedAt, s.FinishedAt = running, pid, at, time.Time{}
	s.ExitCode, s.Error, s.OOMKilled, s.StoppedByUser = 0, "", false, false
	s.Health = nil
}

// live reports whether there are processes.
func (s *runState) live() bool { return s.Phase == running || s.Phase == paused }

// garbage is what a removed container left behind for the background.
type garbage struct {
	ID      string   `json:"id"`
	Volumes []string `json:"volumes,omitempty"` // anonymous ones that go with it
	Holds   []string `json:"holds,omitempty"`   // snapshots of its mounts of images
}

type row struct {
	record record
	state  runState
}

// flushDelay bounds what a power failure can take of states: half a second of them.
const flushDelay = 500 * time.Millisecond

// store keeps records and states in the two databases.
type store struct {
	durable, boot *state.DB
	log           *slog.Logger

	records, bootRecords *state.Table[record]
	states, bootStates   *state.Table[runState]
	garbage, bootGarbage *state.Table[garbage]

	flushing sync.Mutex // held for the whole of a flush, so that none is over before an earlier one
	mu       sync.Mutex
	dirty    map[string]runState // states that state.db does not have yet
	timer    *time.Timer
}

func openStore(durable, boot *state.DB, log *slog.Logger) *store {
	return &store{durable: durable, boot: boot, log: log,
		records: state.NewTable[record](durable, "containers"), bootRecords: state.NewTable[record](boot, "containers"),
		states: state.NewTable[runState](durable, "container_states"), bootStates: state.NewTable[runState](boot, "container_states"),
		garbage: state.NewTable[garbage](durable, "container_garbage"), bootGarbage: state.NewTable[garbage](boot, "container_garbage"),
		dirty: map[string]runState{}}
}

// load returns all containers. A state of this boot wins over the copy.
func (s *store) load() ([]row, error) {
	var rows []row
	for _, db := range []struct {
		records *state.Table[record]
	}{{s.records}, {s.bootRecords}} {
		list, err := db.records.List()
		if err != nil {
			return nil, fmt.Errorf("load containers: %w", err)
		}
		for _, r := range list {
			rs, err := s.bootStates.Get(r.ID)
			if fault.Is(err, fault.NotFound) {
				rs, err = s.states.Get(r.ID)
			}
			switch {
			case fault.Is(err, fault.NotFound):
				rs = runState{Phase: created}
			case err != nil:
				return nil, fmt.Errorf("load containers: %w", err)
			}
			rows = append(rows, row{r, rs})
		}
	}
	return rows, nil
}

// put writes the record. For one that is not transient this is a sync of the disk.
func (s *store) put(r record) error {
	if r.Transient {
		return s.bootRecords.Put(r.ID, r)
	}
	return s.records.Put(r.ID, r)
}

// has reports whether the database has the record.
func (s *store) has(r *record) (bool, error) {
	table := s.records
	if r.Transient {
		table = s.bootRecords
	}
	_, err := table.Get(r.ID)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// putNew writes the record of a container that is made, and ends the intent that made it, at once.
func (s *store) putNew(r record, op *state.Op) error {
	if r.Transient { // its record is not in the database of the intent, which op.End removes
		return s.put(r)
	}
	return s.durable.Update(func(tx *state.Tx) error {
		return errors.Join(s.records.In(tx).Put(r.ID, r), op.Finish(tx))
	})
}

// keep writes the state that the container has now. Of two at a time the later one writes what is newer, or the same.
func (m *Manager) keep(c *Container) {
	c.keeping.Lock()
	defer c.keeping.Unlock()
	if c.struck {
		return
	}
	rec, st := c.snapshot()
	if err := m.store.putState(&rec, st); err != nil {
		// What runs or has ended the monitor knows as well: the next daemon finds it there.
		m.log.Error("write the state of a container", "container", rec.ID, "error", err)
	}
}

// putState writes the state where a killed daemon finds it, and copies it to state.db soon. It is for keep.
func (s *store) putState(r *record, rs runState) error {
	if err := s.bootStates.Put(r.ID, rs); err != nil || r.Transient {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty[r.ID] = rs
	if s.timer == nil {
		s.timer = time.AfterFunc(flushDelay, func() {
			if err := s.flush(); err != nil {
				s.log.Error("write the states of containers", "error", err)
			}
		})
	}
	return nil
}

// flush copies the states that have changed to state.db, in one transaction.
func (s *store) flush() error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.mu.Lock()
	dirty := s.dirty
	s.dirty = map[string]runState{}
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	s.mu.Unlock()
	if len(dirty) == 0 {
		return nil
	}
	err := s.durable.Update(func(tx *state.Tx) error {
		states, records := s.states.In(tx), s.records.In(tx)
		for id, rs := range dirty {
			if !records.Has(id) {
				continue // removed meanwhile
			}
			if err := states.Put(id, rs); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.mu.Lock()
		for id, rs := range dirty {
			if _, newer := s.dirty[id]; !newer {
				s.dirty[id] = rs
			}
		}
		s.mu.Unlock()
	}
	return err
}

// remove takes the container out of the database and notes what is left to delete, at once.
func (s *store) remove(r *record, g garbage) error {
	s.mu.Lock()
	delete(s.dirty, r.ID)
	s.mu.Unlock()
	db, records, states, rubbish := s.durable, s.records, s.states, s.garbage
	if r.Transient {
		db, records, states, rubbish = s.boot, s.bootRecords, s.bootStates, s.bootGarbage
	}
	err := db.Update(func(tx *state.Tx) error {
		return errors.Join(records.In(tx).Delete(r.ID), states.In(tx).Delete(r.ID), rubbish.In(tx).Put(r.ID, g))
	})
	if err != nil || r.Transient {
		return err
	}
	return s.bootStates.Delete(r.ID)
}

// swept says that nothing is left of a removed container.
func (s *store) swept(id string) error {
	// Looked up first: an empty transaction of state.db would be a sync of the disk.
	for _, t := range []*state.Table[garbage]{s.bootGarbage, s.garbage} {
		if _, err := t.Get(id); err == nil {
			if err := t.Delete(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// rubbish returns what removed containers have left.
func (s *store) rubbish() ([]garbage, error) {
	a, err := s.garbage.List()
	if err != nil {
		return nil, err
	}
	b, err := s.bootGarbage.List()
	return append(a, b...), err
}
