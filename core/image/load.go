package image

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/layer"
	"github.com/sampan-project/sampan/core/registry"
	"github.com/sampan-project/sampan/core/wire"
)

// Load reads images from an archive: an OCI image layout in a tar, or what `docker save` writes, plain
// or compressed by gzip, bzip2, xz or zstd.
func (s *Store) Load(ctx context.Context, r io.Reader, progress func(wire.Message)) error {
	l := s.lease()
	defer l.end()
	sp, err := s.spool(ctx, l, r)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	report := newReporter(progress)
	drafts, err := sp.drafts()
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	for _, d := range drafts {
		if err := s.loadDraft(ctx, l, d, report); err != nil {
			return fmt.Errorf("load: %w", err)
		}
	}
	return nil
}

// drafts returns the images of an archive. What has both kinds of index is read by the OCI's, which
// keeps the manifests, and with them the digests, as they are.
func (sp *spool) drafts() ([]draft, error) {
	if d, err := sp.file(ocispec.ImageIndexFile); err == nil {
		return sp.layout(d)
	}
	if d, err := sp.file("manifest.json"); err == nil {
		return sp.dockerArchive(d)
	}
	return nil, fault.New(fault.Invalid, "the archive has neither index.json (OCI image layout) nor manifest.json (docker save)")
}

func (s *Store) loadDraft(ctx context.Context, l *lease, d draft, report *reporter) error {
	err := s.unpack(ctx, l, d.diffs, unpackers(), func(ctx context.Context, i int, there bool) (*layer.Staged, error) {
		if there {
			return nil, nil
		}
		bar := report.bar(short(d.diffs[i]), "Loading layer", d.layers[i].Size)
		return s.stageBlob(ctx, d.layers[i].Digest, bar.add)
	}, func(int) {})
	if err != nil {
		return err
	}
	id := digest.FromBytes(d.config)
	for _, tag := range d.tags {
		if old := s.tagged(tag); old != nil && old.record.ID != id {
			report.say(wire.Message{Stream: fmt.Sprintf("The image %s already exists, renaming the old one with ID %s to empty string\n", familiarString(tag), old.record.ID)})
		}
	}
	e, err := s.add(ctx, l, d)
	if err != nil {
		return err
	}
	for _, tag := range d.tags {
		report.say(wire.Message{Stream: fmt.Sprintf("Loaded image: %s\n", familiarString(tag))})
	}
	if len(d.tags) == 0 {
		report.say(wire.Message{Stream: fmt.Sprintf("Loaded image ID: %s\n", e.record.ID)})
	}
	s.tell("load", e, e.record.ID.String(), e.record.ID.String())
	return nil
}

// archiveItem is one image of the manifest.json that `docker save` writes.
type archiveItem struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// maxImages bounds the images of one archive.
const maxImages = 4096

func (sp *spool) dockerArchive(manifest ocispec.Descriptor) ([]draft, error) {
	var items []archiveItem
	if _, err := sp.decode(manifest.Digest, "manifest.json", &items); err != nil {
		return nil, err
	}
	if len(items) == 0 || len(items) > maxImages {
		return nil, fault.New(fault.Invalid, "manifest.json has %d images: expected 1 to %d", len(items), maxImages)
	}
	var drafts []draft
	for _, item := range items {
		d, err := sp.dockerImage(item)
		if err != nil {
			return nil, fmt.Errorf("manifest.json: %w", err)
		}
		drafts = append(drafts, d)
	}
	return drafts, nil
}

func (sp *spool) dockerImage(item archiveItem) (draft, error) {
	config, err := sp.file(item.Config)
	if err != nil {
		return draft{}, err
	}
	d, err := sp.begin(config.Digest)
	if err != nil {
		return d, err
	}
	if d.tags, err = parseTags(item.RepoTags); err != nil {
		return d, err
	}
	if err := checkLayers(len(d.diffs), len(item.Layers)); err != nil {
		return d, err
	}
	for _, name := range item.Layers {
		blob, err := sp.file(name)
		if err != nil {
			return d, err
		}
		if blob.MediaType, err = sp.sniff(blob.Digest); err != nil {
			return d, err
		}
		d.layers = append(d.layers, blob)
	}
	return d, nil
}

