package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/layer"
	"github.com/sampan-project/sampan/core/lazy"
	ours "github.com/sampan-project/sampan/core/registry"
	"github.com/sampan-project/sampan/core/state"
)

// crafted is an image that is put together by hand: what is not set follows from the rest.
type crafted struct {
	layers   [][]byte // as they are sent
	plain    [][]byte // as their diff IDs have it; nil: as they are sent
	kinds    []string // their media types; nil: plain
	config   string
	manifest string
	kind     string            // what the manifest is announced as
	lies     map[string][]byte // other content of a blob, by digest
	tamper   func(m *ocispec.Manifest)
	ref      string
}

// blobs returns the image's blobs, its manifest among them, and the manifest's descriptor.
func (c crafted) blobs(t *testing.T) (map[string][]byte, ocispec.Descriptor) {
	t.Helper()
	all := map[string][]byte{}
	add := func(kind string, data []byte) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: kind, Digest: digest.FromBytes(data), Size: int64(len(data))}
		all[d.Digest.String()] = data
		return d
	}
	var m ocispec.Manifest
	m.SchemaVersion, m.MediaType = 2, ocispec.MediaTypeImageManifest
	var diffs []string
	for i, l := range c.layers {
		plain, kind := l, ocispec.MediaTypeImageLayer
		if c.plain != nil {
			plain = c.plain[i]
		}
		if c.kinds != nil {
			kind = c.kinds[i]
		}
		diffs = append(diffs, `"`+digest.FromBytes(plain).String()+`"`)
		m.Layers = append(m.Layers, add(kind, l))
	}
	config := c.config
	if config == "" {
		config = `{"os":"linux","architecture":"` + ours.Host().Architecture + `","rootfs":{"type":"layers","diff_ids":[DIFFS]}}`
	}
	m.Config = add(ocispec.MediaTypeImageConfig, []byte(strings.ReplaceAll(config, "DIFFS", strings.Join(diffs, ","))))
	if c.tamper != nil {
		c.tamper(&m)
	}
	manifest := c.manifest
	if manifest == "" {
		data, err := json.Marshal(m)
		must(t, err)
		manifest = string(data)
	}
	kind := c.kind
	if kind == "" {
		kind = ocispec.MediaTypeImageManifest
	}
	d := add(kind, []byte(manifest))
	for at, data := range c.lies {
		all[at] = data
	}
	return all, d
}

// serve is a registry that has the image under every name and tag.
func (c crafted) serve(t *testing.T) string {
	t.Helper()
	blobs, manifest := c.blobs(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		switch {
		case r.URL.Path == "/v2/":
		case strings.Contains(r.URL.Path, "/manifests/") && !strings.Contains(at, ":"):
			w.Header().Set("Content-Type", manifest.MediaType)
			_, _ = w.Write(blobs[manifest.Digest.String()])
		case blobs[at] == nil:
			w.WriteHeader(http.StatusNotFound)
		default:
			_, _ = w.Write(blobs[at])
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://") + "/evil:1"
}

// archive writes files as a tar.
func archive(t *testing.T, files ...tarFile) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := f.Header
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		h.Mode, h.Size = 0o755, int64(len(f.body))
		must(t, w.WriteHeader(&h))
		_, err := w.Write(f.body)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

type tarFile struct {
	tar.Header
	body []byte
}

func plainFile(name, body string) tarFile {
	return tarFile{tar.Header{Name: name}, []byte(body)}
}

// layout is the image as an OCI archive.
func (c crafted) layout(t *testing.T) []byte {
	t.Helper()
	blobs, manifest := c.blobs(t)
	manifest.Annotations = map[string]string{ocispec.AnnotationRefName: "evil:1"}
	if c.ref != "" {
		manifest.Annotations[ocispec.AnnotationRefName] = c.ref
	}
	index, err := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{manifest}})
	must(t, err)
	files := []tarFile{plainFile("index.json", string(index))}
	for d, data := range blobs {
		files = append(files, tarFile{tar.Header{Name: "blobs/" + strings.Replace(d, ":", "/", 1)}, data})
	}
	return archive(t, files...)
}

