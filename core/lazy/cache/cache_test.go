package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
)

// source is a registry that has a blob and writes down what it is asked for.
type source struct {
	blob  []byte
	asked []span
	fail  error // after half of what was asked for
}

func (s *source) fetch(_ context.Context, at, n int64) (io.ReadCloser, error) {
	s.asked = append(s.asked, span{at, at + n})
	r := io.Reader(bytes.NewReader(s.blob[at : at+n]))
	if s.fail != nil {
		r = io.MultiReader(bytes.NewReader(s.blob[at:at+n/2]), iotest.ErrReader(s.fail))
	}
	return io.NopCloser(r), nil
}

func newSource(n int) *source {
	s := &source{blob: make([]byte, n)}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range s.blob {
		s.blob[i] = byte(random.Uint32())
	}
	return s
}

func open(t *testing.T, dir string, s *source) *Blob {
	t.Helper()
	b, err := Open(dir, int64(len(s.blob)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	b.SetFetch(s.fetch)
	return b
}

func read(t *testing.T, b *Blob, s *source, at, n int64) {
	t.Helper()
	p := make([]byte, n)
	if err := b.Read(t.Context(), p, at); err != nil || !bytes.Equal(p, s.blob[at:at+n]) {
		t.Errorf("%d bytes at %d: %v", n, at, err)
	}
}

// What was fetched is not fetched again, also not by the next process.
func TestOnce(t *testing.T) {
	dir, s := t.TempDir(), newSource(4_000_000)
	b := open(t, dir, s)
	read(t, b, s, 400_000, 200_000)
	read(t, b, s, 480_000, 1000)
	read(t, b, s, 240_000, 200_000)
	read(t, b, s, 2_000_000, 10)
	_ = b.Close()
	b = open(t, dir, s)
	read(t, b, s, 240_000, 360_000)
	read(t, b, s, 2_100_000, 10_000)
	if err := b.Fill(t.Context(), digest.FromBytes(s.blob)); err != nil {
		t.Fatal(err)
	}
	want := []span{{400_000, 600_000}, {240_000, 400_000}, {2_000_000, 2_000_000 + ahead}, {0, 240_000}, {600_000, 2_000_000}, {2_000_000 + ahead, 4_000_000}}
	if diff := cmp.Diff(want, s.asked); diff != "" {
		t.Error(diff)
	}
	if got, err := os.ReadFile(b.Path()); err != nil || !bytes.Equal(got, s.blob) {
		t.Errorf("the file is not the blob: %v", err)
	}
}

// Readers of the same part at the same time fetch it once.
func TestTogether(t *testing.T) {
	s := newSource(2_000_000)
	b := open(t, t.TempDir(), s)
	var asked atomic.Int64
	b.SetFetch(func(_ context.Context, at, n int64) (io.ReadCloser, error) {
		asked.Add(n)
		return io.NopCloser(bytes.NewReader(s.blob[at : at+n])), nil
	})
	var readers sync.WaitGroup
	for i := range int64(32) {
		readers.Go(func() { read(t, b, s, i%16*100_000, 300_000) })
	}
	readers.Wait()
	if n, have := asked.Load(), b.Have(); n != have || have < 1_800_000 {
		t.Errorf("%d bytes were fetched, %d are there", n, have)
	}
}

// What came before a connection broke is kept.
func TestBreaksOff(t *testing.T) {
	s := newSource(1_000_000)
	b := open(t, t.TempDir(), s)
	s.fail = errors.New("broke")
	if err := b.Fill(t.Context(), digest.FromBytes(s.blob)); !errors.Is(err, s.fail) || b.Have() != 500_000 {
		t.Errorf("%v, %d bytes", err, b.Have())
	}
	s.fail = nil
	if err := b.Fill(t.Context(), digest.FromBytes(s.blob)); err != nil || s.asked[1].At != 500_000 {
		t.Errorf("%v, asked for %v", err, s.asked)
	}
}

// A blob that is not the one that was wanted is given up.
func TestWrong(t *testing.T) {
	s := newSource(10_000)
	b := open(t, t.TempDir(), s)
	if err := b.Fill(t.Context(), digest.FromString("other")); !fault.Is(err, fault.Invalid) || b.Have() != 0 {
		t.Errorf("%v, %d bytes", err, b.Have())
	}
	read(t, b, s, 0, 10_000)
	if err := b.Forget(100, 200); err != nil {
		t.Fatal(err)
	}
	s.asked = nil
	read(t, b, s, 0, 10_000)
	if diff := cmp.Diff([]span{{100, 200}}, s.asked); diff != "" {
		t.Error(diff)
	}
	if err := b.Read(t.Context(), make([]byte, 10), 9_995); !fault.Is(err, fault.Invalid) {
		t.Errorf("beyond the end: %v", err)
	}
}

// Notes that were cut off, or say more than there is, are not believed.
func TestTorn(t *testing.T) {
	dir, s := t.TempDir(), newSource(1_000_000)
	b := open(t, dir, s)
	read(t, b, s, 0, 100)
	_ = b.Close()
	note := filepath.Join(dir, "spans")
	raw, err := os.ReadFile(note)
	if err != nil {
		t.Fatal(err)
	}
	beyond := append([]byte{7: 100, 13: 0x20}, 0)[:16]
	if err := os.WriteFile(note, append(append(raw, beyond...), 1, 2, 3), 0o600); err != nil {
		t.Fatal(err)
	}
	b = open(t, dir, s)
	if b.Have() != ahead {
		t.Errorf("%d bytes", b.Have())
	}
	read(t, b, s, 50, 500_000)
}

// The spans are what a plain list of bytes would be.
func TestSpans(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var s spans
	var have [64]bool
	for range 5000 {
		at := random.Int64N(64)
		n := span{at, at + random.Int64N(64-at+1)}
		add := random.IntN(3) > 0
		if add {
			s = s.add(n)
		} else {
			s = s.remove(n)
		}
		for i := n.At; i < n.End; i++ {
			have[i] = add
		}
		var want spans
		for i := range int64(64) {
			if have[i] {
				if k := len(want); k > 0 && want[k-1].End == i {
					want[k-1].End++
				} else {
					want = append(want, span{i, i + 1})
				}
			}
		}
		if diff := cmp.Diff(want, append(spans(nil), s...)); diff != "" {
			t.Fatalf("after %v (%v): %s", n, add, diff)
		}
	}
}
