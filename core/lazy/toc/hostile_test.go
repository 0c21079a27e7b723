package toc

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
)

// A table that is small and becomes large is refused before it has taken the memory.
func TestTableOfMillions(t *testing.T) {
	text := []byte(`{"version":1,"entries":[{}` + strings.Repeat(",{}", 20<<20) + `]}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := decode(text, "")
	runtime.ReadMemStats(&after)
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "at most") {
		t.Errorf("got %v", err)
	}
	if taken := after.TotalAlloc - before.TotalAlloc; taken > 4<<30 {
		t.Errorf("it took %d MiB", taken>>20)
	}
}

// So is an index of this machine: whoever can change its file could have its checksum right.
func TestIndexOfMillions(t *testing.T) {
	many := strings.Repeat(",{}", 4<<20)
	var attributes strings.Builder
	for i := range maxAttributes + 1 {
		fmt.Fprintf(&attributes, `,"%d":""`, i)
	}
	for name, table := range map[string]string{
		"spans": `{"spans":[{}` + many + `]}`, "entries": `{"entries":[{}` + many + `]}`,
		"xattrs": `{"entries":[{"xattrs":{` + attributes.String()[1:] + `}}]}`,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := verify(t, indexOf([]byte(table)))
		runtime.ReadMemStats(&after)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), name+": expected at most") {
			t.Errorf("%s: %v", name, err)
		}
		if taken := after.TotalAlloc - before.TotalAlloc; taken > 2<<30 {
			t.Errorf("%s: it took %d MiB", name, taken>>20)
		}
	}
	for _, table := range []string{`{"spans":{}}`, `{"spans":null,"entries":null}`, `{"entries":[{"xattrs":[]}]}`, `{"entries":[{"xattrs":{"a":1}}]}`, `{"entries":[`} {
		if err := verify(t, indexOf([]byte(table))); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", table, err)
		}
	}
}

// Tables that the annotations lead to, whatever they say of themselves.
func TestHostileTables(t *testing.T) {
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	_, err = z.Write([]byte(`{"version":1,"entries":[]}`))
	if err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	var g bytes.Buffer
	w := gzip.NewWriter(&g)
	_, _ = w.Write(make([]byte, 1<<20))
	_ = w.Close()
	stargz := func(at int64) []byte {
		footer := make([]byte, footerSize)
		copy(footer, footerHead)
		copy(footer[footerExtra:], fmt.Sprintf("%016x", at)+footerMagic)
		return append(bytes.Clone(g.Bytes()), footer...)
	}
	chunked := func(data []byte, position string, sum digest.Digest) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerZstd, Size: int64(len(data)), Annotations: map[string]string{
			prefixes[0] + annotationChecksum: sum.String(), prefixes[0] + annotationPosition: position,
		}}
	}
	gz := func(data []byte, sum string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Size: int64(len(data)), Annotations: map[string]string{annotationStargz: sum}}
	}
	data := append(make([]byte, 10), packed.Bytes()...)
	n, right := packed.Len(), digest.FromBytes(packed.Bytes())
	for name, tt := range map[string]struct {
		data []byte
		d    ocispec.Descriptor
	}{
		"place outside":          {data, chunked(data, "1000000:10:10:1", right)},
		"place that overflows":   {data, chunked(data, "9223372036854775807:10:10:1", right)},
		"length that overflows":  {data, chunked(data, "1:9223372036854775807:10:1", right)},
		"plain of terabytes":     {data, chunked(data, fmt.Sprintf("10:%d:9223372036854775807:1", n), right)},
		"shorter than it says":   {data, chunked(data, fmt.Sprintf("10:%d:1000:1", n), right)},
		"longer than it says":    {data, chunked(data, fmt.Sprintf("10:%d:3:1", n), right)},
		"another digest":         {data, chunked(data, fmt.Sprintf("10:%d:26:1", n), digest.FromString("x"))},
		"digest that is none":    {data, chunked(data, fmt.Sprintf("10:%d:26:1", n), "sha256:../../x")},
		"no footer":              {data, gz(data, right.String())},
		"footer that leads out":  {stargz(1 << 40), gz(stargz(1<<40), right.String())},
		"footer below zero":      {stargz(-1), gz(stargz(-1), right.String())},
		"footer that is no tar":  {stargz(0), gz(stargz(0), right.String())},
		"shorter than a footer":  {[]byte("x"), gz([]byte("x"), right.String())},
		"digest of a bad length": {stargz(0), gz(stargz(0), "sha256:12")},
	} {
		_, err := Read(bytes.NewReader(tt.data), tt.d)
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a table must not say is left to the ordinary unpacking, which refuses it.
func TestHostileEntries(t *testing.T) {
	sum := digest.FromString("x")
	for name, e := range map[string]entry{
		"climbs":           {Name: "../../x", Type: "dir"},
		"climbs inside":    {Name: "a/../../x", Type: "dir"},
		"zero byte":        {Name: "a\x00b", Type: "dir"},
		"long":             {Name: strings.Repeat("a", 5000), Type: "dir"},
		"hard link out":    {Name: "h", Type: "hardlink", LinkName: "../../etc/passwd"},
		"hard link to":     {Name: "h", Type: "hardlink", LinkName: "h"},
		"root is a file":   {Name: "./", Type: "reg"},
		"whiteout device":  {Name: "c", Type: "char"},
		"size of all":      {Name: "f", Type: "reg", Size: 1<<63 - 1, Digest: sum},
		"below zero":       {Name: "f", Type: "reg", Size: -1},
		"overlay redirect": {Name: "d", Type: "dir", Xattrs: map[string][]byte{"trusted.overlay.redirect": []byte("/etc")}},
		"owner":            {Name: "d", Type: "dir", UID: 1 << 40},
		"inside whiteout":  {Name: ".wh.a/b", Type: "dir"},
		"whiteout of dots": {Name: ".wh...", Type: "reg"},
		"link to nothing":  {Name: "l", Type: "symlink"},
		"part at nowhere":  {Name: "f", Type: "reg", Size: 3, Offset: 1 << 50, ChunkDigest: sum},
		"inner far away":   {Name: "f", Type: "reg", Size: 3, Offset: 5, InnerOffset: 1 << 50, ChunkDigest: sum},
		"unknown type":     {Name: "f", Type: "socket"},
		"odd time":         {Name: "d", Type: "dir", ModTime: "\x1b[2J"},
	} {
		tb := table{entries: []entry{e}, end: 1000}
		if _, err := tb.tree(); err == nil || strings.ContainsAny(err.Error(), "\n\x1b\x00") {
			t.Errorf("%s: %v", name, err)
		}
	}
	var l entries
	if err := json.Unmarshal([]byte(`{"a":1}`), &l); err == nil {
		t.Error("an object is no list of entries")
	}
}
