// Package recipe is the language of build.star: functions that describe an image as a graph of
// steps, which the daemon solves.
//
//	def server(ctx):
//	    src = ctx.local("src")
//	    made = image("golang:1.26").run(["go", "build", "-o", "/out/server", "."], cwd = "/src", mounts = [src.at("/src")])
//	    return scratch().copy(made.path("/out/server"), "/server").config(entrypoint = ["/server"])
//
// A script's functions are its targets. Evaluate calls one and makes a Build of what it returns: the
// wire.BuildGraph, the local files that go with it, and a digest over both, by which plan sees
// whether an image would be another one. Nothing is run here.
//
// The values are in values.go (Files: a node of the graph and a path in it), their methods in
// steps.go, what ctx offers in context.go, local files in local.go, and graph.go makes the graph.
package recipe

import (
	"context"
	"fmt"
	"sort"
	"strings"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/probe"
	"github.com/sampan-project/sampan/starlark/script"
)

// Build is a target of a build script, evaluated.
type Build struct {
	Target string
	Graph  wire.BuildGraph
	Locals []*Local
	Bases  []string // references of the images that the graph begins with, sorted
	Digest string   // of the graph without positions, and of the local files
}

// Script is a build script that was evaluated once and can be asked for several targets.
type Script struct {
	session *script.Session
	file    script.File
	globals starlark.StringDict
}

// Universe is what build scripts see beside the language itself.
func Universe() starlark.StringDict {
	u := starlark.StringDict{"probe": probe.Module()}
	for _, f := range Funcs() {
		u[f.Name] = f.Builtin()
	}
	return u
}

// Load evaluates a build script. The session's universe must hold Universe.
func Load(ctx context.Context, s *script.Session, file script.File) (*Script, error) {
	u := s.Universe(Universe())
	u["env"] = script.NewValue("module", "env", []arg.Func{s.EnvFunc()})
	globals, err := s.Run(ctx, file, u)
	if err != nil {
		return nil, s.Files.Explain(err)
	}
	return &Script{s, file, globals}, nil
}

// Targets lists the functions that can be built, sorted: those without a leading underscore that
// the file itself defines.
func (s *Script) Targets() []string {
	var names []string
	for name := range s.globals {
		if _, ok := s.target(name); ok {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

func (s *Script) target(name string) (*starlark.Function, bool) {
	fn, ok := s.globals[name].(*starlark.Function)
	return fn, ok && !strings.HasPrefix(name, "_")
}

// Doc is the docstring of a target.
func (s *Script) Doc(target string) string {
	fn, ok := s.target(target)
	if !ok {
		return ""
	}
	return fn.Doc()
}

// choose finds the target of a name. Without a name it is main, or the only one.
func (s *Script) choose(name string) (*starlark.Function, string, error) {
	targets := s.Targets()
	if name == "" {
		if _, ok := s.target("main"); ok {
			name = "main"
		} else if len(targets) == 1 {
			name = targets[0]
		}
	}
	if fn, ok := s.target(name); ok {
		return fn, name, nil
	}
	expected := "one of " + strings.Join(targets, ", ")
	if len(targets) == 0 {
		expected = "a function such as def main(ctx): ..., and " + s.file.Name + " has none"
	}
	if name == "" {
		return nil, "", &diag.Problem{Message: fmt.Sprintf("no target is named and there is no main: expected %s", expected), Cause: fault.New(fault.NotFound, "no such target")}
	}
	return nil, "", &diag.Problem{Message: fmt.Sprintf("no target %q in %s: expected %s", name, s.file.Name, expected),
		Nearest: fault.Nearest(name, targets), Cause: fault.New(fault.NotFound, "no such target")}
}

// Build evaluates a target.
func (s *Script) Build(ctx context.Context, target string) (*Build, error) {
	fn, name, err := s.choose(target)
	if err != nil {
		return nil, err
	}
	result, err := s.session.Call(ctx, fn, starlark.Tuple{contextValue()}, nil)
	if err != nil {
		return nil, s.session.Files.Explain(err)
	}
	files, ok := result.(*Files)
	if !ok || !files.node.isImage() || files.path != "/" {
		cure := ""
		if ok {
			cure = "only a whole filesystem becomes an image: copy the files into one, such as scratch().copy(files, \"/\")"
		} else if result == starlark.None {
			cure = "does the function end with return?"
		}
		return nil, &diag.Error{At: position(fn), Subject: fmt.Sprintf("target %q", name), Cure: cure,
			Message: fmt.Sprintf("expected the function to return an image such as scratch() or image(\"x\").run(...), got %s", diag.Given(result))}
	}
	b, err := assemble(files.node)
	if err != nil {
		return nil, &diag.Error{At: position(fn), Subject: fmt.Sprintf("target %q", name), Message: err.Error(), Cause: err}
	}
	b.Target = name
	for _, l := range b.Locals {
		s.session.Inputs.Record(script.Input{Kind: "local", Name: l.show, Digest: l.Digest})
	}
	return b, nil
}

func position(fn *starlark.Function) diag.Span {
	p := fn.Position()
	return diag.Span{File: p.Filename(), Start: diag.Pos{Line: int(p.Line), Col: int(p.Col)}}
}
