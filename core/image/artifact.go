package image

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/layer"
	"github.com/sampan-project/sampan/core/registry"
	"github.com/sampan-project/sampan/core/wire"
)

// An artifact is a manifest whose configuration is none of an image (image-spec, "Guidelines for Artifact
// Usage"): a chart, a signature, a bill of materials. It is kept as it is and has names, but no layers; its
// ID is the digest of its manifest, because its configuration may be the empty one that all have.

// Media types of configurations and layers that images have beside those of the OCI.
const (
	dockerConfigType = "application/vnd.docker.container.image.v1+json"
	dockerLayerType  = "application/vnd.docker.image.rootfs.diff.tar"
)

// layerTypes are those that are unpacked. An old archive says nothing of its layers: "".
var layerTypes = []string{
	"", ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
	dockerLayerType, dockerLayerType + ".gzip", dockerLayerType + ".zstd",
}

// foreignTypes are layers whose bytes a registry does not keep, but names addresses of.
var foreignTypes = []string{
	"application/vnd.docker.image.rootfs.foreign.diff.tar", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
	ocispec.MediaTypeImageLayerNonDistributable,     //nolint:staticcheck // to refuse it
	ocispec.MediaTypeImageLayerNonDistributableGzip, //nolint:staticcheck // to refuse it
	ocispec.MediaTypeImageLayerNonDistributableZstd, //nolint:staticcheck // to refuse it
}

// artifactType returns what kind of artifact a manifest is, "" for an image.
func artifactType(m ocispec.Manifest) string {
	switch m.Config.MediaType {
	case ocispec.MediaTypeImageConfig, dockerConfigType, "":
		return ""
	}
	if m.ArtifactType != "" {
		return m.ArtifactType
	}
	return m.Config.MediaType
}

// runnable refuses an artifact where an image is needed.
func (e *entry) runnable(ref string) error {
	if e.Artifact == "" {
		return nil
	}
	return fault.New(fault.Invalid, "%s is an artifact (%s), not an image: it can be listed, tagged, saved, pushed and removed, but has no files and is not run", ref, e.Artifact)
}

// maxArtifactBlobs bounds the blobs of an artifact.
const maxArtifactBlobs = 4096

// mediaTypeName is the grammar of RFC 6838, section 4.2, which the OCI requires of an artifact's type. The text is shown
// to users.
var mediaTypeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}$`)

// checkMediaTypes refuses layers that cannot be unpacked, and what says that it is an artifact of no kind.
func checkMediaTypes(m ocispec.Manifest) error {
	most := layer.MaxLayers
	if kind := artifactType(m); kind != "" {
		if !mediaTypeName.MatchString(kind) {
			return fault.New(fault.Invalid, "configuration %s: media type %q: expected that of an image, or another type/subtype", m.Config.Digest, brief(kind))
		}
		most = maxArtifactBlobs
	}
	if n := len(m.Layers); n > most {
		return fault.New(fault.Invalid, "manifest: %d layers: expected at most %d", n, most)
	}
	if most == maxArtifactBlobs {
		return nil
	}
	for _, l := range m.Layers {
		switch {
		case slices.Contains(foreignTypes, l.MediaType):
			return fault.New(fault.NotImplemented, "layer %s: media type %q: foreign layers, which lie outside of the registry, are not supported", l.Digest, l.MediaType)
		case !slices.Contains(layerTypes, l.MediaType):
			return fault.New(fault.Invalid, "layer %s: media type %q: expected a tar layer of the OCI or Docker, plain or compressed by gzip or zstd", l.Digest, brief(l.MediaType))
		}
	}
	return nil
}

// artifact is entry for an artifact.
func (s *Store) artifact(r record) (*entry, error) {
	raw, err := s.o.Content.ReadAll(r.ID, maxConfig)
	if err != nil {
		return nil, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fault.New(fault.Invalid, "manifest %s: %w", r.ID, err)
	}
	e := &entry{record: r, configSize: m.Config.Size}
	e.Image = Image{ID: r.ID, Names: familiar(r.Tags), Digests: familiar(r.Digests), Comment: r.Artifact}
	if t, err := time.Parse(time.RFC3339, m.Annotations[ocispec.AnnotationCreated]); err == nil {
		e.Image.Config.Created = &t
	}
	for _, b := range append(m.Layers, m.Config) {
		e.Size += b.Size
		if !s.o.Content.Has(b.Digest) {
			return nil, fault.New(fault.NotFound, "no blob %s", b.Digest)
		}
	}
	return e, nil
}

// addArtifact keeps a manifest whose blobs are there, under the lease.
func (s *Store) addArtifact(ctx context.Context, l *lease, d draft, m ocispec.Manifest) (*entry, error) {
	manifest, err := s.putBlob(ctx, l, d.manifest, d.kind)
	if err != nil {
		return nil, err
	}
	r := record{ID: manifest.Digest, Manifest: manifest, Artifact: artifactType(m)}
	for _, b := range append(slices.Clone(m.Layers), m.Config) {
		if !slices.Contains(r.Blobs, b.Digest) {
			r.Blobs = append(r.Blobs, b.Digest)
		}
	}
	if err := s.o.Content.Sync(); err != nil {
		return nil, err
	}
	s.change.Lock()
	defer s.change.Unlock()
	if old := s.byID(r.ID); old != nil {
		r.Tags, r.Digests, r.Tagged = old.Tags, old.record.Digests, old.Tagged
	}
	if _, err := s.rename(r, d.tags, d.digests); err != nil {
		return nil, err
	}
	return s.byID(r.ID), nil
}

// pullArtifact fetches the blobs of an artifact as they are; newer is as pull's.
func (s *Store) pullArtifact(ctx context.Context, l *lease, named reference.Named, remote *registry.Image, trusted admission, report *reporter) (newer bool, err error) {
	m := remote.Manifest
	d := draft{manifest: remote.Raw, kind: remote.Descriptor.MediaType, digests: []string{remote.Name + "@" + remote.Digest.String()}}
	if _, digested := named.(reference.Digested); !digested {
		d.tags = []string{named.String()}
	}
	done := map[digest.Digest]bool{}
	for _, b := range append(slices.Clone(m.Layers), m.Config) {
		if done[b.Digest] {
			continue
		}
		done[b.Digest] = true
		l.blob(b.Digest)
		if err := s.fetchBlob(ctx, remote, b, report); err != nil {
			return false, fmt.Errorf("pull %s: %w", reference.FamiliarString(named), err)
		}
	}
	before := s.byName(named)
	e, err := s.addArtifact(ctx, l, d, m)
	if err != nil {
		return false, fmt.Errorf("pull %s: %w", reference.FamiliarString(named), err)
	}
	if err := s.accept(trusted, remote.Digest); err != nil {
		return false, fmt.Errorf("pull %s: %w", reference.FamiliarString(named), err)
	}
	report.say(wire.Message{Status: "Digest: " + remote.Digest.String()})
	s.tell("pull", e, reference.FamiliarString(named), reference.FamiliarName(named))
	return before == nil || before.record.ID != e.record.ID, nil
}

func (s *Store) fetchBlob(ctx context.Context, remote *registry.Image, b ocispec.Descriptor, report *reporter) error {
	if s.o.Content.Has(b.Digest) {
		return nil
	}
	stream, err := remote.Blob(ctx, b)
	if err != nil {
		return err
	}
	defer stream.Close()
	bar := report.bar(short(b.Digest), "Downloading", b.Size)
	if _, err := s.o.Content.Ingest(ctx, countingReader{stream, bar.add}, b); err != nil {
		return err
	}
	report.state(short(b.Digest), "Download complete")
	return nil
}
