package server

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/lazy/toc"
)

// The indexes that were not used for the longest time go first, and one that is being written stays.
func TestBound(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{toc.TemporaryIndex + "1", "old", "older", "new"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		when := time.Unix(int64(1000*([]int{0, 2, 1, 3}[i])), 0)
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		limit int64
		want  []string
	}{
		{300, []string{"new", toc.TemporaryIndex + "1", "old", "older"}},
		{250, []string{"new", toc.TemporaryIndex + "1", "old"}},
		{100, []string{"new", toc.TemporaryIndex + "1"}},
		{0, []string{toc.TemporaryIndex + "1"}},
	} {
		if err := bound(dir, step.limit); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("limit %d: %s", step.limit, diff)
		}
	}
}
