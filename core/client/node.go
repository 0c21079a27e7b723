package client

import (
	"context"
	"encoding/json"
	"net/url"

	"github.com/sampan-project/sampan/core/wire"
)

// NodeList lists the nodes of the swarm.
func (c *Client) NodeList(ctx context.Context, f Filters) ([]wire.Node, error) {
	return swarmList[wire.Node](ctx, c, "/nodes", f, nil)
}

// NodeInspect describes a node.
func (c *Client) NodeInspect(ctx context.Context, ref string) (wire.Node, error) {
	return inspected[wire.Node](c.NodeInspectRaw(ctx, ref))
}

// NodeInspectRaw is NodeInspect with all that the server sent.
func (c *Client) NodeInspectRaw(ctx context.Context, ref string) (json.RawMessage, error) {
	return swarmInspect(ctx, c, "node", ref, nil)
}

// NodeUpdate changes what users decide of a node, as it was at a version.
func (c *Client) NodeUpdate(ctx context.Context, id string, version wire.ObjectVersion, spec wire.NodeSpec) error {
	path, err := swarmObject("node", id, "update")
	if err != nil {
		return err
	}
	return c.post(ctx, path, versionQuery(version), spec, nil)
}

// NodeRemove takes a node that is down out of the swarm; with force any node.
func (c *Client) NodeRemove(ctx context.Context, ref string, force bool) error {
	path, err := swarmObject("node", ref, "")
	if err != nil {
		return err
	}
	q := url.Values{}
	setBool(q, "force", force)
	return c.delete(ctx, path, q, nil)
}
