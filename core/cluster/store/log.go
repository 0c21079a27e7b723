package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
)

// logFile is the name of Raft's log in the store's directory.
const logFile = "raft.db"

// lockWait is how long opening the log waits for a process that is just ending.
const lockWait = time.Second

var (
	logBucket   = []byte("log")   // index, 8 bytes big endian, to record
	valueBucket = []byte("value") // Raft's few values: term and vote
)

// logs is Raft's LogStore and StableStore in one bbolt file. What it says to be written is on the disk.
//
// Raft goes on when it could not write an entry, and panics when it cannot keep its term or read an entry. Both are
// wrong here: after a write that failed nobody knows what the disk has. So the first error is told to failed, which
// stops the store; nothing is written any more; and a goroutine that would panic ends. A new Open begins with what the
// disk really has.
type logs struct {
	db     *bbolt.DB
	path   string
	failed func(error)

	mu     sync.Mutex
	broken error
}

// openLogs opens the log in dir, and creates it when it is missing.
func openLogs(dir string, failed func(error)) (_ *logs, err error) {
	path := filepath.Join(dir, logFile)
	defer func() {
		// bbolt panics when it meets a page that is none.
		if p := recover(); p != nil {
			err = fmt.Errorf("open the swarm's log %s: it is damaged: %v", path, p)
		}
	}()
	if err := whole(path); err != nil {
		return nil, err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:      lockWait,
		FreelistType: bbolt.FreelistMapType,
		// The list of free pages is kept in the file: to find them bbolt would read all pages in a goroutine of its own,
		// where its panic over a damaged one ends the process.
		NoFreelistSync: false,
	})
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, fault.New(fault.Conflict, "another sampand uses the swarm's log %s", path)
	case err != nil:
		return nil, fmt.Errorf("open the swarm's log %s: %w", path, err)
	}
	l := &logs{db: db, path: path, failed: failed}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(logBucket)
		if err == nil {
			_, err = tx.CreateBucketIfNotExists(valueBucket)
		}
		return err
	})
	if err != nil {
		db.Close() //nolint:errcheck // the first error says more
		return nil, fmt.Errorf("write the swarm's log %s: %w", path, err)
	}
	return l, nil
}

// whole says whether the file at path is as long as its own root page says. bbolt maps it into memory: to touch
// what is missing would kill the process.
func whole(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the swarm's log: %w", err)
	}
	// Opened for reading only, bbolt looks at the root pages and at nothing else.
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, ReadOnly: true})
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return fault.New(fault.Conflict, "another sampand uses the swarm's log %s", path)
	case err != nil:
		return fmt.Errorf("open the swarm's log %s: %w", path, err)
	}
	defer db.Close() //nolint:errcheck // it was read only
	return db.View(func(tx *bbolt.Tx) error {
		if want := tx.Size(); info.Size() < want {
			return fmt.Errorf("open the swarm's log %s: it is cut off: it has %d bytes of %d", path, info.Size(), want)
		}
		return nil
	})
}

func (l *logs) Close() error {
	if err := l.db.Close(); err != nil {
		return fmt.Errorf("close the swarm's log %s: %w", l.path, err)
	}
	return nil
}

// stop is what becomes of an error that the store does not survive.
func (l *logs) stop(err error) error {
	if errors.Is(err, bbolterrors.ErrDatabaseNotOpen) {
		return err
	}
	l.mu.Lock()
	if l.broken == nil {
		l.broken = err
	}
	l.mu.Unlock()
	l.failed(err)
	return err
}

// write runs fn in a transaction that is on the disk when write returns.
func (l *logs) write(what string, fn func(*bbolt.Tx) error) error {
	l.mu.Lock()
	broken := l.broken
	l.mu.Unlock()
	if broken != nil {
		return broken
	}
	crash.Point(logFile, "before "+what)
	if err := guard(func() error { return l.db.Update(fn) }); err != nil {
		return l.stop(fmt.Errorf("write the swarm's log %s: %w", l.path, err))
	}
	crash.Point(logFile, "after "+what)
	return nil
}

func (l *logs) read(fn func(*bbolt.Tx) error) error {
	err := guard(func() error { return l.db.View(fn) })
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) { // which Raft compares by ==
		return l.stop(fmt.Errorf("read the swarm's log %s: %w", l.path, err))
	}
	return err
}

// guard makes bbolt's panic over a page that is none an error.
func guard(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it is damaged: %v", p)
		}
	}()
	return fn()
}

// FirstIndex is that of the oldest entry, 0 without any.
func (l *logs) FirstIndex() (uint64, error) {
	return l.edge((*bbolt.Cursor).First)
}

// LastIndex is that of the newest entry, 0 without any.
func (l *logs) LastIndex() (uint64, error) {
	return l.edge((*bbolt.Cursor).Last)
}

