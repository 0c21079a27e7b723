package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func imagePath(ref, verb string) (string, error) {
	s, err := segments("image", ref)
	if verb != "" {
		verb = "/" + verb
	}
	return "/images/" + s + verb, err
}

// splitReference takes NAME[:TAG|@DIGEST] apart; a digest stands in the tag's place. Whether the parts
// are well formed is for the server to say, but it cannot see what is lost here: a colon with nothing
// behind it, or a second tag.
func splitReference(ref string) (name, tag string, err error) {
	rest, digest, digested := strings.Cut(ref, "@")
	name, tag, tagged := cutTag(rest)
	if _, _, twice := cutTag(name); twice || tagged && tag == "" || digested && digest == "" {
		return "", "", fault.New(fault.Invalid, "invalid reference format: %q: expected NAME[:TAG] or NAME@DIGEST", ref)
	}
	if digested {
		return name, digest, nil // it says more than the tag beside it
	}
	return name, tag, nil
}

// cutTag separates what is behind the last colon, unless that is the port of a host.
func cutTag(ref string) (name, tag string, found bool) {
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i], ref[i+1:], true
	}
	return ref, "", false
}

// ImageListOptions choose images.
type ImageListOptions struct {
	All        bool // also those that only other images are made of
	SharedSize bool
	Manifests  bool // with the platforms of each
	Filters    Filters
}

// ImageList lists images, newest first.
func (c *Client) ImageList(ctx context.Context, o ImageListOptions) ([]wire.ImageSummary, error) {
	q := url.Values{}
	setBool(q, "all", o.All)
	setBool(q, "shared-size", o.SharedSize)
	setBool(q, "manifests", o.Manifests)
	if err := setFilters(q, o.Filters); err != nil {
		return nil, err
	}
	return get[[]wire.ImageSummary](ctx, c, "/images/json", q)
}

// ImageInspect describes an image.
func (c *Client) ImageInspect(ctx context.Context, ref string) (wire.ImageInspect, error) {
	var v wire.ImageInspect
	data, err := c.ImageInspectRaw(ctx, ref, "")
	if err != nil {
		return v, err
	}
	return decode[wire.ImageInspect](data)
}

// ImageInspectRaw is ImageInspect with all that the server sent, of a platform such as linux/arm64 if one
// is named.
func (c *Client) ImageInspectRaw(ctx context.Context, ref, platform string) (json.RawMessage, error) {
	path, err := imagePath(ref, "json")
	if err != nil {
		return nil, err
	}
	q, err := platformQuery("platform", platform)
	if err != nil {
		return nil, err
	}
	return get[json.RawMessage](ctx, c, path, q)
}

// platformQuery is a parameter of API v1.48 on: platforms as JSON, each given as OS[/ARCH[/VARIANT]].
// An architecture that is not given is this machine's.
func platformQuery(name string, platforms ...string) (url.Values, error) {
	q := url.Values{}
	for _, given := range platforms {
		if given == "" {
			continue
		}
		parts := strings.Split(strings.ToLower(given), "/")
		if len(parts) > 3 || slices.Contains(parts, "") {
			return nil, &fault.Field{Field: "--platform", Given: given, Expected: "OS[/ARCH[/VARIANT]] such as linux/amd64"}
		}
		if len(parts) == 1 {
			parts = append(parts, runtime.GOARCH)
		}
		parts = append(parts, "")
		text, err := json.Marshal(wire.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]})
		if err != nil {
			return nil, err
		}
		q.Add(name, string(text))
	}
	return q, nil
}

// ImageHistory lists the steps that made an image, newest first.
func (c *Client) ImageHistory(ctx context.Context, ref, platform string) ([]wire.ImageHistory, error) {
	path, err := imagePath(ref, "history")
	if err != nil {
		return nil, err
	}
	q, err := platformQuery("platform", platform)
	if err != nil {
		return nil, err
	}
	return get[[]wire.ImageHistory](ctx, c, path, q)
}

// ImageRemove removes a name, and the image with its last one. noPrune keeps unnamed parents.
func (c *Client) ImageRemove(ctx context.Context, ref string, force, noPrune bool) ([]wire.ImageDelete, error) {
	return c.ImageRemovePlatforms(ctx, ref, nil, force, noPrune)
}

// ImageRemovePlatforms is ImageRemove for some of an image's platforms; none means all.
func (c *Client) ImageRemovePlatforms(ctx context.Context, ref string, platforms []string, force, noPrune bool) ([]wire.ImageDelete, error) {
	path, err := imagePath(ref, "")
	if err != nil {
		return nil, err
	}
	q, err := platformQuery("platforms", platforms...)
	if err != nil {
		return nil, err
	}
	setBool(q, "force", force)
	setBool(q, "noprune", noPrune)
	var v []wire.ImageDelete
	err = c.delete(ctx, path, q, &v)
	return v, err
}

// ImageTag gives an image one more name.
func (c *Client) ImageTag(ctx context.Context, source, target string) error {
	path, err := imagePath(source, "tag")
	if err != nil {
		return err
	}
	repo, tag, err := splitReference(target)
	if err != nil {
		return err
	}
	if strings.Contains(target, "@") {
		return fault.New(fault.Invalid, "refusing to create a tag with a digest reference")
	}
	return c.post(ctx, path, url.Values{"repo": {repo}, "tag": {tag}}, nil, nil)
}

