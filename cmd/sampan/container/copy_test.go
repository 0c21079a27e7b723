package container

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree lists what is below a directory: "dir/ file=content link->target".
func tree(t *testing.T, dir string) string {
	t.Helper()
	var parts []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		name := strings.TrimPrefix(p, dir+"/")
		switch {
		case d.IsDir():
			name += "/"
		case d.Type() == fs.ModeSymlink:
			target, _ := os.Readlink(p)
			name += "->" + target
		default:
			data, _ := os.ReadFile(p)
			name += "=" + string(data)
		}
		parts = append(parts, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(parts, " ")
}

// source makes d with f, an inner directory and a link.
func source(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "d")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "sub"), 0o755), os.WriteFile(filepath.Join(dir, "f"), []byte("text"), 0o640),
		os.Symlink("../f", filepath.Join(dir, "sub", "l")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What is packed under a name and unpacked under another is the same, whatever stood there before.
func TestPackAndUnpack(t *testing.T) {
	src := source(t)
	for packed, unpacked := range map[string]string{"d": "e", ".": "e", "x": "."} {
		var b bytes.Buffer
		if err := pack(&b, src, packed); err != nil {
			t.Fatal(err)
		}
		target := t.TempDir()
		if err := os.WriteFile(filepath.Join(target, "f"), []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := (copyOptions{}).unpack(&b, target, unpacked); err != nil {
			t.Fatal(err)
		}
		want := "e/ e/f=text e/sub/ e/sub/l->../f f=old"
		if unpacked == "." {
			want = "f=text sub/ sub/l->../f"
		}
		if diff := cmp.Diff(want, tree(t, target)); diff != "" {
			t.Errorf("%s as %s: %s", packed, unpacked, diff)
		}
	}
}

// The names of a file stay names of one file; a file whose other names are elsewhere has its content.
func TestPackHardLinks(t *testing.T) {
	src := source(t)
	for from, to := range map[string]string{"f": "sub/g", "sub/l": "sub/m"} {
		if err := os.Link(filepath.Join(src, from), filepath.Join(src, to)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(src, "f"), src+".elsewhere"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ from, name, want string }{
		{src, "e", "e/ e/f=text e/sub/ e/sub/g=text e/sub/l->../f e/sub/m->../f"},
		{src, ".", "f=text sub/ sub/g=text sub/l->../f sub/m->../f"},
		{src + ".elsewhere", "e", "e=text"},
	} {
		var b bytes.Buffer
		if err := pack(&b, tt.from, tt.name); err != nil {
			t.Fatal(err)
		}
		target := t.TempDir()
		if err := (copyOptions{}).unpack(&b, target, tt.name); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, tree(t, target)); diff != "" {
			t.Errorf("%s as %s: %s", tt.from, tt.name, diff)
		}
		for _, pair := range [][2]string{{"f", "sub/g"}, {"sub/l", "sub/m"}} {
			one, err := os.Lstat(filepath.Join(target, tt.name, pair[0]))
			two, err2 := os.Lstat(filepath.Join(target, tt.name, pair[1]))
			if tt.from == src && (err != nil || err2 != nil || !os.SameFile(one, two)) {
				t.Errorf("%s as %s: %v are two files (%v, %v)", tt.from, tt.name, pair, err, err2)
			}
		}
	}
}

// A container's archive does not get out of the directory it is unpacked in.
func TestHostileArchives(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }
	dir := tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
	}
	tests := map[string][]tar.Header{
		"dots":           {dir, file("d/../../outside")},
		"beside":         {dir, file("e")},
		"absolute":       {dir, file(outside)},
		"through a link": {dir, link("d/l", filepath.Dir(outside)), file("d/l/outside")},
		"link on dots":   {dir, link("d/l", "../.."), file("d/l/outside")},
		"hard link":      {dir, {Name: "d/h", Linkname: "/etc/passwd", Typeflag: tar.TypeLink}},
		"unknown kind":   {dir, {Name: "d/x", Typeflag: tar.TypeCont}},
	}
	for name, headers := range tests {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := (copyOptions{}).unpack(&b, t.TempDir(), "d"); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Lstat(outside); err == nil {
			t.Fatalf("%s: it got out", name)
		}
	}
}

