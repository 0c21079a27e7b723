package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/content"
	"github.com/sampan-project/sampan/core/layer"
	ours "github.com/sampan-project/sampan/core/registry"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

// world is a store with the stores below it, in a directory.
type world struct {
	*Store
	dir    string
	users  map[string][]User
	events []string
}

func openWorld(t *testing.T, dir string) *world {
	t.Helper()
	w, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = w.o.Layers.Close() // a test may have closed them
		_ = w.o.DB.Close()
	})
	return w
}

func openDir(dir string) (*world, error) {
	w := &world{dir: dir, users: map[string][]User{}}
	blobs, err := content.Open(filepath.Join(dir, "images"))
	if err != nil {
		return nil, err
	}
	layers, err := layer.Open(filepath.Join(dir, "overlay2"), nil)
	if err != nil {
		return nil, err
	}
	db, err := state.Open(filepath.Join(dir, "state.db"), state.Options{NoSync: true})
	if err != nil {
		return nil, err
	}
	w.Store, err = Open(Options{
		Content: blobs, Layers: layers, DB: db, Registry: ours.New(ours.Options{}),
		InUse:  func(id string) []User { return w.users[id] },
		Events: func(action, _ string, _ map[string]string) { w.events = append(w.events, action) },
	})
	return w, err
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return openWorld(t, t.TempDir())
}

// reopen is what a daemon does that was killed and starts again.
func (w *world) reopen(t *testing.T) *world {
	t.Helper()
	_ = w.Close()
	_ = w.o.Layers.Close()
	if err := w.o.DB.Close(); err != nil {
		t.Fatal(err)
	}
	n := openWorld(t, w.dir)
	if err := n.Reconcile(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	_ = n.o.Layers.Close()
	return n
}

// leftovers counts blobs, files of unfinished blobs, layers, and directories of unfinished layers.
func (w *world) leftovers(t *testing.T) string {
	t.Helper()
	_ = w.Close()
	_ = w.o.Layers.Close()
	count := func(dir string) (n int) {
		list, err := os.ReadDir(filepath.Join(w.dir, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if !strings.HasPrefix(e.Name(), "part-") { // of a download that waits to be resumed
				n++
			}
		}
		return n
	}
	return fmt.Sprint(count("images/blobs/sha256"), count("images/ingest"), len(w.o.Layers.Layers()), count("overlay2/tmp"))
}

var stamp = time.Unix(1700000000, 0).UTC()

func layerTar(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f, Mode: 0o755, Size: int64(len(f)), ModTime: stamp}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// made is an image of two layers that another program makes.
func made(t *testing.T, label string) v1.Image {
	t.Helper()
	return extend(t, extend(t, mutate.MediaType(empty.Image, types.OCIManifestSchema1), label, "base/one", "base/two"), label, "top")
}

func extend(t *testing.T, image v1.Image, label string, files ...string) v1.Image {
	t.Helper()
	data := layerTar(t, files...)
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err = mutate.Append(image, mutate.Addendum{Layer: l, History: v1.History{CreatedBy: "COPY " + files[0], Created: v1.Time{Time: stamp}}})
	if err != nil {
		t.Fatal(err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.Created, file.OS, file.Architecture = v1.Time{Time: stamp}, "linux", ours.Host().Architecture
	file.Config = v1.Config{Cmd: []string{"/top"}, Env: []string{"A=b"}, Labels: map[string]string{"label": label}}
	image, err = mutate.ConfigFile(image, file)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// dockerArchive is what `docker save` of old writes.
func dockerArchive(t *testing.T, images map[string]v1.Image) *bytes.Buffer {
	t.Helper()
	m := map[name.Tag]v1.Image{}
	for ref, i := range images {
		tag, err := name.NewTag(ref)
		if err != nil {
			t.Fatal(err)
		}
		m[tag] = i
	}
	var b bytes.Buffer
	if err := tarball.MultiWrite(m, &b); err != nil {
		t.Fatal(err)
	}
	return &b
}

// load loads an image under names and returns its ID.
func (w *world) load(t *testing.T, image v1.Image, names ...string) digest.Digest {
	t.Helper()
	for _, n := range names {
		if err := w.Load(t.Context(), dockerArchive(t, map[string]v1.Image{n: image}), nil); err != nil {
			t.Fatal(err)
		}
	}
	return idOf(t, image)
}

func idOf(t *testing.T, image v1.Image) digest.Digest {
	t.Helper()
	h, err := image.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	return digest.Digest(h.String())
}

// messages collects what progress is told, as text.
func messages(list *[]string) func(wire.Message) {
	return func(m wire.Message) {
		line := strings.TrimSpace(m.Stream + m.Status)
		if m.ProgressDetail == nil || m.ProgressDetail.Total == 0 {
			*list = append(*list, line)
		}
	}
}

// registryHost starts a registry.
func registryHost(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}
