package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/ulikunitz/xz"

	"github.com/sampan-project/sampan/core/fault"
)

// compression is how a tar is packed.
type compression int

const (
	plain compression = iota
	gzipped
	bzipped
	xzipped
	zstandard
)

// magics are the first bytes of each format: RFC 1952, the bzip2 and xz formats, RFC 8878 (3.1.1).
var magics = []struct {
	bytes []byte
	is    compression
}{
	{[]byte{0x1f, 0x8b, 8}, gzipped},
	{[]byte("BZh"), bzipped},
	{[]byte{0xfd, '7', 'z', 'X', 'Z', 0}, xzipped},
	{[]byte{0x28, 0xb5, 0x2f, 0xfd}, zstandard},
}

func detect(begin []byte) compression {
	for _, m := range magics {
		if bytes.HasPrefix(begin, m.bytes) {
			return m.is
		}
	}
	// A zstd file may begin with a frame to be skipped: 0x184D2A5? in little-endian.
	if len(begin) >= 4 && begin[0]&0xf0 == 0x50 && bytes.Equal(begin[1:4], []byte{0x2a, 0x4d, 0x18}) {
		return zstandard
	}
	return plain
}

// mediaType is that of a layer in this compression, "" when the OCI has none.
func (c compression) mediaType() string {
	switch c {
	case plain:
		return ocispec.MediaTypeImageLayer
	case gzipped:
		return ocispec.MediaTypeImageLayerGzip
	case zstandard:
		return ocispec.MediaTypeImageLayerZstd
	}
	return ""
}

const (
	// maxWindow bounds the memory that a compressed stream can ask for: what the strongest levels of
	// xz and zstd need, and no more.
	maxWindow = 128 << 20
	// maxUnpacked bounds what comes out of a compressed stream: far above any layer.
	maxUnpacked = 1 << 38
)

// decompress returns the plain stream behind r, recognised by its first bytes.
func decompress(r io.Reader) (io.ReadCloser, compression, error) {
	b := bufio.NewReaderSize(r, 256<<10)
	begin, err := b.Peek(32)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, plain, err
	}
	c := detect(begin)
	var out io.Reader
	closer := func() {}
	switch c {
	case plain:
		return io.NopCloser(b), plain, nil
	case gzipped:
		out, err = gzip.NewReader(b)
	case bzipped:
		out = bzip2.NewReader(b)
	case xzipped:
		out, err = xz.NewReader(bufio.NewReader(newXZGuard(b)))
	case zstandard:
		var z *zstd.Decoder
		z, err = zstd.NewReader(b, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow*2), zstd.WithDecoderConcurrency(2))
		if err == nil {
			out, closer = z, z.Close
		}
	}
	if err != nil {
		return nil, c, broken(err)
	}
	return &unpacked{in: b, r: out, left: maxUnpacked, close: closer}, c, nil
}

// broken gives the errors of damaged archives their class.
func broken(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return fault.New(fault.Invalid, "decompress: %w", err)
}

// unpacked is a decompressed stream with a limit.
type unpacked struct {
	in    io.Reader // the compressed stream, for its errors
	r     io.Reader
	left  int64
	close func()
}

func (u *unpacked) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if u.left -= int64(n); u.left < 0 {
		return 0, fault.New(fault.Invalid, "decompress: more than %d bytes", int64(maxUnpacked))
	}
	// What the source itself says about its failure is worth more than that the data ended early.
	if err != nil && !errors.Is(err, io.EOF) && fault.ClassOf(err) == fault.Internal {
		err = broken(err)
	}
	return n, err
}

func (u *unpacked) Close() error {
	u.close()
	return nil
}
