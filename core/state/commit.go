package state

import (
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/sampan-project/sampan/core/crash"
)

// maxGroup bounds how many transactions are committed together, so that the first of them does
// not wait for an endless row of others.
const maxGroup = 256

// call is one Update that waits for its commit.
type call struct {
	fn   func(*Tx) error
	done chan outcome
	lead chan struct{} // closed when this caller is to commit the next group
}

// outcome is how an Update ended; panicked is what fn panicked with.
type outcome struct {
	err      error
	panicked any
}

// Update runs fn in a transaction and returns when it is committed, on disk unless the database was
// opened with NoSync. When fn returns an error nothing of what it did stays.
//
// fn may run more than once, and in the goroutine of another caller: it must set what it hands out
// anew on each run, and must not wait for another Update.
func (db *DB) Update(fn func(*Tx) error) error {
	c := &call{fn: fn, done: make(chan outcome, 1), lead: make(chan struct{})}
	db.mu.Lock()
	db.queue = append(db.queue, c)
	lead := !db.leading
	db.leading = true
	db.mu.Unlock()

	// Whoever comes while nobody commits commits for all who come during the commit before it;
	// then the first of those who waited takes over. There is no delay: a lone caller commits at once.
	if lead {
		db.commitGroup()
	} else {
		select {
		case <-c.lead:
			db.commitGroup()
		case o := <-c.done:
			return o.result()
		}
	}
	return (<-c.done).result()
}

func (o outcome) result() error {
	if o.panicked != nil {
		panic(o.panicked)
	}
	return o.err
}

// commitGroup commits what is queued now, and makes the first caller of the rest the next leader.
func (db *DB) commitGroup() {
	db.mu.Lock()
	n := min(len(db.queue), maxGroup)
	group := db.queue[:n:n]
	db.queue = db.queue[n:]
	db.mu.Unlock()

	db.commit(group)

	db.mu.Lock()
	defer db.mu.Unlock()
	if len(db.queue) == 0 {
		db.queue, db.leading = nil, false
		return
	}
	close(db.queue[0].lead)
}

// commit runs the group in one transaction. bbolt has no savepoints, so when one call fails the
// transaction is thrown away, the call answered, and the rest run again without it.
func (db *DB) commit(group []*call) {
	for len(group) > 0 {
		failed := -1
		var out outcome
		crash.Point(db.name, "before commit")
		err := db.bolt.Update(func(tx *bbolt.Tx) error {
			for i, c := range group {
				if out = c.run(&Tx{tx}); out.err != nil || out.panicked != nil {
					failed = i
					return errThrowAway
				}
			}
			return nil
		})
		if failed < 0 {
			crash.Point(db.name, "after commit")
			if err != nil {
				err = fmt.Errorf("write database %s: %w", db.path, err)
			}
			for _, c := range group {
				c.done <- outcome{err: err}
			}
			return
		}
		group[failed].done <- out
		group = append(group[:failed:failed], group[failed+1:]...)
	}
}

var errThrowAway = fmt.Errorf("a transaction of the group failed")

// run calls fn and keeps a panic for the goroutine it belongs to.
func (c *call) run(tx *Tx) (o outcome) {
	normal := false
	defer func() {
		if r := recover(); r != nil || !normal {
			if r == nil {
				r = "runtime.Goexit in a transaction"
			}
			o = outcome{panicked: r}
		}
	}()
	err := c.fn(tx)
	normal = true
	return outcome{err: err}
}
