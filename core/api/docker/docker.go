// Package docker answers Docker's Engine API, v1.24 to v1.50, as its reference describes it.
//
// A file a noun: its Backend interface (what the handlers need, named as the managers' methods),
// its routes and its handlers. A handler reads the request strictly, calls the backend and shapes
// the answer for the client's version; it decides nothing else. What a manager may or may not be
// able to do (Changes, Push) is an interface of its own, found by a type assertion: where it is
// missing the answer is 501 and says so. The groups of a swarm are answered by its leader: a manager
// that does not lead passes the request on (Swarm.Forward).
//
// The orders that clients rely on:
//   - attach has its stream before it answers, and `docker run` starts the container only then, so
//     that no byte is missed;
//   - wait is registered before its header is sent, so that no exit is missed.
package docker

import (
	"context"
	"net/http"
	"slices"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
)

// Backends are the managers that the handlers call.
type Backends struct {
	Containers Containers
	Images     Images
	Networks   Networks
	Volumes    Volumes
	Events     Events
	System     System
	// Builder may have the abilities BuildPruner and BuildUsage; it may be nil.
	Builder any
	// Swarm may be nil: then the groups of a swarm answer as a node that is in none.
	Swarm Swarm
}

// Routes returns the endpoints. Their patterns have no version prefix.
func Routes(b Backends) []route.Route {
	return slices.Concat(
		containers{b.Containers}.routes(),
		execs{b.Containers}.routes(),
		images{b.Images}.routes(),
		commits{b.Containers}.routes(),
		networks{b.Networks, b.Containers, b.Swarm}.routes(),
		volumes{b.Volumes, b.Swarm}.routes(),
		system{b}.routes(),
		builds{b.Builder}.routes(),
		distribution{b.Images}.routes(),
		plugins{}.routes(),
		swarm{b.Swarm}.routes(),
	)
}

// ability returns the backend as a T, or the error for a backend that is none.
func ability[T any](backend any, what string) (T, error) {
	t, ok := backend.(T)
	if !ok {
		return t, fault.New(fault.NotImplemented, "%s is not supported by this daemon", what)
	}
	return t, nil
}

// The filter checks that several nouns share. The key "label!" is what a prune keeps.
var (
	labelFilters = route.FilterKeys{"label": nil}
	pruneFilters = route.FilterKeys{"until": nil, "label": nil, "label!": nil}
)

// with returns the keys and those of more.
func with(keys route.FilterKeys, more route.FilterKeys) route.FilterKeys {
	all := route.FilterKeys{}
	for k, c := range keys {
		all[k] = c
	}
	for k, c := range more {
		all[k] = c
	}
	return all
}

// prune answers a request to remove what is not used, of one kind, with what was removed.
func prune[A any](w http.ResponseWriter, r *route.Request, keys route.FilterKeys, do func(ctx context.Context, filters map[string][]string) (A, error)) error {
	q := r.Query()
	filters := q.Filters(keys)
	if err := q.Err(); err != nil {
		return err
	}
	answer, err := do(r.Detached(), filters)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, answer)
}
