// Package state keeps what the engine must remember: typed tables and the log of intents, in one
// bbolt file each for what survives a boot (state.db) and what is only about this boot (run.db).
//
// A noun opens its tables once and reads and writes rows by key:
//
//	db, err := state.Open("/var/lib/sampan/state.db", state.Options{})
//	networks := state.NewTable[Network](db, "networks")
//	err = networks.Put(n.ID, n)
//
// Rows that belong together change in one transaction, db.Update with Table.In. Transactions of
// callers that run in parallel are committed together, so that a hundred of them pay for a few
// syncs of the disk and not for a hundred.
//
// An operation that makes more than one thing outside of the database writes its intent before
// the first side effect (Begin), notes each further step (Op.Step), and removes the intent at the
// end (Op.End). After a crash Recover hands every intent that is left to the undo function of its
// kind, the latest first.
package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// lockWait is how long Open waits for the lock of the file: long enough for a daemon that is just
// ending, short enough for the person who started a second one.
const lockWait = time.Second

// Options say how a database is kept.
type Options struct {
	// NoSync leaves commits in the page cache. A killed process loses nothing, a power failure may
	// tear the file: right only for facts about this boot. A file that an earlier boot left is
	// emptied by Open.
	NoSync bool
}

// DB is one database file, held by this process alone. Its methods may be called in parallel.
type DB struct {
	bolt *bbolt.DB
	path string
	name string // the file's, for crash.Point

	mu      sync.Mutex
	queue   []*call         // transactions that wait for the next commit
	leading bool            // whether a caller is committing now
	ops     map[uint64]bool // intents whose operation is in progress
}

// Tx is a transaction. It is valid only inside the function it was given to.
type Tx struct{ bolt *bbolt.Tx }

// Open opens the database at path and creates it, with its directory, when it is missing. When
// another process holds it the error is fault.Conflict.
func Open(path string, o Options) (*DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if o.NoSync {
		unlock, err := dropOtherBoot(path)
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	b, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: lockWait,
		NoSync:  o.NoSync,
		// The list of free pages is rebuilt on open: our files have few pages, and every commit
		// writes one page less.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
	})
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, fault.New(fault.Conflict, "another sampand uses %s: stop it, or choose another --data-root and --exec-root", path)
	case err != nil:
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	return &DB{bolt: b, path: path, name: filepath.Base(path), ops: map[uint64]bool{}}, nil
}

// dropOtherBoot removes the database at path unless it was made in this boot, which the file beside
// it says. The file is locked until the returned function is called, so that of two processes
// that start together the second does not remove what the first has just made.
func dropOtherBoot(path string) (unlock func(), err error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("open database %s: boot id: %w", path, err)
	}
	f, err := os.OpenFile(path+".boot", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("open database: lock %s.boot: %w", path, err)
	}
	was := make([]byte, 64)
	n, _ := f.ReadAt(was, 0)
	if strings.TrimSpace(string(was[:n])) == strings.TrimSpace(string(boot)) {
		return func() { f.Close() }, nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the database of an earlier boot: %w", err)
	}
	if err := f.Truncate(0); err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	if _, err := f.WriteAt(boot, 0); err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// Path returns the path the database was opened with.
func (db *DB) Path() string { return db.path }

// Close waits for running transactions and releases the file.
func (db *DB) Close() error {
	if err := db.bolt.Close(); err != nil {
		return fmt.Errorf("close database %s: %w", db.path, err)
	}
	return nil
}

// View runs fn in a transaction that sees one moment of the database and cannot change it. Inside
// fn no Update may be called: the two can wait for each other.
func (db *DB) View(fn func(*Tx) error) error {
	return db.bolt.View(func(tx *bbolt.Tx) error { return fn(&Tx{tx}) })
}
