package lazy

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Only what has a table is shown, where it is wanted and the kernel can.
func TestCan(t *testing.T) {
	fuse := device
	defer func() { device = fuse }()
	there, missing := t.TempDir(), filepath.Join(t.TempDir(), "fuse")
	stargz := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Annotations: map[string]string{"containerd.io/snapshot/stargz/toc.digest": "sha256:1"}}
	chunked := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerZstd, Annotations: map[string]string{"io.github.containers.zstd-chunked.manifest-checksum": "sha256:1"}}
	older := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerZstd, Annotations: map[string]string{"io.containers.zstd-chunked.manifest-checksum": "sha256:1"}}
	on := Options{Enabled: true, Program: "/sampan-lazy"}
	kept := on
	kept.Indexes = t.TempDir()
	if err := os.WriteFile(filepath.Join(kept.Indexes, digest.FromString("x").Encoded()), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o      Options
		device string
		blob   ocispec.Descriptor
		want   bool
	}{
		"eStargz":            {on, there, stargz, true},
		"zstd:chunked":       {on, there, chunked, true},
		"zstd:chunked, once": {on, there, older, true},
		"no table":           {on, there, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip}, false},
		"an index":           {kept, there, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString("x")}, true},
		"no index":           {kept, there, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString("y")}, false},
		"index elsewhere":    {kept, there, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: "sha256:./" + digest.Digest(digest.FromString("x").Encoded())}, false},
		"another type":       {on, there, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Annotations: stargz.Annotations}, false},
		"no FUSE":            {on, missing, stargz, false},
		"no program":         {Options{Enabled: true}, there, stargz, false},
		"not wanted":         {Options{Program: "/sampan-lazy"}, there, stargz, false},
	} {
		device = c.device
		if got := New(c.o).Can(Source{Blob: c.blob}); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
