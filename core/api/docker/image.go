package docker

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/wire"
)

// Images is what the handlers need of core/image.
type Images interface {
	List(ctx context.Context, o image.ListOptions) ([]wire.ImageSummary, error)
	Inspect(ctx context.Context, ref string) (wire.ImageInspect, error)
	History(ctx context.Context, ref string) ([]wire.ImageHistory, error)
	Remove(ctx context.Context, ref string, force, noPrune bool) ([]wire.ImageDelete, error)
	Tag(ctx context.Context, source, target string) error
	Pull(ctx context.Context, ref, platform string, auth *wire.AuthConfig, progress func(wire.Message)) error
	Load(ctx context.Context, r io.Reader, progress func(wire.Message)) error
	Import(ctx context.Context, r io.Reader, ref, message string, changes []string, progress func(wire.Message)) (digest.Digest, error)
	Save(ctx context.Context, refs []string, w io.Writer) error
}

// The optional abilities of Images.
type (
	ImagePusher interface {
		Push(ctx context.Context, ref string, auth *wire.AuthConfig, progress func(wire.Message)) error
	}
	// AllPuller pulls every tag of a repository.
	AllPuller interface {
		PullAll(ctx context.Context, name, platform string, auth *wire.AuthConfig, progress func(wire.Message)) error
	}
	ImagePruner interface {
		Prune(ctx context.Context, filters map[string][]string) (wire.ImagesPrune, error)
	}
	// ImagePlatforms does with one platform of an image what Images does with the one that a name stands for.
	ImagePlatforms interface {
		InspectWith(ctx context.Context, ref string, o image.InspectOptions) (wire.ImageInspect, error)
		HistoryFor(ctx context.Context, ref string, platform *ocispec.Platform) ([]wire.ImageHistory, error)
		SaveWith(ctx context.Context, refs []string, o image.SaveOptions, w io.Writer) error
		LoadFor(ctx context.Context, r io.Reader, platform *ocispec.Platform, progress func(wire.Message)) error
		ImportFor(ctx context.Context, r io.Reader, ref, platform, message string, changes []string, progress func(wire.Message)) (digest.Digest, error)
		PushFor(ctx context.Context, ref string, platform *ocispec.Platform, auth *wire.AuthConfig, progress func(wire.Message)) error
		RemovePlatforms(ctx context.Context, ref string, platforms []ocispec.Platform, force, noPrune bool) ([]wire.ImageDelete, error)
	}
	ImageSearcher interface {
		Search(ctx context.Context, term string, limit int, filters map[string][]string, auth *wire.AuthConfig) ([]wire.SearchResult, error)
	}
)

type images struct{ backend Images }

func (i images) routes() []route.Route {
	return []route.Route{
		{Method: http.MethodGet, Pattern: "/images/json", Handle: i.list},
		{Method: http.MethodGet, Pattern: "/images/search", Handle: i.search},
		{Method: http.MethodGet, Pattern: "/images/get", Handle: i.save},
		{Method: http.MethodGet, Pattern: "/images/{name}/get", Handle: i.save},
		{Method: http.MethodGet, Pattern: "/images/{name}/history", Handle: i.history},
		{Method: http.MethodGet, Pattern: "/images/{name}/json", Handle: i.inspect},
		{Method: http.MethodPost, Pattern: "/images/create", Handle: i.create},
		{Method: http.MethodPost, Pattern: "/images/load", Handle: i.load},
		{Method: http.MethodPost, Pattern: "/images/prune", Handle: i.prune},
		{Method: http.MethodPost, Pattern: "/images/{name}/push", Handle: i.push},
		{Method: http.MethodPost, Pattern: "/images/{name}/tag", Handle: i.tag},
		{Method: http.MethodDelete, Pattern: "/images/{name}", Handle: i.remove},
	}
}

var (
	imageFilters = with(labelFilters, route.FilterKeys{
		"before": nil, "since": nil, "reference": nil, "until": nil, "label!": nil, "dangling": route.IsBool,
	})
	imagePruneFilters  = with(pruneFilters, route.FilterKeys{"dangling": route.IsBool})
	imageSearchFilters = route.FilterKeys{"is-automated": route.IsBool, "is-official": route.IsBool, "stars": route.IsNumber}
)

