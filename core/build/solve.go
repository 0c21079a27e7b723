package build

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/wire"
)

// result is what a node came to: an image, local files, or for scratch neither.
type result struct {
	image *image.Image
	key   string     // of the cache's row that led to the image, "" when none did
	local *localTree // of op local
}

// chain is the filesystem of the result; scratch has an empty one.
func (r result) chain() digest.Digest {
	if r.image == nil {
		return ""
	}
	return r.image.ChainID
}

// config is the image's configuration, to be changed by the caller.
func (r result) config() wire.ContainerConfig {
	if r.image == nil {
		return wire.ContainerConfig{}
	}
	return cloneConfig(r.image.ContainerConfig)
}

// id stands for the result in keys.
func (r result) id() string {
	if r.image == nil {
		return "scratch"
	}
	return r.image.ID.String()
}

// beginning is the time of what has no base image, 1980-01-01: the oldest that zip archives know.
var beginning = time.Unix(315532800, 0).UTC()

// created is the time of all that is made on top of the result.
func (r result) created() time.Time {
	if r.image == nil || r.image.Config.Created == nil || r.image.Config.Created.Before(beginning) {
		return beginning
	}
	return r.image.Config.Created.UTC().Truncate(time.Second)
}

// future is a node's result, there when done is closed.
type future struct {
	done  chan struct{}
	value result
}

// solve is one build.
type solve struct {
	*Solver
	graph   wire.BuildGraph
	needed  []bool
	futures []*future
	out     *printer
	temp    string // a directory that ends with the build
	serial  string // makes keys of this build its own

	locals map[string]*localTree

	used map[string]bool // keys this build stands on; Solver.mu guards it

	mu   sync.Mutex
	hits map[string]bool // keys found in the cache
}

func newSolve(s *Solver, g wire.BuildGraph, locals map[string]string, needed []bool, temp string, progress func(wire.Message)) *solve {
	v := &solve{
		Solver: s, graph: g, needed: needed, temp: temp, serial: rand.Text(),
		futures: make([]*future, len(g.Nodes)), out: newPrinter(progress),
		locals: map[string]*localTree{}, hits: map[string]bool{}, used: map[string]bool{},
	}
	for i, n := range g.Nodes {
		if !needed[i] {
			continue
		}
		v.futures[i] = &future{done: make(chan struct{})}
		switch {
		case n.Op == "scratch": // there is nothing to do and nothing to tell
		case n.Local == nil:
			v.out.total++
		case v.locals[n.Local.Name] == nil:
			v.locals[n.Local.Name] = &localTree{name: n.Local.Name, dir: locals[n.Local.Name], digests: map[string]digest.Digest{}}
		}
	}
	return v
}

// solve runs every needed node as soon as its inputs are there; the first error ends all.
func (v *solve) solve(ctx context.Context) (digest.Digest, error) {
	group, gctx := errgroup.WithContext(ctx)
	for i := range v.graph.Nodes {
		if !v.needed[i] {
			continue
		}
		group.Go(func() error {
			for _, in := range inputs(v.graph.Nodes[i]) {
				select {
				case <-v.futures[in].done:
				case <-gctx.Done():
					return gctx.Err()
				}
			}
			r, err := v.node(gctx, i)
			if err != nil {
				return located(v.graph.Nodes[i], err)
			}
			v.futures[i].value = r
			close(v.futures[i].done)
			return nil
		})
	}
	err := group.Wait()
	v.touch()
	if ctx.Err() != nil {
		return "", fault.As(fault.Canceled, fmt.Errorf("build: %w", context.Cause(ctx)))
	}
	if err != nil {
		return "", err
	}
	target := v.value(v.graph.Target)
	if target.image == nil {
		// The target is scratch itself: an image of nothing.
		img, err := v.o.Images.Commit(ctx, image.CommitRequest{Comment: comment, CreatedBy: "FROM scratch", Created: beginning})
		if err != nil {
			return "", err
		}
		return img.ID, nil
	}
	v.keep(target)
	return target.image.ID, nil
}

// value is the result of a node that is done.
func (v *solve) value(i int) result { return v.futures[i].value }

func (v *solve) node(ctx context.Context, i int) (result, error) {
	n := v.graph.Nodes[i]
	switch n.Op {
	case "scratch":
		return result{}, nil
	case "image":
		return v.base(ctx, n)
	case "local":
		return result{local: v.locals[n.Local.Name]}, nil
	case "run":
		return v.step(ctx, i, &runStep{solve: v, n: n.Run})
	case "copy":
		return v.step(ctx, i, &copyStep{solve: v, n: n.Copy})
	default:
		return v.step(ctx, i, &configStep{solve: v, n: n.Config})
	}
}

// base finds the image of a name, and pulls it when it is not here.
func (v *solve) base(ctx context.Context, n wire.BuildNode) (result, error) {
	line := v.out.step("FROM " + n.Image.Ref)
	img, err := v.o.Images.Use(ctx, n.Image.Ref)
	if fault.Is(err, fault.NotFound) {
		if err = v.o.Images.Pull(ctx, n.Image.Ref, "", nil, line.pulled); err == nil {
			img, err = v.o.Images.Use(ctx, n.Image.Ref)
		}
	}
	line.end(err)
	if err != nil {
		return result{}, fmt.Errorf("image %s: %w", n.Image.Ref, err)
	}
	return result{image: img}, nil
}

// operation is a step whose result is cached.
type operation interface {
	// base is what the result stands on.
	base() result
	// describe is the row of the image's history.
	describe() string
	// key digests all that the result depends on.
	key(ctx context.Context) (string, error)
	// make makes the image.
	make(ctx context.Context, log *stepLog) (*image.Image, error)
}

// step answers from the cache, joins an equal step of another build, or makes the image.
func (v *solve) step(ctx context.Context, i int, op operation) (result, error) {
	key, err := op.key(ctx)
	if err != nil {
		return result{}, err
	}
	line := v.out.step(op.describe())
	v.use(key)
	flightKey := key
	if v.graph.NoCache {
		flightKey += v.serial // equal steps of this build are one, those of others are not asked
	} else if img := v.cached(ctx, key); img != nil {
		line.cached()
		return result{image: img, key: key}, nil
	}
	img, err := v.flights.do(ctx, flightKey, line, func(ctx context.Context, log *stepLog) (*image.Image, error) {
		began := time.Now()
		img, err := op.make(ctx, log)
		if err == nil {
			err = v.save(key, op, v.parents(i), img, began)
		}
		return img, err
	})
	line.end(err)
	if err != nil {
		return result{}, err
	}
	return result{image: img, key: key}, nil
}

// parents are the cache keys of a node's inputs.
func (v *solve) parents(i int) []string {
	var keys []string
	for _, in := range inputs(v.graph.Nodes[i]) {
		if key := v.value(in).key; key != "" {
			keys = append(keys, key)
		}
	}
	return keys
}

// turn waits for the right to run a step.
func (s *Solver) turn(ctx context.Context) (release func(), err error) {
	select {
	case s.running <- struct{}{}:
		return func() { <-s.running }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// comment marks what the solver made in an image's history.
const comment = "sampan.build"

// newID names a step's container and snapshot.
func newID() string { return "build-" + strings.ToLower(rand.Text()) }
