package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// containerPath is the path of a container, or of one of its verbs.
func containerPath(id, verb string) (string, error) {
	s, err := segment("container", id)
	if err != nil {
		return "", err
	}
	if verb != "" {
		verb = "/" + verb
	}
	return "/containers/" + s + verb, nil
}

// verb posts to a container; an answer of "already so" (304) is success.
func (c *Client) verb(ctx context.Context, id, verb string, query url.Values) error {
	path, err := containerPath(id, verb)
	if err != nil {
		return err
	}
	return c.post(ctx, path, query, nil, nil)
}

// ContainerCreate makes a container; name and platform may be "".
func (c *Client) ContainerCreate(ctx context.Context, name, platform string, r wire.ContainerCreateRequest) (wire.ContainerCreateResponse, error) {
	q := url.Values{}
	if name != "" {
		q.Set("name", name)
	}
	if platform != "" {
		q.Set("platform", platform)
	}
	return post[wire.ContainerCreateResponse](ctx, c, "/containers/create", q, r)
}

// ContainerStart starts a container; one that runs is left alone.
func (c *Client) ContainerStart(ctx context.Context, id string) error {
	return c.verb(ctx, id, "start", nil)
}

// ContainerStop signals a container, and kills it after timeout seconds (nil: the container's own;
// -1: never). signal "" is the container's own.
func (c *Client) ContainerStop(ctx context.Context, id, signal string, timeout *int) error {
	return c.verb(ctx, id, "stop", stopQuery(signal, timeout))
}

// ContainerRestart stops as ContainerStop and starts again.
func (c *Client) ContainerRestart(ctx context.Context, id, signal string, timeout *int) error {
	return c.verb(ctx, id, "restart", stopQuery(signal, timeout))
}

func stopQuery(signal string, timeout *int) url.Values {
	q := url.Values{}
	if signal != "" {
		q.Set("signal", signal)
	}
	if timeout != nil {
		q.Set("t", strconv.Itoa(*timeout))
	}
	return q
}

// ContainerKill signals a container's first process; signal "" is KILL.
func (c *Client) ContainerKill(ctx context.Context, id, signal string) error {
	return c.verb(ctx, id, "kill", stopQuery(signal, nil))
}

// ContainerPause freezes every process of a container.
func (c *Client) ContainerPause(ctx context.Context, id string) error {
	return c.verb(ctx, id, "pause", nil)
}

// ContainerUnpause lets a frozen container go on.
func (c *Client) ContainerUnpause(ctx context.Context, id string) error {
	return c.verb(ctx, id, "unpause", nil)
}

// ContainerRename gives a container another name.
func (c *Client) ContainerRename(ctx context.Context, id, name string) error {
	return c.verb(ctx, id, "rename", url.Values{"name": {name}})
}

// ContainerResize tells a container's terminal its size in characters.
func (c *Client) ContainerResize(ctx context.Context, id string, height, width uint) error {
	return c.verb(ctx, id, "resize", sizeQuery(height, width))
}

func sizeQuery(height, width uint) url.Values {
	return url.Values{"h": {strconv.FormatUint(uint64(height), 10)}, "w": {strconv.FormatUint(uint64(width), 10)}}
}

// RemoveOptions say what goes with a container.
type RemoveOptions struct {
	Force   bool // kill it if it runs
	Volumes bool // and its anonymous volumes
	Link    bool // the name is a link, which alone is removed
}

// ContainerRemove removes a container.
func (c *Client) ContainerRemove(ctx context.Context, id string, o RemoveOptions) error {
	path, err := containerPath(id, "")
	if err != nil {
		return err
	}
	q := url.Values{}
	setBool(q, "force", o.Force)
	setBool(q, "v", o.Volumes)
	setBool(q, "link", o.Link)
	return c.delete(ctx, path, q, nil)
}

// The conditions of ContainerWait.
const (
	WaitNotRunning = "not-running"
	WaitNextExit   = "next-exit"
	WaitRemoved    = "removed"
)

// ContainerWait asks to be told when a container ends, and returns once the server has taken note:
// an exit after that is not missed. The function that it returns blocks until then.
func (c *Client) ContainerWait(ctx context.Context, id, condition string) (func() (wire.WaitResponse, error), error) {
	path, err := containerPath(id, "wait")
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	if condition != "" {
		q.Set("condition", condition)
	}
	resp, err := c.send(ctx, request{method: http.MethodPost, path: path, query: q}) //nolint:bodyclose // by the function that is returned
	if err != nil {
		return nil, err
	}
	return func() (wire.WaitResponse, error) {
		defer drain(resp)
		var v wire.WaitResponse
		if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
			return v, transportError(ctx, err)
		}
		return v, nil
	}, nil
}