func (i images) list(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	o := image.ListOptions{All: q.Bool("all"), Filters: q.Filters(imageFilters)}
	if r.Version >= 42 {
		o.SharedSize = q.Bool("shared-size")
	}
	if r.Version >= 47 {
		o.Manifests = q.Bool("manifests")
	}
	// "filter" was the way to ask for names before v1.41.
	if name := q.Text("filter"); name != "" && r.Version < 41 {
		if o.Filters == nil {
			o.Filters = map[string][]string{}
		}
		o.Filters["reference"] = append(o.Filters["reference"], name)
	}
	if err := q.Err(); err != nil {
		return err
	}
	list, err := i.backend.List(r.Context(), o)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, shapeImages(list, r.Version))
}

func (i images) inspect(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	var o image.InspectOptions
	var err error
	if r.Version >= 48 {
		o.Manifests = q.Bool("manifests")
	}
	if r.Version >= 49 {
		if o.Platform, err = onePlatform(q); err != nil {
			return err
		}
	}
	if err := q.Err(); err != nil {
		return err
	}
	if o.Manifests && o.Platform != nil {
		return fault.New(fault.Invalid, "conflicting options: manifests and platform options cannot both be set")
	}
	var answer wire.ImageInspect
	if o == (image.InspectOptions{}) {
		answer, err = i.backend.Inspect(r.Context(), r.Variable())
	} else if b, berr := ability[ImagePlatforms](i.backend, "an image's platforms"); berr != nil {
		err = berr
	} else {
		answer, err = b.InspectWith(r.Context(), r.Variable(), o)
	}
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, shapeImage(answer, r.Version))
}

func (i images) history(w http.ResponseWriter, r *route.Request) error {
	platform, err := i.platform(r)
	if err != nil {
		return err
	}
	var list []wire.ImageHistory
	if platform == nil {
		list, err = i.backend.History(r.Context(), r.Variable())
	} else if b, berr := ability[ImagePlatforms](i.backend, "an image's platforms"); berr != nil {
		err = berr
	} else {
		list, err = b.HistoryFor(r.Context(), r.Variable(), platform)
	}
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, orEmpty(list))
}

func (i images) remove(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	force, noPrune := q.Bool("force"), q.Bool("noprune")
	if err := q.Err(); err != nil {
		return err
	}
	var list []wire.ImageDelete
	var err error
	if r.Version >= 50 && q.Has("platforms") {
		list, err = i.removePlatforms(r, q.Texts("platforms"), force, noPrune)
	} else {
		list, err = i.backend.Remove(r.Detached(), r.Variable(), force, noPrune)
	}
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, orEmpty(list))
}

func (i images) removePlatforms(r *route.Request, given []string, force, noPrune bool) ([]wire.ImageDelete, error) {
	b, err := ability[ImagePlatforms](i.backend, "an image's platforms")
	if err != nil {
		return nil, err
	}
	var platforms []ocispec.Platform
	for _, text := range given {
		p, err := decodePlatform("platforms", text)
		if err != nil {
			return nil, err
		}
		platforms = append(platforms, p)
	}
	return b.RemovePlatforms(r.Detached(), r.Variable(), platforms, force, noPrune)
}

func (i images) tag(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	target := joinTag(q.Required("repo", "the new name"), q.Text("tag"))
	if err := q.Err(); err != nil {
		return err
	}
	if err := i.backend.Tag(r.Detached(), r.Variable(), target); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (i images) prune(w http.ResponseWriter, r *route.Request) error {
	b, err := ability[ImagePruner](i.backend, "pruning images")
	if err != nil {
		return err
	}
	return prune(w, r, imagePruneFilters, b.Prune)
}

func (i images) search(w http.ResponseWriter, r *route.Request) error {
	b, err := ability[ImageSearcher](i.backend, "searching a registry")
	if err != nil {
		return err
	}
	q := r.Query()
	term, limit, filters := q.Required("term", "what to search for"), q.Int("limit", 25), q.Filters(imageSearchFilters)
	if err := q.Err(); err != nil {
		return err
	}
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	list, err := b.Search(r.Context(), term, limit, filters, auth)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, orEmpty(list))
}

// joinTag returns the name of a repository and a tag or digest, "" for no repository.
func joinTag(repository, tag string) string {
	switch {
	case repository == "" || tag == "":
		return repository
	case strings.Contains(tag, ":"): // a digest: tags have no colon
		return repository + "@" + tag
	}
	return repository + ":" + tag
}

// hasTag reports whether the reference names one image: by tag or digest.
func hasTag(ref string) bool {
	return strings.Contains(ref[strings.LastIndexByte(ref, '/')+1:], ":")
}
