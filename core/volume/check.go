package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sampan-project/sampan/core/check"
)

// Check compares the volumes' rows with their directories. What it finds Reconcile mends.
func (m *Manager) Check(context.Context) (found []check.Finding, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	add := func(name, problem, did string) {
		found = append(found, check.Finding{Kind: "volume", Subject: name, Problem: problem, Did: did, Mend: func(context.Context) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.reconcile()
		}})
	}
	rows, err := m.table.All()
	if err != nil {
		return nil, fmt.Errorf("check volumes: %w", err)
	}
	inTable := map[string]bool{}
	for name := range rows {
		inTable[name] = true
		if _, known := m.rows[name]; !known {
			found = append(found, check.Finding{Kind: "volume", Subject: name, Problem: "the database has a row of it that is not in use", Advice: "restart the daemon"})
		}
	}
	for name, r := range m.rows {
		found = append(found, m.checkMount(r)...)
		if !inTable[name] {
			found = append(found, check.Finding{Kind: "volume", Subject: name, Problem: "the database does not have it", Did: "wrote its row",
				Mend: func(context.Context) error { return m.writeAgain(r) }})
		}
		if _, err := os.Stat(m.dataPath(name)); errors.Is(err, os.ErrNotExist) {
			add(name, "its directory is missing", "made it, empty")
		}
	}
	entries, err := os.ReadDir(m.o.Root)
	if err != nil {
		return found, fmt.Errorf("check volumes: %w", err)
	}
	for _, e := range entries {
		name, removed := strings.CutPrefix(e.Name(), removedPrefix)
		_, known := m.rows[name]
		switch {
		case removed:
			add(name, "its removal was cut off", "removed it")
		case known || !e.IsDir() || ValidName(name) != nil:
		default:
			if _, err := os.Stat(filepath.Join(m.o.Root, name, dataDir)); err == nil {
				add(name, "the database does not know this directory", "took it up as a volume")
			}
		}
	}
	return found, nil
}

// checkMount compares what is mounted for a volume with who uses it. The caller holds mu.
func (m *Manager) checkMount(r row) []check.Finding {
	fs, err := parseOptions(r.Options)
	if err != nil || fs == nil || fs.bind != "" {
		return nil
	}
	there, err := mounted(m.dataPath(r.Name))
	switch {
	case err != nil:
		return []check.Finding{{Kind: "volume", Subject: r.Name, Problem: "what is mounted there does not answer: " + err.Error(), Advice: "see to its device or server"}}
	case there && len(m.users[r.Name]) == 0:
		return []check.Finding{{Kind: "volume", Subject: r.Name, Problem: "it is mounted, and nobody uses it", Did: "unmounted it", Mend: func(context.Context) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			if len(m.users[r.Name]) > 0 {
				return nil
			}
			return unmount(m.dataPath(r.Name))
		}}}
	case !there && len(m.users[r.Name]) > 0:
		return []check.Finding{{Kind: "volume", Subject: r.Name, Problem: "it is not mounted, and containers use it", Advice: "restart them: somebody unmounted it"}}
	}
	return nil
}

// writeAgain writes the row of a volume that is still there.
func (m *Manager) writeAgain(r row) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.rows[r.Name]; !known {
		return nil
	}
	return m.table.Put(r.Name, r)
}
