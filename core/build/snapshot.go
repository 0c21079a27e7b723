package build

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/wire"
)

// withSnapshot runs fn on a fresh snapshot of base, and makes an image of what fn changed.
func (v *solve) withSnapshot(ctx context.Context, base result, createdBy string, fn func(id string, root []mount.Mount) error) (*image.Image, error) {
	release, err := v.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	id, began := newID(), time.Now()
	v.setMade(id, true)
	defer v.setMade(id, false)
	root, err := v.o.Layers.Prepare(ctx, id, base.chain())
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := v.o.Layers.Remove(context.WithoutCancel(ctx), id); err != nil {
			v.log.Warn("build: remove snapshot", "snapshot", id, "error", err)
		}
	}()
	if err := fn(id, root); err != nil {
		return nil, err
	}
	if err := settle(ctx, v.o.Layers.Paths(id)["UpperDir"], began, base.created()); err != nil {
		return nil, err
	}
	return v.commit(ctx, base, id, base.config(), createdBy)
}

// Snapshots returns the keys of the snapshots that running builds have.
func (s *Solver) Snapshots() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.made))
}

func (s *Solver) setMade(key string, made bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if made {
		s.made[key] = true
	} else {
		delete(s.made, key)
	}
}

// commit makes an image on top of base; snapshot "" changes the configuration only.
func (v *solve) commit(ctx context.Context, base result, snapshot string, config wire.ContainerConfig, createdBy string) (*image.Image, error) {
	return v.o.Images.Commit(ctx, image.CommitRequest{
		Base: base.image, SnapshotKey: snapshot, Config: config,
		Comment: comment, CreatedBy: createdBy, Created: base.created(),
	})
}
