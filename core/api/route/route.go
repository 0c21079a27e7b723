// Package route is one endpoint of the HTTP API: its method, its path, its handler, and what a
// handler may ask of a request.
//
// core/api/docker and core/api/sampan declare lists of Route; core/api puts them into a Table and
// turns the errors that handlers return into answers. A handler reads its input through Request,
// which is strict: a query parameter of the wrong kind, a body that is too large or is no JSON, and
// a filter that the endpoint does not have are errors that name the input.
package route

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
)

// A Handler answers a request. An error that it returns before it wrote anything becomes the answer.
type Handler func(w http.ResponseWriter, r *Request) error

// A Route is one endpoint. Pattern is a path in which one segment may be a variable, such as
// "/images/{name}/json"; it stands for one or more segments, as names of images have slashes.
type Route struct {
	Method  string
	Pattern string
	Handle  Handler
}

// A Request is a request on its way to a handler.
type Request struct {
	*http.Request
	// Version is the negotiated version of Docker's API; the newest when the path has no prefix.
	Version Version
	// Stopping is closed when the server begins to shut down.
	Stopping <-chan struct{}

	variable string
	upload   io.Reader // what Upload returned
}

// NewRequest returns the request for a handler; variable is what Find returned.
func NewRequest(r *http.Request, v Version, variable string, stopping <-chan struct{}) *Request {
	return &Request{Request: r, Version: v, Stopping: stopping, variable: variable}
}

// Variable returns what the {variable} of the pattern stands for, without leading slashes: clients
// write "/containers//web/json" for the name "/web" that inspect showed them.
func (r *Request) Variable() string { return strings.TrimLeft(r.variable, "/") }

// Stream returns a context for an answer without an end (events, a followed log): it ends when the
// client goes away and when the server shuts down.
func (r *Request) Stream() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	if r.Stopping == nil {
		return ctx, cancel
	}
	go func() {
		select {
		case <-r.Stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// Detached returns a context for a change that must not stop half-way because the client went away.
func (r *Request) Detached() context.Context { return context.WithoutCancel(r.Context()) }

// A Table finds the route of a request.
type Table struct {
	literal  map[string]Handler // method and path
	patterns map[string][]pattern
}

type pattern struct {
	prefix, suffix string
	handle         Handler
}

// NewTable returns the table of the routes. Two routes for one method and pattern are a mistake of
// the program, and panic.
func NewTable(routes ...Route) *Table {
	t := &Table{literal: map[string]Handler{}, patterns: map[string][]pattern{}}
	for _, r := range routes {
		open, end := strings.IndexByte(r.Pattern, '{'), strings.IndexByte(r.Pattern, '}')
		if open < 0 {
			key := r.Method + " " + r.Pattern
			if t.literal[key] != nil {
				panic("two routes for " + key)
			}
			t.literal[key] = r.Handle
			continue
		}
		p := pattern{r.Pattern[:open], r.Pattern[end+1:], r.Handle}
		if slices.ContainsFunc(t.patterns[r.Method], func(q pattern) bool { return q.prefix == p.prefix && q.suffix == p.suffix }) {
			panic("two routes for " + r.Method + " " + r.Pattern)
		}
		t.patterns[r.Method] = append(t.patterns[r.Method], p)
	}
	// The pattern that says most comes first: "/x/{name}/json" before "/x/{name}".
	for _, list := range t.patterns {
		slices.SortStableFunc(list, func(a, b pattern) int {
			return len(b.prefix) + len(b.suffix) - len(a.prefix) - len(a.suffix)
		})
	}
	return t
}

// Find returns the handler for the method and path, and the value of the pattern's variable. A
// path without a route is NotFound, in Docker's words, whatever other methods it has.
func (t *Table) Find(method, path string) (handle Handler, variable string, err error) {
	if h := t.literal[method+" "+path]; h != nil {
		return h, "", nil
	}
	for _, p := range t.patterns[method] {
		middle, ok := strings.CutPrefix(path, p.prefix)
		if !ok {
			continue
		}
		if middle, ok = strings.CutSuffix(middle, p.suffix); ok && strings.Trim(middle, "/") != "" {
			return p.handle, middle, nil
		}
	}
	return nil, "", fault.New(fault.NotFound, "page not found")
}
