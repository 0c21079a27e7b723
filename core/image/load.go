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
// or compressed by gzip, bzip2, xz or zstd. Of an index all platforms are read that the archive has.
func (s *Store) Load(ctx context.Context, r io.Reader, progress func(wire.Message)) error {
	return s.LoadFor(ctx, r, nil, progress)
}

// LoadFor is Load of one platform; nil is all, and the host's before others under a name.
func (s *Store) LoadFor(ctx context.Context, r io.Reader, platform *ocispec.Platform, progress func(wire.Message)) error {
	l := s.lease()
	defer l.end()
	sp, err := s.spool(ctx, l, r)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	report := newReporter(progress)
	loads, err := sp.loads(platform)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	for _, d := range loads {
		if err := s.loadDraft(ctx, l, d, report); err != nil {
			return fmt.Errorf("load: %w", err)
		}
	}
	return nil
}

// loading is an image of an archive on its way in.
type loading struct {
	draft
	others   []digest.Digest   // images of other platforms under its names, which come before it
	beside   bool              // it is one of these
	artifact *ocispec.Manifest // what is no image
}

// loads returns the images of an archive. What has both kinds of index is read by the OCI's, which
// keeps the manifests, and with them the digests, as they are.
func (sp *spool) loads(platform *ocispec.Platform) ([]loading, error) {
	if d, err := sp.file(ocispec.ImageIndexFile); err == nil {
		return sp.layout(d, platform)
	}
	if d, err := sp.file("manifest.json"); err == nil {
		return sp.dockerArchive(d, platform)
	}
	return nil, fault.New(fault.Invalid, "the archive has neither index.json (OCI image layout) nor manifest.json (docker save)")
}

func (s *Store) loadDraft(ctx context.Context, l *lease, d loading, report *reporter) error {
	if d.artifact != nil {
		return s.loadArtifact(ctx, l, d, report)
	}
	err := s.unpack(ctx, l, d.diffs, unpackers(), func(ctx context.Context, i int, there bool) (*layer.Staged, error) {
		if there && !s.o.Layers.IsShown(layer.ChainOf(d.diffs)[i]) {
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
	e, err := s.add(ctx, l, d.draft)
	if err != nil || d.beside {
		return err
	}
	if err := s.loadedBeside(d); err != nil {
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

// loadedBeside gives the images of other platforms the names of the one that was loaded last.
func (s *Store) loadedBeside(d loading) error {
	s.change.Lock()
	defer s.change.Unlock()
	for _, tag := range d.tags {
		if err := s.addOthers(d.others, tag); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) loadArtifact(ctx context.Context, l *lease, d loading, report *reporter) error {
	e, err := s.addArtifact(ctx, l, d.draft, *d.artifact)
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

func (sp *spool) dockerArchive(manifest ocispec.Descriptor, platform *ocispec.Platform) ([]loading, error) {
	var items []archiveItem
	if _, err := sp.decode(manifest.Digest, "manifest.json", &items); err != nil {
		return nil, err
	}
	if len(items) == 0 || len(items) > maxImages {
		return nil, fault.New(fault.Invalid, "manifest.json has %d images: expected 1 to %d", len(items), maxImages)
	}
	var loads []loading
	for _, item := range items {
		d, err := sp.dockerImage(item)
		if err != nil {
			return nil, fmt.Errorf("manifest.json: %w", err)
		}
		if platform == nil || registry.Runs(*platform, d.platform) > 0 {
			loads = append(loads, loading{draft: d})
		}
	}
	if len(loads) == 0 {
		return nil, noPlatform(*platform)
	}
	return loads, nil
}

func noPlatform(p ocispec.Platform) error {
	return fault.New(fault.NotFound, "the archive has no image for %s", registry.PlatformString(p))
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
	raw, err := sp.read(config)
	if err != nil {
		return draft{}, err
	}
	c, _, err := parseConfig(raw)
	if err != nil {
		return draft{}, err
	}
	return draft{config: raw, diffs: c.RootFS.DiffIDs, platform: c.Platform}, nil
}
