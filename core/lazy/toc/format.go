package toc

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
)

// The footer of an eStargz blob is an empty gzip member whose extra field (RFC 1952, section 2.3.1.1),
// after its name SG and its length, has the place of the table in 16 hexadecimal digits and "STARGZ".
const (
	footerSize  = 51
	footerExtra = 16 // where the digits begin
	footerMagic = "STARGZ"
	tableName   = "stargz.index.json"
)

var footerHead = []byte{0x1f, 0x8b, 0x08, 0x04}

func readStargz(r io.ReaderAt, size int64, want digest.Digest) (table, error) {
	if err := want.Validate(); err != nil {
		return table{}, fault.New(fault.Invalid, "annotation %s: %q: %w", annotationStargz, want, err)
	}
	at, err := stargzFooter(r, size)
	if err != nil {
		return table{}, err
	}
	packed := make([]byte, size-footerSize-at)
	if _, err := r.ReadAt(packed, at); err != nil {
		return table{}, fmt.Errorf("read the table of contents: %w", err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return table{}, fault.New(fault.Invalid, "table of contents: %w", err)
	}
	count := &counter{r: z}
	archive := tar.NewReader(count)
	h, err := archive.Next()
	if err != nil || h.Name != tableName || h.Size > maxTable {
		return table{}, fault.New(fault.Invalid, "table of contents: expected an archive with %s of at most %d bytes", tableName, maxTable)
	}
	inner := count.n
	raw, err := io.ReadAll(io.LimitReader(archive, maxTable))
	if err != nil {
		return table{}, fault.New(fault.Invalid, "table of contents: %w", err)
	}
	t, err := decode(raw, want)
	if err != nil {
		return t, err
	}
	t.end = size - footerSize
	// The table is a file of the archive as well, and unpacking makes it.
	t.entries = append(t.entries, entry{
		Name: h.Name, Type: "reg", Size: h.Size, Mode: h.Mode, UID: int64(h.Uid), GID: int64(h.Gid),
		ModTime: h.ModTime.UTC().Format("2006-01-02T15:04:05.999999999Z07:00"),
		Offset:  at, InnerOffset: inner, Digest: want, ChunkDigest: want,
	})
	return t, nil
}

// stargzFooter returns where the table begins.
func stargzFooter(r io.ReaderAt, size int64) (int64, error) {
	if size < footerSize {
		return 0, fault.New(fault.Invalid, "the layer has %d bytes: expected the footer of eStargz", size)
	}
	footer := make([]byte, footerSize)
	if _, err := r.ReadAt(footer, size-footerSize); err != nil {
		return 0, fmt.Errorf("read the footer: %w", err)
	}
	if !bytes.HasPrefix(footer, footerHead) || string(footer[footerExtra+16:footerExtra+16+len(footerMagic)]) != footerMagic {
		return 0, fault.New(fault.Invalid, "the layer does not end in the footer of eStargz")
	}
	at, err := strconv.ParseInt(string(footer[footerExtra:footerExtra+16]), 16, 64)
	if err != nil || at < 0 || at >= size-footerSize || size-footerSize-at > maxPacked {
		return 0, fault.New(fault.Invalid, "the table of contents is at %q: expected a place in the layer's %d bytes", footer[footerExtra:footerExtra+16], size)
	}
	return at, nil
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// readChunked reads the table of zstd:chunked from where the annotation says. Its digest is that of
// the compressed bytes.
func readChunked(r io.ReaderAt, d ocispec.Descriptor) (table, error) {
	want, position := digest.Digest(chunked(d, annotationChecksum)), chunked(d, annotationPosition)
	if err := want.Validate(); err != nil {
		return table{}, fault.New(fault.Invalid, "annotation %s: %q: %w", annotationChecksum, want, err)
	}
	at, packed, plain, err := parsePosition(position, d.Size)
	if err != nil {
		return table{}, err
	}
	raw := make([]byte, packed)
	if _, err := r.ReadAt(raw, at); err != nil {
		return table{}, fmt.Errorf("read the table of contents: %w", err)
	}
	if got := want.Algorithm().FromBytes(raw); got != want {
		return table{}, fault.New(fault.Invalid, "the table of contents has digest %s: expected %s", got, want)
	}
	z, err := zstd.NewReader(bytes.NewReader(raw), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxTable))
	if err != nil {
		return table{}, err
	}
	defer z.Close()
	text, err := io.ReadAll(io.LimitReader(z, plain+1))
	if err != nil || int64(len(text)) != plain {
		return table{}, fault.New(fault.Invalid, "the table of contents has %d bytes: expected %d (%w)", len(text), plain, errors.Join(err))
	}
	t, err := decode(text, "")
	t.end = at
	return t, err
}

// parsePosition reads "offset:length:uncompressed length:type".
func parsePosition(text string, size int64) (at, packed, plain int64, err error) {
	parts := strings.Split(text, ":")
	numbers := make([]int64, len(parts))
	for i, p := range parts {
		if numbers[i], err = strconv.ParseInt(p, 10, 64); err != nil {
			break
		}
	}
	if err != nil || len(parts) != 4 || numbers[3] != 1 ||
		numbers[0] <= 0 || numbers[1] <= 0 || numbers[1] > maxPacked || numbers[0] > size-numbers[1] || numbers[2] <= 0 || numbers[2] > maxTable {
		return 0, 0, 0, &fault.Field{Field: "annotation " + annotationPosition, Given: text, Expected: "offset:length:uncompressed length:1 within the layer"}
	}
	return numbers[0], numbers[1], numbers[2], nil
}

// decode verifies and reads the JSON.
func decode(raw []byte, want digest.Digest) (table, error) {
	if want != "" {
		if got := want.Algorithm().FromBytes(raw); got != want {
			return table{}, fault.New(fault.Invalid, "the table of contents has digest %s: expected %s", got, want)
		}
	}
	var file struct {
		Version int     `json:"version"`
		Entries entries `json:"entries"`
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		return table{}, fault.New(fault.Invalid, "table of contents: %w", err)
	}
	if file.Version != 1 {
		return table{}, fault.New(fault.Invalid, "the table of contents has version %d and %d entries: expected version 1", file.Version, len(file.Entries))
	}
	return table{entries: file.Entries}, nil
}

// Lists are counted while they are read: three bytes of JSON become an entry of some hundred in memory.
type (
	entries    []entry
	spans      []span
	attributes map[string][]byte
)

func (l *entries) UnmarshalJSON(raw []byte) (err error) {
	*l, err = counted[entry](raw, "entries", maxEntries)
	return err
}

func (l *spans) UnmarshalJSON(raw []byte) (err error) {
	*l, err = counted[span](raw, "spans", maxSpans)
	return err
}

func counted[T any](raw []byte, name string, most int) (list []T, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	t, err := d.Token()
	if t == nil && err == nil { // null
		return nil, nil
	}
	if err != nil || t != json.Delim('[') {
		return nil, fmt.Errorf("%s: expected an array", name)
	}
	for d.More() {
		if len(list) == most {
			return nil, fmt.Errorf("%s: expected at most %d", name, most)
		}
		var e T
		if err := d.Decode(&e); err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

func (a *attributes) UnmarshalJSON(raw []byte) error {
	*a = nil
	d := json.NewDecoder(bytes.NewReader(raw))
	t, err := d.Token()
	if t == nil && err == nil { // null
		return nil
	}
	if err != nil || t != json.Delim('{') {
		return errors.New("xattrs: expected an object")
	}
	*a = attributes{}
	for d.More() {
		if len(*a) == maxAttributes {
			return fmt.Errorf("xattrs: expected at most %d", maxAttributes)
		}
		key, err := d.Token()
		if err != nil {
			return err
		}
		var value []byte
		if err := d.Decode(&value); err != nil {
			return err
		}
		(*a)[key.(string)] = value // the decoder takes nothing else for a key
	}
	return nil
}

// unpack returns the bytes of one part, verified. packed are the bytes of the blob from Offset to End.
func (c Chunk) unpack(how Compression, packed []byte) ([]byte, error) {
	var z io.Reader
	switch how {
	case Gzip:
		g, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			return nil, err
		}
		z = g
	default:
		d, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2*maxChunk))
		if err != nil {
			return nil, err
		}
		defer d.Close()
		z = d
	}
	if _, err := io.CopyN(io.Discard, z, c.Inner); err != nil {
		return nil, err
	}
	data := make([]byte, c.Size)
	if _, err := io.ReadFull(z, data); err != nil {
		return nil, err
	}
	if err := matches(data, c.Digest); err != nil {
		return nil, err
	}
	return data, nil
}

func matches(data []byte, want digest.Digest) error {
	if got := want.Algorithm().FromBytes(data); got != want {
		return fault.New(fault.Invalid, "content has digest %s: expected %s", got, want)
	}
	return nil
}
