package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	"github.com/sampan-project/sampan/core/wire"
)

// ServiceCreate makes a service. auth, if any, goes to the nodes that pull its image.
func (c *Client) ServiceCreate(ctx context.Context, spec wire.ServiceSpec, auth *wire.AuthConfig) (wire.ServiceCreateResponse, error) {
	header, err := encodeAuth(auth)
	if err != nil {
		return wire.ServiceCreateResponse{}, err
	}
	return call[wire.ServiceCreateResponse](ctx, c, request{method: http.MethodPost, path: "/services/create", header: header, json: spec})
}

// ServiceUpdate changes what users decide of a service, as it was at a version.
func (c *Client) ServiceUpdate(ctx context.Context, id string, spec wire.ServiceSpec, u wire.ServiceUpdate, auth *wire.AuthConfig) (wire.ServiceUpdateResponse, error) {
	path, err := swarmObject("service", id, "update")
	if err != nil {
		return wire.ServiceUpdateResponse{}, err
	}
	header, err := encodeAuth(auth)
	if err != nil {
		return wire.ServiceUpdateResponse{}, err
	}
	q := versionQuery(wire.ObjectVersion{Index: u.Version})
	for key, value := range map[string]string{"registryAuthFrom": u.RegistryAuthFrom, "rollback": u.Rollback} {
		if value != "" {
			q.Set(key, value)
		}
	}
	return call[wire.ServiceUpdateResponse](ctx, c, request{method: http.MethodPost, path: path, query: q, header: header, json: spec})
}

// ServiceList lists services; with status each says how many of its tasks run.
func (c *Client) ServiceList(ctx context.Context, f Filters, status bool) ([]wire.Service, error) {
	q := url.Values{}
	if status {
		q.Set("status", "true")
	}
	return swarmList[wire.Service](ctx, c, "/services", f, q)
}

// ServiceInspect describes a service as it was asked for.
func (c *Client) ServiceInspect(ctx context.Context, ref string) (wire.Service, error) {
	return inspected[wire.Service](c.ServiceInspectRaw(ctx, ref, false))
}

// ServiceInspectRaw is ServiceInspect with all that the server sent and, with defaults, what holds where nothing was
// asked for.
func (c *Client) ServiceInspectRaw(ctx context.Context, ref string, defaults bool) (json.RawMessage, error) {
	q := url.Values{}
	if defaults {
		q.Set("insertDefaults", "true")
	}
	return swarmInspect(ctx, c, "service", ref, q)
}

// ServiceRemove removes a service and its tasks.
func (c *Client) ServiceRemove(ctx context.Context, ref string) error {
	path, err := swarmObject("service", ref, "")
	if err != nil {
		return err
	}
	return c.delete(ctx, path, nil, nil)
}

// ServiceLogs opens the logs of all tasks of a service, in frames for StdCopy unless they have a terminal.
func (c *Client) ServiceLogs(ctx context.Context, ref string, o LogOptions) (io.ReadCloser, error) {
	path, err := swarmObject("service", ref, "logs")
	if err != nil {
		return nil, err
	}
	return c.download(ctx, path, o.query())
}

// SecretList lists the secrets of the swarm, without their data.
func (c *Client) SecretList(ctx context.Context, f Filters) ([]wire.Secret, error) {
	return swarmList[wire.Secret](ctx, c, "/secrets", f, nil)
}

// ConfigList lists the configs of the swarm.
func (c *Client) ConfigList(ctx context.Context, f Filters) ([]wire.Config, error) {
	return swarmList[wire.Config](ctx, c, "/configs", f, nil)
}

// SwarmNetwork describes a network that the whole swarm has.
func (c *Client) SwarmNetwork(ctx context.Context, ref string) (wire.NetworkInspect, error) {
	return inspected[wire.NetworkInspect](swarmInspect(ctx, c, "network", ref, url.Values{"scope": {"swarm"}}))
}

// Distribution asks a registry, through the server, what an image's name stands for.
func (c *Client) Distribution(ctx context.Context, ref string, auth *wire.AuthConfig) (wire.DistributionInspect, error) {
	name, err := segments("image", ref)
	if err != nil {
		return wire.DistributionInspect{}, err
	}
	header, err := encodeAuth(auth)
	if err != nil {
		return wire.DistributionInspect{}, err
	}
	return call[wire.DistributionInspect](ctx, c, request{method: http.MethodGet, path: "/distribution/" + name + "/json", header: header})
}
