package toc

import (
	"bytes"
	"cmp"
	"compress/flate"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/lazy/zran"
)

// The file of an index:
//
//	indexMagic
//	the windows of the spans, compressed, one behind the other
//	the table: JSON of contents, compressed
//	where the table begins (8 bytes), and the SHA-256 of all that comes before
//
// All are compressed with DEFLATE, numbers have their highest byte first.
const (
	indexMagic  = "sampan layer index 1\n"
	indexFooter = 8 + sha256.Size
	maxIndex    = 1 << 30
	maxSpans    = 1 << 20
)

// contents is the table of an index. An entry's Offset is where its file begins in the tar.
type contents struct {
	Blob    digest.Digest `json:"blob"`
	Size    int64         `json:"size"` // of the blob
	DiffID  digest.Digest `json:"diffID"`
	Plain   int64         `json:"plain"` // size of the tar
	Spans   spans         `json:"spans"`
	Entries entries       `json:"entries"`
}

// span is a part of the tar, to the next one, that can be decompressed by itself.
type span struct {
	Bit    int64         `json:"bit"` // where it begins in the blob
	Plain  int64         `json:"plain"`
	Digest digest.Digest `json:"digest"` // of the part
	Window int64         `json:"window"` // where in the file is what it refers to
	Packed int64         `json:"packed"` // how long that is there
}

// HasIndex reports whether an index could serve the layer that d describes: it is gzip, and has no table of its own.
func HasIndex(d ocispec.Descriptor) bool {
	return compressionOf(d) == none && strings.HasSuffix(d.MediaType, "gzip")
}

// Index is an index that is open.
type Index struct {
	file *os.File
	contents
}

// OpenIndex opens the index at a path, verifies it, and returns the files of the layer that d and diff describe. What is
// wrong with the file, or if it is another layer's, is fault.Invalid. The tree is to be closed.
func OpenIndex(path string, d ocispec.Descriptor, diff digest.Digest) (_ *Tree, err error) {
	x, err := openIndex(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			x.file.Close()
		}
	}()
	if x.Blob != d.Digest || x.Size != d.Size || x.DiffID != diff {
		return nil, fault.New(fault.Invalid, "index: it is of layer %s (%d bytes, %s): expected %s (%d bytes, %s)", x.Blob, x.Size, x.DiffID, d.Digest, d.Size, diff)
	}
	t := table{entries: x.Entries, index: x}
	tree, err := t.tree()
	if err != nil {
		return nil, err
	}
	x.Entries = nil
	tree.Compression, tree.index = indexed, x
	return tree, nil
}

// VerifyIndex verifies the file of an index.
func VerifyIndex(path string) error {
	x, err := openIndex(path)
	if err != nil {
		return err
	}
	return x.file.Close()
}

func openIndex(path string) (_ *Index, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	x := &Index{file: f}
	return x, x.read(info.Size())
}

// read verifies the file and reads its table.
func (x *Index) read(size int64) error {
	if size < int64(len(indexMagic))+indexFooter || size > maxIndex {
		return fault.New(fault.Invalid, "index: it has %d bytes", size)
	}
	sum := sha256.New()
	magic := make([]byte, len(indexMagic))
	if _, err := io.Copy(sum, io.NewSectionReader(x.file, 0, size-sha256.Size)); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	footer := make([]byte, indexFooter)
	_, err := x.file.ReadAt(magic, 0)
	_, ferr := x.file.ReadAt(footer, size-indexFooter)
	if err := errors.Join(err, ferr); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	at := binary.BigEndian.Uint64(footer)
	if string(magic) != indexMagic || !bytes.Equal(sum.Sum(nil), footer[8:]) || at > uint64(size-indexFooter) {
		return fault.New(fault.Invalid, "index: it is damaged")
	}
	r := flate.NewReader(io.NewSectionReader(x.file, int64(at), size-indexFooter-int64(at)))
	text, err := io.ReadAll(io.LimitReader(r, maxTable+1))
	if err != nil || len(text) > maxTable {
		return fault.New(fault.Invalid, "index: its table has more than %d bytes or cannot be read (%w)", maxTable, errors.Join(err))
	}
	if err := json.Unmarshal(text, &x.contents); err != nil {
		return fault.New(fault.Invalid, "index: %w", err)
	}
	return x.check(int64(at))
}

