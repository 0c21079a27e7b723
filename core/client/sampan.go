package client

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/sampan-project/sampan/core/wire"
)

// Build sends a build graph with the files of its local nodes, which locals writes below
// "local/NAME/", and returns the ID of the image that it becomes. locals may be nil.
func (c *Client) Build(ctx context.Context, graph wire.BuildGraph, locals func(*tar.Writer) error, each func(wire.Message) error) (string, error) {
	r, w := io.Pipe()
	defer r.Close() //nolint:errcheck // ends the writer; of a pipe it is always nil
	go func() { w.CloseWithError(writeBuild(w, graph, locals)) }()
	var id string
	err := c.progress(ctx, request{method: http.MethodPost, path: "/sampan/v1/build", plain: true, body: r, kind: "application/x-tar"}, func(m wire.Message) error {
		if aux, ok := m.Aux.(map[string]any); ok {
			if s, ok := aux["ID"].(string); ok {
				id = s
			}
		}
		if each == nil {
			return nil
		}
		return each(m)
	})
	if err == nil && id == "" {
		err = errNoID
	}
	return id, err
}

func writeBuild(w io.Writer, graph wire.BuildGraph, locals func(*tar.Writer) error) error {
	data, err := json.Marshal(graph)
	if err != nil {
		return fmt.Errorf("encode the build graph: %w", err)
	}
	t := tar.NewWriter(w)
	if err := t.WriteHeader(&tar.Header{Name: "graph.json", Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	if _, err := t.Write(data); err != nil {
		return err
	}
	if locals != nil {
		if err := locals(t); err != nil {
			return err
		}
	}
	return t.Close()
}

// Schemas lists the resource kinds of every driver, with their attributes.
func (c *Client) Schemas(ctx context.Context) ([]wire.Schema, error) {
	return call[[]wire.Schema](ctx, c, request{method: http.MethodGet, path: "/sampan/v1/schemas", plain: true})
}

// Plugins lists the plugins that the daemon found.
func (c *Client) Plugins(ctx context.Context) ([]wire.PluginInfo, error) {
	return call[[]wire.PluginInfo](ctx, c, request{method: http.MethodGet, path: "/sampan/v1/plugins", plain: true})
}

// Check asks what is inconsistent; with verify the daemon reads every blob, with repair it mends what can
// be mended without loss.
func (c *Client) Check(ctx context.Context, verify, repair bool) ([]wire.Finding, error) {
	r := request{method: http.MethodGet, path: "/sampan/v1/check", plain: true}
	if repair {
		r.method = http.MethodPost
	}
	if verify {
		r.query = url.Values{"verify": {"1"}}
	}
	return call[[]wire.Finding](ctx, c, r)
}
