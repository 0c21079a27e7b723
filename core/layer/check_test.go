package layer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		name     string
		breaks   func(t *testing.T, s *Store, dir string)
		problem  string
		mendable bool
	}{
		{"nothing", func(*testing.T, *Store, string) {}, "", false},
		{"a strange directory", func(t *testing.T, s *Store, _ string) { mkdir(t, filepath.Join(s.root, "stranger")) }, "neither a whole layer nor a snapshot", true},
		{"half a layer", func(t *testing.T, s *Store, _ string) {
			mkdir(t, filepath.Join(s.root, strings.Repeat("a", 64), "diff"))
		}, "neither a whole layer nor a snapshot", true},
		{"no owner", func(t *testing.T, s *Store, _ string) { prepare(t, s, "other") }, "no container speaks for it", true},
		{"no work directory", func(t *testing.T, _ *Store, dir string) { remove(t, filepath.Join(dir, "work")) }, "work directory is missing", true},
		{"no lower", func(t *testing.T, _ *Store, dir string) { remove(t, filepath.Join(dir, "lower")) }, "does not say what it stands on", true},
		{"no upper directory", func(t *testing.T, _ *Store, dir string) { remove(t, filepath.Join(dir, "diff")) }, "upper directory is missing", false},
		{"no short name", func(t *testing.T, s *Store, _ string) { remove(t, filepath.Join(s.root, linkDir, s.Layers()[0].Link)) }, "short name", true},
		{"no layer", func(t *testing.T, s *Store, _ string) { remove(t, s.dir(s.Layers()[0].ChainID)) }, "directory is not whole", false},
		{"an old half", func(t *testing.T, s *Store, _ string) {
			path := filepath.Join(s.root, tmpDir, "layer-1")
			mkdir(t, path)
			old := time.Now().Add(-time.Hour)
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}, "by an earlier daemon", true},
		{"a new half", func(t *testing.T, s *Store, _ string) { mkdir(t, filepath.Join(s.root, tmpDir, "layer-1")) }, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t)
			if _, err := s.Prepare(t.Context(), "box", unpack(t, s, base)); err != nil {
				t.Fatal(err)
			}
			name, _, err := s.snapshot("box")
			if err != nil {
				t.Fatal(err)
			}
			test.breaks(t, s, filepath.Join(s.root, name))
			found, err := s.Check(t.Context(), []string{"box"})
			if err != nil {
				t.Fatal(err)
			}
			if test.problem == "" {
				if len(found) > 0 {
					t.Fatalf("found %v", found)
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
			s.removals.Wait()
			if found, err = s.Check(t.Context(), []string{"box"}); err != nil || len(found) > 0 {
				t.Errorf("after it was mended: %v, %v", found, err)
			}
		})
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func prepare(t *testing.T, s *Store, key string) {
	t.Helper()
	if _, err := s.Prepare(t.Context(), key, ""); err != nil {
		t.Fatal(err)
	}
}
