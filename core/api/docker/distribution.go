package docker

import (
	"context"
	"net/http"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/wire"
)

// DistributionInspector asks a registry what a name stands for. It is an ability of Images.
type DistributionInspector interface {
	Distribution(ctx context.Context, ref string, auth *wire.AuthConfig) (wire.DistributionInspect, error)
}

type distribution struct{ backend Images }

func (d distribution) routes() []route.Route {
	return []route.Route{{Method: http.MethodGet, Pattern: "/distribution/{name}/json", Handle: d.inspect}}
}

func (d distribution) inspect(w http.ResponseWriter, r *route.Request) error {
	b, err := ability[DistributionInspector](d.backend, "asking a registry for an image's manifest")
	if err != nil {
		return err
	}
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	answer, err := b.Distribution(r.Context(), r.Variable(), auth)
	if err != nil {
		return err
	}
	answer.Platforms = orEmpty(answer.Platforms)
	return route.WriteJSON(w, http.StatusOK, answer)
}
