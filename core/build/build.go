package build

import (
	"context"
	"io"
	"log/slog"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
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

// Executor runs the command of a step to its end.
type Executor interface {
	RunStep(ctx context.Context, step Step) (exitCode int, err error)
}

// Options are what a Solver is made of.
type Options struct {
	Images   *image.Store
	Layers   *layer.Store
	Executor Executor
	DB       *state.DB
	Root     string
	Logger   *slog.Logger
}

// Solver solves build graphs.
type Solver struct{ o Options }

// New returns a solver.
func New(o Options) *Solver { return &Solver{o} }

// Solve makes the graph's target an image and returns its ID.
func (s *Solver) Solve(ctx context.Context, g wire.BuildGraph, locals map[string]string, progress func(wire.Message)) (digest.Digest, error) {
	return "", fault.New(fault.NotImplemented, "build: being written")
}

// Prune removes cached steps.
func (s *Solver) Prune(ctx context.Context, all bool, filters map[string][]string) (wire.BuildPrune, error) {
	return wire.BuildPrune{}, fault.New(fault.NotImplemented, "build: being written")
}

// Usage lists the cached steps.
func (s *Solver) Usage(ctx context.Context) ([]wire.BuildCacheRecord, error) {
	return nil, fault.New(fault.NotImplemented, "build: being written")
}
