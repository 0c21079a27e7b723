package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// format is the version of log entries and snapshots that this package writes, and the only one that it reads.
// A manager that skipped what it does not know would be another than the rest without anybody seeing it.
const format = 1

// maxID bounds IDs. Those of a swarm have 25 characters.
const maxID = 128

// errStale is the outcome of an entry that was made from another state than the one it found: its leader had lost
// the leadership without knowing. It changes nothing, on any manager.
var errStale = errors.New("the state has changed in the meantime")

// change is a log entry: JSON.
type change struct {
	Format int         `json:"format"`
	Base   uint64      `json:"base"` // Index of the state that it was made from
	Time   time.Time   `json:"time"` // the leader's
	Rows   []changeRow `json:"rows"`
}

// changeRow is an object as it shall be, or without one the end of an object.
type changeRow struct {
	Kind   string          `json:"kind"`
	ID     string          `json:"id"`
	Object json.RawMessage `json:"object,omitempty"`
}

type key struct{ kind, id string }

// draft is a change that is being made. It shows the state as if the change had come to be: it is a Writer.
type draft struct {
	state
	base state
	now  time.Time
	rows map[key]json.RawMessage // nil for an object that is removed
	size int
	err  error
}

func newDraft(base state, now time.Time) *draft {
	return &draft{state: base, base: base, now: now.UTC().Round(0), rows: map[key]json.RawMessage{}}
}

func (d *draft) PutCluster(o *Cluster) {
	if o == nil {
		d.fail(kindCluster, "", "an object")
		return
	}
	c := *o
	d.keep(row{kindCluster, o.ID, &c})
}

func (d *draft) PutNode(o *wire.Node) {
	if o == nil {
		d.fail(kindNode, "", "an object")
		return
	}
	c := *o
	d.keep(row{kindNode, o.ID, &c})
}

func (d *draft) PutService(o *wire.Service) {
	if o == nil {
		d.fail(kindService, "", "an object")
		return
	}
	c := *o
	d.keep(row{kindService, o.ID, &c})
}

func (d *draft) PutTask(o *wire.Task) {
	if o == nil {
		d.fail(kindTask, "", "an object")
		return
	}
	for _, owner := range []string{o.ServiceID, o.NodeID} {
		if !name(owner) {
			d.fail(kindTask, owner, "IDs of its service and node in UTF-8 without a NUL")
			return
		}
	}
	c := *o
	d.keep(row{kindTask, o.ID, &c})
}

func (d *draft) PutAuth(serviceID, auth string) {
	if auth == "" {
		d.drop(kindAuth, serviceID)
		return
	}
	d.keep(row{kindAuth, serviceID, &auth})
}

func (d *draft) DeleteNode(id string) { d.drop(kindNode, id) }
func (d *draft) DeleteTask(id string) { d.drop(kindTask, id) }

func (d *draft) DeleteService(id string) {
	d.drop(kindService, id)
	d.drop(kindAuth, id)
}

func (d *draft) Full() bool { return d.size >= MaxChange/2 }

// keep puts r into the change. The object of r is the draft's own copy.
func (d *draft) keep(r row) {
	if r.id == "" || len(r.id) > maxID || !name(r.id) {
		d.fail(r.kind+".ID", r.id, fmt.Sprintf("1 to %d bytes of UTF-8 without a NUL", maxID))
		return
	}
	old := d.base.find(r.kind, r.id)
	if m := meta(r.object); m != nil {
		d.date(m, meta(old), meta(d.find(r.kind, r.id)))
	}
	data, err := json.Marshal(r.object)
	switch {
	case err != nil:
		d.stop(fault.New(fault.Invalid, "%s %s: %w", r.kind, r.id, err))
		return
	case len(data) > MaxObject:
		d.fail(r.kind+" "+r.id, strconv.Itoa(len(data))+" bytes", fmt.Sprintf("at most %d bytes of JSON", MaxObject))
		return
	}
	d.put(r)
	if old != nil {
		if was, err := json.Marshal(old); err == nil && bytes.Equal(was, data) {
			d.forget(key{r.kind, r.id})
			return
		}
	}
	d.note(key{r.kind, r.id}, data)
}

// name reports whether an ID is the same after it has been JSON, and can begin a key of an index.
func name(id string) bool { return utf8.ValidString(id) && !strings.ContainsRune(id, 0) }

// date gives an object the times and the version that it has until the change comes to be: those that it had
// before the draft (old), but the creation of the last that the draft knows of (last).
func (d *draft) date(m, old, last *wire.ObjectMeta) {
	m.Version, m.UpdatedAt = wire.ObjectVersion{}, time.Time{}
	if old != nil {
		m.Version, m.UpdatedAt = old.Version, old.UpdatedAt
	}
	if !m.CreatedAt.IsZero() {
		return
	}
	if m.CreatedAt = d.now; last != nil {
		m.CreatedAt = last.CreatedAt
	}
}

