package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/sparsejson"
	"github.com/sampan-project/sampan/core/wire"
)

// request is one call of the API. Path begins after the version.
type request struct {
	method  string
	path    string
	query   url.Values
	header  http.Header
	json    any       // sent as JSON, unless nil
	body    io.Reader // sent as it is, when json is nil
	plain   bool      // the path has no version in front
	kind    string    // content type of body
	upgrade bool      // ask for the connection itself
}

// send sends r and returns the answer if its status is below 400; the caller closes its body.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	return c.exchange(ctx, r, func(req *http.Request) (*http.Response, error) { return c.http.Do(req) })
}

// exchange builds r, lets do perform it, and turns a refusal into an error. It sends a request with
// a body that cannot be sent twice only after a version is agreed.
func (c *Client) exchange(ctx context.Context, r request, do func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	payload, err := r.payload()
	if err != nil {
		return nil, err
	}
	if r.body != nil && !r.plain && !c.pinned && !c.agreed.Load() {
		if _, err := c.Ping(ctx); err != nil {
			return nil, err
		}
	}
	for {
		tried := c.Version()
		body := r.body
		if payload != nil {
			body = bytes.NewReader(payload)
		}
		req, err := c.build(ctx, r, body)
		if err != nil {
			return nil, err
		}
		resp, err := do(req)
		if err != nil {
			return nil, transportError(ctx, err)
		}
		if resp.StatusCode < 400 {
			c.agreed.Store(true)
			return resp, nil
		}
		if resp.StatusCode == http.StatusBadRequest && r.body == nil && !r.plain && c.lower(resp.Header.Get("Api-Version"), tried) {
			drain(resp)
			continue
		}
		return nil, statusError(resp)
	}
}

func (r request) payload() ([]byte, error) {
	if r.json == nil {
		return nil, nil
	}
	data, err := sparsejson.Marshal(r.json)
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	return data, nil
}

func (c *Client) build(ctx context.Context, r request, body io.Reader) (*http.Request, error) {
	target := "http://" + c.dialer.authority()
	if !r.plain {
		target += "/v" + c.Version()
	}
	target += r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, fault.As(fault.Invalid, err)
	}
	for k, v := range c.headers {
		req.Header.Set(k, v)
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", c.userAgent)
	switch {
	case r.json != nil:
		req.Header.Set("Content-Type", "application/json")
	case r.body != nil && r.kind != "":
		req.Header.Set("Content-Type", r.kind)
	case r.upgrade || r.method == http.MethodPost:
		req.Header.Set("Content-Type", "text/plain")
	}
	if r.upgrade {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "tcp")
	}
	return req, nil
}

// lower makes the server's version ours when it is below what was tried.
func (c *Client) lower(server, tried string) bool {
	if c.pinned || server == "" || !olderVersion(server, tried) {
		return false
	}
	c.version.Store(&server)
	return true
}

// call sends r and decodes the answer's JSON into out, unless out is nil.
func (c *Client) call(ctx context.Context, r request, out any) error {
	resp, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer drain(resp)
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return transportError(ctx, fmt.Errorf("decode the answer to %s %s: %w", r.method, r.path, err))
	}
	return nil
}

// call is Client.call with a result.
func call[T any](ctx context.Context, c *Client, r request) (T, error) {
	var v T
	err := c.call(ctx, r, &v)
	return v, err
}

func get[T any](ctx context.Context, c *Client, path string, query url.Values) (T, error) {
	return call[T](ctx, c, request{method: http.MethodGet, path: path, query: query})
}

// list gets an array, element by element as it comes: of a long one neither the text nor the time until its end is
// spent twice.
func list[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: path, query: query})
	if err != nil {
		return nil, err
	}
	defer drain(resp)
	broken := func(err error) error {
		return transportError(ctx, fmt.Errorf("decode the answer to GET %s: %w", path, err))
	}
	d := json.NewDecoder(resp.Body)
	switch begin, err := d.Token(); {
	case err != nil:
		return nil, broken(err)
	case begin == nil: // null
		return nil, nil
	case begin != json.Delim('['):
		return nil, broken(fmt.Errorf("it begins with %v, expected an array", begin))
	}
	all := []T{}
	for d.More() {
		var v T
		all = append(all, v)
		if err := d.Decode(&all[len(all)-1]); err != nil {
			return nil, broken(err)
		}
	}
	if _, err := d.Token(); err != nil { // the end of the array, or what cut it off
		return nil, broken(err)
	}
	return all, nil
}

func post[T any](ctx context.Context, c *Client, path string, query url.Values, body any) (T, error) {
	return call[T](ctx, c, request{method: http.MethodPost, path: path, query: query, json: body})
}

