package client

import (
	"context"
	"encoding/json"
	"net/url"

	"github.com/sampan-project/sampan/core/wire"
)

func networkPath(ref, verb string) (string, error) {
	s, err := segment("network", ref)
	if verb != "" {
		verb = "/" + verb
	}
	return "/networks/" + s + verb, err
}

// NetworkCreate makes a network.
func (c *Client) NetworkCreate(ctx context.Context, r wire.NetworkCreateRequest) (wire.NetworkCreateResponse, error) {
	return post[wire.NetworkCreateResponse](ctx, c, "/networks/create", nil, r)
}

// NetworkList lists networks.
func (c *Client) NetworkList(ctx context.Context, f Filters) ([]wire.NetworkInspect, error) {
	q := url.Values{}
	if err := setFilters(q, f); err != nil {
		return nil, err
	}
	return get[[]wire.NetworkInspect](ctx, c, "/networks", q)
}

// NetworkInspect describes a network.
func (c *Client) NetworkInspect(ctx context.Context, ref string) (wire.NetworkInspect, error) {
	var v wire.NetworkInspect
	data, err := c.NetworkInspectRaw(ctx, ref, false)
	if err != nil {
		return v, err
	}
	return decode[wire.NetworkInspect](data)
}

// NetworkInspectRaw is NetworkInspect with all that the server sent.
func (c *Client) NetworkInspectRaw(ctx context.Context, ref string, verbose bool) (json.RawMessage, error) {
	path, err := networkPath(ref, "")
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	setBool(q, "verbose", verbose)
	return get[json.RawMessage](ctx, c, path, q)
}

// NetworkRemove removes a network that no container uses.
func (c *Client) NetworkRemove(ctx context.Context, ref string) error {
	path, err := networkPath(ref, "")
	if err != nil {
		return err
	}
	return c.delete(ctx, path, nil, nil)
}

// NetworkConnect joins a container to a network.
func (c *Client) NetworkConnect(ctx context.Context, ref string, r wire.NetworkConnect) error {
	path, err := networkPath(ref, "connect")
	if err != nil {
		return err
	}
	return c.post(ctx, path, nil, r, nil)
}

// NetworkDisconnect takes a container out of a network.
func (c *Client) NetworkDisconnect(ctx context.Context, ref string, r wire.NetworkDisconnect) error {
	path, err := networkPath(ref, "disconnect")
	if err != nil {
		return err
	}
	return c.post(ctx, path, nil, r, nil)
}

// NetworkPrune removes networks that no container uses.
func (c *Client) NetworkPrune(ctx context.Context, f Filters) (wire.NetworksPrune, error) {
	return prune[wire.NetworksPrune](ctx, c, "/networks/prune", f)
}
