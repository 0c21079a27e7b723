package docker

import (
	"context"
	"net/http"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// BuildPruner is an ability of the builder: it removes records of its cache, those that are not
// used, or all.
type BuildPruner interface {
	Prune(ctx context.Context, all bool, filters map[string][]string) (wire.BuildPrune, error)
}

// builds has no Dockerfile builder: builds come to /sampan/v1/build as graphs.
type builds struct{ backend any }

func (b builds) routes() []route.Route {
	return []route.Route{
		{Method: http.MethodPost, Pattern: "/build", Handle: b.build},
		{Method: http.MethodPost, Pattern: "/build/cancel", Handle: b.build},
		{Method: http.MethodPost, Pattern: "/build/prune", Handle: b.prune},
		{Method: http.MethodPost, Pattern: "/session", Handle: b.session},
		{Method: http.MethodPost, Pattern: "/grpc", Handle: b.session},
	}
}

func (b builds) build(http.ResponseWriter, *route.Request) error {
	return fault.New(fault.NotImplemented, "building a Dockerfile is not supported by this daemon; write a build.star and use: sampan build -f build.star")
}

func (b builds) session(http.ResponseWriter, *route.Request) error {
	return fault.New(fault.NotImplemented, "BuildKit sessions are not supported by this daemon; write a build.star and use: sampan build -f build.star")
}

var buildPruneFilters = route.FilterKeys{
	"id": nil, "parent": nil, "type": nil, "description": nil, "until": nil, "unused-for": nil,
	"inuse": nil, "shared": nil, "private": nil, "label": nil, "label!": nil,
}

// prune without a builder that can do it has nothing to remove, which `docker system prune` wants
// to hear instead of an error.
func (b builds) prune(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	all, filters := q.Bool("all"), q.Filters(buildPruneFilters)
	for _, name := range []string{"keep-storage", "reserved-space", "max-used-space", "min-free-space"} {
		if q.Bytes(name) > 0 {
			return fault.New(fault.NotImplemented, "pruning the build cache to a size (%s) is not supported by this daemon", name)
		}
	}
	if err := q.Err(); err != nil {
		return err
	}
	var answer wire.BuildPrune
	// Records have no labels: `system prune --filter label=x` is about what has them, and spares the cache.
	labelled := len(filters["label"]) > 0
	delete(filters, "label")
	delete(filters, "label!")
	if pruner, ok := b.backend.(BuildPruner); ok && !labelled {
		var err error
		if answer, err = pruner.Prune(r.Detached(), all, filters); err != nil {
			return err
		}
	}
	return route.WriteJSON(w, http.StatusOK, answer)
}
