package toc

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

type file struct {
	tar.Header
	content []byte
}

var when = time.Unix(1700000000, 0)

func archiveOf(t testing.TB, files []file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		f.Size, f.ModTime = int64(len(f.content)), when
		if err := w.WriteHeader(&f.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// stargz makes an eStargz layer with stargz-snapshotter's own writer.
func stargz(t *testing.T, archive []byte, options ...estargz.Option) ([]byte, ocispec.Descriptor) {
	t.Helper()
	built, err := estargz.Build(io.NewSectionReader(bytes.NewReader(archive), 0, int64(len(archive))), options...)
	if err != nil {
		t.Fatal(err)
	}
	defer built.Close()
	blob, err := io.ReadAll(built)
	if err != nil {
		t.Fatal(err)
	}
	return blob, ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(blob), Size: int64(len(blob)),
		Annotations: map[string]string{annotationStargz: built.TOCDigest().String()},
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// content reads a file through its chunks.
func content(tree *Tree, blob []byte, n *Node) ([]byte, error) {
	var all []byte
	for _, c := range n.Chunks {
		unit, from := tree.Unit(c)
		data, err := tree.Unpack(unit, blob[unit.Offset:unit.End])
		if err != nil {
			return nil, err
		}
		all = append(all, data[from:from+c.Size]...)
	}
	return all, nil
}

func TestStargz(t *testing.T) {
	big := noise(300_000)
	archive := archiveOf(t, []file{
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "opt/", Mode: 0o1750, Uid: 33, Gid: 44}},
		{Header: tar.Header{Typeflag: tar.TypeReg, Name: "opt/big", Mode: 0o4711, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b\x00c"}}, content: big},
		{Header: tar.Header{Typeflag: tar.TypeReg, Name: "opt/empty", Mode: 0o600}},
		{Header: tar.Header{Typeflag: tar.TypeLink, Name: "opt/hard", Linkname: "opt/big"}},
		{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "opt/soft", Linkname: "../x"}},
		{Header: tar.Header{Typeflag: tar.TypeChar, Name: "opt/null", Mode: 0o666, Devmajor: 1, Devminor: 3}},
		{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "opt/fifo", Mode: 0o640}},
		{Header: tar.Header{Typeflag: tar.TypeReg, Name: "bin/.wh.vi"}},
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "home/", Mode: 0o755}},
		{Header: tar.Header{Typeflag: tar.TypeReg, Name: "home/.wh..wh..opq"}},
	})
	for name, options := range map[string][]estargz.Option{
		"usual":           nil,
		"small parts":     {estargz.WithChunkSize(64 << 10)},
		"parts in common": {estargz.WithChunkSize(10_000), estargz.WithMinChunkSize(100_000)},
	} {
		t.Run(name, func(t *testing.T) {
			blob, d := stargz(t, archive, options...)
			tree, err := Read(bytes.NewReader(blob), d)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			walk(tree, tree.Nodes[0], "", func(p string, n *Node) {
				got = append(got, fmt.Sprintf("%s %o %d:%d %d %d %q %x", p, n.Mode, n.UID, n.GID, n.Links, n.Rdev, n.Target, n.Xattrs))
			})
			want := []string{
				`. 40755 0:0 5 0 "" map[]`,
				`.no.prefetch.landmark 100000 0:0 1 0 "" map[]`,
				`bin 40755 0:0 2 0 "" map[]`,
				`bin/vi 20000 0:0 1 0 "" map[]`,
				`home 40755 0:0 2 0 "" map[747275737465642e6f7665726c61792e6f7061717565:79]`,
				`opt 41750 33:44 2 0 "" map[]`,
				`opt/big 104711 0:0 2 0 "" map[757365722e61:620063]`,
				`opt/empty 100600 0:0 1 0 "" map[]`,
				`opt/fifo 10640 0:0 1 0 "" map[]`,
				`opt/hard 104711 0:0 2 0 "" map[757365722e61:620063]`,
				`opt/null 20666 0:0 1 259 "" map[]`,
				`opt/soft 120777 0:0 1 0 "../x" map[]`,
				`stargz.index.json 100000 0:0 1 0 "" map[]`,
			}
			for i := range got {
				got[i] = strings.ReplaceAll(got[i], `map[user.a:`, `map[757365722e61:`)
				got[i] = strings.ReplaceAll(got[i], opaqueXattr, fmt.Sprintf("%x", opaqueXattr))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{".", "bin"}, tree.Implied); diff != "" {
				t.Error(diff)
			}
			data, err := content(tree, blob, tree.Find("opt/hard"))
			if err != nil || !bytes.Equal(data, big) {
				t.Errorf("%v, %d bytes", err, len(data))
			}
			if m := tree.Find("opt/big").Mtime; !m.Equal(when) {
				t.Error(m)
			}
			index, err := content(tree, blob, tree.Find("stargz.index.json"))
			if err != nil || digest.FromBytes(index).String() != d.Annotations[annotationStargz] {
				t.Errorf("the table as a file: %v, %d bytes", err, len(index))
			}
		})
	}
}

func walk(t *Tree, n *Node, p string, fn func(string, *Node)) {
	if p == "" {
		fn(".", n)
	} else {
		fn(p, n)
	}
	for _, name := range n.Names() {
		i, _ := n.Child(name)
		c := strings.TrimPrefix(p+"/"+name, "/")
		if t.Nodes[i].IsDir() {
			walk(t, t.Nodes[i], c, fn)
		} else {
			fn(c, t.Nodes[i])
		}
	}
}

