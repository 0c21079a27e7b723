// Package script runs Starlark files hermetically.
//
// A Session is one evaluation: of an env.star, a build.star or a script, with every file that it
// loads. Evaluation has no clock, no network, no random numbers and no handle to the engine. What it
// learns of the world it learns by declared inputs (arg, env.get, read, glob), which the session
// records with their digests. Its steps, memory and time are limited, and it stops when its context
// ends.
//
//	s := script.New(script.Options{Dir: wd, Args: args, Environ: os.LookupEnv})
//	file, err := s.Entry("env.star")
//	globals, err := s.Run(ctx, file, universe)       // loads, evaluates, freezes
//	value, err := s.Call(ctx, globals["main"], ...)  // a function of it
//	return s.Files.Explain(err)
//
// Names of files are labels: "//dir/x.star" from the workspace's root, ":x.star" from the folder of
// the file that says so, "@std//web.star" from the standard library. In messages a file is shown
// relative to the working directory.
package script

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	starmath "go.starlark.net/lib/math"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/starlark/diag"
)

// Limits bound one evaluation. Zero fields are the defaults.
type Limits struct {
	Steps  uint64        // of the interpreter
	Memory uint64        // bytes that the heap may grow, approximately
	Time   time.Duration // negative: none, for scripts whose effects wait for the world
}

// The defaults: an environment of a thousand containers takes some 2 million steps and 50 MiB.
const (
	defaultSteps  = 50_000_000
	defaultMemory = 512 << 20
	defaultTime   = 60 * time.Second
)

// Options say what an evaluation may see.
type Options struct {
	Dir     string                           // the working directory, absolute
	Args    map[string]string                // values of arg(), by name
	Environ func(name string) (string, bool) // what env.get asks; nil: no variable is set
	Limits  Limits
	Print   func(at diag.Span, message string) // what print() does; nil: nothing
}

// Session is one evaluation.
type Session struct {
	Files  *diag.Files
	Inputs *Inputs

	options Options
	root    string // the workspace's root, absolute
	modules *modules
}

// New begins an evaluation.
func New(o Options) *Session {
	if o.Limits.Steps == 0 {
		o.Limits.Steps = defaultSteps
	}
	if o.Limits.Memory == 0 {
		o.Limits.Memory = defaultMemory
	}
	if o.Limits.Time == 0 {
		o.Limits.Time = defaultTime
	}
	if o.Environ == nil {
		o.Environ = func(string) (string, bool) { return "", false }
	}
	return &Session{Files: &diag.Files{}, Inputs: newInputs(o.Args), options: o, modules: newModules(nil)}
}

// Fork is a session that evaluates other files in the course of this one, with a universe of its
// own: a build.star that an env.star names. It shares the files, the inputs and the limits.
func (s *Session) Fork(universe starlark.StringDict, args map[string]string) *Session {
	o := s.options
	if args != nil {
		o.Args = args
	}
	f := &Session{Files: s.Files, Inputs: s.Inputs, options: o, root: s.root, modules: newModules(universe)}
	if args != nil {
		f.Inputs = s.Inputs.fork(args)
	}
	return f
}

// Root is the workspace's root.
func (s *Session) Root() string { return s.root }

// Entry finds the file that evaluation begins with, and with it the workspace's root: the nearest
// folder at or above the file that has a sampan.lock or a .git, or else the file's own folder.
func (s *Session) Entry(name string) (File, error) {
	abs := name
	if !filepath.IsAbs(abs) {
		abs = filepath.Join(s.options.Dir, name)
	}
	info, err := os.Stat(abs)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return File{}, fault.New(fault.NotFound, "%s: no such file", s.show(abs))
	case err != nil:
		return File{}, fault.New(fault.Invalid, "%s: %w", s.show(abs), errors.Unwrap(err))
	case info.IsDir():
		return File{}, fault.New(fault.Invalid, "%s: expected a script, got a directory", s.show(abs))
	}
	s.root = workspace(filepath.Dir(abs))
	return File{path: abs, Name: s.show(abs)}, nil
}

func workspace(dir string) string {
	for at := dir; ; at = filepath.Dir(at) {
		for _, mark := range []string{"sampan.lock", ".git"} {
			if _, err := os.Lstat(filepath.Join(at, mark)); err == nil {
				return at
			}
		}
		if at == filepath.Dir(at) {
			return dir
		}
	}
}

// show is a path as messages have it: relative to the working directory when it is below it.
func (s *Session) show(abs string) string {
	if rel, err := filepath.Rel(s.options.Dir, abs); err == nil && filepath.IsLocal(rel) {
		return filepath.ToSlash(rel)
	}
	return abs
}

