package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/sampan-project/sampan/core/wire"
)

const manifests, mounts = "/sampan/v1/manifests", "/sampan/v1/images/mounts"

// ManifestCreate begins a list of images, or adds them to it, and returns its whole name.
func (c *Client) ManifestCreate(ctx context.Context, r wire.ManifestCreate, auth *wire.AuthConfig) (string, error) {
	header, err := encodeAuth(auth)
	if err != nil {
		return "", err
	}
	made, err := call[wire.ManifestResult](ctx, c, request{method: http.MethodPost, path: manifests, plain: true, header: header, json: r})
	return made.Name, err
}

// ManifestAnnotate says which platform an image of a list is for.
func (c *Client) ManifestAnnotate(ctx context.Context, r wire.ManifestAnnotate) error {
	return c.call(ctx, request{method: http.MethodPost, path: manifests + "/annotate", plain: true, json: r}, nil)
}

// ManifestInspect returns the JSON of a list, or of what a registry has.
func (c *Client) ManifestInspect(ctx context.Context, r wire.ManifestInspect, auth *wire.AuthConfig) (json.RawMessage, error) {
	header, err := encodeAuth(auth)
	if err != nil {
		return nil, err
	}
	q := url.Values{"manifest": {r.Manifest}}
	if r.List != "" {
		q.Set("list", r.List)
	}
	setBool(q, "verbose", r.Verbose)
	setBool(q, "insecure", r.Insecure)
	return call[json.RawMessage](ctx, c, request{method: http.MethodGet, path: manifests, plain: true, header: header, query: q})
}

// ManifestPush uploads a list and returns its digest.
func (c *Client) ManifestPush(ctx context.Context, r wire.ManifestPush, auth *wire.AuthConfig) (string, error) {
	header, err := encodeAuth(auth)
	if err != nil {
		return "", err
	}
	pushed, err := call[wire.ManifestResult](ctx, c, request{method: http.MethodPost, path: manifests + "/push", plain: true, header: header, json: r})
	return pushed.Digest, err
}

// ManifestRemove forgets a list.
func (c *Client) ManifestRemove(ctx context.Context, name string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: manifests, plain: true, query: url.Values{"name": {name}}}, nil)
}

// ImageTree lists the layers of all images as they stand on each other.
func (c *Client) ImageTree(ctx context.Context) ([]wire.ImageNode, error) {
	return call[[]wire.ImageNode](ctx, c, request{method: http.MethodGet, path: "/sampan/v1/images/tree", plain: true})
}

// ImageDiff tells which files an image has otherwise than another.
func (c *Client) ImageDiff(ctx context.Context, from, to string) ([]wire.Change, error) {
	q := url.Values{"from": {from}, "to": {to}}
	return call[[]wire.Change](ctx, c, request{method: http.MethodGet, path: "/sampan/v1/images/diff", plain: true, query: q})
}

// ImageMount shows the files of an image on the daemon's host, and returns where; path may be "".
func (c *Client) ImageMount(ctx context.Context, ref, path string) (string, error) {
	q := url.Values{"image": {ref}, "path": {path}}
	made, err := call[wire.ImageMount](ctx, c, request{method: http.MethodPost, path: mounts, plain: true, query: q})
	return made.Path, err
}

// ImageMounts lists the images that are mounted.
func (c *Client) ImageMounts(ctx context.Context) ([]wire.ImageMount, error) {
	return call[[]wire.ImageMount](ctx, c, request{method: http.MethodGet, path: mounts, plain: true})
}

// ImageUnmount takes the mounts of an image, or the one at a path, or all away, and returns where they were.
func (c *Client) ImageUnmount(ctx context.Context, ref string, all bool) ([]string, error) {
	q := url.Values{"image": {ref}}
	setBool(q, "all", all)
	return call[[]string](ctx, c, request{method: http.MethodDelete, path: mounts, plain: true, query: q})
}
