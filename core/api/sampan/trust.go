package sampan

import (
	"context"
	"net/http"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Trust is what the handlers need for signatures beside images in registries. Private keys are the
// clients': what comes here is signed already.
type Trust interface {
	// TrustData tells what the registry has of a tag, a digest or a whole repository. Nothing is verified.
	TrustData(ctx context.Context, ref string, auth *wire.AuthConfig) (wire.TrustData, error)
	// Sign stores a signature.
	Sign(ctx context.Context, ref string, r wire.SignRequest, auth *wire.AuthConfig) error
	// Revoke removes the signatures of a tag, or of a whole repository, and returns how many.
	Revoke(ctx context.Context, ref string, auth *wire.AuthConfig) (int, error)
}

// trust gives a handler the reference and the login of its request.
func (h handlers) trust(handle func(http.ResponseWriter, *route.Request, string, *wire.AuthConfig) error) func(http.ResponseWriter, *route.Request) error {
	return func(w http.ResponseWriter, r *route.Request) error {
		if h.Trust == nil {
			return fault.New(fault.NotImplemented, "signatures of images are not supported by this daemon")
		}
		q := r.Query()
		ref := q.Text("ref")
		if err := q.Err(); err != nil {
			return err
		}
		if ref == "" {
			return &fault.Field{Field: "ref", Given: "", Expected: "the name of an image"}
		}
		auth, err := r.RegistryAuth()
		if err != nil {
			return err
		}
		return handle(w, r, ref, auth)
	}
}

func (h handlers) signatures(w http.ResponseWriter, r *route.Request, ref string, auth *wire.AuthConfig) error {
	data, err := h.Trust.TrustData(r.Context(), ref, auth)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, data)
}

func (h handlers) sign(w http.ResponseWriter, r *route.Request, ref string, auth *wire.AuthConfig) error {
	var request wire.SignRequest
	if err := r.Decode(w, &request); err != nil {
		return err
	}
	if err := h.Trust.Sign(r.Context(), ref, request, auth); err != nil {
		return err
	}
	return route.NoContent(w)
}

func (h handlers) revoke(w http.ResponseWriter, r *route.Request, ref string, auth *wire.AuthConfig) error {
	n, err := h.Trust.Revoke(r.Context(), ref, auth)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, wire.RevokeReport{Removed: n})
}
