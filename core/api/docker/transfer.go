package docker

import (
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

// create pulls an image (fromImage) or imports a root filesystem (fromSrc).
func (i images) create(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	from, source := q.Text("fromImage"), q.Text("fromSrc")
	if err := q.Err(); err != nil {
		return err
	}
	switch {
	case from != "":
		return i.pull(w, r, q, from)
	case source == "-":
		return i.importRoot(w, r, q, source, r.Upload(w))
	case source != "":
		body, err := fetchArchive(r, source)
		if err != nil {
			return err
		}
		defer body.Close()
		return i.importRoot(w, r, q, source, body)
	}
	return fault.New(fault.Invalid, `expected a parameter: fromImage with the name of an image to pull, or fromSrc with "-" or an address to import from`)
}

func (i images) pull(w http.ResponseWriter, r *route.Request, q *route.Query, from string) error {
	// `pull -a` of old clients leaves a colon behind the name.
	name, tag := strings.TrimSuffix(from, ":"), q.Text("tag")
	platform := ""
	if r.Version >= 32 {
		platform = q.Text("platform")
	}
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	p := route.NewProgress(w)
	if tag == "" && !hasTag(name) {
		all, err := ability[AllPuller](i.backend, "pulling every tag of a repository")
		if err != nil {
			return err
		}
		return p.End(all.PullAll(r.Context(), name, platform, auth, p.Send))
	}
	return p.End(i.backend.Pull(r.Context(), retag(name, tag), platform, auth, p.Send))
}

// retag is joinTag for a name that may have a tag already, which the given one replaces.
func retag(name, tag string) string {
	if tag != "" && hasTag(name) {
		if before, _, ok := strings.Cut(name, "@"); ok {
			name = before
		}
		if hasTag(name) {
			name = name[:strings.LastIndexByte(name, ':')]
		}
	}
	return joinTag(name, tag)
}

func (i images) importRoot(w http.ResponseWriter, r *route.Request, q *route.Query, source string, body io.Reader) error {
	message := q.Text("message")
	if message == "" {
		message = "Imported from " + source
	}
	p := route.NewProgress(w)
	progress := p.Send
	if source == "-" { // the client knows how far it is with its own archive, and Docker tells it only the result
		progress = func(wire.Message) {}
	}
	id, err := i.imported(r, q, message, body, progress)
	if err == nil {
		p.Send(wire.Message{Status: id.String()})
	}
	return p.End(err)
}

// imported imports for the platform that was asked for (v1.32), in Docker's notation: linux/arm64.
func (i images) imported(r *route.Request, q *route.Query, message string, body io.Reader, progress func(wire.Message)) (digest.Digest, error) {
	ref, platform := joinTag(q.Text("repo"), q.Text("tag")), q.Text("platform")
	if platform == "" || r.Version < 32 {
		return i.backend.Import(r.Context(), body, ref, message, q.Texts("changes"), progress)
	}
	b, err := ability[ImagePlatforms](i.backend, "an image's platforms")
	if err != nil {
		return "", err
	}
	return b.ImportFor(r.Context(), body, ref, platform, message, q.Texts("changes"), progress)
}

// fetchArchive opens the address of an archive. Whoever may use this API is root on the host, so
// no address is kept from them.
func fetchArchive(r *route.Request, address string) (io.ReadCloser, error) {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, address, nil)
	if err != nil || req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return nil, &fault.Field{Field: "fromSrc", Given: address, Expected: `"-" or an http or https address`}
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "fetch the archive: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		answer.Body.Close()
		return nil, fault.New(fault.Invalid, "fetch the archive: %s answers %s", address, answer.Status)
	}
	return http.MaxBytesReader(nil, answer.Body, route.MaxArchive), nil
}

func (i images) push(w http.ResponseWriter, r *route.Request) error {
	b, err := ability[ImagePusher](i.backend, "pushing an image")
	if err != nil {
		return err
	}
	q := r.Query()
	tag := q.Text("tag")
	if err := q.Err(); err != nil {
		return err
	}
	auth, err := registryAuth(r)
	if err != nil {
		return err
	}
	var platform *ocispec.Platform
	if r.Version >= 46 {
		if platform, err = onePlatform(q); err != nil {
			return err
		}
	}
	p := route.NewProgress(w)
	if platform != nil {
		one, err := ability[ImagePlatforms](i.backend, "an image's platforms")
		if err != nil {
			return err
		}
		return p.End(one.PushFor(r.Context(), joinTag(r.Variable(), tag), platform, auth, p.Send))
	}
	return p.End(b.Push(r.Context(), joinTag(r.Variable(), tag), auth, p.Send))
}

func (i images) load(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	quiet := q.BoolOr("quiet", true)
	platform, err := i.platform(r)
	if err != nil {
		return err
	}
	if err := q.Err(); err != nil {
		return err
	}
	p := route.NewProgress(w)
	progress := p.Send
	if quiet { // results only: "Loaded image: x" has no progress
		progress = func(m wire.Message) {
			if m.ProgressDetail == nil && m.Progress == "" {
				p.Send(m)
			}
		}
	}
	if platform == nil {
		return p.End(i.backend.Load(r.Context(), r.Upload(w), progress))
	}
	b, err := ability[ImagePlatforms](i.backend, "an image's platforms")
	if err != nil {
		return err
	}
	return p.End(b.LoadFor(r.Context(), r.Upload(w), platform, progress))
}

// save writes an archive of images. An error after its first byte breaks the connection off, so
// that nobody takes half an archive for a whole one.
func (i images) save(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	names := q.Texts("names")
	if name := r.Variable(); name != "" {
		names = []string{name}
	}
	if err := q.Err(); err != nil {
		return err
	}
	if len(names) == 0 {
		return &fault.Field{Field: "names", Given: "", Expected: "the name of at least one image"}
	}
	o := image.SaveOptions{OCI: q.Text("format") == "oci"}
	var err error
	if o.Platform, err = i.platform(r); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	if o == (image.SaveOptions{}) {
		return i.backend.Save(r.Context(), names, w)
	}
	b, err := ability[ImagePlatforms](i.backend, "an image's platforms")
	if err != nil {
		return err
	}
	return b.SaveWith(r.Context(), names, o, w)
}

func registryAuth(r *route.Request) (*wire.AuthConfig, error) { return r.RegistryAuth() }
