package image

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ulikunitz/xz"

	"github.com/sampan-project/sampan/core/fault"
)

// packed is data in blocks of a size.
func packedXZ(t *testing.T, data []byte, block int64, sum byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := xz.WriterConfig{BlockSize: block, CheckSum: sum, NoCheckSum: sum == xz.None}.NewWriter(&b)
	must(t, err)
	_, err = w.Write(data)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// The dictionary of every block is looked at, not that of the first alone.
func TestXZBlocks(t *testing.T) {
	noise := make([]byte, 300_000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	data := append(noise, make([]byte, 300_000)...)
	for _, sum := range []byte{xz.None, xz.CRC32, xz.CRC64, xz.SHA256} {
		good := packedXZ(t, data, 100_001, sum)
		for name, r := range map[string]io.Reader{"whole": bytes.NewReader(good), "by byte": iotest.OneByteReader(bytes.NewReader(good))} {
			z, _, err := decompress(r)
			must(t, err)
			got, err := io.ReadAll(z)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("check %d, %s: %d bytes, %v", sum, name, len(got), err)
			}
		}
	}
	// Files one behind the other are one.
	one, two := packedXZ(t, data, 70_000, xz.CRC32), packedXZ(t, noise, 1<<20, xz.SHA256)
	both := bytes.Join([][]byte{one, make([]byte, 8), two, two}, nil)
	z, _, err := decompress(bytes.NewReader(both))
	must(t, err)
	if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, bytes.Join([][]byte{data, noise, noise}, nil)) {
		t.Errorf("three streams: %d bytes, %v", len(got), err)
	}
	zeros := packedXZ(t, make([]byte, 50_000), 10_000, xz.CRC64)
	header := []byte{0x21, 1} // the filter, and the size of its properties
	if n := bytes.Count(zeros, header); n != 5 {
		t.Fatalf("%d blocks", n)
	}
	last := bytes.Clone(zeros)
	last[bytes.LastIndex(last, header)+2] = 39
	sized := append([]byte{0xfd, '7', 'z', 'X', 'Z', 0, 0, 4, 0xe6, 0xd6, 0xb4, 0x46, 3, 0xc0, 0x80, 1, 0x80, 2, 0x21, 1, 40}, make([]byte, 64)...)
	for name, bad := range map[string][]byte{"last block": last, "block with sizes": sized, "second stream": append(bytes.Clone(two), last...)} {
		z, _, err := decompress(bytes.NewReader(bad))
		if err == nil {
			_, err = io.ReadAll(z)
		}
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "dictionary") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