// drop takes an object out.
func (d *draft) drop(kind, id string) {
	d.remove(kind, id)
	if d.base.find(kind, id) == nil {
		d.forget(key{kind, id})
		return
	}
	d.note(key{kind, id}, nil)
}

func (d *draft) note(k key, data json.RawMessage) {
	d.forget(k)
	d.rows[k] = data
	d.size += len(k.kind) + len(k.id) + len(data)
}

func (d *draft) forget(k key) {
	if data, ok := d.rows[k]; ok {
		d.size -= len(k.kind) + len(k.id) + len(data)
		delete(d.rows, k)
	}
}

func (d *draft) fail(field, given, expected string) {
	d.stop(&fault.Field{Field: field, Given: given, Expected: expected})
}

// stop keeps the first error: the Update fails with it.
func (d *draft) stop(err error) {
	if d.err == nil {
		d.err = err
	}
}

// entry is the change as a log entry, or nil when there is nothing to change.
func (d *draft) entry() ([]byte, error) {
	if d.err != nil || len(d.rows) == 0 {
		return nil, d.err
	}
	if d.size > MaxChange {
		return nil, &fault.Field{Field: "change of the swarm's state", Given: strconv.Itoa(d.size) + " bytes", Expected: fmt.Sprintf("at most %d bytes: change less at once", MaxChange)}
	}
	c := change{Format: format, Base: d.base.index, Time: d.now}
	for _, k := range slices.SortedFunc(maps.Keys(d.rows), func(a, b key) int {
		return cmpStrings(a.kind, b.kind, a.id, b.id)
	}) {
		c.Rows = append(c.Rows, changeRow{k.kind, k.id, d.rows[k]})
	}
	return json.Marshal(c)
}

func cmpStrings(pairs ...string) int {
	for i := 0; i < len(pairs); i += 2 {
		if c := strings.Compare(pairs[i], pairs[i+1]); c != 0 {
			return c
		}
	}
	return 0
}

// apply answers with the state after a log entry. It is a function of its arguments alone: every manager gets
// the same. errStale is part of that; any other error means that this version cannot go on.
func apply(s state, index uint64, entry []byte) (state, error) {
	var c change
	if err := strict(entry, &c); err != nil {
		return s, fmt.Errorf("entry %d of the swarm's log: %w", index, err)
	}
	if c.Base != s.index {
		return s, errStale
	}
	next := s
	next.index = index
	for _, r := range c.Rows {
		if err := next.apply(r, index, c.Time); err != nil {
			return s, fmt.Errorf("entry %d of the swarm's log: %w", index, err)
		}
	}
	return next, nil
}

func (s *state) apply(r changeRow, index uint64, at time.Time) error {
	if r.Object == nil {
		if _, err := decode(r.Kind, r.ID, nil); err != nil {
			return err
		}
		s.remove(r.Kind, r.ID)
		return nil
	}
	object, err := decode(r.Kind, r.ID, r.Object)
	if err != nil {
		return err
	}
	if m := meta(object); m != nil {
		m.Version.Index, m.UpdatedAt = index, at
	}
	s.put(row{r.Kind, r.ID, object})
	return nil
}

// decode makes the object of a row. Without data it only says whether there is such a kind.
func decode(kind, id string, data []byte) (any, error) {
	var object any
	var named func() string
	switch kind {
	case kindCluster:
		o := new(Cluster)
		object, named = o, func() string { return o.ID }
	case kindNode:
		o := new(wire.Node)
		object, named = o, func() string { return o.ID }
	case kindService:
		o := new(wire.Service)
		object, named = o, func() string { return o.ID }
	case kindTask:
		o := new(wire.Task)
		object, named = o, func() string { return o.ID }
	case kindAuth:
		object, named = new(string), func() string { return id }
	default:
		return nil, fmt.Errorf("an object of kind %q, which this version of Sampan does not know", kind)
	}
	if data == nil {
		return object, nil
	}
	if err := unmarshal(data, object); err != nil {
		return nil, fmt.Errorf("%s %s: %w", kind, id, err)
	}
	if named() != id {
		return nil, fmt.Errorf("%s %s: its own ID is %q", kind, id, named())
	}
	return object, nil
}

// strict decodes what begins with its format, and says of another format that it is one.
func strict(data []byte, v any) error {
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return err
	}
	if head.Format != format {
		return fmt.Errorf("it has format %d, and this version of Sampan reads format %d only", head.Format, format)
	}
	return unmarshal(data, v)
}

// unmarshal refuses what it does not know, and anything behind it.
func unmarshal(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more behind the object")
	}
	return nil
}
