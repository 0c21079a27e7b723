package content

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// count returns how many blobs and unfinished files there are.
func count(t *testing.T, s *Store) (blobs, unfinished int) {
	t.Helper()
	for dir, n := range map[string]*int{blobsDir: &blobs, ingestDir: &unfinished} {
		list, err := os.ReadDir(filepath.Join(s.root, dir))
		if err != nil {
			t.Fatal(err)
		}
		*n = len(list)
	}
	return blobs, unfinished
}

func TestIngest(t *testing.T) {
	hello := digest.FromString("hello")
	broken := errors.New("broken pipe")
	for _, c := range []struct {
		name string
		want ocispec.Descriptor
		r    io.Reader
		err  func(error) bool
	}{
		{"nothing promised", ocispec.Descriptor{}, strings.NewReader("hello"), nil},
		{"digest", ocispec.Descriptor{Digest: hello}, strings.NewReader("hello"), nil},
		{"digest and size", ocispec.Descriptor{Digest: hello, Size: 5}, iotest.OneByteReader(strings.NewReader("hello")), nil},
		{"another content", ocispec.Descriptor{Digest: hello}, strings.NewReader("hullo"), invalid},
		{"too short", ocispec.Descriptor{Digest: hello, Size: 6}, strings.NewReader("hello"), invalid},
		{"too long", ocispec.Descriptor{Digest: hello, Size: 5}, strings.NewReader("hello and more"), invalid},
		{"without an end", ocispec.Descriptor{Size: 100}, endless{}, invalid},
		{"broken off", ocispec.Descriptor{}, io.MultiReader(strings.NewReader("hel"), iotest.ErrReader(broken)), func(err error) bool { return errors.Is(err, broken) }},
		{"digest that climbs", ocispec.Descriptor{Digest: "sha256:../../../etc/passwd"}, strings.NewReader("hello"), invalid},
		{"digest of another kind", ocispec.Descriptor{Digest: digest.Digest("sha512:" + strings.Repeat("ab", 64))}, strings.NewReader("hello"), invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			d, err := s.Ingest(t.Context(), c.r, c.want)
			blobs, unfinished := count(t, s)
			if unfinished != 0 {
				t.Errorf("%d unfinished files are left", unfinished)
			}
			if c.err != nil {
				if !c.err(err) || blobs != 0 {
					t.Errorf("got %v and %d blobs", err, blobs)
				}
				return
			}
			if err != nil || d.Digest != hello || d.Size != 5 {
				t.Fatalf("got %v, %v", d, err)
			}
			data, err := s.ReadAll(hello, 5)
			if err != nil || string(data) != "hello" {
				t.Errorf("read %q, %v", data, err)
			}
		})
	}
}

func invalid(err error) bool { return fault.Is(err, fault.Invalid) }

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestIngestTogether(t *testing.T) {
	s := open(t)
	want := ocispec.Descriptor{Digest: digest.FromString("hello"), Size: 5}
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			if _, err := s.Ingest(t.Context(), iotest.OneByteReader(strings.NewReader("hello")), want); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if blobs, unfinished := count(t, s); blobs != 1 || unfinished != 0 {
		t.Errorf("%d blobs, %d unfinished", blobs, unfinished)
	}
	// One that waits for another can be called off.
	other := ocispec.Descriptor{Digest: digest.FromString("other")}
	w, err := s.Writer(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Writer(ctx, other); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if w, err = s.Writer(t.Context(), other); err != nil {
		t.Errorf("after a writer that gave up: %v", err)
	} else if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestReconcile(t *testing.T) {
	s := open(t)
	keep, err := s.Ingest(t.Context(), strings.NewReader("keep"), ocispec.Descriptor{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ingest(t.Context(), strings.NewReader("drop"), ocispec.Descriptor{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.root, ingestDir, "blob-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(s.root); err != nil {
		t.Fatal(err)
	}
	if err := s.Reconcile(t.Context(), func(d digest.Digest) bool { return d == keep.Digest }); err != nil {
		t.Fatal(err)
	}
	if blobs, unfinished := count(t, s); blobs != 1 || unfinished != 0 || !s.Has(keep.Digest) {
		t.Errorf("%d blobs, %d unfinished", blobs, unfinished)
	}
	for range 2 {
		if err := s.Delete(keep.Digest); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Get(keep.Digest); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
}

func TestOpenRefusesOtherVersions(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"9"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !invalid(err) {
		t.Errorf("got %v", err)
	}
}
