package docker

import (
	"context"
	"net/http"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/wire"
)

// Nodes are the nodes of a swarm. A node is named by its ID, its host name, or the beginning of its ID.
type Nodes interface {
	Nodes(ctx context.Context, filters map[string][]string) ([]wire.Node, error)
	Node(ctx context.Context, ref string) (wire.Node, error)
	UpdateNode(ctx context.Context, ref string, version uint64, spec wire.NodeSpec) error
	RemoveNode(ctx context.Context, ref string, force bool) error
}

func (s swarm) ofNodes() []route.Route {
	return []route.Route{
		{Method: http.MethodGet, Pattern: "/nodes", Handle: s.nodes},
		{Method: http.MethodGet, Pattern: "/nodes/{id}", Handle: s.node},
		{Method: http.MethodDelete, Pattern: "/nodes/{id}", Handle: s.removeNode},
		{Method: http.MethodPost, Pattern: "/nodes/{id}/update", Handle: s.updateNode},
	}
}

var nodeFilters = with(labelFilters, route.FilterKeys{
	"id": nil, "name": nil, "node.label": nil,
	"role":       route.OneOf(wire.RoleWorker, wire.RoleManager),
	"membership": route.OneOf("accepted", "pending"),
})

func (s swarm) nodes(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	filters := q.Filters(nodeFilters)
	if err := q.Err(); err != nil {
		return err
	}
	list, err := s.backend.Nodes(r.Context(), filters)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, orEmpty(list))
}

func (s swarm) node(w http.ResponseWriter, r *route.Request) error {
	found, err := s.backend.Node(r.Context(), r.Variable())
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, found)
}

func (s swarm) updateNode(w http.ResponseWriter, r *route.Request) error {
	var spec wire.NodeSpec
	if err := r.Decode(w, &spec); err != nil {
		return err
	}
	version, err := objectVersion(r, "node")
	if err != nil {
		return err
	}
	return s.backend.UpdateNode(r.Detached(), r.Variable(), version, spec)
}

func (s swarm) removeNode(_ http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	force := q.Bool("force")
	if err := q.Err(); err != nil {
		return err
	}
	return s.backend.RemoveNode(r.Detached(), r.Variable(), force)
}
