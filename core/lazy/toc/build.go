package toc

import (
	"archive/tar"
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/lazy/zran"
)

// spanSize is how much of the tar a span has at least. What is read of a file costs the download of a span; each span
// costs a window in the index, of some ten KiB.
const spanSize = 2 << 20

// paxXattr is before the names of extended attributes in a tar's records.
const paxXattr = "SCHILY.xattr."

// BuildIndex reads the gzip layer that d and diff describe from r, and writes its index to a path. The file is there when it is
// whole and on the disk, and if it can be used: a layer that cannot be shown has none.
func BuildIndex(path string, r io.Reader, d ocispec.Descriptor, diff digest.Digest) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), TemporaryIndex+"*")
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	m := &maker{file: f, sum: sha256.New(), part: sha256.New(), whole: sha256.New(), contents: contents{Blob: d.Digest, Size: d.Size, DiffID: diff}}
	if err := m.make(r); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	tree, err := OpenIndex(f.Name(), d, diff)
	if err == nil {
		err = tree.Close()
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// TemporaryIndex is how the names of indexes begin that are being written.
const TemporaryIndex = "new-"

// maker makes an index.
type maker struct {
	contents
	file *os.File
	at   int64     // in it
	sum  hash.Hash // of it

	part, whole hash.Hash // of what was decompressed: since the last span began, and all
	archive     *io.PipeWriter
}

func (m *maker) make(r io.Reader) error {
	if err := m.write([]byte(indexMagic)); err != nil {
		return err
	}
	pr, pw := io.Pipe()
	m.archive = pw
	listed := make(chan error, 1)
	go func() {
		err := m.list(pr)
		pr.CloseWithError(err) //nolint:errcheck // it has none
		listed <- err
	}()
	err := zran.Scan(r, m, spanSize, m.begin)
	pw.CloseWithError(err) //nolint:errcheck // it has none; without an error this is the end of the archive
	if lerr := <-listed; err == nil {
		err = lerr
	}
	if err != nil {
		return err
	}
	m.finish()
	if got := digest.NewDigest(digest.SHA256, m.whole); got != m.DiffID {
		return fault.New(fault.Invalid, "layer %s decompresses to %s: expected %s", m.Blob, got, m.DiffID)
	}
	return m.end()
}

// Write takes what was decompressed.
func (m *maker) Write(p []byte) (int, error) {
	m.part.Write(p)
	m.whole.Write(p)
	m.Plain += int64(len(p))
	if last := m.Spans[len(m.Spans)-1]; m.Plain-last.Plain > maxChunk {
		return 0, refuse("a block of the layer has more than %d bytes", maxChunk)
	}
	return m.archive.Write(p)
}

// begin begins a span.
func (m *maker) begin(at zran.Place, window []byte) error {
	m.finish()
	if len(m.Spans) == maxSpans {
		return refuse("the layer has more than %d spans", maxSpans)
	}
	packed, err := deflate(window)
	if err != nil {
		return err
	}
	m.Spans = append(m.Spans, span{Bit: at.Bit, Plain: at.Plain, Window: m.at, Packed: int64(len(packed))})
	return m.write(packed)
}

// finish notes the digest of the last span.
func (m *maker) finish() {
	if n := len(m.Spans); n > 0 {
		m.Spans[n-1].Digest = digest.NewDigest(digest.SHA256, m.part)
		m.part.Reset()
	}
}

// end writes the table and what follows it.
func (m *maker) end() error {
	text, err := json.Marshal(m.contents)
	if err != nil {
		return err
	}
	if len(text) > maxTable {
		return refuse("the table of contents has %d bytes: expected at most %d", len(text), maxTable)
	}
	packed, err := deflate(text)
	if err != nil {
		return err
	}
	table := m.at
	if err := m.write(packed); err != nil {
		return err
	}
	if err := m.write(binary.BigEndian.AppendUint64(nil, uint64(table))); err != nil {
		return err
	}
	return m.write(m.sum.Sum(nil))
}

func (m *maker) write(p []byte) error {
	m.sum.Write(p)
	n, err := m.file.Write(p)
	m.at += int64(n)
	return err
}

func deflate(p []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.DefaultCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(p); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// list makes the entries of the archive.
func (m *maker) list(r io.Reader) error {
	count := &counter{r: r}
	archive := tar.NewReader(count)
	for {
		h, err := archive.Next()
		if err == io.EOF { //nolint:errorlint // as archive/tar has it
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return fmt.Errorf("layer archive: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		e, err := entryOf(h)
		if err != nil {
			return err
		}
		if e.Type == "reg" {
			e.Offset = count.n
		}
		if m.Entries = append(m.Entries, e); len(m.Entries) > maxEntries {
			return refuse("the layer has more than %d files", maxEntries)
		}
	}
}

// types are the names of the types of a tar in a table.
var types = map[byte]string{
	tar.TypeReg: "reg", tar.TypeCont: "reg", tar.TypeDir: "dir", tar.TypeSymlink: "symlink", tar.TypeLink: "hardlink",
	tar.TypeChar: "char", tar.TypeBlock: "block", tar.TypeFifo: "fifo",
}

func entryOf(h *tar.Header) (entry, error) {
	e := entry{
		Name: h.Name, Type: types[h.Typeflag], LinkName: h.Linkname, Mode: h.Mode, UID: int64(h.Uid), GID: int64(h.Gid),
		DevMajor: h.Devmajor, DevMinor: h.Devminor, ModTime: h.ModTime.UTC().Format(time.RFC3339Nano),
	}
	if e.Type == "reg" {
		e.Size = h.Size
	}
	for key, value := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			e.Type = ""
		}
		if name, ok := strings.CutPrefix(key, paxXattr); ok {
			if len(e.Xattrs) == maxAttributes {
				return entry{}, refuse("it has more than %d extended attributes", maxAttributes)
			}
			if e.Xattrs == nil {
				e.Xattrs = map[string][]byte{}
			}
			e.Xattrs[name] = []byte(value)
		}
	}
	for _, text := range slices.Concat([]string{e.Name, e.LinkName}, slices.Collect(maps.Keys(e.Xattrs))) {
		if !utf8.ValidString(text) {
			return e, refuse("table of contents: %q is not UTF-8, which JSON cannot hold", text)
		}
	}
	if e.Type == "" { // a sparse file among them: it does not lie in the archive as it is
		return e, refuse("table of contents: %q: its type is %q, or it is sparse", h.Name, h.Typeflag)
	}
	return e, nil
}
