package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/core/monitor"
)

func TestCheck(t *testing.T) {
	stranger := strings.Repeat("ab", 32)
	for _, test := range []struct {
		name     string
		breaks   func(h *house, id string) error
		problem  string
		mendable bool
	}{
		{"nothing", func(*house, string) error { return nil }, "", false},
		{"no record", func(h *house, id string) error { return h.store.records.Delete(id) }, "the database does not have it", true},
		{"no directory", func(h *house, id string) error { return os.RemoveAll(h.directory(id)) }, "its directory is missing", true},
		{"a strange directory", func(h *house, _ string) error { return os.Mkdir(h.directory(stranger), 0o700) }, "it belongs to no container", true},
		{"a step's directory", func(h *house, _ string) error { return os.MkdirAll(h.stepDirectory(stranger), 0o700) }, "it belongs to no container", true},
		{"rubbish", func(h *house, _ string) error { return h.store.garbage.Put(stranger, garbage{ID: stranger}) }, "some of it is left", true},
		{"a strange process", func(h *house, _ string) error {
			_, _, err := h.monitor.Run(t.Context(), monitor.Config{ID: stranger}, nil)
			return err
		}, "belongs to no container", true},
		{"no process", func(h *house, id string) error {
			c, err := h.find(id)
			if err == nil {
				c.mu.Lock()
				c.state.Pid++
				c.mu.Unlock()
			}
			return err
		}, "and the monitor's is", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHouse(t)
			id := h.runs(t, "box", nil)
			if err := os.MkdirAll(filepath.Dir(h.stepDirectory(stranger)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := test.breaks(h, id); err != nil {
				t.Fatal(err)
			}
			found, err := h.Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if test.problem == "" {
				if len(found) > 0 {
					t.Errorf("found %v", found)
				}
				return
			}
			if len(found) != 1 || !strings.Contains(found[0].Problem, test.problem) || (found[0].Mend != nil) != test.mendable {
				t.Fatalf("found %v, expected one with %q, mendable %t", found, test.problem, test.mendable)
			}
			if !test.mendable {
				return
			}
			if err := found[0].Mend(t.Context()); err != nil {
				t.Fatal(err)
			}
			if found, err = h.Check(t.Context()); err != nil || len(found) > 0 {
				t.Errorf("after it was mended: %v, %v", found, err)
			}
		})
	}
}
