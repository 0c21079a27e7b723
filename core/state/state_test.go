package state

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sampan-project/sampan/core/fault"
)

func open(t *testing.T, path string, o Options) *DB {
	t.Helper()
	db, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

type row struct {
	Name string
	N    int
}

func TestTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "state.db")
	db := open(t, path, Options{})
	table := NewTable[row](db, "rows")
	if list, err := table.List(); len(list) != 0 || err != nil {
		t.Error(list, err)
	}
	if _, err := table.Get("a"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	for i, key := range []string{"b", "a", "c"} {
		if err := table.Put(key, row{key, i}); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Change("a", func(r *row) error { r.N = 7; return nil }); err != nil {
		t.Error(err)
	}
	if err := table.Change("none", func(*row) error { return nil }); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	broken := errors.New("broken")
	if err := table.Change("a", func(r *row) error { r.N = 8; return broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	for range 2 { // the second is no error
		if err := table.Delete("c"); err != nil {
			t.Error(err)
		}
	}
	_ = db.Close()
	db = open(t, path, Options{})
	if list, err := NewTable[row](db, "rows").List(); err != nil || !slices.Equal(list, []row{{"a", 7}, {"b", 0}}) {
		t.Error(list, err)
	}
}

// A transaction is whole or not there, also when others were committed with it.
func TestUpdateIsAtomic(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "state.db"), Options{NoSync: true})
	table := NewTable[int](db, "rows")
	const writers = 300
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			err := db.Update(func(tx *Tx) error {
				rows := table.In(tx)
				if err := errors.Join(rows.Put(fmt.Sprintf("%03d-a", i), i), rows.Put(fmt.Sprintf("%03d-b", i), i)); err != nil {
					return err
				}
				if i%3 == 0 {
					return fault.New(fault.Conflict, "not %d", i)
				}
				return nil
			})
			if fails := i%3 == 0; fails != (err != nil) || fails && err.Error() != fmt.Sprintf("not %d", i) {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	all.Wait()
	rows, err := table.All()
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for key, v := range rows {
		if count++; v%3 == 0 {
			t.Errorf("%s is there", key)
		}
	}
	if count != 2*writers*2/3 {
		t.Errorf("%d rows", count)
	}
}

func TestPanicStaysWithItsCaller(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "state.db"), Options{NoSync: true})
	func() {
		defer func() {
			if r := recover(); r != "oops" {
				t.Errorf("recovered %v", r)
			}
		}()
		_ = db.Update(func(*Tx) error { panic("oops") })
	}()
	if err := NewTable[int](db, "rows").Put("a", 1); err != nil {
		t.Error(err)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	for _, o := range []Options{{}, {NoSync: true}} {
		path := filepath.Join(t.TempDir(), "state.db")
		open(t, path, o)
		if _, err := Open(path, o); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "another sampand uses "+path) {
			t.Error(err)
		}
	}
}

// An operation that was cut off is found again with its steps; one that ended is not.
func TestIntents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, path, Options{})
	run := func(name string, fail error, undo ...error) (err error) {
		op, err := db.Begin("test.make", name, row{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		defer op.End(&err)
		for _, u := range undo {
			op.Undo(func() error { return u })
		}
		return fail
	}
	broken, stuck := errors.New("broken"), errors.New("stuck")
	if err := run("ended", nil); err != nil {
		t.Error(err)
	}
	if err := run("undone", broken, nil, nil); !errors.Is(err, broken) {
		t.Error(err)
	}
	if err := run("stuck", broken, stuck); !errors.Is(err, broken) || !errors.Is(err, stuck) {
		t.Error(err)
	}
	cut, err := db.Begin("test.make", "cut off", row{N: 5})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(cut.Step("link", "veth1"), cut.Step("address", "10.0.0.2")); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Begin("test.other", "unknown", nil); err != nil {
		t.Fatal(err)
	}
	_ = db.Close() // a crash

	db = open(t, path, Options{})
	var seen []string
	undo := func(_ context.Context, i Intent) error {
		seen = append(seen, i.Subject)
		if i.Subject == "stuck" {
			return stuck
		}
		var r row
		s, ok := i.Step("address")
		if err := i.Decode(&r); err != nil || r.N != 5 || !ok || string(s.Data) != `"10.0.0.2"` || len(i.Steps) != 2 {
			t.Errorf("%+v, %v", i, err)
		}
		return nil
	}
	err = db.Recover(t.Context(), map[string]func(context.Context, Intent) error{"test.make": undo})
	if !errors.Is(err, stuck) || !strings.Contains(err.Error(), "no undo for this kind") || !slices.Equal(seen, []string{"cut off", "stuck"}) {
		t.Errorf("%v, %v", seen, err)
	}
	pending, err := db.Pending()
	if err != nil || len(pending) != 2 || pending[0].Subject != "stuck" || pending[1].Subject != "unknown" {
		t.Errorf("%+v, %v", pending, err)
	}
}

// The result and the end of its operation are one transaction.
func TestFinish(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "state.db"), Options{NoSync: true})
	table := NewTable[row](db, "rows")
	err := func() (err error) {
		op, err := db.Begin("test.make", "a", nil)
		if err != nil {
			return err
		}
		defer op.End(&err)
		return db.Update(func(tx *Tx) error { return errors.Join(table.In(tx).Put("a", row{}), op.Finish(tx)) })
	}()
	pending, pendingErr := db.Pending()
	if err != nil || pendingErr != nil || len(pending) != 0 {
		t.Error(err, pendingErr, pending)
	}
	if _, err := table.Get("a"); err != nil {
		t.Error(err)
	}
}
