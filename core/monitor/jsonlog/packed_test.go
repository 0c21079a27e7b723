package jsonlog

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// written makes a log of three files, and returns the texts of its entries.
func written(t *testing.T, o Options) (w *Writer, entries []string) {
	t.Helper()
	o.MaxSize, o.MaxFile = 1000, 3
	w = open(t, o)
	l := w.Lines(Stdout)
	for i := range 200 {
		fmt.Fprintf(l, "line %d\n", i)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w, texts(t, Query{Path: w.options.Path, Tail: All})
}

func names(t *testing.T, path string) []string {
	t.Helper()
	list, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range list {
		list[i] = n[len(path):]
	}
	return list
}

// Files that were rotated are packed, and read like others.
func TestCompress(t *testing.T) {
	w, packed := written(t, Options{Compress: true})
	path := w.options.Path
	if diff := cmp.Diff([]string{"", ".1.gz", ".2.gz"}, names(t, path)); diff != "" {
		t.Error(diff)
	}
	_, plain := written(t, Options{})
	if len(packed) != len(plain) || len(packed) < 30 || packed[len(packed)-1] != "line 199\n" {
		t.Errorf("%d entries packed, %d plain", len(packed), len(plain))
	}
	// A file that is passed over by its time is not unpacked: its time is that of its last entry.
	if info, err := os.Stat(path + ".2.gz"); err != nil || time.Since(info.ModTime()) > time.Minute {
		t.Errorf("%v, %v", info, err)
	}
	// Without compress from now on: both forms are there, and as many files as before.
	again := open(t, Options{Path: path, MaxSize: 1000, MaxFile: 3})
	l := again.Lines(Stdout)
	for i := 200; i < 215; i++ {
		fmt.Fprintf(l, "line %d\n", i)
	}
	if diff := cmp.Diff([]string{"", ".1", ".2.gz"}, names(t, path)); diff != "" {
		t.Error(diff)
	}
	if all := texts(t, Query{Path: path, Tail: All}); !slices.Contains(all, packed[len(packed)-6]) || all[len(all)-1] != "line 214\n" {
		t.Errorf("%d entries to %q", len(all), all[len(all)-1])
	}
}

// What a power loss has cut off is read as far as it goes, and keeps nobody from the others.
func TestDamagedPacked(t *testing.T) {
	for _, keep := range []int64{0, 5, 60} {
		w, entries := written(t, Options{Compress: true})
		path := w.options.Path
		youngest := texts(t, Query{Path: path, Tail: 18})
		if err := os.Truncate(path+".2.gz", keep); err != nil {
			t.Fatal(err)
		}
		all := texts(t, Query{Path: path, Tail: All})
		if len(all) >= len(entries) || len(all) < 18 || !slices.Equal(all[len(all)-18:], youngest) {
			t.Errorf("%d bytes: %d of %d entries", keep, len(all), len(entries))
		}
	}
}

// A crash may leave a file in both forms: it is read once.
func TestPackedAndPlain(t *testing.T) {
	w, entries := written(t, Options{})
	path := w.options.Path
	if err := packFile(path+".1", path+".1.gz"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(entries, texts(t, Query{Path: path, Tail: All})); diff != "" {
		t.Error(diff)
	}
}
