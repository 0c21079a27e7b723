package container

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/wire"
)

// A mount of an image (--mount type=image, API v1.48) shows the image's files read-only at a place of the container.
// Like every mount of a container it is made in the container's own mount namespace, from the layers themselves. They
// are held by a snapshot for each such mount, on which nobody writes: it lives as long as the container, over the
// daemon's end and the image's forced removal, like the container's own.

// imagePoint finds the image of a mount; create alone asks, so that a name that moves later changes nothing.
func (m *Manager) imagePoint(ctx context.Context, p mountPoint, s wire.MountSpec) (mountPoint, error) {
	img, err := m.o.Images.Use(ctx, s.Source)
	if fault.Is(err, fault.NotFound) { // not the class: upon that clients pull the container's image
		err = fault.As(fault.Invalid, err)
	}
	if err != nil {
		return p, fmt.Errorf("invalid mount config for type %q: %w", s.Type, err)
	}
	p.Name, p.Image, p.Chain, p.RW, p.Propagation = s.Source, img.ID, img.ChainID, false, "rprivate"
	if s.ImageOptions != nil {
		p.Subpath = s.ImageOptions.Subpath
	}
	return p, nil
}

// holdKey is the snapshot that holds the layers of the container's i-th mount.
func holdKey(id string, i int) string { return fmt.Sprintf("%s.%d", id, i) }

// holds are the chains that the container's mounts hold, by the keys of the snapshots.
func holds(rec *record) map[string]digest.Digest {
	held := map[string]digest.Digest{}
	for i, p := range rec.Mounts {
		if p.Type == "image" {
			held[holdKey(rec.ID, i)] = p.Chain
		}
	}
	return held
}

// hold makes the snapshots of the container's mounts of images that are not there.
func (m *Manager) hold(ctx context.Context, rec *record) error {
	for key, chain := range holds(rec) {
		if m.o.Layers.Whole(ctx, key) == nil {
			continue
		}
		// Also at a start: one that a power failure took had nothing in it.
		if _, err := m.o.Layers.Prepare(ctx, key, chain); err != nil {
			return err
		}
	}
	return nil
}

// imageMounts are the container's mounts of images, parents first: those with the root are made in this order.
func (m *Manager) imageMounts(ctx context.Context, rec *record) (list []mount.Mount, err error) {
	if err := m.hold(ctx, rec); err != nil {
		return nil, err
	}
	for _, p := range rec.Mounts {
		if p.Type != "image" {
			continue
		}
		view, err := m.o.Layers.ViewAt(p.Chain, p.Subpath)
		if err != nil {
			return nil, fmt.Errorf("mount image %s on %s: %w", p.Name, p.Destination, err)
		}
		view.Target = p.Destination
		list = append(list, view)
	}
	slices.SortStableFunc(list, func(a, b mount.Mount) int {
		return cmp.Compare(strings.Count(a.Target, "/"), strings.Count(b.Target, "/"))
	})
	return list, nil
}

// inSpec are mounts as the OCI specification has them.
func inSpec(list []mount.Mount) []specs.Mount {
	mounts := make([]specs.Mount, len(list))
	for i, m := range list {
		mounts[i] = specs.Mount{Destination: m.Target, Type: m.Type, Source: m.Source, Options: m.Options}
	}
	return mounts
}

// uncovered refuses what a container with mapped ids cannot have: there images are mounted with the root, by who may
// map the ids of layers, and so before all else.
func uncovered(points []mountPoint) error {
	for _, p := range points {
		if p.Type != "image" {
			continue
		}
		over := []string{"/dev", "/proc", "/sys"}
		for _, o := range points {
			if o.Type != "image" {
				over = append(over, o.Destination)
			}
		}
		for _, o := range over {
			if strings.HasPrefix(p.Destination, path.Clean(o)+"/") {
				return fault.New(fault.NotImplemented, "mount of an image on %s: with userns-remap it cannot be below the mount on %s", p.Destination, o)
			}
		}
	}
	return nil
}
