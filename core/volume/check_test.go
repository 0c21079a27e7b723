package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/core/wire"
)

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		name    string
		breaks  func(m *Manager) error
		problem string
	}{
		{"nothing", func(*Manager) error { return nil }, ""},
		{"no directory", func(m *Manager) error { return os.RemoveAll(filepath.Join(m.o.Root, "data")) }, "its directory is missing"},
		{"no row", func(m *Manager) error { return m.table.Delete("data") }, "the database does not have it"},
		{"a strange directory", func(m *Manager) error { return os.MkdirAll(filepath.Join(m.o.Root, "other", dataDir), 0o700) }, "does not know this directory"},
		{"half a removal", func(m *Manager) error { return os.Mkdir(filepath.Join(m.o.Root, removedPrefix+"gone"), 0o700) }, "its removal was cut off"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := open(t, t.TempDir(), nil)
			if _, err := m.Create(t.Context(), wire.VolumeCreateRequest{Name: "data"}); err != nil {
				t.Fatal(err)
			}
			if err := test.breaks(m); err != nil {
				t.Fatal(err)
			}
			found, err := m.Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if test.problem == "" {
				if len(found) > 0 {
					t.Errorf("found %v", found)
				}
				return
			}
			if len(found) != 1 || !strings.Contains(found[0].Problem, test.problem) || found[0].Mend == nil {
				t.Fatalf("found %v, expected one with %q", found, test.problem)
			}
			if err := found[0].Mend(t.Context()); err != nil {
				t.Fatal(err)
			}
			if found, err = m.Check(t.Context()); err != nil || len(found) > 0 {
				t.Errorf("after it was mended: %v, %v", found, err)
			}
		})
	}
}
