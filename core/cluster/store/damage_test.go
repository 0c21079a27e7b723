package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// The leader stops at it, then the next leader does: the last one is left without a majority.
func TestEntryOfANewerVersionStopsTheManagers(t *testing.T) {
	s := three(t, Options{SnapshotEntries: 4, KeepEntries: 1})
	leader := s.leader()
	leader.put("a", "b", "c", "d", "e")
	was := s.agree()
	const newer = "it has format 2, and this version of Sampan reads format 1 only"
	err := s.leader().judge(s.leader().commit([]byte(`{"format":2}`)))
	if err == nil || !strings.Contains(err.Error(), newer) {
		t.Errorf("the leader's error: %v", err)
	}
	for _, when := range []string{"at once", "after a restart"} {
		stopped := func() (n int) {
			for _, m := range s.members {
				if m.Err() != nil {
					n++
				}
			}
			return n
		}
		eventually(t, "that two have stopped "+when, func() bool { return stopped() >= 2 })
		for _, m := range s.members {
			if err := m.Update(limited(t), putNode("f")); err == nil {
				t.Errorf("%s takes changes %s", m.id, when)
			}
			err := m.Err()
			if err == nil {
				continue // it has not heard of the entry, after a restart perhaps of none
			}
			if !strings.Contains(err.Error(), newer) {
				t.Errorf("%s has stopped %s for %v", m.id, when, err)
			}
			if diff := cmp.Diff(was, dump(t, *m.current())); diff != "" {
				t.Errorf("%s is another %s: %s", m.id, when, diff)
			}
		}
		for _, m := range s.members {
			m.kill()
		}
		for _, m := range s.members {
			m.start()
		}
	}
}

// filled is a store with a log and maybe snapshots, which is not open.
func filled(t *testing.T, o Options) *member {
	t.Helper()
	s := newSwarm(t, o)
	m := s.add()
	m.start()
	m.begin()
	for i := range 50 {
		m.put(fmt.Sprint("n", i))
	}
	if o.SnapshotEntries > 0 {
		eventually(t, "a snapshot", func() bool {
			found, _ := filepath.Glob(filepath.Join(m.dir, "snapshots", "*-*"))
			first, _ := m.logs.FirstIndex()
			return len(found) > 0 && first > 1
		})
	}
	m.kill()
	return m
}

func TestDamagedFiles(t *testing.T) {
	edit := func(pattern string, fn func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			found, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil || len(found) != 1 {
				t.Fatalf("%s: %v %v", pattern, found, err)
			}
			data, err := os.ReadFile(found[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(found[0], fn(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }
	half := func(b []byte) []byte { return b[:len(b)/2] }
	zero := func(b []byte) []byte { return append(b[:8192:8192], make([]byte, len(b)-8192)...) }
	record := func(fn func(b *bbolt.Bucket) error) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			db, err := bbolt.Open(filepath.Join(dir, logFile), 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(func(tx *bbolt.Tx) error { return fn(tx.Bucket(logBucket)) }), db.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	replace := func(old, with string) func([]byte) []byte {
		return func(b []byte) []byte { return []byte(strings.Replace(string(b), old, with, 1)) }
	}
	withLog := filled(t, Options{})
	withSnapshot := filled(t, Options{SnapshotEntries: 10, KeepEntries: 2})
	for _, c := range []struct {
		name   string
		of     *member
		damage func(*testing.T, string)
		want   string
	}{
		{"the log is cut off in its middle", withLog, edit(logFile, half), "it is cut off: it has"},
		{"the log is cut off after its root pages", withLog, edit(logFile, cut(8192)), "it is cut off: it has 8192 bytes of"},
		{"the log is cut off in its root pages", withLog, edit(logFile, cut(100)), "open the swarm's log"},
		{"the log is something else", withLog, edit(logFile, func([]byte) []byte { return make([]byte, 64<<10) }), "open the swarm's log"},
		{"all pages but the root pages are zero", withLog, edit(logFile, zero), "it is damaged"},
		{"a byte of an entry is another", withLog, record(func(b *bbolt.Bucket) error {
			r := append([]byte{}, b.Get(number(20))...)
			r[len(r)-1] ^= 1
			return b.Put(number(20), r)
		}), "entry 20: it is damaged: its checksum is not its own"},
		{"the last entry is of a newer version", withLog, record(func(b *bbolt.Bucket) error {
			k, v := b.Cursor().Last()
			r := append([]byte{}, v...)
			r[4] = 9
			return b.Put(k, sealed(r))
		}), "it has format 9, and this version of Sampan reads format 1 only"},
		{"an entry is missing", withLog, record(func(b *bbolt.Bucket) error { return b.Delete(number(20)) }), "an entry is missing that no snapshot has"},
		{"the snapshot is cut off", withSnapshot, edit("snapshots/*-*/state.bin", half), "start the swarm's log in"},
		{"a byte of the snapshot is another", withSnapshot, edit("snapshots/*-*/state.bin", replace("n5", "n6")), "start the swarm's log in"},
		{"the snapshot is missing", withSnapshot, func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "snapshots")); err != nil {
				t.Fatal(err)
			}
		}, "an entry is missing that no snapshot has"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSwarm(t, c.of.swarm.options)
			m := s.add()
			m.id, m.addr, m.dir = c.of.id, c.of.addr, copyDir(t, c.of.dir)
			c.damage(t, m.dir)
			if err := m.open(); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %v, want %s", err, c.want)
			}
			// What is not damaged still opens.
			m.dir = copyDir(t, c.of.dir)
			m.start()
			if s.leader(); len(m.Reader().Nodes()) != 50 {
				t.Errorf("the undamaged directory has %d nodes", len(m.Reader().Nodes()))
			}
		})
	}
}