// check makes sure of what readers rely on: spans are in order, within bounds, and cover the tar. Windows lie before the table.
func (x *Index) check(table int64) error {
	if len(x.Spans) == 0 || len(x.Spans) > maxSpans || len(x.Entries) > maxEntries || x.Spans[0].Plain != 0 || x.Size <= 0 || x.Size > 1<<50 || x.Plain < 0 || x.Plain > 1<<50 {
		return fault.New(fault.Invalid, "index: it has %d spans and %d entries", len(x.Spans), len(x.Entries))
	}
	for i, s := range x.Spans {
		bit, plain := x.end(i)
		if s.Bit < 0 || s.Bit >= bit || s.Plain < 0 || s.Plain > plain || plain-s.Plain > maxChunk || (bit-s.Bit)/8 > maxChunk ||
			s.Packed < 0 || s.Packed > 2*zran.Window || s.Window < int64(len(indexMagic)) || s.Window > table-s.Packed {
			return fault.New(fault.Invalid, "index: span %d is at %d of the layer: expected bounds in order", i, s.Bit)
		}
		if err := s.Digest.Validate(); err != nil {
			return fault.New(fault.Invalid, "index: span %d: %w", i, err)
		}
	}
	return nil
}

// end returns where a span ends.
func (x *Index) end(i int) (bit, plain int64) {
	if i+1 < len(x.Spans) {
		return x.Spans[i+1].Bit, x.Spans[i+1].Plain
	}
	return x.Size * 8, x.Plain
}

// unpack returns the bytes of a span, verified.
func (x *Index) unpack(i int, packed []byte) ([]byte, error) {
	s := x.Spans[i]
	_, end := x.end(i)
	window, err := io.ReadAll(io.LimitReader(flate.NewReader(io.NewSectionReader(x.file, s.Window, s.Packed)), zran.Window))
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	data, err := zran.Inflate(bytes.NewReader(packed), zran.Place{Bit: s.Bit, Plain: s.Plain}, window, end-s.Plain)
	if err != nil {
		return nil, err
	}
	if err := matches(data, s.Digest); err != nil {
		return nil, err
	}
	return data, nil
}

// cut adds the parts of a file: one for each span that it lies in. Files come in the order of the tar, so that there are
// not many more parts than files and spans.
func (b *builder) cut(n *Node, e *entry) error {
	x := b.index
	if e.Offset < b.ended || e.Size > x.Plain-e.Offset {
		return refuse("its content is at %d of the archive's %d bytes", e.Offset, x.Plain)
	}
	b.ended = e.Offset + e.Size
	i, found := slices.BinarySearchFunc(x.Spans, e.Offset, func(s span, at int64) int { return cmp.Compare(s.Plain, at) })
	if !found {
		i--
	}
	for at := e.Offset; at < b.ended; i++ {
		bit, end := x.end(i)
		if end = min(end, b.ended); at < end {
			s := x.Spans[i]
			n.Chunks = append(n.Chunks, Chunk{At: at - e.Offset, Size: end - at, Offset: s.Bit / 8, End: (bit + 7) / 8, Inner: at - s.Plain, Digest: s.Digest, span: i})
			at = end
		}
	}
	return nil
}

// Unit returns what is decompressed at once to have a part, and where in that the part is: the part itself, or in an
// indexed layer the span that it lies in.
func (t *Tree) Unit(c Chunk) (unit Chunk, from int64) {
	if t.index == nil {
		return c, 0
	}
	_, end := t.index.end(c.span)
	unit = c
	unit.At, unit.Inner, unit.Size = 0, 0, end-t.index.Spans[c.span].Plain
	return unit, c.Inner
}

// Unpack returns the bytes of a unit, verified. packed are the bytes of the blob from its Offset to its End.
func (t *Tree) Unpack(unit Chunk, packed []byte) ([]byte, error) {
	if t.index == nil {
		return unit.unpack(t.Compression, packed)
	}
	return t.index.unpack(unit.span, packed)
}

// Close gives up what a tree needs besides memory.
func (t *Tree) Close() error {
	if t.index == nil {
		return nil
	}
	return t.index.file.Close()
}
