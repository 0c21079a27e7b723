package layer

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// FuzzStage unpacks what may be a layer beside a directory that must stay as it is, and a link to it
// is put where a layer could find it.
func FuzzStage(f *testing.F) {
	for _, files := range [][]file{
		base,
		{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../../../outside"}, {Name: "l/x"}},
		{{Name: ".wh.a"}, {Name: "a/"}, {Name: "a/.wh..wh..opq"}, {Name: ".wh..wh..opq"}},
		{{Name: "h", Typeflag: tar.TypeLink, Linkname: "../outside/guard"}},
		{{Name: "a/b/c"}, {Name: "a/b", Typeflag: tar.TypeSymlink, Linkname: "."}, {Name: "a/b/b/b/d"}},
	} {
		data := archive(&testing.T{}, files...)
		b := make([]byte, data.Len())
		if _, err := data.Read(b); err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	root := f.TempDir()
	outside := filepath.Join(root, "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "guard"), []byte("guard"), 0o600); err != nil {
		f.Fatal(err)
	}
	s, err := Open(filepath.Join(root, "overlay2"), nil)
	if err != nil {
		f.Fatal(err)
	}
	s.SetLimits(Limits{Bytes: 1 << 20, Entries: 1000, Names: 1 << 20})
	f.Fuzz(func(t *testing.T, data []byte) {
		st, err := s.Stage(t.Context(), bytes.NewReader(data))
		if err == nil {
			if err := st.settle(t.Context(), ""); err != nil {
				t.Log(err)
			}
			st.Discard()
		}
		s.removals.Wait()
		if left, err := os.ReadDir(filepath.Join(s.root, tmpDir)); err != nil || len(left) > 0 {
			t.Errorf("left %v, %v", left, err)
		}
		list, err := os.ReadDir(outside)
		guard, rerr := os.ReadFile(filepath.Join(outside, "guard"))
		if err != nil || rerr != nil || len(list) != 1 || string(guard) != "guard" {
			t.Errorf("outside: %v, %q", list, guard)
		}
		if list, err := os.ReadDir(root); err != nil || len(list) != 2 {
			t.Errorf("beside: %v", list)
		}
	})
}
