package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/sampan-project/sampan/core/wire"
)

// LogOptions choose lines of a container's log. Since and Until are seconds since 1970, with a
// fraction if need be; Tail is a number or "all".
type LogOptions struct {
	Stdout, Stderr bool
	Since, Until   string
	Tail           string
	Timestamps     bool
	Follow         bool
	Details        bool
}

// ContainerLogs opens a container's log: frames for StdCopy, unless the container has a terminal.
func (c *Client) ContainerLogs(ctx context.Context, id string, o LogOptions) (io.ReadCloser, error) {
	path, err := containerPath(id, "logs")
	if err != nil {
		return nil, err
	}
	return c.download(ctx, path, o.query())
}

// query is how the API takes the options.
func (o LogOptions) query() url.Values {
	q := url.Values{}
	setBool(q, "stdout", o.Stdout)
	setBool(q, "stderr", o.Stderr)
	setBool(q, "timestamps", o.Timestamps)
	setBool(q, "follow", o.Follow)
	setBool(q, "details", o.Details)
	for key, value := range map[string]string{"since": o.Since, "until": o.Until, "tail": o.Tail} {
		if value != "" {
			q.Set(key, value)
		}
	}
	return q
}

// download opens a stream whose reading tells of a broken connection in the words of every other request.
func (c *Client) download(ctx context.Context, path string, q url.Values) (io.ReadCloser, error) {
	body, err := c.open(ctx, path, q)
	if err != nil {
		return nil, err
	}
	return &download{ReadCloser: body, ctx: ctx}, nil
}

type download struct {
	io.ReadCloser
	ctx context.Context
}

func (d *download) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // the end of a body is this very value
		err = transportError(d.ctx, err)
	}
	return n, err
}

// open gets a path whose answer is a stream.
func (c *Client) open(ctx context.Context, path string, q url.Values) (io.ReadCloser, error) {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: path, query: q})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// AttachOptions choose the streams of an attachment.
type AttachOptions struct {
	Stream                bool // what comes from now on
	Logs                  bool // what came before
	Stdin, Stdout, Stderr bool
	DetachKeys            string
}

// ContainerAttach joins a container's standard streams. Attaching before the start misses no byte.
func (c *Client) ContainerAttach(ctx context.Context, id string, o AttachOptions) (*Hijacked, error) {
	path, err := containerPath(id, "attach")
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	setBool(q, "stream", o.Stream)
	setBool(q, "logs", o.Logs)
	setBool(q, "stdin", o.Stdin)
	setBool(q, "stdout", o.Stdout)
	setBool(q, "stderr", o.Stderr)
	if o.DetachKeys != "" {
		q.Set("detachKeys", o.DetachKeys)
	}
	return c.hijack(ctx, request{method: http.MethodPost, path: path, query: q})
}

// ContainerExport opens a container's whole root filesystem as a tar.
func (c *Client) ContainerExport(ctx context.Context, id string) (io.ReadCloser, error) {
	path, err := containerPath(id, "export")
	if err != nil {
		return nil, err
	}
	return c.download(ctx, path, nil)
}

// ContainerStats calls each with a container's statistics: once, or every second while stream.
func (c *Client) ContainerStats(ctx context.Context, id string, stream bool, each func(wire.Stats) error) error {
	path, err := containerPath(id, "stats")
	if err != nil {
		return err
	}
	q := url.Values{"stream": {"0"}}
	if stream {
		q.Set("stream", "1")
	}
	body, err := c.open(ctx, path, q)
	if err != nil {
		return err
	}
	defer body.Close()
	return lines(ctx, body, each)
}

// pathStat is the header that describes a path in a container.
const pathStat = "X-Docker-Container-Path-Stat"

// ContainerStatPath describes a path in a container.
func (c *Client) ContainerStatPath(ctx context.Context, id, path string) (wire.PathStat, error) {
	resp, err := c.archive(ctx, http.MethodHead, id, url.Values{"path": {path}}, nil)
	if err != nil {
		return wire.PathStat{}, err
	}
	defer drain(resp)
	return decodePathStat(resp.Header.Get(pathStat))
}

// CopyFrom opens a path of a container as a tar.
func (c *Client) CopyFrom(ctx context.Context, id, path string) (io.ReadCloser, wire.PathStat, error) {
	resp, err := c.archive(ctx, http.MethodGet, id, url.Values{"path": {path}}, nil)
	if err != nil {
		return nil, wire.PathStat{}, err
	}
	stat, err := decodePathStat(resp.Header.Get(pathStat))
	if err != nil {
		resp.Body.Close()
		return nil, stat, err
	}
	return resp.Body, stat, nil
}

// CopyOptions say how files are put into a container.
type CopyOptions struct {
	CopyUIDGID           bool // keep the archive's owners
	AllowOverwriteDirDir bool // a file may take a directory's place, and the other way round
}

// CopyTo unpacks a tar into a directory of a container.
func (c *Client) CopyTo(ctx context.Context, id, path string, tar io.Reader, o CopyOptions) error {
	q := url.Values{"path": {path}}
	if !o.AllowOverwriteDirDir {
		q.Set("noOverwriteDirNonDir", "true")
	}
	if o.CopyUIDGID {
		q.Set("copyUIDGID", "true")
	}
	resp, err := c.archive(ctx, http.MethodPut, id, q, tar)
	if err != nil {
		return err
	}
	drain(resp)
	return nil
}

func (c *Client) archive(ctx context.Context, method, id string, q url.Values, tar io.Reader) (*http.Response, error) {
	path, err := containerPath(id, "archive")
	if err != nil {
		return nil, err
	}
	return c.send(ctx, request{method: method, path: path, query: q, body: tar, kind: "application/x-tar"})
}

func decodePathStat(header string) (wire.PathStat, error) {
	var v wire.PathStat
	data, err := base64.StdEncoding.DecodeString(header)
	if err != nil {
		return v, fmt.Errorf("decode the header %s: %w", pathStat, err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return v, fmt.Errorf("decode the header %s: %w", pathStat, err)
	}
	return v, nil
}
