package toc

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
)

func gzipped(t testing.TB, archive []byte) ([]byte, ocispec.Descriptor, digest.Digest) {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(archive); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(b.Bytes()), Size: int64(b.Len())}, digest.FromBytes(archive)
}

func indexFiles() []file {
	half := noise(3_000_000)
	return []file{
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "opt/", Mode: 0o1750, Uid: 33, Gid: 44}},
		{Header: tar.Header{Typeflag: tar.TypeReg, Name: "opt/small", Mode: 0o644}, content: []byte("small\n")},
		{Header: tar.Header{Typeflag: tar.TypeReg, Name: "opt/big", Mode: 0o4711, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b\x00c"}}, content: append(half, half...)},
		{Header: tar.Header{Typeflag: tar.TypeReg, Name: "opt/zeros", Mode: 0o644}, content: make([]byte, 5_000_000)},
		{Header: tar.Header{Typeflag: tar.TypeReg, Name: "opt/" + strings.Repeat("long", 50), Mode: 0o600}, content: []byte("long\n")},
		{Header: tar.Header{Typeflag: tar.TypeReg, Name: "opt/empty", Mode: 0o600}},
		{Header: tar.Header{Typeflag: tar.TypeLink, Name: "opt/hard", Linkname: "opt/big"}},
		{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "opt/soft", Linkname: "../x"}},
		{Header: tar.Header{Typeflag: tar.TypeChar, Name: "opt/null", Mode: 0o666, Devmajor: 1, Devminor: 3}},
		{Header: tar.Header{Typeflag: tar.TypeReg, Name: "bin/.wh.vi"}},
	}
}