// begin starts a draft from a configuration in the archive.
func (sp *spool) begin(config digest.Digest) (draft, error) {
	raw, err := sp.s.o.Content.ReadAll(config, maxConfig)
	if err != nil {
		return draft{}, err
	}
	c, _, err := parseConfig(raw)
	if err != nil {
		return draft{}, err
	}
	return draft{config: raw, diffs: c.RootFS.DiffIDs}, nil
}

// layout returns the images of an OCI image layout.
func (sp *spool) layout(d ocispec.Descriptor) ([]draft, error) {
	var index ocispec.Index
	if _, err := sp.decode(d.Digest, ocispec.ImageIndexFile, &index); err != nil {
		return nil, err
	}
	if n := len(index.Manifests); n == 0 || n > maxImages {
		return nil, fault.New(fault.Invalid, "%s has %d images: expected 1 to %d", ocispec.ImageIndexFile, n, maxImages)
	}
	host := registry.Host()
	var drafts []draft
	seen := map[digest.Digest]int{} // manifests that have a draft: an image has an entry for each name
	for _, m := range index.Manifests {
		if m.Platform != nil && len(index.Manifests) > 1 && registry.Runs(host, *m.Platform) == 0 {
			continue // of an image for several platforms
		}
		tags, err := layoutNames(m)
		if err != nil {
			return nil, err
		}
		m, err := sp.choose(m, 0)
		if err != nil {
			return nil, err
		}
		if i, ok := seen[m.Digest]; ok {
			for _, t := range tags {
				drafts[i].tags = include(drafts[i].tags, t)
			}
			continue
		}
		draft, err := sp.layoutImage(m)
		if err != nil {
			return nil, err
		}
		draft.tags = tags
		seen[m.Digest] = len(drafts)
		drafts = append(drafts, draft)
	}
	if len(drafts) == 0 {
		return nil, fault.New(fault.Invalid, "the archive has no image for %s", registry.PlatformString(host))
	}
	return drafts, nil
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

// choose goes down from an index to the manifest for this host.
func (sp *spool) choose(m ocispec.Descriptor, depth int) (ocispec.Descriptor, error) {
	m, err := sp.blobOf(m)
	if err != nil || !isIndex(m.MediaType) {
		return m, err
	}
	const maxDepth = 3
	if depth >= maxDepth {
		return m, fault.New(fault.Invalid, "index %s: nested too deep", m.Digest)
	}
	var index ocispec.Index
	if _, err := sp.decode(m.Digest, "index "+m.Digest.String(), &index); err != nil {
		return m, err
	}
	host := registry.Host()
	best, most := ocispec.Descriptor{}, 0
	for _, child := range index.Manifests {
		fits := 1 // a descriptor without a platform is for any
		if child.Platform != nil {
			fits = registry.Runs(host, *child.Platform)
		}
		if fits > most {
			best, most = child, fits
		}
	}
	if most == 0 {
		return m, fault.New(fault.Invalid, "index %s has no image for %s", m.Digest, registry.PlatformString(host))
	}
	return sp.choose(best, depth+1)
}

func (sp *spool) layoutImage(m ocispec.Descriptor) (draft, error) {
	var manifest ocispec.Manifest
	raw, err := sp.decode(m.Digest, "manifest "+m.Digest.String(), &manifest)
	if err != nil {
		return draft{}, err
	}
	config, err := sp.blobOf(manifest.Config)
	if err != nil {
		return draft{}, err
	}
	d, err := sp.begin(config.Digest)
	if err != nil {
		return d, err
	}
	d.manifest, d.kind = raw, m.MediaType
	if d.kind == "" {
		d.kind = ocispec.MediaTypeImageManifest
	}
	if err := checkLayers(len(d.diffs), len(manifest.Layers)); err != nil {
		return d, err
	}
	for _, layer := range manifest.Layers {
		blob, err := sp.blobOf(layer)
		if err != nil {
			return d, err
		}
		d.layers = append(d.layers, blob)
	}
	return d, nil
}
