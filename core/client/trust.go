package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/sampan-project/sampan/core/wire"
)

// trustRequest is a call about the signatures of an image in its registry.
func trustRequest(method, ref string, auth *wire.AuthConfig) (request, error) {
	header, err := encodeAuth(auth)
	return request{method: method, path: "/sampan/v1/trust/signatures", plain: true, query: url.Values{"ref": {ref}}, header: header}, err
}

// Signatures tells what the registry has of a tag, a digest or all signed tags of a repository. Nobody has
// verified it.
func (c *Client) Signatures(ctx context.Context, ref string, auth *wire.AuthConfig) (wire.TrustData, error) {
	r, err := trustRequest(http.MethodGet, ref, auth)
	if err != nil {
		return wire.TrustData{}, err
	}
	return call[wire.TrustData](ctx, c, r)
}

// Sign stores a signature beside an image.
func (c *Client) Sign(ctx context.Context, ref string, s wire.SignRequest, auth *wire.AuthConfig) error {
	r, err := trustRequest(http.MethodPost, ref, auth)
	if err != nil {
		return err
	}
	r.json = s
	return c.call(ctx, r, nil)
}

// Revoke removes the signatures of a tag or a repository, and returns how many there were.
func (c *Client) Revoke(ctx context.Context, ref string, auth *wire.AuthConfig) (int, error) {
	r, err := trustRequest(http.MethodDelete, ref, auth)
	if err != nil {
		return 0, err
	}
	report, err := call[wire.RevokeReport](ctx, c, r)
	return report.Removed, err
}