// unchanged returns a store with an image, and a function that looks whether it is as it was.
func unchanged(t *testing.T) (*world, func(err error, words string)) {
	t.Helper()
	w := newWorld(t)
	w.load(t, made(t, "kept"), "kept:1")
	describe := func() []string {
		list, err := w.List(t.Context(), ListOptions{All: true})
		must(t, err)
		seen := []string{w.leftovers(t)}
		for _, i := range list {
			seen = append(seen, fmt.Sprint(i.ID, i.RepoTags, i.RepoDigests, i.Size))
		}
		for _, l := range w.o.Layers.Layers() {
			seen = append(seen, fmt.Sprint(l))
		}
		must(t, w.o.Content.Walk(func(d digest.Digest, size int64) error {
			seen = append(seen, fmt.Sprint(d, size))
			return nil
		}))
		return sorted(seen)
	}
	before := describe()
	return w, func(err error, words string) {
		t.Helper()
		switch {
		case err == nil:
			t.Error("it was taken")
		case !strings.Contains(err.Error(), words):
			t.Errorf("got %.600q: expected %q in it", err, words)
		case strings.ContainsAny(err.Error(), "\n\r\x1b\u009b\u202e") || len(err.Error()) > 2048:
			t.Errorf("the error is no short line: %.300q (%d bytes)", err, len(err.Error()))
		}
		if diff := cmp.Diff(before, describe()); diff != "" {
			t.Errorf("the store has changed: %s", diff)
		}
		if found, err := w.Check(t.Context(), true); err != nil || len(found) > 0 {
			t.Errorf("check: %v, %v", found, err)
		}
		if found, err := w.o.Layers.Check(t.Context(), nil); err != nil || len(found) > 0 {
			t.Errorf("check of the layers: %v, %v", found, err)
		}
	}
}

