package docker

import (
	"net/http"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
)

// plugins are Docker's managed plugins (images with a rootfs that dockerd runs). There are none:
// drivers are programs found by core/plugin, and listed at /sampan/v1/plugins.
type plugins struct{}

func (p plugins) routes() []route.Route {
	routes := []route.Route{
		{Method: http.MethodGet, Pattern: "/plugins", Handle: p.list},
		{Method: http.MethodGet, Pattern: "/plugins/{name}/json", Handle: p.missing},
	}
	for _, verb := range []string{"enable", "disable", "set", "push", "upgrade"} {
		routes = append(routes, route.Route{Method: http.MethodPost, Pattern: "/plugins/{name}/" + verb, Handle: p.missing})
	}
	return append(routes,
		route.Route{Method: http.MethodDelete, Pattern: "/plugins/{name}", Handle: p.missing},
		route.Route{Method: http.MethodGet, Pattern: "/plugins/privileges", Handle: p.unsupported},
		route.Route{Method: http.MethodPost, Pattern: "/plugins/pull", Handle: p.unsupported},
		route.Route{Method: http.MethodPost, Pattern: "/plugins/create", Handle: p.unsupported},
	)
}

func (p plugins) list(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	q.Filters(route.FilterKeys{"enabled": route.IsBool, "capability": nil})
	if err := q.Err(); err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, []struct{}{})
}

func (p plugins) missing(_ http.ResponseWriter, r *route.Request) error {
	return fault.New(fault.NotFound, "plugin %q not found", r.Variable())
}

func (p plugins) unsupported(http.ResponseWriter, *route.Request) error {
	return fault.New(fault.NotImplemented, "Docker's managed plugins are not supported by this daemon; put a driver's program into the plugin directory")
}
