package docker

import (
	"context"
	"net/http"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Networks is what the handlers need of core/network.
type Networks interface {
	Create(ctx context.Context, req wire.NetworkCreateRequest) (wire.NetworkCreateResponse, error)
	Inspect(ctx context.Context, ref string) (wire.NetworkInspect, error)
	List(ctx context.Context, filters map[string][]string) ([]wire.NetworkInspect, error)
	Remove(ctx context.Context, ref string) error
}

// NetworkPruner removes the networks that nobody uses.
type NetworkPruner interface {
	Prune(ctx context.Context, filters map[string][]string) (wire.NetworksPrune, error)
}

// NetworkConnector joins a container to networks while it runs. It is the containers' ability: a
// network does not know their namespaces.
type NetworkConnector interface {
	ConnectNetwork(ctx context.Context, network string, c wire.NetworkConnect) error
	DisconnectNetwork(ctx context.Context, network string, d wire.NetworkDisconnect) error
}

type networks struct {
	backend    Networks
	containers Containers
	swarm      Swarm
}

func (n networks) routes() []route.Route {
	return []route.Route{
		{Method: http.MethodGet, Pattern: "/networks", Handle: n.list},
		{Method: http.MethodGet, Pattern: "/networks/", Handle: n.list}, // docker-java asks so
		{Method: http.MethodGet, Pattern: "/networks/{id}", Handle: n.inspect},
		{Method: http.MethodPost, Pattern: "/networks/create", Handle: n.create},
		{Method: http.MethodPost, Pattern: "/networks/prune", Handle: n.prune},
		{Method: http.MethodPost, Pattern: "/networks/{id}/connect", Handle: n.connect},
		{Method: http.MethodPost, Pattern: "/networks/{id}/disconnect", Handle: n.disconnect},
		{Method: http.MethodDelete, Pattern: "/networks/{id}", Handle: n.remove},
	}
}

var networkFilters = with(labelFilters, route.FilterKeys{
	"driver": nil, "id": nil, "name": nil,
	"dangling": route.IsBool,
	"scope":    route.OneOf("local", "global", "swarm"),
	"type":     route.OneOf("builtin", "custom"),
})

func (n networks) list(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	filters := q.Filters(networkFilters)
	if err := q.Err(); err != nil {
		return err
	}
	list, err := n.backend.List(r.Context(), filters)
	if err != nil {
		return err
	}
	for i := range list {
		shapeNetwork(&list[i])
		if r.Version >= 28 { // the list tells no containers since
			list[i].Containers = map[string]wire.NetworkEndpoint{}
		}
	}
	return route.WriteJSON(w, http.StatusOK, orEmpty(list))
}

// shapeNetwork writes empty maps as such, as clients iterate over them, and a time where there is none.
func shapeNetwork(n *wire.NetworkInspect) {
	if n.Containers == nil {
		n.Containers = map[string]wire.NetworkEndpoint{}
	}
	if n.Options == nil {
		n.Options = map[string]string{}
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.IPAM.Config = orEmpty(n.IPAM.Config)
	if n.Created == "" { // clients parse it
		n.Created = never
	}
}

func (n networks) inspect(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	q.Bool("verbose")
	scope := q.Text("scope")
	if err := q.Err(); err != nil {
		return err
	}
	if (r.Variable() == "host" || r.Variable() == "bridge") && scope == "swarm" && manages(n.swarm) {
		return route.WriteJSON(w, http.StatusOK, predefined(r.Variable()))
	}
	answer, err := n.backend.Inspect(r.Context(), r.Variable())
	if err != nil {
		return err
	}
	if scope != "" && scope != answer.Scope {
		return fault.New(fault.NotFound, "network %s not found", r.Variable())
	}
	shapeNetwork(&answer)
	return route.WriteJSON(w, http.StatusOK, answer)
}

// predefined is a network that every node of a swarm has for itself, as clients look it up before they ask for it in a
// service. Its ID is its name, which is the same on every node.
func predefined(name string) wire.NetworkInspect {
	answer := wire.NetworkInspect{Name: name, ID: name, Driver: name, Scope: "swarm", Labels: map[string]string{"com.docker.swarm.predefined": "true"}}
	shapeNetwork(&answer)
	return answer
}

func (n networks) create(w http.ResponseWriter, r *route.Request) error {
	var req wire.NetworkCreateRequest
	if err := r.Decode(w, &req); err != nil {
		return err
	}
	if r.Version < 48 {
		req.EnableIPv4 = nil
	}
	if (req.Driver == "overlay" || req.Scope == "swarm") && manages(n.swarm) {
		return fault.New(fault.NotImplemented, "network %s: networks over the nodes of a swarm are not supported by this daemon", req.Name)
	}
	answer, err := n.backend.Create(r.Detached(), req)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusCreated, answer)
}

func (n networks) remove(w http.ResponseWriter, r *route.Request) error {
	if err := n.backend.Remove(r.Detached(), r.Variable()); err != nil {
		return err
	}
	return route.NoContent(w)
}

func (n networks) prune(w http.ResponseWriter, r *route.Request) error {
	b, err := ability[NetworkPruner](n.backend, "pruning networks")
	if err != nil {
		return err
	}
	return prune(w, r, pruneFilters, b.Prune)
}

func (n networks) connect(w http.ResponseWriter, r *route.Request) error {
	b, err := ability[NetworkConnector](n.containers, "connecting a container to a network")
	if err != nil {
		return err
	}
	var req wire.NetworkConnect
	if err := r.Decode(w, &req); err != nil {
		return err
	}
	if r.Version < 48 && req.EndpointConfig != nil {
		req.EndpointConfig.GwPriority = 0
	}
	return b.ConnectNetwork(r.Detached(), r.Variable(), req)
}

func (n networks) disconnect(w http.ResponseWriter, r *route.Request) error {
	b, err := ability[NetworkConnector](n.containers, "disconnecting a container from a network")
	if err != nil {
		return err
	}
	var req wire.NetworkDisconnect
	if err := r.Decode(w, &req); err != nil {
		return err
	}
	return b.DisconnectNetwork(r.Detached(), r.Variable(), req)
}