// prune posts to the prune verb of a noun.
func prune[T any](ctx context.Context, c *Client, path string, f Filters) (T, error) {
	var v T
	q := url.Values{}
	if err := setFilters(q, f); err != nil {
		return v, err
	}
	return post[T](ctx, c, path, q, nil)
}

func decode[T any](data []byte) (T, error) {
	var v T
	err := json.Unmarshal(data, &v)
	return v, err
}

func (c *Client) post(ctx context.Context, path string, query url.Values, body, out any) error {
	return c.call(ctx, request{method: http.MethodPost, path: path, query: query, json: body}, out)
}

func (c *Client) delete(ctx context.Context, path string, query url.Values, out any) error {
	return c.call(ctx, request{method: http.MethodDelete, path: path, query: query}, out)
}

// drain reads what little is left, so that the connection can be used again.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 4096)
	resp.Body.Close()
}

// StatusError is a refusal in the server's own words. errors.As finds it below the class.
type StatusError struct {
	Status  int // of HTTP
	Message string
}

func (e *StatusError) Error() string { return e.Message }

// classes is the inverse of the table in core/api.
var classes = map[int]fault.Class{
	http.StatusNotModified:        fault.NotModified,
	http.StatusBadRequest:         fault.Invalid,
	http.StatusUnauthorized:       fault.Unauthorized,
	http.StatusForbidden:          fault.Forbidden,
	http.StatusNotFound:           fault.NotFound,
	http.StatusConflict:           fault.Conflict,
	http.StatusNotImplemented:     fault.NotImplemented,
	http.StatusServiceUnavailable: fault.Unavailable,
	http.StatusGatewayTimeout:     fault.Deadline,
}

// statusError reads the refusal and closes the body.
func statusError(resp *http.Response) error {
	defer resp.Body.Close()
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20)) // what came is all there is to tell
	var body wire.Error
	if err := json.Unmarshal(data, &body); err != nil || body.Message == "" {
		body.Message = strings.TrimSpace(string(data))
	}
	if body.Message == "" {
		body.Message = fmt.Sprintf("the server answered %s", resp.Status)
	}
	return refused(resp.StatusCode, body.Message)
}

func refused(status int, message string) error {
	class, ok := classes[status]
	if !ok && status >= 400 && status < 500 {
		class = fault.Invalid
	}
	return fault.As(class, &StatusError{Status: status, Message: strings.TrimSpace(message)})
}

// transportError strips what net/http adds about a URL that no user has written.
func transportError(ctx context.Context, err error) error {
	var dialled *unreachable
	if errors.As(err, &dialled) {
		return dialled.err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return fault.New(fault.Unavailable, "the connection to the sampan daemon broke: %w", rootCause(err))
	}
	return fault.As(fault.Unavailable, err)
}

func parseVersion(s string) (major, minor int, ok bool) {
	a, b, ok := strings.Cut(s, ".")
	if !ok {
		return 0, 0, false
	}
	major, err := strconv.Atoi(a)
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(b)
	return major, minor, err == nil && major >= 0 && minor >= 0
}

func olderVersion(a, b string) bool {
	aMajor, aMinor, ok := parseVersion(a)
	bMajor, bMinor, _ := parseVersion(b)
	return ok && (aMajor < bMajor || aMajor == bMajor && aMinor < bMinor)
}

// segment checks and escapes the name of a thing as one segment of a path.
func segment(kind, name string) (string, error) {
	if strings.TrimSpace(name) == "" {
		return "", fault.New(fault.Invalid, "invalid %s name or ID: value is empty", kind)
	}
	if name == "." || name == ".." {
		return "", fault.New(fault.NotFound, "No such %s: %s", kind, name)
	}
	return url.PathEscape(name), nil
}

// segments escapes a reference that may have slashes, as an image's has.
func segments(kind, name string) (string, error) {
	parts := strings.Split(name, "/")
	for i, part := range parts {
		escaped, err := segment(kind, part)
		if err != nil {
			return "", fault.New(fault.Invalid, "invalid reference format: %q", name)
		}
		parts[i] = escaped
	}
	return strings.Join(parts, "/"), nil
}

// Filters are the conditions of a list or a prune: by key, the values of which one must match.
type Filters = map[string][]string

// setFilters encodes filters as the API wants them: {"key":{"value":true}}.
func setFilters(q url.Values, f Filters) error {
	if len(f) == 0 {
		return nil
	}
	set := make(map[string]map[string]bool, len(f))
	for key, values := range f {
		set[key] = make(map[string]bool, len(values))
		for _, v := range values {
			set[key][v] = true
		}
	}
	data, err := json.Marshal(set)
	if err != nil {
		return fmt.Errorf("encode the filters: %w", err)
	}
	q.Set("filters", string(data))
	return nil
}

func setBool(q url.Values, key string, on bool) {
	if on {
		q.Set(key, "1")
	}
}
