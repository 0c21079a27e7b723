package image

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/registry"
	"github.com/sampan-project/sampan/core/wire"
)

var foreign = ocispec.Platform{OS: "linux", Architecture: "s390x"}

// ofPlatform is an image for another platform than this host's.
func ofPlatform(t *testing.T, image v1.Image, p ocispec.Platform) v1.Image {
	t.Helper()
	file, err := image.ConfigFile()
	must(t, err)
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Variant = p.OS, p.Architecture, p.Variant
	image, err = mutate.ConfigFile(image, file)
	must(t, err)
	return image
}

// publishIndex pushes two images and a list of them, and returns the list's name.
func publishIndex(t *testing.T, w *world, host, repo string, images ...v1.Image) string {
	t.Helper()
	list := wire.ManifestCreate{Name: host + "/" + repo + ":both"}
	for i, image := range images {
		ref := host + "/" + repo + ":" + string(rune('a'+i))
		push(t, host, repo+":"+string(rune('a'+i)), image)
		list.Manifests = append(list.Manifests, ref)
	}
	_, err := w.ManifestCreate(t.Context(), list, nil)
	must(t, err)
	_, err = w.ManifestPush(t.Context(), wire.ManifestPush{Name: list.Name, Purge: true}, nil)
	must(t, err)
	return list.Name
}

func TestPlatformsOfOneName(t *testing.T) {
	w, host := newWorld(t), registryHost(t)
	mine := made(t, "1")
	other := ofPlatform(t, made(t, "2"), foreign)
	ref := publishIndex(t, w, host, "demo", mine, other)
	must(t, w.Pull(t.Context(), ref, "", nil, nil))
	must(t, w.Pull(t.Context(), ref, "linux/s390x", nil, nil))
	must(t, w.Pull(t.Context(), ref, "", nil, nil))

	w = w.reopen(t)
	list, err := w.List(t.Context(), ListOptions{Manifests: true})
	must(t, err)
	if len(list) != 1 || len(list[0].Manifests) != 2 || list[0].ID != idOf(t, mine).String() {
		t.Fatalf("expected one image of two platforms: %+v", list)
	}
	if m := list[0].Manifests; list[0].Size != m[0].Size.Total+m[1].Size.Total || m[0].Size.Total != m[0].Size.Content+m[0].ImageData.Size.Unpacked {
		t.Errorf("the sizes do not add up: %+v", list)
	}
	for _, p := range []ocispec.Platform{registry.Host(), foreign} {
		found, err := w.InspectWith(t.Context(), ref, InspectOptions{Platform: &p})
		if err != nil || found.Architecture != p.Architecture {
			t.Errorf("%v: got %s, %v", p, found.Architecture, err)
		}
	}
	if _, err := w.HistoryFor(t.Context(), ref, &ocispec.Platform{OS: "linux", Architecture: "mips"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("a platform that there is not: %v", err)
	}

	// Another image under the name takes it from both.
	must(t, w.Tag(t.Context(), ref, "kept:1"))
	w.load(t, made(t, "3"), ref)
	if others := w.others(host + "/demo:both"); len(others) != 0 {
		t.Errorf("the old index's platforms are still under the name: %v", others)
	}
	if others := w.others("docker.io/library/kept:1"); len(others) != 1 {
		t.Errorf("the tag has lost a platform: %v", others)
	}

	// One platform goes, the other takes the name; then all.
	gone, err := w.RemovePlatforms(t.Context(), "kept:1", []ocispec.Platform{registry.Host()}, false, false)
	must(t, err)
	if found, err := w.Inspect(t.Context(), "kept:1"); err != nil || found.Architecture != "s390x" {
		t.Errorf("after %v: got %s, %v", gone, found.Architecture, err)
	}
}

func TestSaveAndLoadPlatforms(t *testing.T) {
	w, host := newWorld(t), registryHost(t)
	ref := publishIndex(t, w, host, "demo", made(t, "1"), ofPlatform(t, made(t, "2"), foreign))
	must(t, w.Pull(t.Context(), ref, "linux/s390x", nil, nil))
	must(t, w.Pull(t.Context(), ref, "", nil, nil))
	var both, one bytes.Buffer
	must(t, w.Save(t.Context(), []string{ref}, &both))
	must(t, w.SaveWith(t.Context(), []string{ref}, SaveOptions{Platform: &foreign, OCI: true}, &one))
	if strings.Contains(one.String(), "manifest.json") {
		t.Error("an OCI archive has Docker's index")
	}
	archive := both.Bytes()
	for _, tt := range []struct {
		platform *ocispec.Platform
		want     int
		arch     string
	}{{nil, 2, registry.Host().Architecture}, {&foreign, 1, "s390x"}} {
		n := newWorld(t)
		must(t, n.LoadFor(t.Context(), bytes.NewReader(archive), tt.platform, nil))
		found, err := n.InspectWith(t.Context(), ref, InspectOptions{Manifests: true})
		if err != nil || len(found.Manifests) != tt.want || found.Architecture != tt.arch {
			t.Errorf("%v: got %d platforms, first %s, %v", tt.platform, len(found.Manifests), found.Architecture, err)
		}
		if _, err := n.Remove(t.Context(), ref, false, false); err != nil {
			t.Error(err)
		}
		if left := n.leftovers(t); left != "0 0 0 0" {
			t.Errorf("the images left %s", left)
		}
	}
	if err := newWorld(t).LoadFor(t.Context(), bytes.NewReader(archive), &ocispec.Platform{OS: "linux", Architecture: "mips"}, nil); err == nil {
		t.Error("an archive without the platform was loaded")
	}
}

func TestManifestListRules(t *testing.T) {
	w, host := newWorld(t), registryHost(t)
	push(t, host, "demo:a", made(t, "1"))
	list := wire.ManifestCreate{Name: host + "/demo:list", Manifests: []string{host + "/demo:a"}}
	_, err := w.ManifestCreate(t.Context(), list, nil)
	must(t, err)
	if _, err := w.ManifestCreate(t.Context(), list, nil); !fault.Is(err, fault.Conflict) {
		t.Errorf("the same list again: %v", err)
	}
	must(t, w.ManifestAnnotate(t.Context(), wire.ManifestAnnotate{Name: list.Name, Manifest: list.Manifests[0], Platform: wire.Platform{OSVersion: "7", OSFeatures: []string{"x"}}}))
	raw, err := w.ManifestInspect(t.Context(), wire.ManifestInspect{Manifest: list.Name}, nil)
	must(t, err)
	var index ocispec.Index
	must(t, json.Unmarshal(raw, &index))
	if len(index.Manifests) != 1 || index.Manifests[0].Platform.OSVersion != "7" || index.Manifests[0].Platform.Architecture != registry.Host().Architecture {
		t.Errorf("got %s", raw)
	}
	for name, err := range map[string]error{
		"no such platform":    w.ManifestAnnotate(t.Context(), wire.ManifestAnnotate{Name: list.Name, Manifest: list.Manifests[0], Platform: wire.Platform{Architecture: "nosuch"}}),
		"annotate of another": w.ManifestAnnotate(t.Context(), wire.ManifestAnnotate{Name: list.Name, Manifest: host + "/demo:b"}),
		"remove of another":   w.ManifestRemove(t.Context(), host+"/demo:other"),
		"digest for a name":   w.ManifestRemove(t.Context(), host+"/demo@sha256:"+strings.Repeat("0", 64)),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	must(t, w.ManifestRemove(t.Context(), list.Name))
	if _, err := w.ManifestPush(t.Context(), wire.ManifestPush{Name: list.Name}, nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("push of a removed list: %v", err)
	}
}

func TestLayersThatAreRefused(t *testing.T) {
	w := newWorld(t)
	for kind, words := range map[types.MediaType]string{
		types.DockerForeignLayer: "foreign layers", types.OCIRestrictedLayer: "foreign layers", "application/x-other": "expected a tar layer",
	} {
		image, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mutate.Addendum{Layer: static.NewLayer(layerTar(t, "a"), kind)})
		must(t, err)
		err = w.Load(t.Context(), tarDir(t, ociLayout(t, image, "demo:1"), nil), nil)
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: got %v", kind, err)
		}
	}
	if left := w.leftovers(t); left != "0 0 0 0" {
		t.Errorf("what was refused left %s", left)
	}
}

