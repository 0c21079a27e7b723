package store

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/sampan-project/sampan/core/crash"
)

// snapshotHead is the first line of a snapshot. One line for each object follows.
type snapshotHead struct {
	Format int    `json:"format"`
	Index  uint64 `json:"index"`
	Rows   int    `json:"rows"`
}

// snapshot writes one moment of the state for Raft.
type snapshot struct{ state state }

// Persist writes the state to a file of Raft's, which is not there before it is whole.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	crash.Point("snapshot", "before")
	err := s.write(sink)
	if err == nil {
		crash.Point("snapshot", "written")
		err = sink.Close()
	}
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	crash.Point("snapshot", "after")
	return nil
}

// Release has nothing to release: the state is immutable.
func (snapshot) Release() {}

func (s snapshot) write(w io.Writer) error {
	buffered := bufio.NewWriterSize(w, 64<<10)
	lines := json.NewEncoder(buffered)
	rows := s.state.rows()
	if err := lines.Encode(snapshotHead{format, s.state.index, len(rows)}); err != nil {
		return err
	}
	for _, r := range rows {
		object, err := json.Marshal(r.object)
		if err == nil {
			err = lines.Encode(changeRow{r.kind, r.id, object})
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", r.kind, r.id, err)
		}
	}
	return buffered.Flush()
}

// readSnapshot reads what write wrote: all of it, or it is an error.
func readSnapshot(r io.Reader) (state, error) {
	s := newState()
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), 2*MaxObject) // an object and its version
	next := func(v any, decode func([]byte, any) error) error {
		if !lines.Scan() {
			if err := lines.Err(); err != nil {
				return err
			}
			return io.ErrUnexpectedEOF
		}
		return decode(lines.Bytes(), v)
	}
	var head snapshotHead
	if err := next(&head, strict); err != nil {
		return s, fmt.Errorf("snapshot of the swarm's state: %w", err)
	}
	s.index = head.Index
	for i := range head.Rows {
		var r changeRow
		if err := next(&r, unmarshal); err != nil {
			return s, fmt.Errorf("snapshot of the swarm's state, object %d of %d: %w", i+1, head.Rows, err)
		}
		if r.Object == nil {
			return s, fmt.Errorf("snapshot of the swarm's state, object %d of %d: %s %s has no object", i+1, head.Rows, r.Kind, r.ID)
		}
		object, err := decode(r.Kind, r.ID, r.Object)
		if err != nil {
			return s, fmt.Errorf("snapshot of the swarm's state, object %d of %d: %w", i+1, head.Rows, err)
		}
		s.put(row{r.Kind, r.ID, object})
	}
	if err := next(nil, func([]byte, any) error { return nil }); !errors.Is(err, io.ErrUnexpectedEOF) {
		return s, errors.New("snapshot of the swarm's state: there is more behind its last object")
	}
	return s, nil
}