func gzipped9(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(data)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// TestHostileImages has each image come from a registry and from an archive.
func TestHostileImages(t *testing.T) {
	good, bad := layerTar(t, "good"), digest.FromString("something else")
	tarOf := func(h tar.Header) []byte { return archive(t, tarFile{h, nil}) }
	bomb := gzipped9(t, archive(t, tarFile{tar.Header{Name: "zeros"}, make([]byte, 8<<20)}))
	var wide bytes.Buffer
	z, err := zstd.NewWriter(&wide, zstd.WithWindowSize(zstd.MaxWindowSize), zstd.WithSingleSegment(false))
	must(t, err)
	_, err = io.Copy(z, io.LimitReader(zeroReader{}, 1<<20))
	must(t, err)
	must(t, z.Close())
	config := func(text string) crafted { return crafted{layers: [][]byte{good}, config: text} }
	arch := ours.Host().Architecture
	for name, tt := range map[string]struct {
		crafted
		words string
		limit layer.Limits
	}{
		"layer climbs":              {crafted: crafted{layers: [][]byte{good, tarOf(tar.Header{Name: "../../x"})}}, words: `".."`},
		"layer leaves by a link":    {crafted: crafted{layers: [][]byte{tarOf(tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/etc"}), append(bytes.Clone(archive(t, tarFile{tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, nil})[:512]), layerTar(t, "l/passwd")...)}}, words: "leads out"},
		"layer links out":           {crafted: crafted{layers: [][]byte{good, tarOf(tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "../../../etc/shadow"})}}, words: `".."`},
		"layer has a whiteout":      {crafted: crafted{layers: [][]byte{good, tarOf(tar.Header{Name: "c", Typeflag: tar.TypeChar})}}, words: "whiteout"},
		"layer is a bomb":           {crafted: crafted{layers: [][]byte{good, bomb}, kinds: []string{ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip}}, limit: layer.Limits{Bytes: 1 << 20, Entries: 100, Names: 1 << 20}, words: "larger than"},
		"layer has a huge window":   {crafted: crafted{layers: [][]byte{wide.Bytes()}, kinds: []string{ocispec.MediaTypeImageLayerZstd}}, words: "window"},
		"layer is torn gzip":        {crafted: crafted{layers: [][]byte{bomb[:len(bomb)/2]}, kinds: []string{ocispec.MediaTypeImageLayerGzip}}, words: "unexpected EOF"},
		"layer is bzip2":            {crafted: crafted{layers: [][]byte{append([]byte("BZh9"), good...)}}, words: "gzip or zstd"},
		"layer is xz":               {crafted: crafted{layers: [][]byte{append([]byte{0xfd, '7', 'z', 'X', 'Z', 0, 0, 4}, good...)}}, words: ""},
		"layer is text":             {crafted: crafted{layers: [][]byte{[]byte(strings.Repeat("text", 1000))}}, words: "header"},
		"diff ID is another":        {crafted: crafted{layers: [][]byte{good}, plain: [][]byte{[]byte("x")}}, words: "does not match the image configuration"},
		"second diff ID is another": {crafted: crafted{layers: [][]byte{good, layerTar(t, "more")}, plain: [][]byte{good, []byte("x")}}, words: "does not match the image configuration"},
		"layer of another content":  {crafted: crafted{layers: [][]byte{good}, lies: map[string][]byte{digest.FromBytes(good).String(): layerTar(t, "evil")}}, words: ""},
		"layer of another size":     {crafted: crafted{layers: [][]byte{good}, tamper: func(m *ocispec.Manifest) { m.Layers[0].Size-- }}, words: "bytes"},
		"layer of no size":          {crafted: crafted{layers: [][]byte{good}, tamper: func(m *ocispec.Manifest) { m.Layers[0].Size = 0 }}, words: "bytes"},
		"layer of negative size":    {crafted: crafted{layers: [][]byte{good}, tamper: func(m *ocispec.Manifest) { m.Layers[0].Size = -1 }}, words: "-1"},
		"layer that is not there":   {crafted: crafted{layers: [][]byte{good}, tamper: func(m *ocispec.Manifest) { m.Layers[0].Digest = bad }}, words: ""},
		"layer of an odd digest":    {crafted: crafted{layers: [][]byte{good}, tamper: func(m *ocispec.Manifest) { m.Layers[0].Digest = "sha256:../../../etc/passwd" }}, words: "digest"},
		"layer of another hash":     {crafted: crafted{layers: [][]byte{good}, tamper: func(m *ocispec.Manifest) { m.Layers[0].Digest = digest.SHA512.FromBytes(good) }}, words: ""},
		"more layers than diff IDs": {crafted: crafted{layers: [][]byte{good}, tamper: func(m *ocispec.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) }}, words: "has 1 layers, its manifest has 2"},
		"thousands of layers":       {crafted: crafted{layers: repeat(good, 600)}, words: "600 layers"},
		"layer of another kind":     {crafted: crafted{layers: [][]byte{good}, kinds: []string{"application/x-evil\x1b[2J\n"}}, words: "media type"},
		"config is a layer":         {crafted: crafted{layers: [][]byte{good}, tamper: func(m *ocispec.Manifest) { m.Config.Digest, m.Config.Size = m.Layers[0].Digest, m.Layers[0].Size }}, words: "image configuration"},
		"config that is not there":  {crafted: crafted{layers: [][]byte{good}, tamper: func(m *ocispec.Manifest) { m.Config.Digest = bad }}, words: ""},
		"config of another size":    {crafted: crafted{layers: [][]byte{good}, tamper: func(m *ocispec.Manifest) { m.Config.Size++ }}, words: ""},
		"config is huge":            {crafted: config(`{"x":"` + strings.Repeat("x", maxConfig) + `"}`), words: "at most"},
		"config is no JSON":         {crafted: config(`{"rootfs":`), words: "image configuration"},
		"config nests deep":         {crafted: config(strings.Repeat(`{"a":`, 100_000)), words: "image configuration"},
		"history without end":       {crafted: config(`{"history":[{}` + strings.Repeat(`,{}`, 5000) + `],"rootfs":{"type":"layers","diff_ids":[DIFFS]}}`), words: "5001 steps"},
		"time that is text":         {crafted: config(`{"created":"\u001b[2J` + strings.Repeat("9", 100_000) + `","rootfs":{"type":"layers","diff_ids":[DIFFS]}}`), words: "image configuration"},
		"time before time":          {crafted: config(`{"created":"-0001-01-01T00:00:00Z","rootfs":{"type":"layers","diff_ids":[DIFFS]}}`), words: "image configuration"},
		"platform with escapes":     {crafted: config(`{"os":"linux","architecture":"` + arch + `\u001b[31m\n","rootfs":{"type":"layers","diff_ids":[DIFFS]}}`), words: "platform"},
		"diff ID that climbs":       {crafted: config(`{"rootfs":{"type":"layers","diff_ids":["../../../` + strings.Repeat("x", 10_000) + `"]}}`), words: "diff ID"},
		"root of another type":      {crafted: config(`{"rootfs":{"type":"layers+base\n","diff_ids":[DIFFS]}}`), words: "type"},
		"index and image":           {crafted: crafted{layers: [][]byte{good}, manifest: `{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}`}, words: "as an index, and config or layers"},
		"image says index":          {crafted: crafted{layers: [][]byte{good}, manifest: `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[]}`}, words: "announced as"},
		"artifact with escapes":     {crafted: crafted{layers: [][]byte{good}, tamper: func(m *ocispec.Manifest) { m.Config.MediaType = "application/x\x1b[2J\nevil" }}, words: "media type"},
		"artifact of many blobs":    {crafted: crafted{layers: repeat(good, maxArtifactBlobs+1), tamper: func(m *ocispec.Manifest) { m.Config.MediaType = "application/x-evil" }}, words: "layers: expected at most"},
	} {
		t.Run(name, func(t *testing.T) {
			for way, bring := range map[string]func(w *world) error{
				"pull":   func(w *world) error { return w.Pull(t.Context(), tt.serve(t), "", nil, nil) },
				"layout": func(w *world) error { return w.Load(t.Context(), bytes.NewReader(tt.layout(t)), nil) },
			} {
				t.Run(way, func(t *testing.T) {
					w, judge := unchanged(t)
					if tt.limit != (layer.Limits{}) {
						w.o.Layers.SetLimits(tt.limit)
					}
					judge(bring(w), tt.words)
				})
			}
		})
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func repeat(data []byte, n int) [][]byte {
	list := make([][]byte, n)
	for i := range list {
		list[i] = data
	}
	return list
}

// TestHostileArchives are those that only `docker save` could write, or no program.
func TestHostileArchives(t *testing.T) {
	layerData := layerTar(t, "good")
	config := `{"os":"linux","rootfs":{"type":"layers","diff_ids":["` + digest.FromBytes(layerData).String() + `"]}}`
	large := `{"x":"` + strings.Repeat("x", 1<<20) + `",` + config[1:]
	items := func(n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(`{"Config":"c","Layers":["l"]},`, n), ",") + "]"
	}
	with := func(manifest string, more ...tarFile) []byte {
		files := []tarFile{plainFile("c", config), {tar.Header{Name: "l"}, layerData}, plainFile("manifest.json", manifest)}
		return archive(t, append(files, more...)...)
	}
	link := func(name, to string, kind byte) tarFile {
		return tarFile{tar.Header{Name: name, Typeflag: kind, Linkname: to}, nil}
	}
	index := func(text string) []byte { return archive(t, plainFile("index.json", text)) }
	d := digest.FromString("x").String()
	for name, tt := range map[string]struct {
		archive []byte
		words   string
	}{
		"layer is a link out":            {with(`[{"Config":"c","Layers":["x"]}]`, link("x", "../../../etc/passwd", tar.TypeSymlink)), "no file"},
		"layer is an absolute link":      {with(`[{"Config":"c","Layers":["x"]}]`, link("x", "/etc/passwd", tar.TypeSymlink)), "no file"},
		"layer is a hard link out":       {with(`[{"Config":"c","Layers":["x"]}]`, link("x", "../../../../etc/shadow", tar.TypeLink)), "no file"},
		"links in a circle":              {with(`[{"Config":"x","Layers":["l"]}]`, link("x", "y", tar.TypeSymlink), link("y", "x", tar.TypeSymlink)), "no file"},
		"path out of the archive":        {with(`[{"Config":"../../../../../../etc/passwd","Layers":["l"]}]`), "no file"},
		"path of a megabyte":             {with(`[{"Config":"` + strings.Repeat("p", 1<<20) + `","Layers":["l"]}]`), "no file"},
		"layer is a device":              {with(`[{"Config":"c","Layers":["x"]}]`, link("x", "", tar.TypeChar)), "no file"},
		"huge manifest.json":             {with("[" + strings.Repeat(" ", maxConfig) + "]"), "at most"},
		"too many images":                {with(items(maxImages + 1)), "images"},
		"the same large config for all":  {archive(t, plainFile("c", large), tarFile{tar.Header{Name: "l"}, layerData}, plainFile("manifest.json", items(100))), "configurations have more than"},
		"second manifest.json":           {with(`[{"Config":"c","Layers":["l"]}]`, plainFile("manifest.json", `[{"Config":"evil","Layers":["l"]}]`)), "no file"},
		"second layer of the same name":  {with(`[{"Config":"c","Layers":["l"]}]`, plainFile("l", string(layerTar(t, "evil")))), "does not match"},
		"second config of the same name": {with(`[{"Config":"c","Layers":["l"]}]`, plainFile("c", `{"rootfs":{"diff_ids":[]}}`)), "has 0 layers"},
		"missing layer":                  {with(`[{"Config":"c","Layers":["nothing"]}]`), "no file"},
		"name with escapes":              {with(`[{"Config":"c","Layers":["l"],"RepoTags":["x\u001b[2J:1"]}]`), "reference"},
		"name that is a digest":          {with(`[{"Config":"c","Layers":["l"],"RepoTags":["x@` + d + `"]}]`), ""},
		"second image is bad":            {with(`[{"Config":"c","Layers":["l"],"RepoTags":["good:1"]},{"Config":"nothing","Layers":[]}]`), "no file"},
		"sparse file":                    {append(sparseEntry(t), make([]byte, 1024)...), "sparse"},
		"nothing but links":              {archive(t, link("manifest.json", "manifest.json", tar.TypeLink)), "neither"},
		"index in a circle":              {index(`{"manifests":[{"mediaType":"` + ocispec.MediaTypeImageIndex + `","digest":"` + d + `","size":1}]}`), "no blob"},
		"index of too many":              {index(`{"manifests":[{}` + strings.Repeat(",{}", maxImages) + `]}`), "images"},
		"index with an odd digest":       {index(`{"manifests":[{"digest":"sha256:` + strings.Repeat("../", 1000) + `"}]}`), "digest"},
		"index nests deep":               {nestedIndexes(t, 8), "nested too deep"},
	} {
		t.Run(name, func(t *testing.T) {
			w, judge := unchanged(t)
			judge(w.Load(t.Context(), bytes.NewReader(tt.archive), nil), tt.words)
		})
	}
}

// sparseEntry is a header that says that a few bytes are a terabyte.
func sparseEntry(t *testing.T) []byte {
	t.Helper()
	records := ""
	for _, r := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=1000000", "GNU.sparse.name=disk.img"} {
		records += fmt.Sprintf("%d %s\n", len(r)+4, r)
	}
	b := archive(t, plainFile("GNUSparseFile.0/x", "1\n0\n512\n"+strings.Repeat("\x00", 1015)))
	head := archive(t, plainFile("pax", records))
	head[156] = 'x'
	reseal(head[:512])
	return append(head[:1024], b[:512+1024]...)
}

func reseal(h []byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

// nestedIndexes is a layout whose image lies below so many indexes.
func nestedIndexes(t *testing.T, depth int) []byte {
	t.Helper()
	var files []tarFile
	child := `{"manifests":[]}`
	for range depth {
		d := digest.FromString(child)
		files = append(files, plainFile("blobs/sha256/"+d.Encoded(), child))
		child = fmt.Sprintf(`{"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageIndex, d, len(child))
	}
	return archive(t, append(files, plainFile("index.json", child))...)
}

func TestHostileImports(t *testing.T) {
	for name, tt := range map[string]struct {
		data  []byte
		words string
	}{
		"climbs":       {layerTar(t, "../x"), `".."`},
		"no archive":   {[]byte(strings.Repeat("text", 1000)), "header"},
		"torn gzip":    {gzipped9(t, layerTar(t, "x"))[:40], ""},
		"gzip in gzip": {gzipped9(t, gzipped9(t, layerTar(t, "x"))), "unexpected EOF"},
		"torn":         {layerTar(t, "x")[:512], "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			w, judge := unchanged(t)
			_, err := w.Import(t.Context(), bytes.NewReader(tt.data), "evil:1", "", nil, nil)
			judge(err, tt.words)
		})
	}
}

// A configuration that contradicts itself is shown as it is, and nothing goes wrong on the way.
func TestHostileConfigurationsAreShown(t *testing.T) {
	layerData := layerTar(t, "good")
	for name, text := range map[string]string{
		"history of more layers":  `"history":[{"created_by":"\u001b[2J"},{},{},{"empty_layer":true}]`,
		"history of fewer layers": `"history":[{"empty_layer":true}]`,
		"history is null":         `"history":null`,
		"time far away":           `"created":"9999-12-31T23:59:59Z"`,
		"time of year zero":       `"created":"0000-01-01T00:00:00Z"`,
		"configuration is null":   `"config":null`,
		"odd configuration":       `"config":{"User":"root\n:\u0000","Env":["","=","A","A=\u0000",null],"Entrypoint":[""],"Cmd":null,"Volumes":{"/":{},"..":{},"":null},"ExposedPorts":{"x":{},"-1/tcp":{},"99999999/udp":{}},"WorkingDir":"../../..","StopSignal":"SIGWHAT","StopTimeout":-1,"Healthcheck":{"Test":[],"Interval":-1,"Retries":-9},"Labels":{"":"","\u001b":"\u001b]0;x\u0007"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := crafted{layers: [][]byte{layerData}, config: `{"os":"linux","architecture":"` + ours.Host().Architecture + `",` + text + `,"rootfs":{"type":"layers","diff_ids":[DIFFS]}}`}
			must(t, w.Load(t.Context(), bytes.NewReader(c.layout(t)), nil))
			_, err := w.Inspect(t.Context(), "evil:1")
			must(t, err)
			_, err = w.History(t.Context(), "evil:1")
			must(t, err)
			_, err = w.List(t.Context(), ListOptions{All: true, Manifests: true})
			must(t, err)
			must(t, w.Save(t.Context(), []string{"evil:1"}, io.Discard))
			_, err = w.Remove(t.Context(), "evil:1", false, false)
			must(t, err)
			if left := w.leftovers(t); left != "0 0 0 0" {
				t.Errorf("left %s", left)
			}
		})
	}
}

// What an image has is not as much on the host as in a container.
func TestMountIsConfined(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts")
	}
	dir := t.TempDir()
	w := openWorld(t, dir)
	run, err := state.Open(filepath.Join(dir, "run.db"), state.Options{NoSync: true})
	must(t, err)
	t.Cleanup(func() { _ = run.Close() })
	w.o.RunDB, w.o.MountRoot = run, filepath.Join(dir, "mounts")
	c := crafted{layers: [][]byte{archive(t,
		tarFile{tar.Header{Name: "su", Mode: 0o4755}, []byte("x")}, tarFile{tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Devmajor: 8}, nil},
		tarFile{tar.Header{Name: "passwd", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, nil})}}
	must(t, w.Load(t.Context(), bytes.NewReader(c.layout(t)), nil))
	at, err := w.Mount(t.Context(), "evil:1", "")
	must(t, err)
	t.Cleanup(func() { must(t, w.CloseMounts()) })
	var st unix.Statfs_t
	must(t, unix.Statfs(at, &st))
	for flag, name := range map[int64]string{unix.ST_NOSUID: "nosuid", unix.ST_NODEV: "nodev", unix.ST_RDONLY: "ro"} {
		if st.Flags&flag == 0 {
			t.Errorf("the mount is not %s", name)
		}
	}
	// The place is looked up before it is mounted on: a link in it leads to where the user may mount.
	if _, err := w.Mount(t.Context(), "evil:1", "relative"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a relative place: %v", err)
	}
	if _, err := w.Mount(t.Context(), "evil:1", filepath.Join(at, "passwd")); !fault.Is(err, fault.Invalid) {
		t.Errorf("a place that is a file: %v", err)
	}
}

// FuzzLoad loads what may be an archive.
func FuzzLoad(f *testing.F) {
	t := &testing.T{}
	good := layerTar(t, "x")
	c := crafted{layers: [][]byte{good}}
	f.Add(c.layout(t))
	config := `{"os":"linux","rootfs":{"type":"layers","diff_ids":["` + digest.FromBytes(good).String() + `"]}}`
	f.Add(archive(t, plainFile("c", config), tarFile{tar.Header{Name: "l"}, good}, plainFile("manifest.json", `[{"Config":"c","Layers":["l"],"RepoTags":["x:1"]}]`)))
	f.Add(gzipped9(t, nestedIndexes(t, 2)))
	w, err := openDir(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	w.o.Layers.SetLimits(layer.Limits{Bytes: 1 << 20, Entries: 1000, Names: 1 << 20})
	f.Fuzz(func(t *testing.T, data []byte) {
		err := w.Load(t.Context(), bytes.NewReader(data), nil)
		if err != nil && (strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 4096) {
			t.Errorf("the error is no short line: %.300q (%d bytes)", err, len(err.Error()))
		}
		list, lerr := w.List(t.Context(), ListOptions{All: true})
		must(t, lerr)
		for _, i := range list {
			if _, err := w.Remove(t.Context(), i.ID, true, false); err != nil {
				t.Fatal(err)
			}
		}
		if left := w.leftovers(t); left != "0 0 0 0" {
			t.Errorf("after %v: left %s", err, left)
		}
	})
}

// FuzzParseConfig reads what may be a configuration.
func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"os":"linux","rootfs":{"type":"layers","diff_ids":["` + digest.FromString("x").String() + `"]},"history":[{}],"config":{"Env":["A=b"]}}`))
	f.Add([]byte(`{"created":"0000-00-00","rootfs":{"type":"x"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		config, docker, err := parseConfig(raw)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 1024 {
				t.Errorf("the error is no short line: %.300q", err)
			}
			return
		}
		again, err := writeConfig(config, docker.Config)
		if err != nil {
			return // a time that RFC 3339 has not
		}
		if _, _, err := parseConfig(again); err != nil {
			t.Errorf("what was read cannot be read again: %v", err)
		}
	})
}

// FuzzReference reads what may be the name of an image.
func FuzzReference(f *testing.F) {
	for _, ref := range []string{"busybox", "docker.io/library/x:1", "host:5000/a/b@" + digest.FromString("x").String(), "../x", "x:../y", "X", "\x1b[2J"} {
		f.Add(ref)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		named, err := parseName(ref)
		if err != nil {
			return
		}
		text := named.String()
		if strings.Contains(text, "..") && strings.Contains(text, "/../") || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Errorf("%q is the name %q", ref, text)
		}
		if again, err := parseName(text); err != nil || again.String() != text {
			t.Errorf("%q becomes %v, %v", text, again, err)
		}
	})
}

