package image

import (
	"context"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/wire"
)

// driverName is what Docker calls the way that core/layer keeps its directories.
const driverName = "overlay2"

// InspectOptions choose what an Inspect answers.
type InspectOptions struct {
	Platform  *ocispec.Platform // nil: that which the name stands for
	Manifests bool              // describe all platforms of the name too
}

// Inspect answers what Docker's clients show of an image.
func (s *Store) Inspect(ctx context.Context, ref string) (wire.ImageInspect, error) {
	return s.InspectWith(ctx, ref, InspectOptions{})
}

// InspectWith is Inspect for one platform, or all of them.
func (s *Store) InspectWith(_ context.Context, ref string, o InspectOptions) (wire.ImageInspect, error) {
	e, err := s.findFor(ref, o.Platform)
	if err != nil {
		return wire.ImageInspect{}, err
	}
	answer := s.inspect(e)
	if o.Manifests {
		d := wireDescriptor(e.Manifest)
		answer.Descriptor, answer.Manifests = &d, s.manifests(e)
	}
	return answer, nil
}

func (s *Store) inspect(e *entry) wire.ImageInspect {
	c := e.Image.Config
	config := e.ContainerConfig
	answer := wire.ImageInspect{
		ID: e.record.ID.String(), RepoTags: slices.Clone(e.Names), RepoDigests: slices.Clone(e.Image.Digests),
		Parent: e.record.Parent.String(), Comment: e.Comment, DockerVersion: e.dockerVersion, Author: c.Author,
		Config: &config, Architecture: c.Architecture, Variant: c.Variant, Os: c.OS, OsVersion: c.OSVersion,
		Size: e.Size, VirtualSize: e.Size,
		GraphDriver: wire.GraphDriver{Name: driverName, Data: s.o.Layers.LayerPaths(e.ChainID)},
		RootFS:      wire.RootFS{Type: "layers"},
		Metadata:    wire.ImageMetadata{LastTagTime: e.Tagged.Format(time.RFC3339Nano)},
	}
	if t := e.created(); !t.IsZero() {
		answer.Created = t.Format(time.RFC3339Nano)
	}
	for _, d := range c.RootFS.DiffIDs {
		answer.RootFS.Layers = append(answer.RootFS.Layers, d.String())
	}
	return answer
}

// missing is the ID of a step of the history whose own image is not known.
const missing = "<missing>"

// History returns the steps that made an image, the last first. Steps that are images here have their
// IDs and names.
func (s *Store) History(ctx context.Context, ref string) ([]wire.ImageHistory, error) {
	return s.HistoryFor(ctx, ref, nil)
}

// HistoryFor is History for one platform of a name; nil is that which the name stands for.
func (s *Store) HistoryFor(_ context.Context, ref string, platform *ocispec.Platform) ([]wire.ImageHistory, error) {
	e, err := s.findFor(ref, platform)
	if err != nil {
		return nil, err
	}
	layer := 0
	list := []wire.ImageHistory{}
	for _, h := range e.Image.Config.History {
		row := wire.ImageHistory{ID: missing, CreatedBy: h.CreatedBy, Comment: h.Comment, Tags: []string{}}
		if h.Created != nil {
			row.Created = h.Created.Unix()
		}
		if !h.EmptyLayer && layer < len(e.Layers) {
			if l, err := s.o.Layers.Get(e.Layers[layer].Chain); err == nil {
				row.Size = l.Size
			}
			layer++
		}
		list = append(list, row)
	}
	for ; layer < len(e.Layers); layer++ { // a history is optional, and may be shorter
		row := wire.ImageHistory{ID: missing, Tags: []string{}}
		if l, err := s.o.Layers.Get(e.Layers[layer].Chain); err == nil {
			row.Size = l.Size
		}
		list = append(list, row)
	}
	slices.Reverse(list)
	// An image that was committed on another has that one's steps below its own.
	for at := e; at != nil; at = s.byID(at.record.Parent) {
		i := len(list) - len(at.Image.Config.History)
		if i < 0 || i >= len(list) || list[i].ID != missing {
			break
		}
		list[i].ID, list[i].Tags = at.record.ID.String(), slices.Clone(at.Names)
	}
	return list, nil
}