// ContainerInspect describes a container; size also counts its files, which takes time.
func (c *Client) ContainerInspect(ctx context.Context, id string, size bool) (wire.ContainerInspect, error) {
	var v wire.ContainerInspect
	data, err := c.ContainerInspectRaw(ctx, id, size)
	if err != nil {
		return v, err
	}
	return decode[wire.ContainerInspect](data)
}

// ContainerInspectRaw is ContainerInspect with all that the server sent.
func (c *Client) ContainerInspectRaw(ctx context.Context, id string, size bool) (json.RawMessage, error) {
	path, err := containerPath(id, "json")
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	setBool(q, "size", size)
	return get[json.RawMessage](ctx, c, path, q)
}

// ListOptions choose containers.
type ListOptions struct {
	All     bool // also those that do not run
	Limit   int  // the newest so many, of all; 0 is no limit
	Size    bool
	Brief   bool // only what a table shows is wanted: no labels, mounts and networks. Docker's daemon sends them nevertheless
	Filters Filters
}

// ContainerList lists containers, newest first.
func (c *Client) ContainerList(ctx context.Context, o ListOptions) ([]wire.ContainerSummary, error) {
	q := url.Values{}
	setBool(q, "all", o.All)
	setBool(q, "size", o.Size)
	setBool(q, "brief", o.Brief)
	if o.Limit > 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	if err := setFilters(q, o.Filters); err != nil {
		return nil, err
	}
	if !o.Brief {
		return list[wire.ContainerSummary](ctx, c, "/containers/json", q)
	}
	resp, err := c.send(ctx, request{method: http.MethodGet, path: "/containers/json", query: q})
	if err != nil {
		return nil, err
	}
	defer drain(resp)
	var text bytes.Buffer
	text.Grow(int(min(max(resp.ContentLength, 0), 1<<24)) + bytes.MinRead)
	if _, err := text.ReadFrom(resp.Body); err != nil {
		return nil, transportError(ctx, err)
	}
	containers, err := wire.ParseSummaries(text.Bytes())
	if err != nil {
		return nil, transportError(ctx, fmt.Errorf("decode the answer to GET /containers/json: %w", err))
	}
	return containers, nil
}

// ContainerTop lists a container's processes with ps's arguments.
func (c *Client) ContainerTop(ctx context.Context, id, psArgs string) (wire.TopResponse, error) {
	var v wire.TopResponse
	path, err := containerPath(id, "top")
	if err != nil {
		return v, err
	}
	q := url.Values{}
	if psArgs != "" {
		q.Set("ps_args", psArgs)
	}
	return get[wire.TopResponse](ctx, c, path, q)
}

// ContainerDiff lists what a container changed in its root filesystem.
func (c *Client) ContainerDiff(ctx context.Context, id string) ([]wire.Change, error) {
	path, err := containerPath(id, "changes")
	if err != nil {
		return nil, err
	}
	return get[[]wire.Change](ctx, c, path, nil)
}

// ContainerUpdate changes limits or the restart policy of a container, and returns warnings.
func (c *Client) ContainerUpdate(ctx context.Context, id string, r wire.UpdateRequest) ([]string, error) {
	path, err := containerPath(id, "update")
	if err != nil {
		return nil, err
	}
	var v wire.Warnings
	err = c.post(ctx, path, nil, r, &v)
	return v.Warnings, err
}

// ContainerPrune removes every stopped container that matches.
func (c *Client) ContainerPrune(ctx context.Context, f Filters) (wire.ContainersPrune, error) {
	return prune[wire.ContainersPrune](ctx, c, "/containers/prune", f)
}

// CommitOptions describe the image that a container becomes.
type CommitOptions struct {
	Ref     string // repository[:tag], or ""
	Comment string
	Author  string
	Changes []string // Dockerfile instructions
	NoPause bool     // let the container run meanwhile
	Config  *wire.ContainerConfig
}

// ContainerCommit makes an image of a container and returns its ID.
func (c *Client) ContainerCommit(ctx context.Context, id string, o CommitOptions) (string, error) {
	if id == "" {
		return "", fault.New(fault.Invalid, "invalid container name or ID: value is empty")
	}
	q := url.Values{"container": {id}}
	if o.Ref != "" {
		repo, tag, err := splitReference(o.Ref)
		if err != nil {
			return "", err
		}
		q.Set("repo", repo)
		q.Set("tag", tag)
	}
	if o.Comment != "" {
		q.Set("comment", o.Comment)
	}
	if o.Author != "" {
		q.Set("author", o.Author)
	}
	for _, change := range o.Changes {
		q.Add("changes", change)
	}
	if o.NoPause {
		q.Set("pause", "0")
	}
	var body any
	if o.Config != nil {
		body = o.Config
	}
	var v wire.ID
	err := c.post(ctx, "/commit", q, body, &v)
	return v.ID, err
}
