package zran

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"

	kgzip "github.com/klauspost/compress/gzip"

	"github.com/sampan-project/sampan/core/fault"
)

// samples are contents of every kind: each makes compressors write other blocks.
func samples(t testing.TB) map[string][]byte {
	r := rand.New(rand.NewPCG(3, 4))
	noise := make([]byte, 700_000)
	skewed := make([]byte, 700_000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
		skewed[i] = byte(min(255, int(r.ExpFloat64()*6)))
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for i := range 60_000 {
		fmt.Fprintf(&text, "line %d of %x\n", i, r.Uint32())
	}
	return map[string][]byte{
		"nothing": nil, "a byte": {7}, "zeros": make([]byte, 3_000_000), "noise": noise, "skewed": skewed, "text": text.Bytes(),
		"program": program[:min(len(program), 4_000_000)], "mixed": append(append(append([]byte{}, noise[:100_000]...), make([]byte, 200_000)...), text.Bytes()[:300_000]...),
	}
}

// packers are compressors: levels, strategies, members and flushes.
func packers() map[string]func([]byte) []byte {
	list := map[string]func([]byte) []byte{}
	for level := gzip.HuffmanOnly; level <= gzip.BestCompression; level++ {
		list[fmt.Sprintf("level %d", level)] = func(p []byte) []byte {
			var b bytes.Buffer
			w, _ := gzip.NewWriterLevel(&b, level)
			w.Name, w.Comment, w.Extra = "name", "comment", []byte("extra")
			w.Write(p) //nolint:errcheck // into memory
			w.Close()  //nolint:errcheck // into memory
			return b.Bytes()
		}
	}
	list["another"] = func(p []byte) []byte {
		var b bytes.Buffer
		w := kgzip.NewWriter(&b)
		w.Write(p) //nolint:errcheck // into memory
		w.Close()  //nolint:errcheck // into memory
		return b.Bytes()
	}
	list["members and flushes"] = func(p []byte) []byte {
		var b bytes.Buffer
		for i, piece := range [][]byte{p[:len(p)/3], nil, p[len(p)/3 : len(p)/2], p[len(p)/2:]} {
			w, _ := gzip.NewWriterLevel(&b, 1+2*i)
			w.Write(piece[:len(piece)/2]) //nolint:errcheck // into memory
			w.Flush()                     //nolint:errcheck // into memory
			w.Write(piece[len(piece)/2:]) //nolint:errcheck // into memory
			w.Close()                     //nolint:errcheck // into memory
		}
		return b.Bytes()
	}
	if path, err := exec.LookPath("gzip"); err == nil {
		for _, flag := range []string{"-1", "-6", "-9"} {
			list["gzip "+flag] = func(p []byte) []byte {
				cmd := exec.Command(path, flag)
				cmd.Stdin = bytes.NewReader(p)
				out, _ := cmd.Output()
				return out
			}
		}
	}
	return list
}

type marked struct {
	Place
	window []byte
}

func scan(r io.Reader, every int64) (plain []byte, places []marked, err error) {
	var out bytes.Buffer
	err = Scan(r, &out, every, func(at Place, window []byte) error {
		if int64(out.Len()) != at.Plain {
			return fmt.Errorf("%d bytes are written at %+v", out.Len(), at)
		}
		places = append(places, marked{at, bytes.Clone(window)})
		return nil
	})
	return out.Bytes(), places, err
}

// What comes out is what went in, from the beginning and from every place.
func TestPlaces(t *testing.T) {
	for what, content := range samples(t) {
		for how, pack := range packers() {
			t.Run(what+"/"+how, func(t *testing.T) {
				t.Parallel()
				blob := pack(content)
				got, places, err := scan(bytes.NewReader(blob), 100_000)
				if err != nil || !bytes.Equal(got, content) {
					t.Fatalf("%d bytes, %v: expected %d", len(got), err, len(content))
				}
				if len(places) == 0 || places[0].Plain != 0 {
					t.Fatal("the first block is not marked")
				}
				for i, p := range places {
					end, bits := int64(len(content)), int64(len(blob))*8
					if i+1 < len(places) {
						end, bits = places[i+1].Plain, places[i+1].Bit
					}
					if i+1 < len(places) && end-p.Plain < 100_000 {
						t.Fatalf("places %d and %d", p.Plain, end)
					}
					packed := blob[p.Bit/8 : (bits+7)/8]
					data, err := Inflate(bytes.NewReader(packed), p.Place, p.window, end-p.Plain)
					if err != nil || !bytes.Equal(data, content[p.Plain:end]) {
						t.Fatalf("from %+v to %d: %d bytes, %v", p.Place, end, len(data), err)
					}
				}
			})
		}
	}
}

// However few bytes come at a time, it is the same.
func TestReaders(t *testing.T) {
	content := samples(t)["mixed"]
	blob := packers()["members and flushes"](content)
	for name, r := range map[string]io.Reader{
		"a byte": iotest.OneByteReader(bytes.NewReader(blob)), "half": iotest.HalfReader(bytes.NewReader(blob)), "end with data": iotest.DataErrReader(bytes.NewReader(blob)),
	} {
		if got, _, err := scan(r, 1<<20); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	broken := fmt.Errorf("broken disk")
	for _, n := range []int{0, 5, 12, 1000, 70_000, len(blob)} {
		_, _, err := scan(io.MultiReader(bytes.NewReader(blob[:n]), iotest.ErrReader(broken)), 1<<20)
		if err == nil || !strings.Contains(err.Error(), broken.Error()) || fault.Is(err, fault.Invalid) {
			t.Errorf("a reader's error after %d bytes: %v", n, err)
		}
	}
}

// A blob that ends too early, wherever, is an error of its own class.
func TestCut(t *testing.T) {
	blob := packers()["members and flushes"](samples(t)["text"][:3000])
	whole := 0
	for n := range blob {
		_, _, err := scan(bytes.NewReader(blob[:n]), 1<<20)
		if err == nil {
			whole++ // at the end of a member
		} else if !fault.Is(err, fault.Invalid) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	if whole != 3 {
		t.Errorf("%d parts of a blob of four members count as whole", whole)
	}
	if _, _, err := scan(bytes.NewReader(append(bytes.Clone(blob), "rest"...)), 1<<20); !fault.Is(err, fault.Invalid) {
		t.Errorf("something behind the last member: %v", err)
	}
}

// A part has the size that is said, or is an error.
func TestInflateSize(t *testing.T) {
	content := samples(t)["text"]
	blob := packers()["level 6"](content)
	_, places, err := scan(bytes.NewReader(blob), 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(content))
	for n, ok := range map[int64]bool{size: true, size + 1: false, size - 1: false, 0: true} {
		if _, err := Inflate(bytes.NewReader(blob[places[0].Bit/8:]), places[0].Place, nil, n); (err == nil) != ok {
			t.Errorf("%d of %d bytes: %v", n, size, err)
		}
	}
}

// FuzzInflate compares with compress/flate: the same bytes, or an error of both.
func FuzzInflate(f *testing.F) {
	for _, pack := range packers() {
		f.Add(deflated(pack([]byte(strings.Repeat("some text ", 30)))))
	}
	f.Add([]byte{3, 0})
	f.Add([]byte{1, 1, 0, 254, 255, 'x'})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := flate.NewReader(bytes.NewReader(raw))
		want, wantErr := io.ReadAll(io.LimitReader(r, 1<<22))
		if len(want) == 1<<22 {
			return
		}
		var got bytes.Buffer
		d := newDecoder(bytes.NewReader(raw), &got)
		last, err := false, error(nil)
		for !last && err == nil {
			last, err = d.block()
		}
		if ferr := d.flush(); ferr != nil {
			t.Fatal(ferr)
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%x: %v, compress/flate: %v", raw, err, wantErr)
		}
		if err == nil && !bytes.Equal(got.Bytes(), want) {
			t.Fatalf("%x: %d bytes, compress/flate: %d", raw, got.Len(), len(want))
		}
	})
}

// deflated is a blob without its header, if that is the shortest one, and trailer.
func deflated(blob []byte) []byte {
	d := newDecoder(bytes.NewReader(blob), io.Discard)
	if err := d.header(); err != nil {
		return nil
	}
	return blob[d.bit()/8 : len(blob)-8]
}

// FuzzScan reads blobs that are changed: the places that it tells lead to what it wrote.
func FuzzScan(f *testing.F) {
	f.Add(packers()["members and flushes"]([]byte(strings.Repeat("some text ", 300))))
	f.Fuzz(func(t *testing.T, blob []byte) {
		if len(blob) > 1<<14 {
			return
		}
		plain, places, err := scan(bytes.NewReader(blob), 50)
		if err != nil {
			return
		}
		for i, p := range places {
			end := int64(len(plain))
			if i+1 < len(places) {
				end = places[i+1].Plain
			}
			data, err := Inflate(bytes.NewReader(blob[p.Bit/8:]), p.Place, p.window, end-p.Plain)
			if err != nil || !bytes.Equal(data, plain[p.Plain:end]) {
				t.Fatalf("from %+v: %v", p.Place, err)
			}
		}
	})
}

func BenchmarkScan(b *testing.B) {
	content := samples(b)["program"]
	blob := packers()["level 6"](content)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		if err := Scan(bytes.NewReader(blob), io.Discard, 2<<20, func(Place, []byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGo(b *testing.B) {
	content := samples(b)["program"]
	blob := packers()["level 6"](content)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		r, err := gzip.NewReader(bytes.NewReader(blob))
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, r) //nolint:errcheck // it is for the time
	}
}
