package client

import (
	"context"
	"net/http"

	"github.com/sampan-project/sampan/core/wire"
)

func execPath(id, verb string) (string, error) {
	s, err := segment("exec", id)
	return "/exec/" + s + "/" + verb, err
}

// ExecCreate prepares a command in a running container and returns the exec's ID.
func (c *Client) ExecCreate(ctx context.Context, container string, config wire.ExecConfig) (string, error) {
	path, err := containerPath(container, "exec")
	if err != nil {
		return "", err
	}
	var v wire.ID
	err = c.post(ctx, path, nil, config, &v)
	return v.ID, err
}

// ExecAttach starts a prepared command and joins its streams.
func (c *Client) ExecAttach(ctx context.Context, id string, start wire.ExecStart) (*Hijacked, error) {
	path, err := execPath(id, "start")
	if err != nil {
		return nil, err
	}
	h, err := c.hijack(ctx, request{method: http.MethodPost, path: path, json: start})
	if err == nil {
		h.TTY = start.Tty
	}
	return h, err
}

// ExecStart starts a prepared command without its streams.
func (c *Client) ExecStart(ctx context.Context, id string, start wire.ExecStart) error {
	path, err := execPath(id, "start")
	if err != nil {
		return err
	}
	return c.post(ctx, path, nil, start, nil)
}

// ExecInspect says whether a command runs, and how it ended.
func (c *Client) ExecInspect(ctx context.Context, id string) (wire.ExecInspect, error) {
	var v wire.ExecInspect
	path, err := execPath(id, "json")
	if err != nil {
		return v, err
	}
	return get[wire.ExecInspect](ctx, c, path, nil)
}

// ExecResize tells a command's terminal its size in characters.
func (c *Client) ExecResize(ctx context.Context, id string, height, width uint) error {
	path, err := execPath(id, "resize")
	if err != nil {
		return err
	}
	return c.post(ctx, path, sizeQuery(height, width), nil, nil)
}
