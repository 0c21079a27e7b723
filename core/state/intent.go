package state

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sampan-project/sampan/core/fault"
)

var intentBucket = []byte("intents")

// Intent is an operation that was begun and not ended: one that runs now, or that a crash cut off.
type Intent struct {
	ID      uint64          `json:"id"`             // grows with each Begin
	Kind    string          `json:"kind"`           // "network.create"
	Subject string          `json:"subject"`        // what it is done to, as a person would name it
	Data    json.RawMessage `json:"data,omitempty"` // what Begin was given
	Steps   []Step          `json:"steps,omitempty"`
	Began   time.Time       `json:"began"`
}

// Step is a side effect that the operation was about to have: whether it came to pass is not known.
type Step struct {
	Name string          `json:"name"`
	Data json.RawMessage `json:"data,omitempty"`
}

// Decode decodes what Begin was given into v.
func (i Intent) Decode(v any) error {
	if err := json.Unmarshal(i.Data, v); err != nil {
		return fmt.Errorf("intent %s %s: %w", i.Kind, i.Subject, err)
	}
	return nil
}

// Step returns the step called name and whether it was noted.
func (i Intent) Step(name string) (Step, bool) {
	for _, s := range i.Steps {
		if s.Name == name {
			return s, true
		}
	}
	return Step{}, false
}

// Op is an operation in progress. It belongs to one goroutine.
type Op struct {
	db       *DB
	intent   Intent
	undo     []func() error
	finished bool
}

// Begin writes that an operation of the kind starts, before its first side effect:
//
//	op, err := db.Begin("network.create", name, plan)
//	if err != nil {
//		return err
//	}
//	defer op.End(&err)
func (db *DB) Begin(kind, subject string, data any) (*Op, error) {
	raw, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("begin %s %s: %w", kind, subject, err)
	}
	op := &Op{db: db, intent: Intent{Kind: kind, Subject: subject, Data: raw, Began: time.Now()}}
	err = db.Update(func(tx *Tx) error {
		b, err := tx.bolt.CreateBucketIfNotExists(intentBucket)
		if err != nil {
			return err
		}
		if op.intent.ID, err = b.NextSequence(); err != nil {
			return err
		}
		return op.write(tx)
	})
	if err != nil {
		return nil, fmt.Errorf("begin %s %s: %w", kind, subject, err)
	}
	db.setRuns(op.intent.ID, true)
	return op, nil
}

// Step notes that the operation is about to do what name says. What an undo needs to know and the
// caller learns only now (an address, a link's name) goes into data.
func (o *Op) Step(name string, data any) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("%s %s: step %s: %w", o.intent.Kind, o.intent.Subject, name, err)
	}
	o.intent.Steps = append(o.intent.Steps, Step{name, raw})
	if err := o.db.Update(o.write); err != nil {
		return fmt.Errorf("%s %s: step %s: %w", o.intent.Kind, o.intent.Subject, name, err)
	}
	return nil
}

// Undo adds a function that takes back the latest side effect when the operation fails while this
// process lives. They run in End, the last added first.
func (o *Op) Undo(fn func() error) { o.undo = append(o.undo, fn) }

// Finish removes the intent in a transaction of the caller, so that the row that is the result and
// the end of the operation become visible together. End follows all the same.
func (o *Op) Finish(tx *Tx) error {
	o.finished = true
	return o.remove(tx)
}

// End ends the operation. When *err is nil it is done. Otherwise, and after a panic, the undo
// functions run; if one fails its error joins *err, and the intent stays for Recover.
// It must be deferred itself (defer op.End(&err)) to see a panic.
func (o *Op) End(err *error) {
	defer o.db.setRuns(o.intent.ID, false)
	if r := recover(); r != nil {
		failed := fmt.Errorf("panic: %v", r)
		o.takeBack(&failed)
		panic(r)
	}
	if *err != nil {
		o.takeBack(err)
		return
	}
	if o.finished {
		return
	}
	if e := o.db.Update(o.remove); e != nil {
		*err = fmt.Errorf("end %s %s: %w", o.intent.Kind, o.intent.Subject, e)
	}
}

func (o *Op) takeBack(err *error) {
	clean := true
	for i := len(o.undo) - 1; i >= 0; i-- {
		if e := o.undo[i](); e != nil {
			clean = false
			*err = errors.Join(*err, fmt.Errorf("undo %s %s: %w", o.intent.Kind, o.intent.Subject, e))
		}
	}
	if !clean {
		if o.finished { // its intent may be gone already, and is needed again
			*err = errors.Join(*err, o.db.Update(o.write))
		}
		return
	}
	if e := o.db.Update(o.remove); e != nil {
		*err = errors.Join(*err, e)
	}
}

func (o *Op) write(tx *Tx) error {
	data, err := json.Marshal(o.intent)
	if err != nil {
		return err
	}
	b, err := tx.bolt.CreateBucketIfNotExists(intentBucket)
	if err != nil {
		return err
	}
	return b.Put(intentKey(o.intent.ID), data)
}

func (o *Op) remove(tx *Tx) error { return removeIntent(tx, o.intent.ID) }

func removeIntent(tx *Tx, id uint64) error {
	b := tx.bolt.Bucket(intentBucket)
	if b == nil {
		return nil
	}
	return b.Delete(intentKey(id))
}

// intentKey is big-endian, so that bbolt keeps intents in the order of their beginning.
func intentKey(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }

// Pending returns the intents that were not ended, the earliest first.
func (db *DB) Pending() ([]Intent, error) {
	var list []Intent
	err := db.View(func(tx *Tx) error {
		b := tx.bolt.Bucket(intentBucket)
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, data []byte) error {
			var i Intent
			if err := json.Unmarshal(data, &i); err != nil {
				return fmt.Errorf("intent %x in %s: %w", k, db.path, err)
			}
			list = append(list, i)
			return nil
		})
	})
	return list, err
}

// Recover hands every pending intent to the function of its kind, the latest first, and removes it
// when the function succeeds. The functions must be safe to run twice, and on operations of which
// any part may or may not have happened. Intents whose function fails, or whose kind is not in the
// map, stay; the errors of all are joined. It is for start-up, before the first Begin.
func (db *DB) Recover(ctx context.Context, undo map[string]func(context.Context, Intent) error) error {
	pending, err := db.Pending()
	if err != nil {
		return err
	}
	var errs []error
	for i := len(pending) - 1; i >= 0; i-- {
		in := pending[i]
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		fn, ok := undo[in.Kind]
		if !ok {
			errs = append(errs, fault.New(fault.NotImplemented, "recover %s %s: no undo for this kind of operation", in.Kind, in.Subject))
			continue
		}
		if err := fn(ctx, in); err != nil {
			errs = append(errs, fmt.Errorf("recover %s %s: %w", in.Kind, in.Subject, err))
			continue
		}
		if err := db.Update(func(tx *Tx) error { return removeIntent(tx, in.ID) }); err != nil {
			errs = append(errs, fmt.Errorf("recover %s %s: %w", in.Kind, in.Subject, err))
		}
	}
	return errors.Join(errs...)
}
