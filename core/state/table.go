package state

import (
	"encoding/json"
	"fmt"
	"iter"

	"go.etcd.io/bbolt"

	"github.com/sampan-project/sampan/core/fault"
)

// Table is a named set of rows of one Go type, stored as JSON, ordered by key.
type Table[T any] struct {
	db   *DB
	name []byte
}

// NewTable returns the table called name. It touches nothing: the table comes to be with its first row.
func NewTable[T any](db *DB, name string) *Table[T] {
	return &Table[T]{db, []byte(name)}
}

// Get returns the row of key, or fault.NotFound.
func (t *Table[T]) Get(key string) (v T, err error) {
	err = t.db.View(func(tx *Tx) error {
		v, err = t.In(tx).Get(key)
		return err
	})
	return v, err
}

// Put writes the row of key, over the one that may be there.
func (t *Table[T]) Put(key string, v T) error {
	// Encoded here and not in the transaction: the lock of the database is for disk work only.
	data, err := t.encode(key, v)
	if err != nil {
		return err
	}
	return t.db.Update(func(tx *Tx) error { return t.In(tx).put(key, data) })
}

// Delete removes the row of key. A row that is not there is no error.
func (t *Table[T]) Delete(key string) error {
	return t.db.Update(func(tx *Tx) error { return t.In(tx).Delete(key) })
}

// Change reads the row of key, lets fn change it, and writes it back, in one transaction. fn may run
// more than once. A missing row is fault.NotFound.
func (t *Table[T]) Change(key string, fn func(*T) error) error {
	return t.db.Update(func(tx *Tx) error {
		rows := t.In(tx)
		v, err := rows.Get(key)
		if err != nil {
			return err
		}
		if err := fn(&v); err != nil {
			return err
		}
		return rows.Put(key, v)
	})
}

// All returns the keys and rows of one moment, in the order of their keys. The table may be changed
// while they are walked.
func (t *Table[T]) All() (iter.Seq2[string, T], error) {
	var all iter.Seq2[string, T]
	err := t.db.View(func(tx *Tx) (err error) {
		all, err = t.In(tx).All()
		return err
	})
	return all, err
}

// List returns the rows of one moment, in the order of their keys.
func (t *Table[T]) List() ([]T, error) {
	var list []T
	all, err := t.All()
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		list = append(list, v)
	}
	return list, nil
}

// In returns the table as the transaction sees it.
func (t *Table[T]) In(tx *Tx) Rows[T] { return Rows[T]{t, tx.bolt} }

func (t *Table[T]) encode(key string, v T) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", t.name, key, err)
	}
	return data, nil
}

func (t *Table[T]) decode(key, data []byte) (v T, err error) {
	if err := json.Unmarshal(data, &v); err != nil {
		return v, fmt.Errorf("%s %s: row in %s: %w", t.name, key, t.db.path, err)
	}
	return v, nil
}

// Rows is a table inside a transaction.
type Rows[T any] struct {
	table *Table[T]
	tx    *bbolt.Tx
}

// Get returns the row of key, or fault.NotFound.
func (r Rows[T]) Get(key string) (v T, err error) {
	if b := r.tx.Bucket(r.table.name); b != nil {
		if data := b.Get([]byte(key)); data != nil {
			return r.table.decode([]byte(key), data)
		}
	}
	return v, fault.New(fault.NotFound, "no %q in %s", key, r.table.name)
}

// Has reports whether there is a row of key.
func (r Rows[T]) Has(key string) bool {
	b := r.tx.Bucket(r.table.name)
	return b != nil && b.Get([]byte(key)) != nil
}

// Put writes the row of key.
func (r Rows[T]) Put(key string, v T) error {
	data, err := r.table.encode(key, v)
	if err != nil {
		return err
	}
	return r.put(key, data)
}

func (r Rows[T]) put(key string, data []byte) error {
	b, err := r.tx.CreateBucketIfNotExists(r.table.name)
	if err == nil {
		err = b.Put([]byte(key), data)
	}
	if err != nil {
		return fmt.Errorf("%s %q: %w", r.table.name, key, err)
	}
	return nil
}

// Delete removes the row of key. A row that is not there is no error.
func (r Rows[T]) Delete(key string) error {
	b := r.tx.Bucket(r.table.name)
	if b == nil {
		return nil
	}
	if err := b.Delete([]byte(key)); err != nil {
		return fmt.Errorf("%s %q: %w", r.table.name, key, err)
	}
	return nil
}

// All returns keys and rows in the order of their keys, as they are at the call.
func (r Rows[T]) All() (iter.Seq2[string, T], error) {
	var keys []string
	var rows []T
	if b := r.tx.Bucket(r.table.name); b != nil {
		err := b.ForEach(func(k, data []byte) error {
			v, err := r.table.decode(k, data)
			if err != nil {
				return err
			}
			keys, rows = append(keys, string(k)), append(rows, v)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return func(yield func(string, T) bool) {
		for i, k := range keys {
			if !yield(k, rows[i]) {
				return
			}
		}
	}, nil
}
