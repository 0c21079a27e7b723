package client

import (
	"context"
	"encoding/json"
	"net/url"

	"github.com/sampan-project/sampan/core/wire"
)

func volumePath(name string) (string, error) {
	s, err := segment("volume", name)
	return "/volumes/" + s, err
}

// VolumeCreate makes a volume, or answers with the one of that name.
func (c *Client) VolumeCreate(ctx context.Context, r wire.VolumeCreateRequest) (wire.Volume, error) {
	return post[wire.Volume](ctx, c, "/volumes/create", nil, r)
}

// VolumeList lists volumes.
func (c *Client) VolumeList(ctx context.Context, f Filters) (wire.VolumeList, error) {
	q := url.Values{}
	var v wire.VolumeList
	if err := setFilters(q, f); err != nil {
		return v, err
	}
	return get[wire.VolumeList](ctx, c, "/volumes", q)
}

// VolumeInspect describes a volume.
func (c *Client) VolumeInspect(ctx context.Context, name string) (wire.Volume, error) {
	var v wire.Volume
	data, err := c.VolumeInspectRaw(ctx, name)
	if err != nil {
		return v, err
	}
	return decode[wire.Volume](data)
}

// VolumeInspectRaw is VolumeInspect with all that the server sent.
func (c *Client) VolumeInspectRaw(ctx context.Context, name string) (json.RawMessage, error) {
	path, err := volumePath(name)
	if err != nil {
		return nil, err
	}
	return get[json.RawMessage](ctx, c, path, nil)
}

// VolumeRemove removes a volume that no container uses; force forgives that it is not there.
func (c *Client) VolumeRemove(ctx context.Context, name string, force bool) error {
	path, err := volumePath(name)
	if err != nil {
		return err
	}
	q := url.Values{}
	setBool(q, "force", force)
	return c.delete(ctx, path, q, nil)
}

// VolumePrune removes volumes that no container uses.
func (c *Client) VolumePrune(ctx context.Context, f Filters) (wire.VolumesPrune, error) {
	return prune[wire.VolumesPrune](ctx, c, "/volumes/prune", f)
}