// Run evaluates a file with the universe of names and returns its globals, frozen.
func (s *Session) Run(ctx context.Context, file File, universe starlark.StringDict) (starlark.StringDict, error) {
	s.modules.universe = universe
	return s.modules.load(ctx, s, file, nil)
}

// Call calls a function of an evaluated file on a thread of its own.
func (s *Session) Call(ctx context.Context, fn starlark.Value, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	thread, done := s.thread(ctx, "call", nil)
	defer done()
	return starlark.Call(thread, fn, args, kwargs)
}

// The keys of a thread's locals.
const (
	localSession = "sampan.session"
	localContext = "sampan.context"
	localChain   = "sampan.chain"
)

// From is the session that the thread belongs to.
func From(thread *starlark.Thread) *Session {
	s, _ := thread.Local(localSession).(*Session)
	return s
}

// Context is the context of the evaluation that the thread belongs to.
func Context(thread *starlark.Thread) context.Context {
	if ctx, ok := thread.Local(localContext).(context.Context); ok {
		return ctx
	}
	return context.Background()
}

// Site keeps the place where a builtin is being called.
func Site(thread *starlark.Thread) diag.Site {
	s := From(thread)
	if s == nil {
		return diag.Site{}
	}
	return s.Files.Site(thread)
}

// thread makes a limited thread; done ends the watch over it.
func (s *Session) thread(ctx context.Context, name string, chain []File) (*starlark.Thread, func()) {
	t := &starlark.Thread{Name: name, Load: s.modules.loader}
	t.Print = func(t *starlark.Thread, msg string) {
		if s.options.Print != nil {
			s.options.Print(Site(t).Span(), msg)
		}
	}
	t.SetMaxExecutionSteps(s.options.Limits.Steps)
	t.OnMaxSteps = func(t *starlark.Thread) {
		t.Cancel(fmt.Sprintf("the script takes more than %d steps", s.options.Limits.Steps))
	}
	t.SetLocal(localSession, s)
	t.SetLocal(localContext, ctx)
	t.SetLocal(localChain, chain)
	if err := ctx.Err(); err != nil {
		t.Cancel(interrupted(err))
	}
	return t, s.watch(ctx, t)
}

func interrupted(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "the script takes too long"
	}
	return "interrupted"
}

// watch cancels the thread when its context ends, its time is over, or the heap has grown too far.
// The heap is the whole process's, so the limit is approximate; it is there to end a runaway script
// before the machine swaps.
func (s *Session) watch(ctx context.Context, t *starlark.Thread) (done func()) {
	end := make(chan struct{})
	var gone sync.WaitGroup
	gone.Go(func() {
		start, began := heap(), time.Now()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-ctx.Done():
				t.Cancel(interrupted(ctx.Err()))
				return
			case <-tick.C:
			}
			if now := heap(); now > start && now-start > s.options.Limits.Memory {
				t.Cancel(fmt.Sprintf("the script uses more than %d MiB of memory", s.options.Limits.Memory>>20))
				return
			}
			if s.options.Limits.Time > 0 && time.Since(began) > s.options.Limits.Time {
				t.Cancel(fmt.Sprintf("the script takes longer than %s", s.options.Limits.Time))
				return
			}
		}
	})
	return func() { close(end); gone.Wait() }
}

// heap is asked for so rarely that stopping the world is nothing; package runtime/metrics, which does not, makes every
// start of a client longer.
func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// dialect is the language: Starlark with sets and with if and for at the top of a file; no recursion
// and no while, so that every script ends.
var dialect = &syntax.FileOptions{Set: true, TopLevelControl: true}

// Universe is what every file sees, beside the builtins of its kind. extra wins.
func (s *Session) Universe(extra starlark.StringDict) starlark.StringDict {
	u := starlark.StringDict{
		"struct": starlark.NewBuiltin("struct", starlarkstruct.Make),
		"math":   starmath.Module,
	}
	for name, v := range guards() {
		u[name] = v
	}
	for name, v := range s.inputBuiltins() {
		u[name] = v
	}
	for name, v := range extra {
		u[name] = v
	}
	return u
}

// At is the file at an absolute path of the workspace, as Path and Local return it.
func (s *Session) At(abs string) (File, error) {
	f := File{path: abs, Name: s.show(abs)}
	in, err := s.open(abs)
	if err != nil {
		return File{}, err
	}
	return f, in.Close()
}
