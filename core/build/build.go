// Package build solves build graphs: it makes an image of what a build script, or any other frontend,
// describes as a wire.BuildGraph. It knows no format but the graph and no container: commands run
// through the Executor.
//
// Every step that has a result is an image on top of the one before it, and the cache is a table from
// a step's key to that image. A key is the digest of the operation and of what it works on: the IDs
// of images, the content of local files. So a step whose inputs came out the same is not run again,
// whatever happened further up. Results are the same for the same inputs on every machine: files that
// a step writes get the time of the base image, images its creation time.
//
// Where things are: graph.go checks what came from outside; solve.go runs the nodes, independent ones
// side by side; snapshot.go makes an image of what a step changed; flight.go lets equal steps of builds that run at once share one execution; key.go and
// files.go digest inputs; run.go, copy.go and config.go are the operations; tree.go copies files
// between roots, which view.go opens without a mount on the host; cache.go keeps and lists results, prune.go forgets them; progress.go is what a person sees.
//
// A crash leaves a snapshot without an owner, which the layer store removes at the next start, and
// no row: a row is written after its image is.
package build

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/layer"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

// Step is one command to be run.
type Step struct {
	ID             string
	RootMounts     []mount.Mount
	Mounts         []mount.Mount
	Args, Env      []string
	Cwd            string
	User           string
	Network        string
	Hostname       string
	Stdout, Stderr io.Writer
}

// Executor runs the command of a step to its end, or kills it when ctx ends.
type Executor interface {
	RunStep(ctx context.Context, step Step) (exitCode int, err error)
}

// Images is what the solver needs of the image store.
type Images interface {
	Get(ctx context.Context, ref string) (*image.Image, error)
	// Use is Get, if the trust policy permits the image.
	Use(ctx context.Context, ref string) (*image.Image, error)
	Pull(ctx context.Context, ref, platform string, auth *wire.AuthConfig, progress func(wire.Message)) error
	Commit(ctx context.Context, r image.CommitRequest) (*image.Image, error)
	Tag(ctx context.Context, source, target string) error
	Remove(ctx context.Context, ref string, force, noPrune bool) ([]wire.ImageDelete, error)
}

// Options are what a Solver is made of.
type Options struct {
	Images   Images
	Layers   *layer.Store
	Executor Executor
	DB       *state.DB
	Root     string // a directory of the solver's own: cache mounts, files in passing
	Logger   *slog.Logger
	// Events is told of prunes; nil for nobody.
	Events func(action, id string, attributes map[string]string)
}

// Solver solves build graphs. Its methods may be called in parallel.
type Solver struct {
	o       Options
	log     *slog.Logger
	records *state.Table[record]
	flights flights
	// running bounds the steps that run at once, over all builds.
	running chan struct{}

	mu    sync.Mutex
	inUse map[string]int  // keys of steps that a running build stands on
	made  map[string]bool // snapshots of running steps
}

// New returns a solver. It touches nothing before the first build.
func New(o Options) *Solver {
	s := &Solver{
		o: o, log: o.Logger, records: state.NewTable[record](o.DB, "build-cache"),
		flights: flights{running: map[string]*flight{}},
		running: make(chan struct{}, max(2, runtime.GOMAXPROCS(0))),
		inUse:   map[string]int{}, made: map[string]bool{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// Solve makes the graph's target an image, gives it its tags and returns its ID. Locals are the
// directories of local nodes by name; they are read until Solve returns.
func (s *Solver) Solve(ctx context.Context, g wire.BuildGraph, locals map[string]string, progress func(wire.Message)) (digest.Digest, error) {
	needed, err := check(g, locals)
	if err != nil {
		return "", err
	}
	scratch, err := s.tempDir()
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	v := newSolve(s, g, locals, needed, scratch, progress)
	defer v.close()
	id, err := v.solve(ctx)
	if err != nil {
		return "", err
	}
	for _, tag := range g.Tags {
		if err := s.o.Images.Tag(ctx, id.String(), tag); err != nil {
			return "", fmt.Errorf("tag %s: %w", tag, err)
		}
	}
	v.out.finished(id, g.Tags)
	return id, nil
}

const (
	tempName  = "tmp"
	cacheName = "caches"
)

// tempDir makes a directory for one build. What an earlier process left there is of no use to anybody
// and is removed with the first build of this one.
func (s *Solver) tempDir() (string, error) {
	base := filepath.Join(s.o.Root, tempName)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.flights.cleaned {
		if err := os.RemoveAll(base); err != nil {
			return "", fmt.Errorf("build: %w", err)
		}
		s.flights.cleaned = true
	}
	if err := os.MkdirAll(base, 0o700); err != nil {
		return "", fmt.Errorf("build: %w", err)
	}
	dir, err := os.MkdirTemp(base, "build-")
	if err != nil {
		return "", fmt.Errorf("build: %w", err)
	}
	return dir, nil
}
