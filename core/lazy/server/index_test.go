package server_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/lazy"
	"github.com/sampan-project/sampan/core/lazy/toc"
)

// zipped is a plain gzip layer with an index.
type zipped struct {
	image
	reg    *registry
	client *lazy.Client
	dir    string
	index  string // its path
}

func newZipped(t *testing.T) *zipped {
	t.Helper()
	z := &zipped{image: image{files: map[string][]byte{}}}
	var archive, blob bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, name := range []string{"a", "b", "c", "d"} {
		content := make([]byte, 3_000_000)
		rand.Read(content) //nolint:errcheck // it never fails
		z.files[name] = content
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o640, Size: int64(len(content)), ModTime: time.Unix(1_700_000_000, 0)}); err != nil {
			t.Fatal(err)
		}
		w.Write(content) //nolint:errcheck // into memory
	}
	g := gzip.NewWriter(&blob)
	if err := errors.Join(w.Close(), func() error { _, err := g.Write(archive.Bytes()); return err }(), g.Close()); err != nil {
		t.Fatal(err)
	}
	z.blob = blob.Bytes()
	z.reg = newRegistry(t, z.blob)
	z.src = lazy.Source{
		Chain: digest.FromString(t.Name()), DiffID: digest.FromBytes(archive.Bytes()), Name: strings.TrimPrefix(z.reg.URL, "http://") + "/image",
		Blob: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(z.blob), Size: int64(len(z.blob))},
	}
	indexes := filepath.Join(t.TempDir(), "indexes")
	z.client, z.dir = newClient(t, lazy.Options{Indexes: indexes})
	if !z.client.Indexable(z.src) || z.client.Can(z.src) {
		t.Error("a layer without an index: it gets none, or is to be shown")
	}
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, z.blob, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := z.client.Index(t.Context(), z.src, path); err != nil {
		t.Fatal(err)
	}
	if z.client.Indexable(z.src) || !z.client.Can(z.src) {
		t.Error("a layer with an index: it gets another, or is not to be shown")
	}
	z.index = filepath.Join(indexes, z.src.Blob.Digest.Encoded())
	return z
}

func (z *zipped) open(t *testing.T) string {
	t.Helper()
	if _, err := z.client.Open(t.Context(), z.src, nil); err != nil {
		t.Fatal(err)
	}
	return z.client.At(z.src.Chain)
}

func (z *zipped) same(t *testing.T, at, name string) {
	t.Helper()
	if got, err := os.ReadFile(filepath.Join(at, name)); err != nil || !bytes.Equal(got, z.files[name]) {
		t.Errorf("%s: %d bytes, %v", name, len(got), err)
	}
}

// A gzip layer is shown by its index: what is read is fetched, and in the end the blob is whole.
func TestIndexed(t *testing.T) {
	z := newZipped(t)
	z.reg.held.Store(7 << 20) // of the whole there is no more
	at := z.open(t)
	if n := z.reg.bytes.Load(); n > 200_000 {
		t.Errorf("%d bytes were fetched before anything was read", n)
	}
	z.same(t, at, "b")
	if n := z.reg.bytes.Load(); n > 8_000_000 {
		t.Errorf("%d of %d bytes were fetched for one file of four", n, len(z.blob))
	}
	z.reg.held.Store(0)
	z.reg.CloseClientConnections() // the fetch of the whole begins again
	for name := range z.files {
		z.same(t, at, name)
	}
	path, err := z.client.Wait(t.Context(), z.src.Chain)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, z.blob) {
		t.Errorf("the whole: %d bytes, %v", len(got), err)
	}
	z.client.Close(z.src.Chain)
}

// What the registry sends wrong is an error, and not wrong data.
func TestIndexedCorrupt(t *testing.T) {
	z := newZipped(t)
	wrong := bytes.Clone(z.blob)
	for i := 4_000_000; i < 5_000_000; i += 1000 {
		wrong[i] ^= 1
	}
	z.reg.blob.Store(&wrong)
	z.reg.held.Store(7 << 20)
	at := z.open(t)
	z.same(t, at, "d")
	if _, err := os.ReadFile(filepath.Join(at, "b")); !errors.Is(err, unix.EIO) {
		t.Errorf("wrong content: %v", err)
	}
	z.reg.blob.Store(&z.blob)
	z.same(t, at, "b")
	z.client.Close(z.src.Chain)
}