// The tree of an index is that of the archive, with the content of each file.
func TestIndex(t *testing.T) {
	files := indexFiles()
	blob, d, diff := gzipped(t, archiveOf(t, files))
	path := filepath.Join(t.TempDir(), "indexes", "one")
	if err := BuildIndex(path, bytes.NewReader(blob), d, diff); err != nil {
		t.Fatal(err)
	}
	tree, err := OpenIndex(path, d, diff)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close() //nolint:errcheck // it was read only
	if n := len(tree.index.Spans); n < 4 {
		t.Errorf("%d spans", n)
	}
	for _, f := range files {
		n := tree.Find(strings.TrimSuffix(f.Name, "/"))
		if f.Typeflag != tar.TypeReg || strings.Contains(f.Name, ".wh.") {
			continue
		}
		data, err := content(tree, blob, n)
		if err != nil || !bytes.Equal(data, f.content) {
			t.Errorf("%s: %d bytes, %v: expected %d", f.Name, len(data), err, len(f.content))
		}
	}
	var got []string
	for _, p := range []string{".", "opt", "opt/big", "opt/soft", "opt/null", "bin/vi"} {
		n := tree.Find(p)
		got = append(got, fmt.Sprintf("%s %o %d:%d %d %d %q %d %v", p, n.Mode, n.UID, n.GID, n.Links, n.Rdev, n.Target, len(n.Xattrs), n.Mtime.Equal(when)))
	}
	want := []string{
		`. 40755 0:0 4 0 "" 0 false`, `opt 41750 33:44 2 0 "" 0 true`, `opt/big 104711 0:0 2 0 "" 1 true`,
		`opt/soft 120777 0:0 1 0 "../x" 0 true`, `opt/null 20666 0:0 1 259 "" 0 true`, `bin/vi 20000 0:0 1 0 "" 0 false`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{".", "bin"}, tree.Implied); diff != "" {
		t.Error(diff)
	}
	// A part of the blob that is changed is an error.
	c := tree.Find("opt/big").Chunks[1]
	unit, _ := tree.Unit(c)
	wrong := bytes.Clone(blob[unit.Offset:unit.End])
	wrong[len(wrong)/2] ^= 1
	if _, err := tree.Unpack(unit, wrong); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

// A byte that is changed anywhere in the file is noticed, and so is another layer's index.
func TestIndexChanged(t *testing.T) {
	blob, d, diff := gzipped(t, archiveOf(t, []file{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "a", Mode: 0o600}, content: []byte("a")}}))
	path := filepath.Join(t.TempDir(), "index")
	if err := BuildIndex(path, bytes.NewReader(blob), d, diff); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenIndex(path, d, digest.FromString("another")); !fault.Is(err, fault.Invalid) {
		t.Errorf("another DiffID: %v", err)
	}
	other := d
	other.Digest = digest.FromString("another")
	if _, err := OpenIndex(path, other, diff); !fault.Is(err, fault.Invalid) {
		t.Errorf("another blob: %v", err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range whole {
		changed := bytes.Clone(whole)
		changed[at] ^= 4
		if err := verify(t, changed); !fault.Is(err, fault.Invalid) {
			t.Fatalf("byte %d: %v", at, err)
		}
		if err := verify(t, whole[:at]); !fault.Is(err, fault.Invalid) {
			t.Fatalf("cut at %d: %v", at, err)
		}
	}
	if err := verify(t, whole); err != nil {
		t.Error(err)
	}
}

func verify(t *testing.T, file []byte) error {
	t.Helper()
	path := filepath.Join(t.TempDir(), "index")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	return VerifyIndex(path)
}

// What cannot be shown, or is not what it is said to be, gets no index, and nothing is left of the try.
func TestNoIndex(t *testing.T) {
	small := file{Header: tar.Header{Typeflag: tar.TypeReg, Name: "a", Mode: 0o600}, content: []byte("a")}
	for name, f := range map[string]file{
		"link to lower": {Header: tar.Header{Typeflag: tar.TypeLink, Name: "b", Linkname: "c"}},
		"opaque root":   {Header: tar.Header{Typeflag: tar.TypeReg, Name: ".wh..wh..opq"}},
		"not UTF-8":     {Header: tar.Header{Typeflag: tar.TypeReg, Name: "\xff", Format: tar.FormatGNU}},
		"another layer": small, "cut": small,
	} {
		t.Run(name, func(t *testing.T) {
			blob, d, diff := gzipped(t, archiveOf(t, []file{small, f}))
			switch name {
			case "another layer":
				diff = digest.FromString("another")
			case "cut":
				blob = blob[:len(blob)/2]
			}
			dir := t.TempDir()
			if err := BuildIndex(filepath.Join(dir, "index"), bytes.NewReader(blob), d, diff); err == nil {
				t.Error("no error")
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("%v is left, %v", left, err)
			}
		})
	}
}

// indexOf makes the file of an index with a table, whatever it says.
func indexOf(table []byte) []byte {
	packed, _ := deflate(table)
	b := append([]byte(indexMagic), packed...)
	b = binary.BigEndian.AppendUint64(b, uint64(len(indexMagic)))
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func FuzzIndex(f *testing.F) {
	sum := digest.FromString("x").String()
	f.Add([]byte(`{"blob":"` + sum + `","size":1000,"diffID":"` + sum + `","plain":9000,"spans":[{"bit":80,"plain":0,"digest":"` + sum + `","window":21,"packed":0},{"bit":4001,"plain":5000,"digest":"` + sum +
		`","window":21,"packed":5}],"entries":[{"name":"a","type":"reg","size":6000,"offset":512},{"name":"b","type":"hardlink","linkName":"a"}]}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(dir, "index")
		if err := os.WriteFile(path, indexOf(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		x, err := openIndex(path)
		if err != nil {
			return
		}
		x.file.Close()
		tree, err := OpenIndex(path, ocispec.Descriptor{Digest: x.Blob, Size: x.Size}, x.DiffID)
		if err != nil {
			return
		}
		defer tree.Close() //nolint:errcheck // it was read only
		for _, n := range tree.Nodes {
			at := int64(0)
			for _, c := range n.Chunks {
				unit, from := tree.Unit(c)
				if c.At != at || c.Size <= 0 || from < 0 || from+c.Size > unit.Size || unit.Offset < 0 || unit.End > x.Size || unit.End <= unit.Offset {
					t.Fatalf("part %+v of unit %+v", c, unit)
				}
				at += c.Size
				if unit.End-unit.Offset < 1<<16 && unit.Size < 1<<16 {
					tree.Unpack(unit, make([]byte, unit.End-unit.Offset)) //nolint:errcheck // it must end
				}
			}
		}
	})
}
