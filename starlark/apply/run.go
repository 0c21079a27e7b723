package apply

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/graph"
	"github.com/sampan-project/sampan/starlark/plan"
)

// operation is one thing to do, after others.
type operation struct {
	address     graph.Address
	site        diag.Site
	doing, done string
	after       []*operation
	do          func(ctx context.Context) error

	ended chan struct{}
	err   error
}

var errSkipped = errors.New("skipped: what it needs failed")

// operations makes the graph of what the plan says. Each change removes, makes, or both. Three rules
// order them: what is needed is made before its user; what is used is removed after its users; and
// an old container goes only when the image of the new one is there.
func (r *runner) operations() []*operation {
	var all, containers []*operation
	remove := make([]*operation, len(r.plan.Changes)) // of each change, or nil
	mk := make([]*operation, len(r.plan.Changes))
	removes, makes := map[graph.Address][]*operation{}, map[graph.Address]*operation{}
	for i := range r.plan.Changes {
		c := &r.plan.Changes[i]
		if c.Action == plan.Delete || c.Action == plan.Replace {
			remove[i] = r.remove(c)
			removes[c.Address] = append(removes[c.Address], remove[i])
			if all = append(all, remove[i]); c.Address.Kind == graph.KindContainer {
				containers = append(containers, remove[i])
			}
		}
		if c.Action != plan.Delete {
			mk[i] = r.make(c)
			makes[c.Address] = mk[i]
			all = append(all, mk[i])
		}
	}
	for i := range r.plan.Changes {
		c := &r.plan.Changes[i]
		if remove[i] != nil && c.Address.Kind != graph.KindContainer {
			remove[i].after = append(remove[i].after, containers...)
		}
		if mk[i] != nil {
			mk[i].after = append(mk[i].after, removes[c.Address]...)
		}
		if c.Resource == nil {
			continue // it is no longer declared: what it needed is not known
		}
		for _, n := range c.Resource.Needs {
			if made := makes[n.On]; made != nil && mk[i] != nil {
				mk[i].after = append(mk[i].after, made)
				if remove[i] != nil && n.On.Kind == graph.KindImage {
					remove[i].after = append(remove[i].after, made)
				}
			}
			if remove[i] != nil && n.On.Kind == graph.KindContainer {
				for _, used := range removes[n.On] {
					used.after = append(used.after, remove[i])
				}
			}
		}
	}
	return all
}

// run runs the operations, each when those before it have succeeded.
func (r *runner) run(ctx context.Context, all []*operation) error {
	slots := make(chan struct{}, r.o.Parallel)
	var group sync.WaitGroup
	for _, op := range all {
		op.ended = make(chan struct{})
	}
	for _, op := range all {
		group.Go(func() {
			defer close(op.ended)
			for _, before := range op.after {
				<-before.ended
				if before.err != nil {
					op.err = errSkipped
					return
				}
			}
			slots <- struct{}{}
			defer func() { <-slots }()
			op.err = ctx.Err()
			if op.err == nil {
				op.err = r.one(ctx, op)
			}
		})
	}
	group.Wait()
	return r.failures(ctx, all)
}

func (r *runner) one(ctx context.Context, op *operation) error {
	began := time.Now()
	r.event(Event{Address: op.address, Verb: op.doing})
	err := op.do(ctx)
	if err != nil {
		err = r.place(op.site, plan.Subject(op.address), err)
	}
	r.event(Event{Address: op.address, Verb: op.done, Done: true, Took: time.Since(began), Err: err})
	return err
}