func TestArtifact(t *testing.T) {
	w, host := newWorld(t), registryHost(t)
	image, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mutate.Addendum{Layer: static.NewLayer([]byte("text"), "text/plain")})
	must(t, err)
	artifact := mutate.ConfigMediaType(image, "application/vnd.example.chart+json")
	ref := host + "/chart:1"
	push(t, host, "chart:1", artifact)
	must(t, w.Pull(t.Context(), ref, "", nil, nil))
	w = w.reopen(t)
	if _, err := w.Get(t.Context(), ref); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "is an artifact (application/vnd.example.chart+json)") {
		t.Errorf("got %v", err)
	}
	var b bytes.Buffer
	must(t, w.Save(t.Context(), []string{ref}, &b))
	must(t, newWorld(t).Load(t.Context(), &b, nil))
	must(t, w.Push(t.Context(), ref, nil, nil))
	if _, err := w.DiffImages(t.Context(), ref, ref); !fault.Is(err, fault.Invalid) {
		t.Errorf("diff: %v", err)
	}
	_, err = w.Remove(t.Context(), ref, false, false)
	must(t, err)
	if left := w.leftovers(t); left != "0 0 0 0" {
		t.Errorf("the artifact left %s", left)
	}
	if err := w.Save(t.Context(), []string{ref}, io.Discard); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
}
