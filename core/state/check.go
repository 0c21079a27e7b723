package state

import (
	"context"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/sampan-project/sampan/core/check"
)

// maxDamage bounds how many damaged pages are told.
const maxDamage = 20

// Check looks for damaged pages of the file, and for intents whose operation no longer runs: their undo
// failed, and the next start tries again.
func (db *DB) Check(ctx context.Context) (found []check.Finding, err error) {
	err = db.bolt.View(func(tx *bbolt.Tx) error {
		for damage := range tx.Check() { // to its end, or its goroutine stays
			if len(found) < maxDamage {
				found = append(found, check.Finding{Kind: "database", Subject: db.path, Problem: damage.Error(),
					Advice: "stop the daemon and restore the file from a backup"})
			}
		}
		return nil
	})
	if err != nil {
		return found, fmt.Errorf("check database %s: %w", db.path, err)
	}
	pending, err := db.Pending()
	if err != nil {
		return found, err
	}
	for _, i := range pending {
		if db.runs(i.ID) {
			continue
		}
		found = append(found, check.Finding{Kind: "intent", Subject: fmt.Sprintf("%d (%s %s)", i.ID, i.Kind, i.Subject),
			Problem: "it was cut off and not taken back", Advice: "restart the daemon: its start takes back what was cut off"})
	}
	return found, nil
}

// runs reports whether the operation of an intent is in progress in this process.
func (db *DB) runs(id uint64) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.ops[id]
}

func (db *DB) setRuns(id uint64, runs bool) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if runs {
		db.ops[id] = true
	} else {
		delete(db.ops, id)
	}
}