// What is shown has its index with it: the next process needs neither the directory of indexes nor the registry for what had come.
func TestIndexedKilled(t *testing.T) {
	z := newZipped(t)
	z.reg.held.Store(7 << 20)
	if err := z.client.Keep(t.Context(), z.src); err != nil {
		t.Fatal(err)
	}
	at := z.client.At(z.src.Chain)
	z.same(t, at, "a")
	z.reg.down()
	if err := os.Remove(z.index); err != nil {
		t.Fatal(err)
	}
	kill(t, z.client)
	until(t, "the process is gone", func() bool { return lazy.Dead(at) })
	if err := z.client.Keep(t.Context(), z.src); err != nil {
		t.Fatal(err)
	}
	z.same(t, at, "a")
	if _, err := os.ReadFile(filepath.Join(at, "d")); !errors.Is(err, unix.EIO) {
		t.Errorf("what had not come: %v", err)
	}
	z.client.Close(z.src.Chain)
}

// What stands in the way is an error of Open, upon which the layer is pulled as any.
func TestIndexedRefused(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T, *zipped){
		"no ranges":       func(_ *testing.T, z *zipped) { z.reg.noRanges = true },
		"no registry":     func(_ *testing.T, z *zipped) { z.reg.down() },
		"another content": func(_ *testing.T, z *zipped) { z.src.DiffID = digest.FromString("x") },
		"damaged index": func(t *testing.T, z *zipped) {
			if err := os.WriteFile(z.index, []byte("sampan layer index 1\n and then nothing that is right, of some length or other"), 0o600); err != nil {
				t.Fatal(err)
			}
			list, err := z.client.DamagedIndexes(t.Context())
			if err != nil || len(list) != 1 || list[0] != z.src.Blob.Digest {
				t.Errorf("damaged: %v, %v", list, err)
			}
		},
		"no index": func(t *testing.T, z *zipped) {
			if err := z.client.ForgetIndexes(func(digest.Digest) bool { return false }); err != nil {
				t.Fatal(err)
			}
			if z.client.Can(z.src) {
				t.Error("it is to be shown")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			z := newZipped(t)
			spoil(t, z)
			if _, err := z.client.Open(t.Context(), z.src, nil); err == nil {
				t.Error("no error")
			}
			if left, err := os.ReadDir(filepath.Join(z.dir, "cache")); len(left) > 0 {
				t.Errorf("%v is left, %v", left, err)
			}
			if name == "damaged index" && !z.client.Indexable(z.src) {
				t.Error("it does not get another index")
			}
		})
	}
}

// A blob that is not what it is said to be has no index, and one that is being made ends with its request.
func TestIndexEnds(t *testing.T) {
	z := newZipped(t)
	if err := os.Remove(z.index); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, append(bytes.Clone(z.blob[:5_000_000]), z.blob[5_000_001:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := z.client.Index(t.Context(), z.src, path); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	fifo := filepath.Join(t.TempDir(), "blob")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- z.client.Index(ctx, z.src, fifo) }()
	w.Write(z.blob[:50_000]) //nolint:errcheck // into a pipe of 64 KiB
	h, err := z.client.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	until(t, "a thread has the lowest priority", func() bool {
		stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", h.Pid))
		return slices.ContainsFunc(stats, func(path string) bool {
			stat, _ := os.ReadFile(path)
			_, after, _ := strings.Cut(string(stat), ") ")
			fields := strings.Fields(after)
			return len(fields) > 16 && fields[16] == "19" // nice, proc_pid_stat(5)
		})
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	until(t, "the half index is gone", func() bool {
		w.Write([]byte{0}) //nolint:errcheck // the reader notices with what comes next
		left, err := os.ReadDir(filepath.Dir(z.index))
		return err == nil && len(left) == 0
	})
}

// What a process that ended was writing is swept away; an index is not.
func TestIndexSwept(t *testing.T) {
	z := newZipped(t)
	half := filepath.Join(filepath.Dir(z.index), toc.TemporaryIndex+"123")
	if err := os.WriteFile(half, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := z.client.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the half index: %v", err)
	}
	if !z.client.Can(z.src) {
		t.Error("the index is gone")
	}
}
