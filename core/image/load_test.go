package image

import (
	"archive/tar"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/ulikunitz/xz"

	"github.com/sampan-project/sampan/core/fault"
	ours "github.com/sampan-project/sampan/core/registry"
)

func TestLoadCompressions(t *testing.T) {
	image := made(t, "x")
	for name, pack := range map[string]func(w io.Writer) (io.WriteCloser, error){
		"plain": func(w io.Writer) (io.WriteCloser, error) { return nopCloser{w}, nil },
		"gzip":  func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		"zstd":  func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
		"xz":    func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			w, err := pack(&b)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(w, dockerArchive(t, map[string]v1.Image{"demo:1": image})); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			world := newWorld(t)
			var said []string
			if err := world.Load(t.Context(), &b, messages(&said)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"Loaded image: demo:1"}, said); diff != "" {
				t.Error(diff)
			}
			got, err := world.Get(t.Context(), "demo:1")
			if err != nil {
				t.Fatal(err)
			}
			if got.ID != idOf(t, image) || got.ChainID == "" || got.ContainerConfig.Cmd[0] != "/top" {
				t.Errorf("got %+v", got)
			}
			if n := world.leftovers(t); n != "4 0 2 0" { // configuration, manifest, two layers
				t.Errorf("left %s", n)
			}
		})
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// bzip2 of "hello\n", as the program makes it: there is no writer in Go.
const bzipHello = "425a6839314159265359c1c080e2000001410000100244a00030cd00c3462997177245385090c1c080e2"

func TestDecompressBzip2(t *testing.T) {
	data, err := hex.DecodeString(bzipHello)
	if err != nil {
		t.Fatal(err)
	}
	r, c, err := decompress(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "hello\n" || c != bzipped {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestDecompressRefuses(t *testing.T) {
	big := append([]byte{0xfd, '7', 'z', 'X', 'Z', 0, 0, 4, 0, 0, 0, 0, 2, 0, 0x21, 1, 40}, make([]byte, 32)...)
	for name, data := range map[string][]byte{"dictionary": big, "gzip": {0x1f, 0x8b, 8, 1, 2, 3}, "zstd": {0x28, 0xb5, 0x2f, 0xfd, 0xff, 0xff, 0xff}} {
		r, _, err := decompress(bytes.NewReader(data))
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v, want class invalid", name, err)
		}
	}
}

// tarDir makes a tar of a directory, with changes: a nil value leaves a file out.
func tarDir(t *testing.T, dir string, changes map[string][]byte) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if c, ok := changes[rel]; ok {
			if data = c; c == nil {
				return nil
			}
		}
		if err == nil {
			err = w.WriteHeader(&tar.Header{Name: rel, Mode: 0o644, Size: int64(len(data))})
		}
		if err == nil {
			_, err = w.Write(data)
		}
		return err
	})
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return &b
}

func ociLayout(t *testing.T, image v1.Image, ref string) string {
	t.Helper()
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = p.AppendImage(image, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": ref}))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestLoadLayout(t *testing.T) {
	image := made(t, "x")
	w := newWorld(t)
	var said []string
	if err := w.Load(t.Context(), tarDir(t, ociLayout(t, image, "example.com/demo:2"), nil), messages(&said)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Loaded image: example.com/demo:2"}, said); diff != "" {
		t.Error(diff)
	}
	want, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if e := w.byID(idOf(t, image)); e == nil || e.Manifest.Digest.String() != want.String() {
		t.Errorf("the manifest is not the archive's: %+v", e)
	}
}

func TestLoadLayoutOfPlatforms(t *testing.T) {
	here, there := made(t, "here"), made(t, "there")
	host := ours.Host()
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: there, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}},
		mutate.IndexAddendum{Add: here, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: host.Architecture}}})
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = p.AppendIndex(index, layout.WithAnnotations(map[string]string{"io.containerd.image.name": "docker.io/library/demo:3"}))
	}
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	if err := w.Load(t.Context(), tarDir(t, dir, nil), nil); err != nil {
		t.Fatal(err)
	}
	got, err := w.Get(t.Context(), "demo:3")
	if err != nil || got.ID != idOf(t, here) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	image := made(t, "x")
	dir := ociLayout(t, image, "demo")
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	top, err := layers[1].Digest()
	if err != nil {
		t.Fatal(err)
	}
	blob := "blobs/sha256/" + top.Hex
	docker := func(manifest string) io.Reader {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for name, data := range map[string]string{
			"manifest.json": manifest, "text": "no tar", "many": `{"rootfs":{"type":"layers","diff_ids":["sha256:1"]}}`,
			"one": `{"rootfs":{"type":"layers","diff_ids":["` + digest.FromString("x").String() + `"]}}`,
		} {
			if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data))}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, data); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "loop", Linkname: "loop"}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return &b
	}
	for name, archive := range map[string]io.Reader{
		"nothing":                    strings.NewReader(""),
		"text":                       strings.NewReader(strings.Repeat("no archive ", 100)),
		"torn":                       io.LimitReader(tarDir(t, dir, nil), 700),
		"no index":                   tarDir(t, dir, map[string][]byte{"index.json": nil}),
		"blob missing":               tarDir(t, dir, map[string][]byte{blob: nil}),
		"blob of another content":    tarDir(t, dir, map[string][]byte{blob: []byte("evil")}),
		"index of nothing":           tarDir(t, dir, map[string][]byte{"index.json": []byte(`{"manifests":[]}`)}),
		"index with a bad digest":    tarDir(t, dir, map[string][]byte{"index.json": []byte(`{"manifests":[{"digest":"../../etc/passwd"}]}`)}),
		"manifest.json of nothing":   docker(`[]`),
		"manifest.json that climbs":  docker(`[{"Config":"../../../etc/passwd"}]`),
		"manifest.json with a loop":  docker(`[{"Config":"loop"}]`),
		"configuration is no JSON":   docker(`[{"Config":"text","Layers":[]}]`),
		"diff ID is none":            docker(`[{"Config":"many","Layers":["text"]}]`),
		"layers do not match":        docker(`[{"Config":"one","Layers":[]}]`),
		"layer is no tar":            docker(`[{"Config":"one","Layers":["text"]}]`),
		"name is none":               docker(`[{"Config":"one","Layers":["text"],"RepoTags":["../x"]}]`),
		"layer with another diff ID": docker(`[{"Config":"one","Layers":["many"]}]`),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			err := w.Load(t.Context(), archive, nil)
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("got %v, want class invalid", err)
			}
			if n := w.leftovers(t); n != "0 0 0 0" {
				t.Errorf("left %s", n)
			}
		})
	}
}

