// Package apply carries out a plan through the engine's API: everything that does not need another
// thing to be done first is done at the same time, and what was asked to be healthy is waited for.
//
// There is no state of its own. What is made carries labels, so that an apply that was interrupted,
// at any instruction, goes on with the next one: its plan has just the rest.
//
//	p, err := plan.Make(ctx, engine, graph)
//	result, err := apply.Run(ctx, engine, graph, p, apply.Options{})
//
// run.go orders the operations and runs them; wait.go waits for conditions; request.go makes the
// bodies of requests.
package apply

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/graph"
	"github.com/sampan-project/sampan/starlark/plan"
)

// Engine is what applying calls; *client.Client is one.
type Engine interface {
	plan.Engine
	ContainerCreate(ctx context.Context, name, platform string, r wire.ContainerCreateRequest) (wire.ContainerCreateResponse, error)
	ContainerStart(ctx context.Context, id string) error
	ContainerStop(ctx context.Context, id, signal string, timeout *int) error
	ContainerRemove(ctx context.Context, id string, o client.RemoveOptions) error
	ContainerLogs(ctx context.Context, id string, o client.LogOptions) (io.ReadCloser, error)
	ImagePull(ctx context.Context, ref, platform string, auth *wire.AuthConfig, each func(wire.Message) error) error
	ImageRemove(ctx context.Context, ref string, force, noPrune bool) ([]wire.ImageDelete, error)
	NetworkCreate(ctx context.Context, r wire.NetworkCreateRequest) (wire.NetworkCreateResponse, error)
	NetworkInspect(ctx context.Context, ref string) (wire.NetworkInspect, error)
	NetworkRemove(ctx context.Context, ref string) error
	VolumeCreate(ctx context.Context, r wire.VolumeCreateRequest) (wire.Volume, error)
	VolumeRemove(ctx context.Context, name string, force bool) error
	Build(ctx context.Context, g wire.BuildGraph, locals func(*tar.Writer) error, each func(wire.Message) error) (string, error)
}

var _ Engine = (*client.Client)(nil)

// Options say how; the zero value will do.
type Options struct {
	Parallel int           // operations at the same time; 0 is 8
	Timeout  time.Duration // the longest that a condition is waited for; 0 is five minutes
	Poll     time.Duration // how often a condition is looked at; 0 is 100 ms
	// Auth gives the login for an image to be pulled.
	Auth func(ref string) (*wire.AuthConfig, error)
	// Proxies are a build's (wire.BuildGraph).
	Proxies map[string]string
	// Event is told when an operation begins and ends, one call at a time.
	Event func(Event)
	// Message gets what builds and pulls say, one call at a time.
	Message func(a graph.Address, m wire.Message)
}

// Event is the beginning or the end of an operation.
type Event struct {
	Address graph.Address
	Verb    string // creating, created; building, built; removing, removed; waiting for
	Done    bool
	Took    time.Duration
	Err     error
}

// Result is what an apply came to.
type Result struct {
	Outputs []Output
}

// Output is a value that the script asked to be printed.
type Output struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Secret bool   `json:"-"`
}

// runner is one apply.
type runner struct {
	engine  Engine
	graph   *graph.Graph
	plan    *plan.Plan
	o       Options
	say     sync.Mutex
	pulls   map[string]func() error
	pulling sync.Mutex
}

// Run carries out a plan. Errors name the line that declared what failed; what does not depend on
// it is done all the same.
func Run(ctx context.Context, e Engine, g *graph.Graph, p *plan.Plan, o Options) (Result, error) {
	if o.Parallel <= 0 {
		o.Parallel = 8
	}
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Minute
	}
	if o.Poll <= 0 {
		o.Poll = 100 * time.Millisecond
	}
	r := &runner{engine: e, graph: g, plan: p, o: o, pulls: map[string]func() error{}}
	if err := r.run(ctx, r.operations()); err != nil {
		return Result{}, err
	}
	r.sweep(ctx)
	return r.outputs(ctx)
}

// sweep clears away images that no name means any more. One that something still uses stays.
func (r *runner) sweep(ctx context.Context) {
	stale := append([]string(nil), r.plan.Leftovers...)
	for _, c := range r.plan.Changes {
		if c.Action == plan.Update && c.Have != nil {
			if now, err := r.engine.ImageInspect(ctx, c.Name); err == nil && now.ID != c.Have.ID {
				stale = append(stale, c.Have.ID)
			}
		}
	}
	for _, id := range stale {
		_, _ = r.engine.ImageRemove(ctx, id, false, false) // in use, or gone: either is fine
	}
}

