package image

import (
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/wire"
)

// What is packed is gzip to others, the same on any number of processors.
func TestPack(t *testing.T) {
	noise := make([]byte, 3*packBlock+17)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(noise)
	text := bytes.Repeat([]byte("all work and no play "), 200_000)
	for name, data := range map[string][]byte{
		"empty": nil, "short": []byte("x"), "a block": noise[:packBlock], "a byte more": noise[:packBlock+1], "noise": noise, "text": text,
		"far": bytes.Join([][]byte{noise[:packWindow], noise[:packWindow], text, noise}, nil),
	} {
		t.Run(name, func(t *testing.T) {
			var all [][]byte
			for _, n := range []int{1, 2, 7} {
				before := runtime.GOMAXPROCS(n)
				var b bytes.Buffer
				err := pack(t.Context(), &b, bytes.NewReader(data))
				runtime.GOMAXPROCS(before)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, b.Bytes())
			}
			if !bytes.Equal(all[0], all[1]) || !bytes.Equal(all[0], all[2]) {
				t.Error("it depends on the number of processors")
			}
			z, err := stdgzip.NewReader(bytes.NewReader(all[0]))
			if err != nil {
				t.Fatal(err)
			}
			z.Multistream(false)
			got, err := io.ReadAll(z)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes came back of %d: %v", len(got), len(data), err)
			}
			if name == "text" && len(all[0]) > len(data)/100 {
				t.Errorf("%d bytes were packed to %d", len(data), len(all[0]))
			}
		})
	}
}

type failing struct{ left int }

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errors.New("full")
	}
	return len(p), nil
}

func TestPackFails(t *testing.T) {
	noise := make([]byte, 20*packBlock)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(noise)
	if err := pack(t.Context(), &failing{3 * packBlock}, bytes.NewReader(noise)); err == nil || err.Error() != "full" {
		t.Errorf("a full disk: %v", err)
	}
	in := io.MultiReader(bytes.NewReader(noise), brokenReader{})
	if err := pack(t.Context(), io.Discard, in); err == nil || err.Error() != "broken" {
		t.Errorf("a source that breaks: %v", err)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("broken") }

// Every push of a layer goes under its diff ID, on one line of progress, whatever it is packed to.
func TestPushSpeaksOfDiffIDs(t *testing.T) {
	w, name := newWorld(t), registryHost(t)+"/made:1"
	id, err := w.Import(t.Context(), bytes.NewReader(layerTar(t, "a", strings.Repeat("b", 100))), name, "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := short(w.byID(id).Config.RootFS.DiffIDs[0])
	for _, last := range []string{"Pushed", "Layer already exists"} {
		var said []string
		err := w.Push(t.Context(), name, nil, func(m wire.Message) {
			if m.ID != "" && m.Status != "Pushing" {
				said = append(said, m.ID+" "+m.Status)
			}
		})
		if diff := cmp.Diff([]string{want + " Preparing", want + " " + last}, said); err != nil || diff != "" {
			t.Errorf("%v: %s", err, diff)
		}
	}
}

// A layer that was made here leaves packed, and is then what lies in the store.
func TestPushPacks(t *testing.T) {
	host := registryHost(t)
	w := newWorld(t)
	ctx := t.Context()
	id, err := w.Import(ctx, bytes.NewReader(layerTar(t, "a", strings.Repeat("b", 100))), host+"/made:1", "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Push(ctx, host+"/made:1", nil, nil); err != nil {
		t.Fatal(err)
	}
	e := w.byID(id)
	if len(e.Layers) != 1 || e.Layers[0].Blob.MediaType != ocispec.MediaTypeImageLayerGzip {
		t.Errorf("pushed %+v", e.Layers)
	}
	if n := w.leftovers(t); n != "3 0 1 0" {
		t.Errorf("left %s", n)
	}
	if found, err := w.Check(ctx, true); err != nil || len(found) > 0 {
		t.Errorf("%v, %v", found, err)
	}
	fresh := newWorld(t)
	if err := fresh.Pull(ctx, host+"/made:1", "", nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := fresh.byID(id); got == nil || got.Manifest.Digest != e.Manifest.Digest {
		t.Errorf("pulled %+v", got)
	}
	// What came packed, or in an archive with a manifest of its own, stays what it is.
	before := fresh.byID(id).Manifest.Digest
	if err := fresh.Push(ctx, host+"/made:1", nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := fresh.byID(id).Manifest.Digest; got != before {
		t.Errorf("pushed again as %s, it was %s", got, before)
	}
}