// A byte that is changed anywhere is noticed: in the table when it is read, in a part when that is read.
func TestChanged(t *testing.T) {
	archive := archiveOf(t, []file{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "a", Mode: 0o600}, content: noise(500)}})
	blob, d := stargz(t, archive)
	tree, err := Read(bytes.NewReader(blob), d)
	if err != nil {
		t.Fatal(err)
	}
	c := tree.Find("a").Chunks[0]
	for at := range blob {
		wrong := bytes.Clone(blob)
		wrong[at] ^= 0x10
		now, err := Read(bytes.NewReader(wrong), d)
		if err != nil {
			continue
		}
		got, err := content(now, wrong, now.Find("a"))
		if want, _ := content(tree, blob, tree.Find("a")); err == nil && !bytes.Equal(got, want) {
			t.Fatalf("byte %d: wrong content is not noticed", at)
		}
		if err == nil && at > int(c.Offset)+20 && at < int(c.End)-600 {
			t.Errorf("byte %d of the part %d-%d: no error", at, c.Offset, c.End)
		}
	}
}

// What a table must not say is refused, and costs neither time nor memory.
func TestRefused(t *testing.T) {
	reg := func(e entry) entry {
		e.Type, e.Size, e.Offset, e.Digest = "reg", 10, 100, digest.FromString("x")
		return e
	}
	for name, e := range map[string][]entry{
		"climbs":              {reg(entry{Name: "a/../../b"})},
		"zero byte":           {reg(entry{Name: "a\x00"})},
		"long":                {reg(entry{Name: strings.Repeat("n", 256)})},
		"no type":             {{Name: "a"}},
		"part of nothing":     {{Name: "a", Type: "chunk"}},
		"root is a file":      {reg(entry{Name: "./"})},
		"below a file":        {reg(entry{Name: "a"}), reg(entry{Name: "a/b"})},
		"in a whiteout":       {reg(entry{Name: ".wh.a/b"})},
		"whiteout by device":  {{Name: "a", Type: "char"}},
		"whiteout of no name": {{Name: ".wh.", Type: "reg"}},
		"opaque root":         {{Name: ".wh..wh..opq", Type: "reg"}},
		"link to lower":       {{Name: "a", Type: "hardlink", LinkName: "b"}},
		"link to itself":      {{Name: "a", Type: "hardlink", LinkName: "a"}},
		"overlay's attribute": {{Name: "a", Type: "dir", Xattrs: map[string][]byte{"trusted.overlay.redirect": nil}}},
		"owner":               {{Name: "a", Type: "dir", UID: -1}},
		"time":                {{Name: "a", Type: "dir", ModTime: "yesterday"}},
		"negative size":       {{Name: "a", Type: "reg", Size: -1}},
		"no digest":           {{Name: "a", Type: "reg", Size: 10, Offset: 100}},
		"outside":             {{Name: "a", Type: "reg", Size: 10, Offset: 5000, Digest: digest.FromString("x")}},
		"gap":                 {{Name: "a", Type: "reg", Size: 10, Offset: 100, ChunkSize: 5, ChunkDigest: digest.FromString("x")}},
		"huge part":           {{Name: "a", Type: "reg", Size: 1 << 40, Offset: 100, Digest: digest.FromString("x")}},
		"huge inner offset":   {{Name: "a", Type: "reg", Size: 10, Offset: 100, InnerOffset: 1 << 40, Digest: digest.FromString("x")}},
		"parts out of order":  {{Name: "a", Type: "reg", Size: 10, Offset: 100, ChunkSize: 5, ChunkDigest: digest.FromString("x")}, {Type: "chunk", Name: "a", Offset: 200, ChunkOffset: 6, ChunkSize: 4, ChunkDigest: digest.FromString("x")}},
	} {
		tb := table{entries: e, end: 1000}
		if _, err := tb.tree(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	later := table{entries: []entry{{Name: "a", Type: "dir"}, {Name: "a/b", Type: "symlink", LinkName: "x"}, {Name: "a", Type: "symlink", LinkName: "y"}}, end: 10}
	tree, err := later.tree()
	if err != nil || tree.Find("a").Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Errorf("the later entry does not win: %v", err)
	}
}

func TestPosition(t *testing.T) {
	for text, ok := range map[string]bool{
		"100:20:200:1": true, "100:20:200:2": false, "100:20:200": false, "100:901:200:1": false, "-1:20:200:1": false, "100:20:99999999999:1": false, "a:b:c:d": false, "": false,
	} {
		if _, _, _, err := parsePosition(text, 1000); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte(`{"version":1,"entries":[{"name":"a","type":"reg","size":3,"offset":5,"digest":"sha256:` + strings.Repeat("0", 64) + `"},{"name":"b","type":"hardlink","linkName":"a"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		tb, err := decode(raw, "")
		if err != nil {
			return
		}
		tb.end = 1 << 20
		tree, err := tb.tree()
		if err != nil {
			return
		}
		for _, n := range tree.Nodes {
			for _, c := range n.Chunks {
				if c.Offset < 0 || c.End > tb.end || c.End <= c.Offset || c.At < 0 || c.At+c.Size > n.Size {
					t.Fatalf("part %+v of %d bytes", c, n.Size)
				}
			}
		}
	})
}