// ImagePull fetches an image from its registry. A reference without tag or digest means latest;
// platform may be "".
func (c *Client) ImagePull(ctx context.Context, ref, platform string, auth *wire.AuthConfig, each func(wire.Message) error) error {
	name, tag, err := splitReference(ref)
	if err != nil {
		return err
	}
	if tag == "" {
		tag = "latest"
	}
	return c.pull(ctx, name, tag, platform, auth, each)
}

// ImagePullAll fetches every tag of a repository.
func (c *Client) ImagePullAll(ctx context.Context, name, platform string, auth *wire.AuthConfig, each func(wire.Message) error) error {
	return c.pull(ctx, name, "", platform, auth, each)
}

func (c *Client) pull(ctx context.Context, name, tag, platform string, auth *wire.AuthConfig, each func(wire.Message) error) error {
	header, err := encodeAuth(auth)
	if err != nil {
		return err
	}
	q := url.Values{"fromImage": {name}}
	if tag != "" {
		q.Set("tag", tag)
	}
	if platform != "" {
		q.Set("platform", strings.ToLower(platform))
	}
	return c.progress(ctx, request{method: http.MethodPost, path: "/images/create", query: q, header: header}, each)
}

// ImagePush sends an image to its registry; a name without a tag sends all its tags.
func (c *Client) ImagePush(ctx context.Context, ref, platform string, auth *wire.AuthConfig, each func(wire.Message) error) error {
	name, tag, err := splitReference(ref)
	if err != nil {
		return err
	}
	path, err := imagePath(name, "push")
	if err != nil {
		return err
	}
	if auth == nil {
		auth = &wire.AuthConfig{} // the header is required, also when it says nothing
	}
	header, err := encodeAuth(auth)
	if err != nil {
		return err
	}
	q, err := platformQuery("platform", platform)
	if err != nil {
		return err
	}
	if tag != "" {
		q.Set("tag", tag)
	}
	return c.progress(ctx, request{method: http.MethodPost, path: path, query: q, header: header}, each)
}

// ImageLoad reads an archive of images, as ImageSave writes it. quiet spares the progress.
func (c *Client) ImageLoad(ctx context.Context, archive io.Reader, platform string, quiet bool, each func(wire.Message) error) error {
	q, err := platformQuery("platform", platform)
	if err != nil {
		return err
	}
	q.Set("quiet", strconv.FormatBool(quiet))
	return c.progress(ctx, request{method: http.MethodPost, path: "/images/load", query: q, body: archive, kind: "application/x-tar"}, each)
}

// ImageImportOptions describe the image that a root filesystem becomes.
type ImageImportOptions struct {
	Ref      string // repository[:tag], or ""
	URL      string // where the server fetches the tar from; "" or "-" is the request's body
	Message  string
	Changes  []string // Dockerfile instructions
	Platform string
}

// ImageImport makes an image of one layer from a root filesystem's tar.
func (c *Client) ImageImport(ctx context.Context, tar io.Reader, o ImageImportOptions, each func(wire.Message) error) error {
	repo, tag, err := splitReference(o.Ref)
	if err != nil {
		return err
	}
	q := url.Values{"fromSrc": {"-"}, "repo": {repo}}
	if o.URL != "" {
		q.Set("fromSrc", o.URL)
	}
	if tag != "" {
		q.Set("tag", tag)
	}
	if o.Message != "" {
		q.Set("message", o.Message)
	}
	if o.Platform != "" {
		q.Set("platform", strings.ToLower(o.Platform))
	}
	for _, change := range o.Changes {
		q.Add("changes", change)
	}
	return c.progress(ctx, request{method: http.MethodPost, path: "/images/create", query: q, body: tar, kind: "application/x-tar"}, each)
}

// ImageSave opens an archive of images.
func (c *Client) ImageSave(ctx context.Context, platform string, refs ...string) (io.ReadCloser, error) {
	return c.ImageSaveAs(ctx, "", platform, refs...)
}

// ImageSaveAs is ImageSave in a format: "oci" is an image layout alone, "" that and Docker's archive.
func (c *Client) ImageSaveAs(ctx context.Context, format, platform string, refs ...string) (io.ReadCloser, error) {
	q, err := platformQuery("platform", platform)
	if err != nil {
		return nil, err
	}
	if format != "" {
		q.Set("format", format)
	}
	q["names"] = refs
	return c.download(ctx, "/images/get", q)
}

// ImagePrune removes images without a name, or with dangling=false all that no container uses.
func (c *Client) ImagePrune(ctx context.Context, f Filters) (wire.ImagesPrune, error) {
	return prune[wire.ImagesPrune](ctx, c, "/images/prune", f)
}

// ImageSearch asks the registry's index.
func (c *Client) ImageSearch(ctx context.Context, term string, limit int, auth *wire.AuthConfig, f Filters) ([]wire.SearchResult, error) {
	header, err := encodeAuth(auth)
	if err != nil {
		return nil, err
	}
	q := url.Values{"term": {term}}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	if err := setFilters(q, f); err != nil {
		return nil, err
	}
	return call[[]wire.SearchResult](ctx, c, request{method: http.MethodGet, path: "/images/search", query: q, header: header})
}
