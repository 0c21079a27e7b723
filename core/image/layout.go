package image

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/registry"
)

// layout returns the images of an OCI image layout: of the platform, or of all.
func (sp *spool) layout(d ocispec.Descriptor, platform *ocispec.Platform) ([]loading, error) {
	var index ocispec.Index
	if _, err := sp.decode(d.Digest, ocispec.ImageIndexFile, &index); err != nil {
		return nil, err
	}
	if n := len(index.Manifests); n == 0 || n > maxImages {
		return nil, fault.New(fault.Invalid, "%s has %d images: expected 1 to %d", ocispec.ImageIndexFile, n, maxImages)
	}
	r := layoutReader{spool: sp, want: registry.Host(), only: platform != nil, at: map[digest.Digest]int{}}
	if platform != nil {
		r.want = *platform
	}
	for _, m := range index.Manifests {
		if m.Platform != nil && (len(index.Manifests) > 1 || r.only) && registry.Runs(r.want, *m.Platform) == 0 {
			continue // of an image for several platforms
		}
		if err := r.named(m); err != nil {
			return nil, err
		}
	}
	if len(r.list) == 0 {
		return nil, noPlatform(r.want)
	}
	return r.list, nil
}

// layoutReader collects the images of a layout.
type layoutReader struct {
	*spool
	want ocispec.Platform
	only bool // no other than want
	list []loading
	at   map[digest.Digest]int // manifests that are in list: an image has an entry for each name
}

// named adds what one entry of index.json names: an image, or an index of them.
func (r *layoutReader) named(m ocispec.Descriptor) error {
	tags, err := layoutNames(m)
	if err != nil {
		return err
	}
	var all []ocispec.Descriptor
	if err := r.flatten(m, 0, &all); err != nil {
		return err
	}
	first, err := r.best(m, all)
	if err != nil {
		return err
	}
	var others []digest.Digest
	for _, d := range all {
		if d.Digest == first.Digest || r.only {
			continue
		}
		i, err := r.add(d, true)
		if err != nil {
			return err
		}
		others = append(others, digest.FromBytes(r.list[i].config))
	}
	i, err := r.add(first, false)
	if err != nil {
		return err
	}
	for _, t := range tags {
		r.list[i].tags = include(r.list[i].tags, t)
	}
	r.list[i].others = append(r.list[i].others, others...)
	return nil
}

// add adds an image once, and returns where it is.
func (r *layoutReader) add(d ocispec.Descriptor, beside bool) (int, error) {
	if i, ok := r.at[d.Digest]; ok {
		r.list[i].beside = r.list[i].beside && beside
		return i, nil
	}
	l, err := r.image(d)
	if err != nil {
		return 0, err
	}
	l.beside = beside && l.artifact == nil
	r.at[d.Digest] = len(r.list)
	r.list = append(r.list, l)
	return len(r.list) - 1, nil
}

// annotationAttestation marks what BuildKit puts beside an image in its index, and what is none.
const annotationAttestation = "vnd.docker.reference.type"

// flatten appends the manifests that an entry leads to. In an index some may be left out of the archive.
func (r *layoutReader) flatten(m ocispec.Descriptor, depth int, all *[]ocispec.Descriptor) error {
	const maxDepth = 3
	if depth > maxDepth || len(*all) >= maxImages {
		return fault.New(fault.Invalid, "index %s: nested too deep, or of more than %d images", m.Digest, maxImages)
	}
	if err := m.Digest.Validate(); err != nil {
		return fault.New(fault.Invalid, "digest %q: expected sha256 and 64 hexadecimal digits", brief(m.Digest.String()))
	}
	if _, there := r.blobs[m.Digest]; depth > 0 && !there {
		return nil
	}
	d, err := r.blobOf(m)
	if err != nil {
		return err
	}
	d.Platform = m.Platform
	if !isIndex(d.MediaType) {
		*all = append(*all, d)
		return nil
	}
	var index ocispec.Index
	raw, err := r.decode(d.Digest, "index "+d.Digest.String(), &index)
	if err != nil {
		return err
	}
	if err := registry.CheckKind(d.MediaType, raw); err != nil {
		return fmt.Errorf("index %s: %w", d.Digest, err)
	}
	for _, child := range index.Manifests {
		if child.Annotations[annotationAttestation] != "" {
			continue
		}
		if err := r.flatten(child, depth+1, all); err != nil {
			return err
		}
	}
	return nil
}

// best chooses the image that runs best on the wanted platform.
func (r *layoutReader) best(m ocispec.Descriptor, all []ocispec.Descriptor) (ocispec.Descriptor, error) {
	best, most := ocispec.Descriptor{}, 0
	for _, child := range all {
		fits := 1 // a descriptor without a platform is for any
		if child.Platform != nil && (isIndex(m.MediaType) || r.only) {
			fits = registry.Runs(r.want, *child.Platform)
		}
		if fits > most {
			best, most = child, fits
		}
	}
	if most == 0 {
		return best, fault.New(fault.Invalid, "index %s has no image for %s in the archive", m.Digest, registry.PlatformString(r.want))
	}
	return best, nil
}

// layoutNames returns the name in a descriptor's annotations. The OCI's own annotation is a tag alone
// with some programs and a whole name with others; containerd's is always whole.
func layoutNames(m ocispec.Descriptor) ([]string, error) {
	name := m.Annotations[annotationName]
	if name == "" {
		name = m.Annotations[ocispec.AnnotationRefName]
	}
	return parseTags([]string{name})
}

// image reads one manifest.
func (r *layoutReader) image(m ocispec.Descriptor) (loading, error) {
	var manifest ocispec.Manifest
	raw, err := r.decode(m.Digest, "manifest "+m.Digest.String(), &manifest)
	if err != nil {
		return loading{}, err
	}
	if err := registry.CheckKind(m.MediaType, raw); err != nil {
		return loading{}, fmt.Errorf("manifest %s: %w", m.Digest, err)
	}
	if err := checkMediaTypes(manifest); err != nil {
		return loading{}, err
	}
	config, err := r.blobOf(manifest.Config)
	if err != nil {
		return loading{}, err
	}
	kind := m.MediaType
	if kind == "" {
		kind = ocispec.MediaTypeImageManifest
	}
	var layers []ocispec.Descriptor
	for _, layer := range manifest.Layers {
		blob, err := r.blobOf(layer)
		if err != nil {
			return loading{}, err
		}
		layers = append(layers, blob)
	}
	if artifactType(manifest) != "" {
		return loading{draft: draft{manifest: raw, kind: kind}, artifact: &manifest}, nil
	}
	d, err := r.begin(config.Digest)
	if err != nil {
		return loading{}, err
	}
	if r.only && m.Platform == nil && registry.Runs(r.want, d.platform) == 0 {
		return loading{}, noPlatform(r.want)
	}
	d.manifest, d.kind, d.layers = raw, kind, layers
	return loading{draft: d}, checkLayers(len(d.diffs), len(d.layers))
}
