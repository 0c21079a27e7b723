package sampan

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Images is what the handlers need of core/image for what Docker's API leaves to its client, or has not.
type Images interface {
	ManifestCreate(ctx context.Context, r wire.ManifestCreate, auth *wire.AuthConfig) (string, error)
	ManifestAnnotate(ctx context.Context, r wire.ManifestAnnotate) error
	ManifestInspect(ctx context.Context, r wire.ManifestInspect, auth *wire.AuthConfig) (json.RawMessage, error)
	ManifestPush(ctx context.Context, r wire.ManifestPush, auth *wire.AuthConfig) (digest.Digest, error)
	ManifestRemove(ctx context.Context, name string) error

	Tree(ctx context.Context) ([]wire.ImageNode, error)
	DiffImages(ctx context.Context, from, to string) ([]wire.Change, error)
	Mount(ctx context.Context, ref, path string) (string, error)
	Mounts(ctx context.Context) ([]wire.ImageMount, error)
	Unmount(ctx context.Context, ref string, all bool) ([]string, error)
}

func (h handlers) images() []route.Route {
	list := []route.Route{
		{Method: http.MethodPost, Pattern: "/sampan/v1/manifests", Handle: h.manifestCreate},
		{Method: http.MethodPost, Pattern: "/sampan/v1/manifests/annotate", Handle: h.manifestAnnotate},
		{Method: http.MethodPost, Pattern: "/sampan/v1/manifests/push", Handle: h.manifestPush},
		{Method: http.MethodGet, Pattern: "/sampan/v1/manifests", Handle: h.manifestInspect},
		{Method: http.MethodDelete, Pattern: "/sampan/v1/manifests", Handle: h.manifestRemove},
		{Method: http.MethodGet, Pattern: "/sampan/v1/images/tree", Handle: h.tree},
		{Method: http.MethodGet, Pattern: "/sampan/v1/images/diff", Handle: h.diff},
		{Method: http.MethodGet, Pattern: "/sampan/v1/images/mounts", Handle: h.mounts},
		{Method: http.MethodPost, Pattern: "/sampan/v1/images/mounts", Handle: h.mount},
		{Method: http.MethodDelete, Pattern: "/sampan/v1/images/mounts", Handle: h.unmount},
	}
	for i := range list {
		handle := list[i].Handle
		list[i].Handle = func(w http.ResponseWriter, r *route.Request) error {
			if h.Images == nil {
				return fault.New(fault.NotImplemented, "images are not supported by this daemon")
			}
			return handle(w, r)
		}
	}
	return list
}

func (h handlers) manifestCreate(w http.ResponseWriter, r *route.Request) error {
	var body wire.ManifestCreate
	if err := r.Decode(w, &body); err != nil {
		return err
	}
	auth, err := r.RegistryAuth()
	if err != nil {
		return err
	}
	name, err := h.Images.ManifestCreate(r.Context(), body, auth)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusCreated, wire.ManifestResult{Name: name})
}

func (h handlers) manifestAnnotate(w http.ResponseWriter, r *route.Request) error {
	var body wire.ManifestAnnotate
	if err := r.Decode(w, &body); err != nil {
		return err
	}
	if err := h.Images.ManifestAnnotate(r.Context(), body); err != nil {
		return err
	}
	return route.NoContent(w)
}

func (h handlers) manifestPush(w http.ResponseWriter, r *route.Request) error {
	var body wire.ManifestPush
	if err := r.Decode(w, &body); err != nil {
		return err
	}
	auth, err := r.RegistryAuth()
	if err != nil {
		return err
	}
	d, err := h.Images.ManifestPush(r.Context(), body, auth)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, wire.ManifestResult{Digest: d.String()})
}

func (h handlers) manifestInspect(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	ask := wire.ManifestInspect{
		List: q.Text("list"), Manifest: q.Required("manifest", "the name of a manifest list or an image"), Verbose: q.Bool("verbose"), Insecure: q.Bool("insecure"),
	}
	if err := q.Err(); err != nil {
		return err
	}
	auth, err := r.RegistryAuth()
	if err != nil {
		return err
	}
	raw, err := h.Images.ManifestInspect(r.Context(), ask, auth)
	if err != nil {
		return err
	}
	// As it is: the bytes of a manifest are what its digest is of.
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(raw)
	return err
}

func (h handlers) manifestRemove(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	name := q.Required("name", "the name of a manifest list")
	if err := q.Err(); err != nil {
		return err
	}
	if err := h.Images.ManifestRemove(r.Context(), name); err != nil {
		return err
	}
	return route.NoContent(w)
}

func (h handlers) tree(w http.ResponseWriter, r *route.Request) error {
	list, err := h.Images.Tree(r.Context())
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, list)
}

func (h handlers) diff(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	from, to := q.Required("from", "the name of an image"), q.Required("to", "the name of an image")
	if err := q.Err(); err != nil {
		return err
	}
	list, err := h.Images.DiffImages(r.Context(), from, to)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, list)
}

func (h handlers) mounts(w http.ResponseWriter, r *route.Request) error {
	list, err := h.Images.Mounts(r.Context())
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, list)
}

func (h handlers) mount(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	ref, path := q.Required("image", "the name of an image"), q.Text("path")
	if err := q.Err(); err != nil {
		return err
	}
	at, err := h.Images.Mount(r.Context(), ref, path)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusCreated, wire.ImageMount{Image: ref, Path: at})
}

func (h handlers) unmount(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	ref, all := q.Text("image"), q.Bool("all")
	if err := q.Err(); err != nil {
		return err
	}
	if ref == "" && !all {
		return &fault.Field{Field: "image", Given: "", Expected: "the name of an image, or where it is mounted"}
	}
	gone, err := h.Images.Unmount(r.Context(), ref, all)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, gone)
}
