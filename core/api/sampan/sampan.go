// Package sampan answers /sampan/v1: what Docker's API has no word for. Schemas of drivers, the
// plugins that serve them, builds as graphs, manifest lists, and views of images.
package sampan

import (
	"context"
	"net/http"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Backends are what the handlers call; a nil one answers that it is not there.
type Backends struct {
	Build   Builder
	Plugins Plugins
	Checker Checker
	Trust   Trust
	Images  Images
}

// Checker is what the handlers need for system check.
type Checker interface {
	// Check compares what the engine knows with what there is; verify reads every blob, and repair
	// mends what can be mended without loss.
	Check(ctx context.Context, verify, repair bool) ([]wire.Finding, error)
}

// Builder is what the handlers need of core/build.
type Builder interface {
	// Solve makes the image of the graph. Locals are the directories with the files of its local
	// nodes, by name; they are removed when Solve has returned.
	Solve(ctx context.Context, g wire.BuildGraph, locals map[string]string, progress func(wire.Message)) (digest.Digest, error)
}

// Plugins is what the handlers need of core/plugin.
type Plugins interface {
	Schemas(ctx context.Context) ([]wire.Schema, error)
	Plugins(ctx context.Context) ([]wire.PluginInfo, error)
}

type handlers struct {
	Backends
	tempDir string
}

// Routes returns the endpoints. Files that come with a build are kept below tempDir while it runs.
func Routes(b Backends, tempDir string) []route.Route {
	h := handlers{b, tempDir}
	return append(h.images(), []route.Route{
		{Method: http.MethodGet, Pattern: "/sampan/v1/schemas", Handle: h.schemas},
		{Method: http.MethodGet, Pattern: "/sampan/v1/plugins", Handle: h.plugins},
		{Method: http.MethodPost, Pattern: "/sampan/v1/build", Handle: h.build},
		{Method: http.MethodGet, Pattern: "/sampan/v1/check", Handle: h.check(false)},
		{Method: http.MethodPost, Pattern: "/sampan/v1/check", Handle: h.check(true)},
		{Method: http.MethodGet, Pattern: "/sampan/v1/trust/signatures", Handle: h.trust(h.signatures)},
		{Method: http.MethodPost, Pattern: "/sampan/v1/trust/signatures", Handle: h.trust(h.sign)},
		{Method: http.MethodDelete, Pattern: "/sampan/v1/trust/signatures", Handle: h.trust(h.revoke)},
	}...)
}

func (h handlers) schemas(w http.ResponseWriter, r *route.Request) error {
	if h.Plugins == nil {
		return route.WriteJSON(w, http.StatusOK, []wire.Schema{})
	}
	list, err := h.Plugins.Schemas(r.Context())
	if err != nil {
		return err
	}
	if list == nil {
		list = []wire.Schema{}
	}
	return route.WriteJSON(w, http.StatusOK, list)
}

func (h handlers) plugins(w http.ResponseWriter, r *route.Request) error {
	if h.Plugins == nil {
		return route.WriteJSON(w, http.StatusOK, []wire.PluginInfo{})
	}
	list, err := h.Backends.Plugins.Plugins(r.Context())
	if err != nil {
		return err
	}
	if list == nil {
		list = []wire.PluginInfo{}
	}
	return route.WriteJSON(w, http.StatusOK, list)
}

// build unpacks what the client sent, and solves it while the client listens. A client that goes
// away cancels the build.
func (h handlers) build(w http.ResponseWriter, r *route.Request) error {
	if h.Build == nil {
		return fault.New(fault.NotImplemented, "building is not supported by this daemon")
	}
	upload, err := receive(r.Upload(w), h.tempDir, defaultLimits)
	if err != nil {
		return err
	}
	defer upload.remove()
	p := route.NewProgress(w)
	id, err := h.Build.Solve(r.Context(), upload.graph, upload.locals, p.Send)
	if err == nil {
		p.Send(wire.Message{Aux: map[string]string{"ID": id.String()}})
	}
	return p.End(err)
}