// An image whose layer is shown before it is there can say that it has the diff ID of another image's layer. The other
// image does not get its files, however it comes.
func TestShownImpostor(t *testing.T) {
	image := made(t, "victim")
	host := registryHost(t)
	push(t, host, "victim:1", image)
	layers, err := image.Layers()
	must(t, err)
	diff, err := layers[0].DiffID()
	must(t, err)
	for name, bring := range map[string]func(w *world) error{
		"pull": func(w *world) error { return w.Pull(t.Context(), host+"/victim:1", "", nil, nil) },
		"load": func(w *world) error {
			return w.Load(t.Context(), dockerArchive(t, map[string]v1.Image{"victim:1": image}), nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, at := newWorld(t), t.TempDir()
			must(t, os.MkdirAll(filepath.Join(at, "base"), 0o755))
			must(t, os.WriteFile(filepath.Join(at, "base/one"), []byte("evil"), 0o755))
			staged, err := w.o.Layers.StageShown(layer.Shown{
				DiffID: digest.Digest(diff.String()), Size: 4, At: at,
				Settle: func(context.Context, digest.Digest, map[string]layer.Attributes) (json.RawMessage, error) {
					return json.Marshal(lazy.Source{DiffID: digest.Digest(diff.String()), Blob: ocispec.Descriptor{Digest: digest.FromString("evil"), Size: 4}})
				},
			})
			must(t, err)
			l, err := staged.Commit(t.Context(), "")
			must(t, err)
			must(t, bring(w))
			if w.o.Layers.IsShown(l.ChainID) {
				t.Error("the other image's layer is still shown")
			}
			data, err := os.ReadFile(filepath.Join(w.dir, "overlay2", l.ChainID.Encoded(), "diff/base/one"))
			if err != nil || string(data) != "base/one" {
				t.Errorf("the image has %q, %v", data, err)
			}
		})
	}
}