func TestLocalTarget(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.Symlink("deep/../later", filepath.Join(dir, "dangling")), os.Symlink("dangling", filepath.Join(dir, "twice")),
		os.Symlink("/nowhere/at/all", filepath.Join(dir, "lost")), os.Symlink("loop", filepath.Join(dir, "loop")),
	); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		target, source string
		isDir          bool
		dir, name      string
		fails          bool
	}{
		{dir, "/a/f", false, dir, "f", false},
		{dir, "/a/d", true, dir, "d", false},
		{dir, "/a/d/", true, dir, "d", false},
		{dir, "/a/d/.", true, dir, ".", false},
		{file, "/a/f", false, dir, "file", false},
		{file, "/a/d", true, "", "", true},
		{dir + "/new", "/a/d", true, dir + "/", "new", false},
		{dir + "/new", "/a/d/.", true, dir + "/", "new", false},
		{dir + "/new", "/a/f", false, dir + "/", "new", false},
		{dir + "/new/", "/a/f", false, "", "", true},
		{dir + "/none/new", "/a/f", false, "", "", true},
		{dir + "/none/../new", "/a/d", true, dir + "/", "new", false},
		{dir + "/../none/../" + filepath.Base(dir), "/a/f", false, dir, "f", false},
		{dir + "/none/../new/", "/a/f", false, "", "", true},
		{dir + "/dangling", "/a/f", false, dir + "/", "later", false},
		{dir + "/dangling", "/a/d", true, dir + "/", "later", false},
		{dir + "/twice", "/a/f", false, dir + "/", "later", false},
		{dir + "/lost", "/a/f", false, "", "", true},
		{dir + "/loop", "/a/f", false, "", "", true},
	}
	for _, tt := range tests {
		d, n, err := localTarget(tt.target, tt.source, tt.isDir)
		if (err != nil) != tt.fails || err == nil && (d != tt.dir || n != tt.name) {
			t.Errorf("%s to %s: %q %q %v", tt.source, tt.target, d, n, err)
		}
	}
}

func TestSplitPlace(t *testing.T) {
	for given, want := range map[string][2]string{
		"web:/a": {"web", "/a"}, "web:a:b": {"web", "a:b"}, "/a:b": {"", "/a:b"}, "./a:b": {"", "./a:b"}, "-": {"", "-"}, "web:": {"web", ""},
	} {
		if c, p := splitPlace(given); c != want[0] || p != want[1] {
			t.Errorf("%s: %q %q", given, c, p)
		}
	}
}

// Special files do not end a copy half-way: they are made where that is permitted, else named.
func TestSpecialFiles(t *testing.T) {
	headers := []tar.Header{
		{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "d/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666},
		{Name: "d/queue", Typeflag: tar.TypeFifo, Mode: 0o640},
		{Name: "d/last", Typeflag: tar.TypeReg, Mode: 0o644},
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var warnings bytes.Buffer
	dir := t.TempDir()
	if err := (copyOptions{warnings: &warnings}).unpack(&b, dir, "e"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{
		"queue": fs.ModeNamedPipe | 0o640, "last": 0o644, "null": fs.ModeDevice | fs.ModeCharDevice | 0o600,
	} {
		info, err := os.Lstat(filepath.Join(dir, "e", name))
		switch {
		case name == "null" && errors.Is(err, fs.ErrNotExist):
			if want := "WARNING: skipped what only root can make: e/null (device)\n"; warnings.String() != want {
				t.Errorf("%q, want %q", warnings.String(), want)
			}
		case err != nil || info.Mode() != want:
			t.Errorf("%s: %v %v, want %v", name, info, err, want)
		}
	}
}