// sealed gives a record the checksum that it should have.
func sealed(r []byte) []byte {
	binary.BigEndian.PutUint32(r, crc32.Checksum(r[4:], castagnoli))
	return r
}

func TestUnfinishedSnapshotIsTakenOut(t *testing.T) {
	m := filled(t, Options{})
	left := filepath.Join(m.dir, "snapshots", "2-9-1.tmp")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	m.start()
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is there: %v", err)
	}
}

// tmpfs mounts a small filesystem for the time of the test.
func tmpfs(t *testing.T, dir, size string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("no filesystem can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestDiskIsFull(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "small")
	tmpfs(t, dir, "512k")
	s := newSwarm(t, Options{})
	m := s.add()
	m.dir = filepath.Join(dir, "raft")
	m.start()
	m.begin()
	acknowledged := 0
	var err error
	for ; err == nil; acknowledged++ {
		err = m.Update(limited(t), func(w Writer) error {
			w.PutAuth(fmt.Sprint("s", acknowledged), strings.Repeat("x", 20<<10))
			return nil
		})
	}
	acknowledged--
	if !errors.Is(err, ErrUncertain) || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("error is %v", err)
	}
	<-m.Done()
	if err := m.Err(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("it has stopped for %v", err)
	}
	m.kill()
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	m.start()
	s.leader()
	for i := range acknowledged {
		if m.Reader().Auth(fmt.Sprint("s", i)) == "" {
			t.Errorf("s%d of %d was acknowledged and is lost", i, acknowledged)
		}
	}
	m.put("after")
	if acknowledged == 0 {
		t.Error("nothing was acknowledged at all")
	}
}

// The directory of a store that runs is, at a moment without a write, what its sudden death would leave.
func TestCopyOfARunningStore(t *testing.T) {
	s := three(t, Options{})
	leader := s.leader()
	for i := range 20 {
		leader.put(fmt.Sprint("n", i))
	}
	was := s.agree()
	copies := map[*member]string{}
	for _, m := range s.members {
		copies[m] = copyDir(t, m.dir)
	}
	leader.put("later")
	for _, m := range s.members {
		m.kill()
		m.dir = copies[m]
	}
	for _, m := range s.members {
		m.start()
	}
	if diff := cmp.Diff(was, s.agree()); diff != "" {
		t.Error(diff)
	}
	s.leader().put("goes on")
}
