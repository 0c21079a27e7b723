package state

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckFindsIntentsThatNobodyEnds(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "state.db"), Options{})
	op, err := db.Begin("thing.make", "one", nil)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := db.Check(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("while it runs: %v, %v", found, err)
	}
	op.Undo(func() error { return errors.New("it cannot be undone") })
	failed := errors.New("it failed")
	op.End(&failed)
	found, err := db.Check(t.Context())
	if err != nil || len(found) != 1 || !strings.Contains(found[0].Subject, "thing.make one") {
		t.Errorf("found %v, %v, expected the intent", found, err)
	}
}
