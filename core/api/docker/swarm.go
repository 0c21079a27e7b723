package docker

import (
	"net/http"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
)

// swarm answers for a node that is in no swarm, with the words of one.
type swarm struct{}

var (
	errNoManager = fault.New(fault.Unavailable, `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)
	errNoSwarm   = fault.New(fault.Unavailable, "This node is not part of a swarm")
	errSwarmless = fault.New(fault.NotImplemented, "swarm mode is not supported by this daemon")
)

func (s swarm) routes() []route.Route {
	answer := func(err error) route.Handler {
		return func(http.ResponseWriter, *route.Request) error { return err }
	}
	routes := []route.Route{
		{Method: http.MethodPost, Pattern: "/swarm/init", Handle: answer(errSwarmless)},
		{Method: http.MethodPost, Pattern: "/swarm/join", Handle: answer(errSwarmless)},
		{Method: http.MethodPost, Pattern: "/swarm/leave", Handle: answer(errNoSwarm)},
	}
	for _, group := range []string{"/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs"} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			routes = append(routes,
				route.Route{Method: method, Pattern: group, Handle: answer(errNoManager)},
				route.Route{Method: method, Pattern: group + "/{path}", Handle: answer(errNoManager)})
		}
	}
	return routes
}