func (l *logs) edge(seek func(*bbolt.Cursor) ([]byte, []byte)) (index uint64, err error) {
	err = l.read(func(tx *bbolt.Tx) error {
		if k, _ := seek(tx.Bucket(logBucket).Cursor()); len(k) == 8 {
			index = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return index, err
}

// GetLog reads one entry; raft.ErrLogNotFound. After any other error it does not return.
func (l *logs) GetLog(index uint64, entry *raft.Log) error {
	err := l.read(func(tx *bbolt.Tx) error {
		record := tx.Bucket(logBucket).Get(number(index))
		if record == nil {
			return raft.ErrLogNotFound
		}
		if err := decodeRecord(record, entry); err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		entry.Index = index
		return nil
	})
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		runtime.Goexit()
	}
	return err
}

// StoreLog writes one entry.
func (l *logs) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs writes entries, all or none.
func (l *logs) StoreLogs(entries []*raft.Log) error {
	return l.write("entries", func(tx *bbolt.Tx) error {
		b := tx.Bucket(logBucket)
		b.FillPercent = 0.95 // they come in order
		for _, entry := range entries {
			record, err := encodeRecord(entry)
			if err != nil {
				return fmt.Errorf("entry %d: %w", entry.Index, err)
			}
			if err := b.Put(number(entry.Index), record); err != nil {
				return fmt.Errorf("entry %d: %w", entry.Index, err)
			}
		}
		return nil
	})
}

// DeleteRange removes the entries from first to last.
func (l *logs) DeleteRange(first, last uint64) error {
	return l.write("removal", func(tx *bbolt.Tx) error {
		b := tx.Bucket(logBucket)
		for index := first; index <= last; index++ {
			if err := b.Delete(number(index)); err != nil {
				return fmt.Errorf("entry %d: %w", index, err)
			}
		}
		return nil
	})
}

// Set keeps one of Raft's values.
func (l *logs) Set(name, value []byte) error {
	return l.write("value", func(tx *bbolt.Tx) error { return tx.Bucket(valueBucket).Put(name, value) })
}

// Get reads one of Raft's values, nil when there is none.
func (l *logs) Get(name []byte) (value []byte, err error) {
	err = l.read(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(valueBucket).Get(name); v != nil {
			value = append([]byte{}, v...)
		}
		return nil
	})
	return value, err
}

// SetUint64 keeps one of Raft's values. After an error it does not return.
func (l *logs) SetUint64(name []byte, value uint64) error {
	err := l.Set(name, number(value))
	if err != nil {
		runtime.Goexit()
	}
	return err
}

// GetUint64 reads one of Raft's values, 0 when there is none.
func (l *logs) GetUint64(name []byte) (uint64, error) {
	value, err := l.Get(name)
	if err != nil || value == nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, l.stop(fmt.Errorf("read the swarm's log %s: value %s has %d bytes: expected 8", l.path, name, len(value)))
	}
	return binary.BigEndian.Uint64(value), nil
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// A record is an entry on the disk: CRC-32C of the rest (4 bytes), recordFormat (1), type (1), term (8), time in nanoseconds (8),
// length of data (4), data, extensions; numbers are big endian.
const (
	recordFormat = 1
	recordHead   = 4 + 1 + 1 + 8 + 8 + 4
	maxRecord    = 2 * MaxChange
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeRecord(entry *raft.Log) ([]byte, error) {
	if entry.Type > raft.LogConfiguration {
		return nil, fmt.Errorf("type %d, which this version of Sampan does not know", entry.Type)
	}
	if size := len(entry.Data) + len(entry.Extensions); size > maxRecord {
		return nil, fmt.Errorf("%d bytes: expected at most %d", size, maxRecord)
	}
	record := make([]byte, 4, recordHead+len(entry.Data)+len(entry.Extensions))
	record = append(record, recordFormat, byte(entry.Type))
	record = binary.BigEndian.AppendUint64(record, entry.Term)
	at := int64(0)
	if !entry.AppendedAt.IsZero() {
		at = entry.AppendedAt.UnixNano()
	}
	record = binary.BigEndian.AppendUint64(record, uint64(at))
	record = binary.BigEndian.AppendUint32(record, uint32(len(entry.Data)))
	record = append(append(record, entry.Data...), entry.Extensions...)
	binary.BigEndian.PutUint32(record, crc32.Checksum(record[4:], castagnoli))
	return record, nil
}

func decodeRecord(record []byte, entry *raft.Log) error {
	if len(record) < recordHead || binary.BigEndian.Uint32(record) != crc32.Checksum(record[4:], castagnoli) {
		return errors.New("it is damaged: its checksum is not its own")
	}
	if record[4] != recordFormat {
		return fmt.Errorf("it has format %d, and this version of Sampan reads format %d only", record[4], recordFormat)
	}
	size := int(binary.BigEndian.Uint32(record[22:]))
	if size > len(record)-recordHead {
		return fmt.Errorf("it is damaged: %d bytes of data in a record of %d", size, len(record))
	}
	*entry = raft.Log{Type: raft.LogType(record[5]), Term: binary.BigEndian.Uint64(record[6:])}
	if at := int64(binary.BigEndian.Uint64(record[14:])); at != 0 {
		entry.AppendedAt = time.Unix(0, at)
	}
	// The record is bbolt's memory, and valid in its transaction only.
	body := append([]byte{}, record[recordHead:]...)
	if entry.Data = body[:size:size]; size < len(body) {
		entry.Extensions = body[size:]
	}
	return nil
}
