package store

import (
	"context"
	"errors"

	"github.com/hashicorp/raft"

	"github.com/sampan-project/sampan/core/fault"
)

// Update calls fn with the newest state, and returns when what it has put is agreed on, on the disks of most managers,
// and shown by Reader. Updates come one after the other: fn must not call Update. When fn returns an error nothing
// changes.
//
// On a manager that is not the leader it is ErrNotLeader, and fn is not called, or its changes are forgotten. When the
// change was on its way as the leadership, the store or ctx ended, the error is ErrUncertain. An Update that changes
// nothing may have seen the state of a leader that has just been replaced.
func (s *Store) Update(ctx context.Context, fn func(Writer) error) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return s.gone()
	}
	release := func() { <-s.turn }
	kept := true
	defer func() {
		if kept {
			release()
		}
	}()
	if err := s.newest(ctx); err != nil {
		return err
	}
	d := newDraft(*s.current(), s.now())
	if err := fn(d); err != nil {
		return err
	}
	entry, err := d.entry()
	if err != nil || entry == nil {
		return err
	}
	kept = false // nobody else's turn before it is known what becomes of the entry, even if ctx ends
	return s.judge(s.call(ctx, func() error { return s.commit(entry) }, release))
}

// commit hands an entry to Raft and waits for what becomes of it.
func (s *Store) commit(entry []byte) error {
	applied := s.raft.Apply(entry, 0)
	if err := applied.Error(); err != nil {
		return err
	}
	if err, ok := applied.Response().(error); ok {
		return err
	}
	return nil
}

// judge says what an error means for a change.
func (s *Store) judge(err error) error {
	switch {
	case err == nil:
		return nil
	case notLeader(err), errors.Is(err, errStale):
		return ErrNotLeader
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fault.New(fault.ClassOf(err), "%w: %w", err, ErrUncertain)
	case s.Err() != nil:
		return fault.New(fault.Unavailable, "%w: %w", ErrUncertain, s.Err())
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown):
		return ErrUncertain
	}
	return fault.New(fault.Unavailable, "%w: %w", ErrUncertain, err)
}

// notLeader reports whether Raft has done nothing, because this node does not lead.
func notLeader(err error) bool {
	return errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) || errors.Is(err, raft.ErrEnqueueTimeout)
}

// newest waits, once in each time of leadership, until the state has what earlier leaders changed.
func (s *Store) newest(ctx context.Context) error {
	if !s.IsLeader() {
		return s.notLeading()
	}
	term := s.raft.CurrentTerm()
	if s.ready == term {
		return nil
	}
	if err := s.Barrier(ctx); err != nil {
		return err
	}
	if s.raft.CurrentTerm() != term {
		return ErrNotLeader
	}
	s.ready = term
	return nil
}

// Barrier waits until Reader shows everything that was agreed on before. The leader alone can know: on another
// manager it is ErrNotLeader.
func (s *Store) Barrier(ctx context.Context) error {
	if !s.IsLeader() {
		return s.notLeading()
	}
	err := s.call(ctx, func() error { return s.raft.Barrier(0).Error() }, func() {})
	switch {
	case err == nil:
		return nil
	case notLeader(err), errors.Is(err, raft.ErrLeadershipLost):
		return ErrNotLeader
	case errors.Is(err, raft.ErrRaftShutdown):
		return s.gone()
	}
	return err
}

// notLeading is why this manager does not lead: most often because another does.
func (s *Store) notLeading() error {
	select {
	case <-s.closing:
		return s.gone()
	default:
		return ErrNotLeader
	}
}