func TestLoadMovesName(t *testing.T) {
	w := newWorld(t)
	first := w.load(t, made(t, "1"), "demo:1")
	var said []string
	if err := w.Load(t.Context(), dockerArchive(t, map[string]v1.Image{"demo:1": made(t, "2")}), messages(&said)); err != nil {
		t.Fatal(err)
	}
	want := []string{"The image demo:1 already exists, renaming the old one with ID " + first.String() + " to empty string", "Loaded image: demo:1"}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Error(diff)
	}
	old, err := w.Get(t.Context(), first.String())
	if err != nil || len(old.Names) != 0 {
		t.Errorf("the old image: %v, %v", old, err)
	}
}

// What Save writes is read by this store as docker's archive and as a layout, and by others.
func TestSaveRoundTrip(t *testing.T) {
	w := newWorld(t)
	w.load(t, made(t, "1"), "demo:1", "demo:2", "other:1")
	w.load(t, made(t, "2"), "demo:3")
	var b, again bytes.Buffer
	if err := w.Save(t.Context(), []string{"demo"}, &b); err != nil {
		t.Fatal(err)
	}
	if err := w.Save(t.Context(), []string{"demo"}, &again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Error("two archives of the same images differ")
	}
	for _, index := range []string{"index.json", "manifest.json"} {
		n := newWorld(t)
		if err := n.Load(t.Context(), leaveOut(t, b.Bytes(), index), nil); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range n.all() {
			got = append(got, e.Names...)
		}
		if diff := cmp.Diff([]string{"demo:1", "demo:2", "demo:3"}, sorted(got)); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("no skopeo on this machine")
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	var one bytes.Buffer
	if err := w.Save(t.Context(), []string{"demo:1"}, &one); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, one.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"docker-archive:", "oci-archive:"} {
		out, err := exec.Command("skopeo", "copy", "--insecure-policy", kind+file, "dir:"+t.TempDir()).CombinedOutput()
		if err != nil {
			t.Errorf("skopeo copy %s: %v: %s", kind, err, out)
		}
	}
}

// leaveOut leaves a file out of a tar.
func leaveOut(t *testing.T, data []byte, name string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && h.Name != name {
			if err = w.WriteHeader(h); err == nil {
				_, err = io.Copy(w, r)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestImport(t *testing.T) {
	w := newWorld(t)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(layerTar(t, "bin/tool")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	id, err := w.Import(t.Context(), &b, "tool", "Imported from -", []string{`CMD ["/bin/tool"]`, "ENV A=1 B=2"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.Inspect(t.Context(), "tool:latest")
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != id.String() || got.Comment != "Imported from -" || got.Os != "linux" || got.Config.Cmd[0] != "/bin/tool" || len(got.RootFS.Layers) != 1 || got.Size != 8 {
		t.Errorf("got %+v", got)
	}
	if n := w.leftovers(t); n != "3 0 1 0" {
		t.Errorf("left %s", n)
	}
	if _, err := w.Import(t.Context(), strings.NewReader("no tar at all, but long enough to be read as one"+strings.Repeat(" ", 512)), "x", "", nil, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("imported text: %v", err)
	}
	if _, err := w.Import(t.Context(), &b, "x", "", []string{"RUN x"}, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("imported with RUN: %v", err)
	}
	if n := w.leftovers(t); n != "3 0 1 0" {
		t.Errorf("after failures: left %s", n)
	}
}

// The store itself is a layout that other tools read.
func TestStoreIsLayout(t *testing.T) {
	w := newWorld(t)
	image := made(t, "1")
	w.load(t, image, "demo:1")
	p, err := layout.FromPath(filepath.Join(w.dir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	index, err := p.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil || len(m.Manifests) != 1 {
		t.Fatalf("index %v, %v", m, err)
	}
	read, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if idOf(t, read) != idOf(t, image) {
		t.Error("another image came out")
	}
	raw, err := json.Marshal(m.Manifests[0].Annotations)
	if err != nil || !strings.Contains(string(raw), "docker.io/library/demo:1") {
		t.Errorf("annotations %s", raw)
	}
}
