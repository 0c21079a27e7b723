// Package mirror is the pull-through cache: what the store has not is fetched from another registry, handed to who
// asked while it comes, and kept. A tag is asked for each time, as only the other registry knows what it is
// now; if that does not answer, the last known one is served.
package mirror

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/cmd/sampan-registry/store"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/metric"
	"github.com/sampan-project/sampan/core/wire"
)

// Options are where a cache fetches from.
type Options struct {
	URL                string // of the other registry, such as https://registry-1.docker.io
	Username, Password string
	Log                *slog.Logger
	Metrics            *metric.Registry
}

// Cache is the store with another registry behind it.
type Cache struct {
	store    *store.Store
	registry name.Registry
	auth     authn.Authenticator
	round    http.RoundTripper
	puller   *remote.Puller
	log      *slog.Logger
	requests *metric.Counter
	received *metric.Counter

	mu       sync.Mutex
	arriving map[string]*arrival // blobs on their way, by repository and digest
}

// New returns a cache. The other registry is not asked yet.
func New(s *store.Store, o Options) (*Cache, error) {
	bad := &fault.Field{Field: "proxy", Given: o.URL, Expected: "the address of a registry, such as https://registry-1.docker.io"}
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" || u.User != nil {
		return nil, bad
	}
	c := &Cache{store: s, auth: authn.Anonymous, log: o.Log, arriving: map[string]*arrival{}}
	options := []name.Option{name.StrictValidation}
	c.round = &secure{http.DefaultTransport}
	if u.Scheme == "http" {
		options, c.round = append(options, name.Insecure), http.DefaultTransport
	}
	if c.registry, err = name.NewRegistry(u.Host, options...); err != nil {
		return nil, bad
	}
	if o.Username != "" {
		c.auth = &authn.Basic{Username: o.Username, Password: o.Password}
	}
	c.puller, err = remote.NewPuller(remote.WithAuth(c.auth), remote.WithTransport(c.round), remote.WithUserAgent("sampan-registry/"+wire.Release))
	c.requests = o.Metrics.Counter("sampan_registry_cache_requests_total", "Requests for content, by kind (manifest, blob) and whether the cache had it (hit, miss, stale)", "kind", "result")
	c.received = o.Metrics.Counter("sampan_registry_cache_received_bytes_total", "Bytes of content fetched from the other registry")
	return c, err
}

// secure refuses plain HTTP, which the library would try with an address of a private network.
type secure struct{ inner http.RoundTripper }

func (s *secure) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, errors.New("plain HTTP: expected HTTPS, as --proxy says")
	}
	return s.inner.RoundTrip(r)
}

// Hit counts what the store had.
func (c *Cache) Hit(kind string) { c.requests.Add(1, kind, "hit") }

func (c *Cache) reference(repository, reference string) (name.Reference, error) {
	repo := c.registry.Repo(repository)
	if d, err := digest.Parse(reference); err == nil {
		if d.Algorithm() != digest.SHA256 {
			return nil, store.ErrManifestUnknown
		}
		return repo.Digest(reference), nil
	}
	return repo.Tag(reference), nil
}

// Manifest returns a manifest by tag or digest.
func (c *Cache) Manifest(ctx context.Context, repository, reference string) (store.Manifest, error) {
	ref, err := c.reference(repository, reference)
	if err != nil {
		return store.Manifest{}, err
	}
	d, err := digest.Parse(reference)
	if err != nil {
		if d, err = c.current(ctx, repository, ref); err != nil {
			return store.Manifest{}, err
		}
	}
	if m, err := c.store.Manifest(repository, d); err == nil {
		c.Hit("manifest")
		c.store.Use(repository, d)
		return m, c.retag(repository, ref, m)
	} else if !errors.Is(err, store.ErrManifestUnknown) {
		return m, err
	}
	c.requests.Add(1, "manifest", "miss")
	return c.fetch(ctx, repository, ref)
}

// retag lets a tag name a manifest that the store has already.
func (c *Cache) retag(repository string, ref name.Reference, m store.Manifest) error {
	tag, ok := ref.(name.Tag)
	if !ok {
		return nil
	}
	if known, err := c.store.Resolve(repository, tag.TagStr()); err == nil && known == m.Digest {
		return nil
	}
	_, err := c.store.PutManifest(repository, []string{tag.TagStr()}, m, true)
	return err
}

// current asks what a tag is now.
func (c *Cache) current(ctx context.Context, repository string, ref name.Reference) (digest.Digest, error) {
	head, err := c.puller.Head(ctx, ref)
	if err == nil {
		return digest.Digest(head.Digest.String()), nil
	}
	err = upstream(err)
	if fault.ClassOf(err) != fault.Unavailable {
		return "", err
	}
	d, unknown := c.store.Resolve(repository, ref.Identifier())
	if unknown != nil {
		return "", err
	}
	c.requests.Add(1, "manifest", "stale")
	c.log.Warn("the other registry does not answer: the last known manifest is served", "reference", ref.String(), "error", err)
	return d, nil
}

// fetch gets a manifest and keeps it.
func (c *Cache) fetch(ctx context.Context, repository string, ref name.Reference) (store.Manifest, error) {
	got, err := c.puller.Get(ctx, ref)
	if err != nil {
		return store.Manifest{}, upstream(err)
	}
	c.received.Add(float64(len(got.Manifest)))
	m := store.Manifest{Digest: digest.Digest(got.Digest.String()), MediaType: string(got.MediaType), Content: got.Manifest}
	var tags []string
	if t, ok := ref.(name.Tag); ok {
		tags = []string{t.TagStr()}
	}
	_, err = c.store.PutManifest(repository, tags, m, true)
	return m, err
}

// upstream gives a failure of the other registry its class: what is not there is not there, and everything else
// is the other registry's matter.
func upstream(err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
		return store.ErrManifestUnknown
	}
	return fault.New(fault.Unavailable, "the other registry: %s", strings.Join(strings.Fields(err.Error()), " "))
}

const (
	maxList      = 4 << 20 // bytes of an answer
	listPatience = time.Minute
)

// List hands on the answer to a request for tags or referrers: the store has only those that were asked for.
func (c *Cache) List(w http.ResponseWriter, r *http.Request, repository string) error {
	ctx, cancel := context.WithTimeout(r.Context(), listPatience)
	defer cancel()
	repo := c.registry.Repo(repository)
	round, err := transport.NewWithContext(ctx, c.registry, c.auth, c.round, []string{repo.Scope(transport.PullScope)})
	if err != nil {
		return upstream(err)
	}
	address := url.URL{Scheme: c.registry.Scheme(), Host: c.registry.RegistryStr(), Path: r.URL.Path, RawQuery: r.URL.RawQuery}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: round}).Do(req)
	if err != nil {
		return upstream(err)
	}
	defer resp.Body.Close()
	for _, key := range []string{"Content-Type", "OCI-Filters-Applied"} {
		if v := resp.Header.Get(key); v != "" {
			w.Header().Set(key, v)
		}
	}
	// The next page is asked for here, not there.
	if next, err := url.Parse(linked(resp.Header.Get("Link"))); err == nil && next.RawQuery != "" {
		w.Header().Set("Link", "<"+(&url.URL{Path: r.URL.Path, RawQuery: next.RawQuery}).String()+`>; rel="next"`)
	}
	w.WriteHeader(resp.StatusCode)
	_, err = io.Copy(w, io.LimitReader(resp.Body, maxList))
	return err
}

// linked is the address in a header Link.
func linked(header string) string {
	_, rest, _ := strings.Cut(header, "<")
	address, _, _ := strings.Cut(rest, ">")
	return address
}
