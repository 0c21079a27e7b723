package store

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/fault"
)

func sample(name string) *Context {
	c := &Context{Name: name}
	c.Place("tcp://127.0.0.1:2376", true)
	c.Describe("some words")
	return c
}

var material = Material{Docker: {CA: []byte("a"), Cert: []byte("c"), Key: []byte("k")}}

// What is put is got, with its certificates, in files that their owner alone reads; what another program
// keeps in a context stays.
func TestPutGet(t *testing.T) {
	dir := t.TempDir()
	s := Open(dir)
	c := sample("one")
	c.Metadata["Other"] = "kept"
	c.Endpoints["kubernetes"] = map[string]any{"Host": "k"}
	if err := s.Put(c, material); err != nil {
		t.Fatal(err)
	}
	got, place, err := s.Get("one")
	if diff := cmp.Diff(c, got); diff != "" || err != nil {
		t.Fatal(err, diff)
	}
	if got.Host() != "tcp://127.0.0.1:2376" || !got.SkipTLSVerify() || got.Description() != "some words" || !place.Own {
		t.Errorf("%+v %+v", got, place)
	}
	if found, err := place.Material(); err != nil || !cmp.Equal(found, material) {
		t.Error(found, err)
	}
	info, err := os.Stat(place.File(Docker, Key))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	got.Describe("")
	if err := s.Put(got, nil); err != nil || place.File(Docker, Key) == "" {
		t.Errorf("certificates that were not to be replaced: %v", err)
	}
	if err := s.Put(got, Material{}); err != nil || place.File(Docker, Key) != "" {
		t.Errorf("certificates that were to go: %v", err)
	}
	if err := s.Remove("one"); err != nil || s.Exists("one") {
		t.Error(err)
	}
	for _, sub := range []string{"meta", "tls"} {
		if left, _ := os.ReadDir(filepath.Join(dir, sub)); len(left) > 0 {
			t.Errorf("left in %s: %v", sub, left)
		}
	}
}

// The store of another is read, hidden by our own, and not written.
func TestOthers(t *testing.T) {
	mine, theirs := t.TempDir(), t.TempDir()
	if err := Open(theirs).Put(sample("shared"), material); err != nil {
		t.Fatal(err)
	}
	if err := Open(theirs).Put(sample("theirs"), nil); err != nil {
		t.Fatal(err)
	}
	s := Open(mine, theirs, mine)
	own := sample("shared")
	own.Describe("mine")
	if err := s.Put(own, nil); err != nil {
		t.Fatal(err)
	}
	list, err := s.List()
	if err != nil || len(list) != 2 || list[0].Description() != "mine" || list[1].Name != "theirs" {
		t.Errorf("%+v %v", list, err)
	}
	if _, place, err := s.Get("theirs"); err != nil || place.Own {
		t.Errorf("%+v %v", place, err)
	}
	if err := s.Remove("theirs"); err != nil || !s.Exists("theirs") {
		t.Errorf("another's context was removed: %v", err)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]string{
		"": "cannot be empty", "default": "reserved context name", "a": "is invalid", "../x": "is invalid", "a b": "is invalid", "-x": "is invalid",
		strings.Repeat("x", 256): "is invalid", "ok": "", "a.b+c-d_e": "",
	} {
		err := CheckName(name)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, _, err := Open(t.TempDir()).Get("none"); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), `context "none": context not found`) {
		t.Error(err)
	}
}

// A file that names another context is not the context of that directory.
func TestForgedName(t *testing.T) {
	dir := t.TempDir()
	s := Open(dir)
	if err := s.Put(sample("one"), nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "meta", id("one")), filepath.Join(dir, "meta", id("two"))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Get("two"); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestExportImport(t *testing.T) {
	var out bytes.Buffer
	if err := Export(&out, sample("one"), material); err != nil {
		t.Fatal(err)
	}
	whole := out.Bytes()
	// As docker writes it: without the end, and without the last file's padding.
	cut := bytes.TrimRight(whole, "\x00")
	for what, data := range map[string][]byte{"tar": whole, "docker's tar": cut, "zip": zipOf(t, whole)} {
		c, tls, err := Import(bytes.NewReader(data), "two")
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if diff := cmp.Diff(sample("two"), c); diff != "" || !cmp.Equal(tls, material) {
			t.Errorf("%s: %s %v", what, diff, tls)
		}
	}
}

func zipOf(t *testing.T, archive []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	r := tar.NewReader(bytes.NewReader(archive))
	for h, err := r.Next(); err == nil; h, err = r.Next() {
		if h.Typeflag == tar.TypeDir {
			continue
		}
		f, err := w.Create(h.Name)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(b.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// An archive that is no context's is refused, and writes nothing.
func TestImportHostile(t *testing.T) {
	archive := func(headers ...tar.Header) []byte {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		for _, h := range headers {
			body := strings.Repeat("x", int(h.Size))
			if h.Name == metaFile && h.Typeflag == tar.TypeReg {
				body = `{"Name":"x"}`
			}
			h.Size, h.Mode = int64(len(body)), 0o600
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	meta := tar.Header{Name: metaFile, Typeflag: tar.TypeReg}
	for what, tt := range map[string]struct {
		data []byte
		want string
	}{
		"nothing": {nil, "no metadata found"}, "no archive": {[]byte("junk\n"), "expected a tar or zip file"}, "no meta.json": {archive(), "no metadata found"},
		"a way out":       {archive(meta, tar.Header{Name: "tls/../../x", Typeflag: tar.TypeReg}), "unexpected context file"},
		"a parent":        {archive(meta, tar.Header{Name: "tls/../x", Typeflag: tar.TypeReg}), "unexpected context file"},
		"an absolute one": {archive(meta, tar.Header{Name: "/etc/x/y", Typeflag: tar.TypeReg}), "unexpected context file"},
		"a link":          {archive(meta, tar.Header{Name: "tls/docker/key.pem", Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"}), "expected a file or a directory"},
		"too large":       {archive(meta, tar.Header{Name: "tls/docker/key.pem", Typeflag: tar.TypeReg, Size: maxFile + 1}), "expected at most"},
		"too long":        {make([]byte, maxArchive+1), "expected at most"},
	} {
		if _, _, err := Import(bytes.NewReader(tt.data), "two"); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