// failures joins what went wrong: the first error, and the others with it.
func (r *runner) failures(ctx context.Context, all []*operation) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var errs []error
	for _, op := range all {
		if op.err != nil && !errors.Is(op.err, errSkipped) {
			errs = append(errs, op.err)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	first, ok := errs[0].(*diag.Error) //nolint:errorlint // made by place
	if len(errs) == 1 {
		return errs[0]
	}
	if !ok {
		return errors.Join(errs...)
	}
	many := *first
	for _, err := range errs[1:] {
		if e, ok := err.(*diag.Error); ok { //nolint:errorlint // made by place
			many.More = append(many.More, e)
		} else {
			many.More = append(many.More, &diag.Error{Message: err.Error(), Cause: err})
		}
	}
	return &many
}

// missing makes "it is not there" a success.
func missing(err error) error {
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

func (r *runner) remove(c *plan.Change) *operation {
	op := &operation{address: c.Address, doing: "removing", done: "removed"}
	if c.Resource != nil {
		op.site = c.Resource.Site
	}
	have := c.Have
	op.do = func(ctx context.Context) error {
		switch c.Address.Kind {
		case graph.KindContainer:
			// Stop first, so that the program may end well; removal then is never by force of a signal.
			if err := r.engine.ContainerStop(ctx, have.ID, "", nil); err != nil && !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.NotModified) {
				return err
			}
			return missing(r.engine.ContainerRemove(ctx, have.ID, client.RemoveOptions{Force: true, Volumes: true}))
		case graph.KindNetwork:
			return missing(r.engine.NetworkRemove(ctx, have.ID))
		case graph.KindVolume:
			return missing(r.engine.VolumeRemove(ctx, have.ID, false))
		}
		for _, tag := range have.Tags {
			if _, err := r.engine.ImageRemove(ctx, tag, false, false); missing(err) != nil {
				return err
			}
		}
		return nil
	}
	return op
}

func (r *runner) make(c *plan.Change) *operation {
	op := &operation{address: c.Address, site: c.Resource.Site, doing: "creating", done: "created"}
	switch spec := c.Resource.Spec.(type) {
	case *graph.Image:
		op.doing, op.done = "building", "built"
		op.do = func(ctx context.Context) error { return r.build(ctx, c.Resource, spec) }
	case *graph.Network:
		op.do = func(ctx context.Context) error {
			_, err := r.engine.NetworkCreate(ctx, networkRequest(r.graph.Env, c.Resource, spec))
			return err
		}
	case *graph.Volume:
		op.do = func(ctx context.Context) error {
			_, err := r.engine.VolumeCreate(ctx, volumeRequest(r.graph.Env, c.Resource, spec))
			return err
		}
	case *graph.Container:
		op.doing, op.done = "starting", "started"
		op.do = func(ctx context.Context) error { return r.container(ctx, c, spec) }
	}
	return op
}

// build makes an image: the target of its build script, with labels on top by which it is found.
func (r *runner) build(ctx context.Context, res *graph.Resource, spec *graph.Image) error {
	bases := map[string]string{}
	for _, ref := range spec.Build.Bases {
		if plan.BuiltBy(r.graph, ref) != nil {
			continue
		}
		if err := r.pull(ctx, res.Address, ref, "", "missing"); err != nil {
			return err
		}
		i, err := r.engine.ImageInspect(ctx, ref)
		if err != nil {
			return err
		}
		bases[ref] = i.ID
	}
	own := *res
	labelled := *spec
	labelled.Bases, own.Spec = bases, &labelled
	g := spec.Build.Graph
	g.Nodes = append(g.Nodes[:len(g.Nodes):len(g.Nodes)], wire.BuildNode{
		Op: "config", Position: res.Site.String(),
		Config: &wire.BuildConfig{Base: g.Target, Labels: imageLabels(r.graph.Env, &own)},
	})
	g.Target, g.Tags, g.Proxies = len(g.Nodes)-1, spec.Tags, r.o.Proxies
	_, err := r.engine.Build(ctx, g, spec.Build.WriteLocals, r.messages(res.Address))
	return err
}

// container makes or starts one, when what it waits for is true.
func (r *runner) container(ctx context.Context, c *plan.Change, spec *graph.Container) error {
	res := c.Resource
	if c.Action != plan.Start && plan.BuiltBy(r.graph, spec.Image) == nil {
		if err := r.pull(ctx, res.Address, spec.Image, spec.Platform, spec.Pull); err != nil {
			return err
		}
	}
	for _, n := range res.Needs {
		if err := r.await(ctx, res, n); err != nil {
			return err
		}
	}
	if c.Action == plan.Start {
		return r.engine.ContainerStart(ctx, c.Have.ID)
	}
	q := &requester{ctx: ctx, graph: r.graph, lookup: r.lookup(ctx)}
	body, err := q.container(res, spec)
	if err != nil {
		return err
	}
	made, err := r.engine.ContainerCreate(ctx, res.Name, spec.Platform, body)
	if err != nil {
		return err
	}
	return r.engine.ContainerStart(ctx, made.ID)
}
