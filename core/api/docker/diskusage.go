package docker

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/wire"
)

// LayersSize is an ability of Images: the bytes of all layers together, shared ones once.
type LayersSize interface {
	LayersSize(ctx context.Context) (int64, error)
}

// BuildUsage is an ability of the builder: the records of its cache.
type BuildUsage interface {
	Usage(ctx context.Context) ([]wire.BuildCacheRecord, error)
}

// usageTypes are the values of "type"; none means all.
var usageTypes = []string{"container", "image", "volume", "build-cache"}

// diskUsage sums up what the nouns use. Kinds that were not asked for are null.
func (s system) diskUsage(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	asked := q.Texts("type")
	if err := q.Err(); err != nil {
		return err
	}
	if r.Version < 42 || len(asked) == 0 {
		asked = usageTypes
	}
	for _, kind := range asked {
		if !slices.Contains(usageTypes, kind) {
			return fault.New(fault.Invalid, "unknown object type: %s: expected one of %s", kind, strings.Join(usageTypes, ", "))
		}
	}
	var answer wire.DiskUsage
	all, ctx := errgroup.WithContext(r.Context())
	for kind, measure := range map[string]func(context.Context, *wire.DiskUsage) error{
		"container": s.containerUsage, "image": s.imageUsage, "volume": s.volumeUsage, "build-cache": s.buildUsage,
	} {
		if slices.Contains(asked, kind) {
			all.Go(func() error { return measure(ctx, &answer) })
		}
	}
	if err := all.Wait(); err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, shapeUsage(answer, r.Version))
}

// Each of these fills in fields of its own, so they may run in parallel.

func (s system) containerUsage(ctx context.Context, u *wire.DiskUsage) error {
	list, err := s.backends.Containers.List(ctx, container.ListOptions{All: true, Size: true})
	u.Containers = orEmpty(list)
	return err
}

func (s system) imageUsage(ctx context.Context, u *wire.DiskUsage) error {
	list, err := s.backends.Images.List(ctx, image.ListOptions{SharedSize: true})
	if err != nil {
		return err
	}
	u.Images = orEmpty(list)
	if b, ok := s.backends.Images.(LayersSize); ok {
		u.LayersSize, err = b.LayersSize(ctx)
	}
	return err
}

func (s system) volumeUsage(ctx context.Context, u *wire.DiskUsage) error {
	if b, ok := s.backends.Volumes.(VolumeUsage); ok {
		list, err := b.Usage(ctx)
		u.Volumes = orEmpty(list)
		return err
	}
	list, err := s.backends.Volumes.List(ctx, nil)
	if err != nil {
		return err
	}
	u.Volumes = orEmpty(list.Volumes)
	for _, v := range u.Volumes {
		if v.UsageData == nil { // -1 says that it is not known; the client divides by it
			v.UsageData = &wire.VolumeUsage{RefCount: -1, Size: -1}
		}
	}
	return nil
}

func (s system) buildUsage(ctx context.Context, u *wire.DiskUsage) error {
	u.BuildCache = []wire.BuildCacheRecord{}
	b, ok := s.backends.Builder.(BuildUsage)
	if !ok {
		return nil
	}
	list, err := b.Usage(ctx)
	u.BuildCache = orEmpty(list)
	return err
}

func cacheSize(records []wire.BuildCacheRecord) (sum int64) {
	for _, r := range records {
		sum += r.Size
	}
	return sum
}
