package client

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"

	"github.com/sampan-project/sampan/core/wire"
)

// SwarmInit makes the daemon the first manager of a new swarm, and returns its node's ID.
func (c *Client) SwarmInit(ctx context.Context, r wire.SwarmInitRequest) (nodeID string, err error) {
	return post[string](ctx, c, "/swarm/init", nil, r)
}

// SwarmJoin makes the daemon a node of a swarm that is there.
func (c *Client) SwarmJoin(ctx context.Context, r wire.SwarmJoinRequest) error {
	return c.post(ctx, "/swarm/join", nil, r, nil)
}

// SwarmLeave takes the daemon out of its swarm; force also a manager, which may cost the others their quorum.
func (c *Client) SwarmLeave(ctx context.Context, force bool) error {
	q := url.Values{}
	setBool(q, "force", force)
	return c.post(ctx, "/swarm/leave", q, nil, nil)
}

// SwarmInspect describes the swarm, with the tokens to join it.
func (c *Client) SwarmInspect(ctx context.Context) (wire.Swarm, error) {
	return get[wire.Swarm](ctx, c, "/swarm", nil)
}

// SwarmUpdate changes what users decide of a swarm, as it was at a version, and makes secrets anew.
func (c *Client) SwarmUpdate(ctx context.Context, version wire.ObjectVersion, spec wire.SwarmSpec, rotate wire.SwarmRotation) error {
	q := versionQuery(version)
	q.Set("rotateWorkerToken", strconv.FormatBool(rotate.WorkerToken))
	q.Set("rotateManagerToken", strconv.FormatBool(rotate.ManagerToken))
	q.Set("rotateManagerUnlockKey", strconv.FormatBool(rotate.ManagerUnlockKey))
	return c.post(ctx, "/swarm/update", q, spec, nil)
}

// unlockKey is what a manager of a locked swarm needs to start.
type unlockKey struct{ UnlockKey string }

// SwarmUnlockKey returns the key that managers need to start, "" when they need none.
func (c *Client) SwarmUnlockKey(ctx context.Context) (string, error) {
	k, err := get[unlockKey](ctx, c, "/swarm/unlockkey", nil)
	return k.UnlockKey, err
}

// SwarmUnlock gives a manager that waits for it the key.
func (c *Client) SwarmUnlock(ctx context.Context, key string) error {
	return c.post(ctx, "/swarm/unlock", nil, unlockKey{key}, nil)
}

// versionQuery says which version of an object a change is made of.
func versionQuery(v wire.ObjectVersion) url.Values {
	return url.Values{"version": {strconv.FormatUint(v.Index, 10)}}
}

// swarmList lists the objects of a swarm of a kind.
func swarmList[T any](ctx context.Context, c *Client, path string, f Filters, q url.Values) ([]T, error) {
	if q == nil {
		q = url.Values{}
	}
	if err := setFilters(q, f); err != nil {
		return nil, err
	}
	return list[T](ctx, c, path, q)
}

// swarmObject is the path of an object of a swarm, or of one of its verbs.
func swarmObject(kind, ref, verb string) (string, error) {
	s, err := segment(kind, ref)
	if verb != "" {
		verb = "/" + verb
	}
	return "/" + kind + "s/" + s + verb, err
}

// swarmInspect describes an object of a swarm with all that the server sent.
func swarmInspect(ctx context.Context, c *Client, kind, ref string, q url.Values) (json.RawMessage, error) {
	path, err := swarmObject(kind, ref, "")
	if err != nil {
		return nil, err
	}
	return get[json.RawMessage](ctx, c, path, q)
}

// inspected decodes what swarmInspect returned.
func inspected[T any](data json.RawMessage, err error) (T, error) {
	if err != nil {
		var none T
		return none, err
	}
	return decode[T](data)
}
