package store

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

func testLogs(t *testing.T, failed func(error)) *logs {
	t.Helper()
	l, err := openLogs(t.TempDir(), failed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) //nolint:errcheck // the test is over
	return l
}

func TestLogKeepsEntriesAndValues(t *testing.T) {
	l := testLogs(t, func(err error) { t.Error(err) })
	edges := func(first, last uint64) {
		t.Helper()
		f, err1 := l.FirstIndex()
		n, err2 := l.LastIndex()
		if f != first || n != last || err1 != nil || err2 != nil {
			t.Errorf("it goes from %d to %d (%v, %v), want %d to %d", f, n, err1, err2, first, last)
		}
	}
	edges(0, 0)
	at := time.Unix(1700000000, 12345)
	entries := []*raft.Log{
		{Index: 5, Term: 2, Type: raft.LogNoop},
		{Index: 6, Term: 3, Type: raft.LogCommand, Data: []byte("data"), Extensions: []byte("more"), AppendedAt: at},
		{Index: 300, Term: 1 << 60, Type: raft.LogConfiguration, Data: bytes.Repeat([]byte{0}, 10000), AppendedAt: at},
	}
	if err := l.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
	edges(5, 300)
	for _, want := range entries {
		var got raft.Log
		if err := l.GetLog(want.Index, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(*want, got, cmp.Comparer(bytes.Equal)); diff != "" {
			t.Error(diff)
		}
	}
	if err := l.GetLog(7, new(raft.Log)); err != raft.ErrLogNotFound { //nolint:errorlint // Raft compares so
		t.Errorf("an entry that is not there: %v", err)
	}
	if err := l.StoreLog(&raft.Log{Index: 6, Term: 4}); err != nil { // in the place of another
		t.Fatal(err)
	}
	var got raft.Log
	if err := l.GetLog(6, &got); err != nil || got.Term != 4 || len(got.Data)+len(got.Extensions) != 0 {
		t.Errorf("an entry that was replaced: %+v, %v", got, err)
	}
	if err := l.DeleteRange(5, 7); err != nil {
		t.Fatal(err)
	}
	edges(300, 300)

	if v, err := l.Get([]byte("none")); v != nil || err != nil {
		t.Errorf("a value that is not there: %q, %v", v, err)
	}
	if n, err := l.GetUint64([]byte("none")); n != 0 || err != nil {
		t.Errorf("a number that is not there: %d, %v", n, err)
	}
	if err := errors.Join(l.Set([]byte("vote"), []byte("m1")), l.SetUint64([]byte("term"), 7)); err != nil {
		t.Fatal(err)
	}
	v, err1 := l.Get([]byte("vote"))
	n, err2 := l.GetUint64([]byte("term"))
	if string(v) != "m1" || n != 7 || err1 != nil || err2 != nil {
		t.Errorf("values are %q, %d (%v, %v)", v, n, err1, err2)
	}
}

func TestLogRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, c := range []struct {
		entry raft.Log
		want  string
	}{
		{raft.Log{Index: 1, Type: raft.LogConfiguration + 1}, "entry 1: type 6, which this version of Sampan does not know"},
		{raft.Log{Index: 1, Data: make([]byte, maxRecord), Extensions: []byte{1}}, "expected at most"},
	} {
		var told error
		l := testLogs(t, func(err error) { told = err })
		err := l.StoreLogs([]*raft.Log{{Index: 9}, &c.entry})
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(told, err) {
			t.Errorf("error is %v, told %v, want %s", err, told, c.want)
		}
		if n, _ := l.LastIndex(); n != 0 {
			t.Error("a part of it is there")
		}
	}
}

// After an error nothing is written, and who would make Raft panic does not come back to it.
func TestLogThatHasFailedStandsStill(t *testing.T) {
	told := make(chan error, 9)
	l := testLogs(t, func(err error) { told <- err })
	if err := l.StoreLog(&raft.Log{Index: 1, Term: 1}); err != nil {
		t.Fatal(err)
	}
	first := l.stop(errors.New("first"))
	if err := <-told; !errors.Is(err, first) {
		t.Errorf("told %v", err)
	}
	if err := l.StoreLog(&raft.Log{Index: 2, Term: 1}); !errors.Is(err, first) {
		t.Errorf("an entry after it: %v", err)
	}
	if n, err := l.LastIndex(); n != 1 || err != nil {
		t.Errorf("the last entry is %d, %v", n, err)
	}
	for name, call := range map[string]func(){
		"SetUint64": func() { l.SetUint64([]byte("CurrentTerm"), 2) }, //nolint:errcheck // it does not return
		"GetLog": func() {
			l.path = "it"
			l.db.Close()               //nolint:errcheck // the test reads what cannot be read
			l.GetLog(1, new(raft.Log)) //nolint:errcheck // it does not return
		},
	} {
		came := make(chan bool, 1)
		go func() {
			back := false
			defer func() { came <- back }()
			call()
			back = true
		}()
		if <-came {
			t.Errorf("%s comes back", name)
		}
	}
}

func TestRecordsThatAreDamaged(t *testing.T) {
	record, err := encodeRecord(&raft.Log{Term: 1, Data: []byte("data"), Extensions: []byte("more")})
	if err != nil {
		t.Fatal(err)
	}
	for n := range record {
		if err := decodeRecord(record[:n], new(raft.Log)); err == nil {
			t.Errorf("the first %d bytes are a record", n)
		}
		for bit := range 8 {
			r := bytes.Clone(record)
			r[n] ^= 1 << bit
			if err := decodeRecord(r, new(raft.Log)); err == nil {
				t.Errorf("with bit %d of byte %d turned it is a record", bit, n)
			}
		}
	}
	long := bytes.Clone(record)
	long[22] = 0xff
	if err := decodeRecord(sealed(long), new(raft.Log)); err == nil || !strings.Contains(err.Error(), "bytes of data in a record of") {
		t.Errorf("more data than there is: %v", err)
	}
}

// The state machine stands still at the first entry that it cannot read: not even a snapshot is made past it.
func TestMachineStandsStill(t *testing.T) {
	var told []error
	m := &machine{board: newBoard(newState()), failed: func(err error) { told = append(told, err) }}
	d := newDraft(newState(), clock()())
	d.PutAuth("s", "x")
	good, err := d.entry()
	if err != nil {
		t.Fatal(err)
	}
	bad, ok := m.Apply(&raft.Log{Index: 1, Data: []byte("{}")}).(error)
	if !ok || len(told) != 1 || !errors.Is(told[0], bad) {
		t.Fatalf("the answer is %v, told %v", bad, told)
	}
	if err, _ := m.Apply(&raft.Log{Index: 2, Data: good}).(error); !errors.Is(err, bad) {
		t.Errorf("the entry after it: %v", err)
	}
	if _, err := m.Snapshot(); !errors.Is(err, bad) {
		t.Errorf("a snapshot: %v", err)
	}
	if len(m.current().rows()) != 0 {
		t.Error("it has changed")
	}

	// A snapshot that the leader sends is no better.
	m = &machine{board: newBoard(newState()), running: true, failed: func(err error) { told = append(told, err) }}
	if m.Apply(&raft.Log{Index: 2, Data: good}) != nil {
		t.Fatal("a good entry is refused")
	}
	was := dump(t, *m.current())
	if err := m.Restore(io.NopCloser(strings.NewReader(was[:len(was)-5]))); err == nil || len(told) != 2 {
		t.Errorf("a part of a snapshot: %v, told %v", err, told)
	}
	if dump(t, *m.current()) != was {
		t.Error("a part of a snapshot was taken")
	}
}
