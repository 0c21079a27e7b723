package server

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// page cuts a sorted list to what is asked for: n entries after last. A list that goes on says so in the
// header Link (RFC 5988).
func page(w http.ResponseWriter, r *http.Request, list []string) ([]string, error) {
	q := r.URL.Query()
	slices.Sort(list)
	if last := q.Get("last"); last != "" {
		i, found := slices.BinarySearch(list, last)
		if found {
			i++
		}
		list = list[i:]
	}
	if !q.Has("n") {
		return list, nil
	}
	n, err := strconv.Atoi(q.Get("n"))
	if err != nil || n < 0 {
		return nil, &problem{http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "n " + quoted(q.Get("n")) + ": expected a number of at least 0"}
	}
	if n < len(list) {
		list = list[:n]
		if n > 0 {
			next := url.URL{Path: r.URL.Path, RawQuery: url.Values{"n": {strconv.Itoa(n)}, "last": {list[n-1]}}.Encode()}
			w.Header().Set("Link", "<"+next.String()+`>; rel="next"`)
		}
	}
	return list, nil
}

func (s *Server) catalog(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return &problem{http.StatusMethodNotAllowed, "UNSUPPORTED", "the operation is unsupported"}
	}
	names, err := s.store.Repositories()
	if err != nil {
		return err
	}
	if names, err = page(w, r, names); err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string][]string{"repositories": names})
}

func (c *call) tags() error {
	if c.o.Cache != nil {
		return c.o.Cache.List(c.w, c.r, c.name)
	}
	tags, err := c.store.Tags(c.name)
	if err != nil {
		return err
	}
	if tags, err = page(c.w, c.r, tags); err != nil {
		return err
	}
	return answer(c.w, http.StatusOK, struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{c.name, tags})
}

// referrers lists the manifests that have a subject ("Listing Referrers"); an unknown subject has none.
func (c *call) referrers() error {
	d, err := digestOf(c.id)
	if err != nil {
		return err
	}
	if c.o.Cache != nil {
		return c.o.Cache.List(c.w, c.r, c.name)
	}
	list, err := c.store.Referrers(c.name, d)
	if err != nil {
		return err
	}
	if kind := c.r.URL.Query().Get("artifactType"); kind != "" {
		list = slices.DeleteFunc(list, func(d ocispec.Descriptor) bool { return d.ArtifactType != kind })
		c.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	c.w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	return answer(c.w, http.StatusOK, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: list,
	})
}
