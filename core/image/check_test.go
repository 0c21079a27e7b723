package image

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/check"
)

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		name     string
		breaks   func(t *testing.T, w *world, e *entry)
		problem  string
		mendable bool
	}{
		{"nothing", func(*testing.T, *world, *entry) {}, "", false},
		{"no row", func(t *testing.T, w *world, e *entry) { must(t, w.rows.Delete(e.record.ID.String())) }, "the database does not have it", true},
		{"no blob", func(t *testing.T, w *world, e *entry) { must(t, w.o.Content.Delete(e.Layers[0].Blob.Digest)) }, "is missing", false},
		{"a strange blob", func(t *testing.T, w *world, _ *entry) {
			_, err := w.o.Content.Ingest(t.Context(), strings.NewReader("nobody's"), ocispec.Descriptor{})
			must(t, err)
		}, "no image has it", true},
		{"a strange layer", func(t *testing.T, w *world, _ *entry) {
			_, err := w.o.Layers.Unpack(t.Context(), "", strings.NewReader(""))
			must(t, err)
		}, "no image and no container has it", true},
		{"a wrong blob", func(t *testing.T, w *world, e *entry) {
			must(t, os.WriteFile(filepath.Join(w.dir, "images/blobs/sha256", e.Layers[0].Blob.Digest.Encoded()), []byte("wrong"), 0o600))
		}, "is not what its digest says", false},
		{"an old half of a blob", func(t *testing.T, w *world, _ *entry) {
			path, old := filepath.Join(w.dir, "images/ingest/blob-1"), time.Now().Add(-time.Hour)
			must(t, os.WriteFile(path, nil, 0o600))
			must(t, os.Chtimes(path, old, old))
		}, "by an earlier daemon", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			id, err := w.Import(t.Context(), strings.NewReader(strings.Repeat("\x00", 1024)), "box", "", nil, nil)
			must(t, err)
			w.background.Wait() // it writes the row again, without the mark of this boot
			test.breaks(t, w, w.byID(id))
			look := func() []check.Finding {
				found, err := w.Check(t.Context(), true)
				must(t, err)
				return found
			}
			found := look()
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
			must(t, found[0].Mend(context.WithoutCancel(t.Context())))
			if found := look(); len(found) > 0 {
				t.Errorf("after it was mended: %v", found)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
