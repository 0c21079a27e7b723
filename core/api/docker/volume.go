package docker

import (
	"context"
	"net/http"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Volumes is what the handlers need of core/volume.
type Volumes interface {
	Create(ctx context.Context, req wire.VolumeCreateRequest) (wire.Volume, error)
	Inspect(ctx context.Context, name string) (wire.Volume, error)
	List(ctx context.Context, filters map[string][]string) (wire.VolumeList, error)
	Remove(ctx context.Context, name string, force bool) error
}

// The optional abilities of Volumes.
type (
	// VolumePruner removes the volumes that no container uses: anonymous ones, unless the filter
	// "all" is true.
	VolumePruner interface {
		Prune(ctx context.Context, filters map[string][]string) (wire.VolumesPrune, error)
	}
	// VolumeUsage returns the volumes with their UsageData.
	VolumeUsage interface {
		Usage(ctx context.Context) ([]*wire.Volume, error)
	}
)

type volumes struct {
	backend Volumes
	swarm   Swarm
}

func (v volumes) routes() []route.Route {
	return []route.Route{
		{Method: http.MethodGet, Pattern: "/volumes", Handle: v.list},
		{Method: http.MethodGet, Pattern: "/volumes/{name}", Handle: v.inspect},
		{Method: http.MethodPost, Pattern: "/volumes/create", Handle: v.create},
		{Method: http.MethodPost, Pattern: "/volumes/prune", Handle: v.prune},
		{Method: http.MethodPut, Pattern: "/volumes/{name}", Handle: v.update},
		{Method: http.MethodDelete, Pattern: "/volumes/{name}", Handle: v.remove},
	}
}

var (
	volumeFilters      = with(labelFilters, route.FilterKeys{"driver": nil, "name": nil, "dangling": route.IsBool})
	volumePruneFilters = route.FilterKeys{"label": nil, "label!": nil, "all": route.IsBool}
)

func (v volumes) list(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	filters := q.Filters(volumeFilters)
	if err := q.Err(); err != nil {
		return err
	}
	answer, err := v.backend.List(r.Context(), filters)
	if err != nil {
		return err
	}
	answer.Volumes = orEmpty(answer.Volumes)
	return route.WriteJSON(w, http.StatusOK, answer)
}

func (v volumes) inspect(w http.ResponseWriter, r *route.Request) error {
	answer, err := v.backend.Inspect(r.Context(), r.Variable())
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, answer)
}

func (v volumes) create(w http.ResponseWriter, r *route.Request) error {
	var req wire.VolumeCreateRequest
	if err := r.Decode(w, &req); err != nil {
		return err
	}
	answer, err := v.backend.Create(r.Detached(), req)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusCreated, answer)
}

// update changes volumes of a swarm, of which there are none.
func (v volumes) update(http.ResponseWriter, *route.Request) error {
	if manages(v.swarm) {
		return fault.New(fault.NotImplemented, "cluster volumes are not supported by this daemon")
	}
	return fault.New(fault.Unavailable, "volume update only valid for cluster volumes, but swarm is unavailable")
}

func (v volumes) remove(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	force := q.Bool("force")
	if err := q.Err(); err != nil {
		return err
	}
	if err := v.backend.Remove(r.Detached(), r.Variable(), force); err != nil {
		return err
	}
	return route.NoContent(w)
}

func (v volumes) prune(w http.ResponseWriter, r *route.Request) error {
	b, err := ability[VolumePruner](v.backend, "pruning volumes")
	if err != nil {
		return err
	}
	return prune(w, r, volumePruneFilters, func(ctx context.Context, filters map[string][]string) (wire.VolumesPrune, error) {
		// Before v1.42 a prune took every unused volume, not only the anonymous.
		if r.Version < 42 {
			if filters == nil {
				filters = map[string][]string{}
			}
			filters["all"] = []string{"true"}
		}
		return b.Prune(ctx, filters)
	})
}
