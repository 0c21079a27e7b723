package store

import (
	"encoding/binary"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix"
)

// table is an immutable set of rows, found by ID and listed by the time of their creation. Its methods that
// change it answer with the changed table and leave it as it was.
type table[T any] struct{ byID, byTime index[T] }

// index is a persistent tree of rows.
type index[T any] struct{ tree *iradix.Tree }

func newTable[T any]() table[T] { return table[T]{newIndex[T](), newIndex[T]()} }

func newIndex[T any]() index[T] { return index[T]{iradix.New()} }

func (t table[T]) get(id string) *T { return t.byID.get([]byte(id)) }

func (t table[T]) all() []*T { return t.byTime.list(nil) }

func (t table[T]) put(id string, created time.Time, row *T) table[T] {
	return table[T]{t.byID.put([]byte(id), row), t.byTime.put(moment(nil, created, id), row)}
}

// remove takes the row of an ID out; created is the time that it was put with.
func (t table[T]) remove(id string, created time.Time) table[T] {
	return table[T]{t.byID.remove([]byte(id)), t.byTime.remove(moment(nil, created, id))}
}

func (i index[T]) get(key []byte) *T {
	row, _ := i.tree.Get(key)
	found, _ := row.(*T)
	return found
}

func (i index[T]) put(key []byte, row *T) index[T] {
	tree, _, _ := i.tree.Insert(key, row)
	return index[T]{tree}
}

func (i index[T]) remove(key []byte) index[T] {
	tree, _, _ := i.tree.Delete(key)
	return index[T]{tree}
}

// list answers with the rows whose keys begin with prefix, in the order of their keys.
func (i index[T]) list(prefix []byte) []*T {
	var rows []*T
	i.tree.Root().WalkPrefix(prefix, func(_ []byte, row any) bool {
		rows = append(rows, row.(*T))
		return false
	})
	return rows
}

// under is the beginning of the keys of all rows that belong to owner. No ID has a NUL in it.
func under(owner string) []byte { return append([]byte(owner), 0) }

// moment appends to prefix a key that sorts by time and then by ID.
func moment(prefix []byte, t time.Time, id string) []byte {
	// Seconds may be negative (the zero time is): with the sign bit turned they sort as bytes.
	key := binary.BigEndian.AppendUint64(prefix, uint64(t.Unix())^1<<63)
	key = binary.BigEndian.AppendUint32(key, uint32(t.Nanosecond()))
	return append(key, id...)
}
