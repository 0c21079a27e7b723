package archive

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/sampan-project/sampan/core/fault"
)

// maxWindow bounds the memory that a compressed archive may ask for.
const maxWindow = 64 << 20

// Decompress returns what a reader has, decompressed by what its first bytes say: gzip, bzip2, xz, zstd,
// or as it is.
func Decompress(r *bufio.Reader) (io.ReadCloser, error) {
	magic, _ := r.Peek(6) //nolint:errcheck // a short archive is not compressed
	var plain io.Reader
	var err error
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		plain, err = gzip.NewReader(r)
	case bytes.HasPrefix(magic, []byte("BZh")):
		plain = bzip2.NewReader(r)
	case bytes.HasPrefix(magic, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		plain, err = xz.ReaderConfig{DictCap: 1 << 20}.NewReader(r)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		var z *zstd.Decoder
		if z, err = zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1)); err == nil {
			return z.IOReadCloser(), nil
		}
	default:
		plain = r
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "decompress archive: %w", err)
	}
	return io.NopCloser(plain), nil
}
