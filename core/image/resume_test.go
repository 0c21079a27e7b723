package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// gate is a registry's front: it counts what is asked for of the layers, and may cut an answer short.
type gate struct {
	mu     sync.Mutex
	ranges []string // of requests for layers, "" for a whole one
	cut    int      // bytes of an answer after which it breaks off, 0 for none
	broken func()   // is told then
	lies   bool     // other bytes are sent in the place of a layer's
}

func (g *gate) serve(t *testing.T, host string) string {
	t.Helper()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			g.mu.Lock()
			g.ranges = append(g.ranges, r.Header.Get("Range"))
			cut := g.cut
			g.mu.Unlock()
			if cut > 0 {
				w = &cutter{ResponseWriter: w, left: cut, broken: g.broken}
			}
			if g.lies {
				w = liar{w}
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

type cutter struct {
	http.ResponseWriter
	left   int
	broken func()
}

func (c *cutter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	if c.left -= n; c.left == 0 {
		c.ResponseWriter.(http.Flusher).Flush()
		if c.broken != nil {
			c.broken()
		}
		panic(http.ErrAbortHandler)
	}
	return n, err
}

type liar struct{ http.ResponseWriter }

func (l liar) Write(p []byte) (int, error) {
	return l.ResponseWriter.Write(bytes.Repeat([]byte("x"), len(p)))
}

// bulky is an image with one layer that does not compress.
func bulky(t *testing.T) (image v1.Image, size int) {
	t.Helper()
	noise := make([]byte, 4<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	err := w.WriteHeader(&tar.Header{Name: "noise", Typeflag: tar.TypeReg, Size: int64(len(noise)), ModTime: stamp})
	if err == nil {
		_, err = w.Write(noise)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	image, err = mutate.AppendLayers(made(t, "bulky"), static.NewLayer(data.Bytes(), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	return image, data.Len()
}

// A pull that was interrupted is gone on with where it was, also by the next daemon.
func TestPullResumes(t *testing.T) {
	const came = 3 << 20
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %t", restart), func(t *testing.T) {
			host := registryHost(t)
			image, size := bulky(t)
			push(t, host, "demo:1", image)
			w := newWorld(t)
			ctx, cancel := context.WithCancel(t.Context())
			g := &gate{cut: came, broken: func() {
				for end := time.Now().Add(time.Minute); len(partOf(t, w)) < came/2 && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
				cancel()
			}}
			front := g.serve(t, host)
			if err := w.Pull(ctx, front+"/demo:1", "", nil, nil); err == nil {
				t.Fatal("pulled it")
			}
			if restart {
				w = w.reopen(t)
			}
			part := partOf(t, w)
			if len(part) == 0 || len(part) >= size {
				t.Fatalf("%d of %d bytes were kept", len(part), size)
			}
			g.cut, g.ranges = 0, nil
			if err := w.Pull(t.Context(), front+"/demo:1", "", nil, nil); err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("bytes=%d-", len(part)); !strings.Contains(strings.Join(g.ranges, " "), want) {
				t.Errorf("asked for %q: expected %s", g.ranges, want)
			}
			if n := w.leftovers(t); n != "5 0 3 0" || partOf(t, w) != nil {
				t.Errorf("left %s", n)
			}
		})
	}
}

// What was kept of a download and is not the blob's beginning is fetched again, once.
func TestPullResumesDamage(t *testing.T) {
	host := registryHost(t)
	image, size := bulky(t)
	push(t, host, "demo:1", image)
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	d, err := layers[2].Digest()
	if err != nil {
		t.Fatal(err)
	}
	for name, part := range map[string]int{"shorter": 5000, "as long": size, "longer": size + 1} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if err := os.WriteFile(filepath.Join(w.dir, "images/ingest/part-"+d.Hex), make([]byte, part), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := w.Pull(t.Context(), host+"/demo:1", "", nil, nil); err != nil {
				t.Fatal(err)
			}
			if found, err := w.Check(t.Context(), true); err != nil || len(found) > 0 {
				t.Errorf("%v, %v", found, err)
			}
		})
	}
}

// partOf returns the bytes of the download that waits to be resumed.
func partOf(t *testing.T, w *world) []byte {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(w.dir, "images/ingest/part-*"))
	if err != nil {
		t.Fatal(err)
	}
	var largest []byte
	for _, name := range list {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > len(largest) {
			largest = data
		}
	}
	return largest
}

// Pulls of the same layers at the same time fetch and unpack them once.
func TestPullsTogether(t *testing.T) {
	host := registryHost(t)
	base := made(t, "1")
	push(t, host, "demo:1", base)
	push(t, host, "demo:2", extend(t, base, "2", "more", "more"))
	g := &gate{}
	front := g.serve(t, host)
	w := newWorld(t)
	var group sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		group.Go(func() {
			errs[i] = w.Pull(t.Context(), fmt.Sprintf("%s/demo:%d", front, i%2+1), "", nil, nil)
		})
	}
	group.Wait()
	if diff := cmp.Diff(make([]error, 6), errs); diff != "" {
		t.Fatal(diff)
	}
	// Each of six reads its configuration, and three layers are read once.
	if n := len(g.ranges); n != 6+3 {
		t.Errorf("%d requests for blobs: expected 9", n)
	}
	if n := w.leftovers(t); n != "7 0 3 0" {
		t.Errorf("left %s", n)
	}
}

// A machine that goes down before an image is on disk takes the image with it, and nothing else.
func TestTorn(t *testing.T) {
	w := newWorld(t)
	base := made(t, "1")
	safe := w.load(t, base, "safe:1")
	_ = w.Close()
	if e := w.byID(safe); e.Boot != "" {
		t.Errorf("the synced image is marked %q", e.Boot)
	}
	torn := w.load(t, extend(t, base, "2", "more", "more"), "torn:1")
	_ = w.Close()
	// As if the machine had gone down in between: the row is of another boot.
	r := w.byID(torn).record
	chain := r.Layers[len(r.Layers)-1].Chain
	r.Boot = "another"
	if err := w.rows.Put(torn.String(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := w.o.Layers.Prepare(t.Context(), "container", chain); err != nil {
		t.Fatal(err)
	}
	_ = w.o.Layers.Close()
	if err := w.o.DB.Close(); err != nil {
		t.Fatal(err)
	}
	w = openWorld(t, w.dir)
	if err := w.Reconcile(t.Context(), []string{"container"}); err != nil {
		t.Fatal(err)
	}
	if w.byID(torn) != nil || w.byID(safe) == nil {
		t.Errorf("torn %v, safe %v", w.byID(torn), w.byID(safe))
	}
	if _, err := w.o.Layers.Get(chain); err == nil {
		t.Error("the layer that may be torn is there")
	}
	// The same image makes the container's layer anew, and it does not go while the container stands on it.
	if w.load(t, extend(t, base, "2", "more", "more"), "torn:1") != torn {
		t.Fatal("another image")
	}
	if _, err := w.Remove(t.Context(), "torn:1", true, false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.o.Layers.Get(chain); err != nil {
		t.Error(err)
	}
	if err := w.o.Layers.Remove(t.Context(), "container"); err != nil {
		t.Error(err)
	}
	if _, err := w.o.Layers.Get(chain); err == nil {
		t.Error("the layer is there after its last user")
	}
}