func (r *runner) outputs(ctx context.Context) (Result, error) {
	var result Result
	if r.graph == nil {
		return result, nil
	}
	for _, o := range r.graph.Outputs {
		out := Output{Name: o.Name}
		if u := o.Value.Unknown; u != nil && u.Of().IsZero() {
			out.Value, out.Secret = o.Value.String(), true // a secret is shown by nobody
		} else {
			v, err := o.Value.Resolve(ctx, r.lookup(ctx))
			if err != nil {
				return result, r.place(o.Site, fmt.Sprintf("output %q", o.Name), err)
			}
			out.Value = v
		}
		result.Outputs = append(result.Outputs, out)
	}
	return result, nil
}

// place puts an error at the line that declared what failed. One of a build step has its own line.
func (r *runner) place(site diag.Site, subject string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if placed, ok := r.graph.Session.Files.Placed(err); ok {
		placed.Subject = subject
		return placed
	}
	if site.IsZero() {
		return fmt.Errorf("%s: %w", subject, err)
	}
	p := &diag.Problem{Subject: subject, Message: err.Error(), Cause: err}
	var said *diag.Problem
	if errors.As(err, &said) {
		p.Cure, p.Nearest = said.Cure, said.Nearest
	}
	return site.Error(p)
}

// lookup answers fields of resources that exist by now.
func (r *runner) lookup(ctx context.Context) graph.Lookup {
	return func(a graph.Address, field string) (string, error) {
		res := r.graph.Find(a)
		if res == nil {
			return "", fault.New(fault.NotFound, "%s: no such resource", a)
		}
		switch a.Kind {
		case graph.KindContainer:
			c, err := r.engine.ContainerInspect(ctx, res.Name, false)
			if err != nil {
				return "", err
			}
			if field == "id" {
				return c.ID, nil
			}
			ip := Address(c)
			if ip == "" {
				return "", fault.New(fault.Unavailable, "%s has no address: is it running, and in a network?", a)
			}
			return ip, nil
		case graph.KindNetwork:
			n, err := r.engine.NetworkInspect(ctx, res.Name)
			return n.ID, err
		case graph.KindImage:
			i, err := r.engine.ImageInspect(ctx, res.Name)
			return i.ID, err
		}
		return "", fault.New(fault.Invalid, "%s has no field %q", a, field)
	}
}

// Address is the address of a container: on the network that it was made with, or else its first.
func Address(c wire.ContainerInspect) string {
	s := c.NetworkSettings
	if s == nil {
		return ""
	}
	if c.HostConfig != nil {
		if n := s.Networks[c.HostConfig.NetworkMode]; n != nil && n.IPAddress != "" {
			return n.IPAddress
		}
	}
	var names []string
	for name := range s.Networks {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if n := s.Networks[name]; n != nil && n.IPAddress != "" {
			return n.IPAddress
		}
	}
	return s.IPAddress
}

// pull gets an image once, however many containers want it.
func (r *runner) pull(ctx context.Context, a graph.Address, ref, platform, policy string) error {
	r.pulling.Lock()
	get, ok := r.pulls[ref]
	if !ok {
		get = sync.OnceValue(func() error { return r.pullNow(ctx, a, ref, platform, policy) })
		r.pulls[ref] = get
	}
	r.pulling.Unlock()
	return get()
}

func (r *runner) pullNow(ctx context.Context, a graph.Address, ref, platform, policy string) error {
	if policy != "always" {
		_, err := r.engine.ImageInspect(ctx, ref)
		if err == nil || !fault.Is(err, fault.NotFound) || policy == "never" {
			return err
		}
	}
	var auth *wire.AuthConfig
	if r.o.Auth != nil {
		var err error
		if auth, err = r.o.Auth(ref); err != nil {
			return err
		}
	}
	return r.engine.ImagePull(ctx, ref, platform, auth, r.messages(a))
}

func (r *runner) messages(a graph.Address) func(wire.Message) error {
	return func(m wire.Message) error {
		if r.o.Message != nil {
			r.say.Lock()
			defer r.say.Unlock()
			r.o.Message(a, m)
		}
		return nil
	}
}

func (r *runner) event(e Event) {
	if r.o.Event != nil {
		r.say.Lock()
		defer r.say.Unlock()
		r.o.Event(e)
	}
}
