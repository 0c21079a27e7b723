// Package env is the language of env.star: what an environment has, as a graph of resources.
//
//	env("shop")
//	data = volume("data")
//	back = network("back")
//	db   = container("db", image = "postgres:16", networks = [back], mounts = [data.at("/var/lib/postgresql/data")])
//	app  = container("app", image = image("shop/app", build = build("build.star")), networks = [back], needs = [db.started])
//
// Evaluate runs the script and answers with the graph; nothing is made. Each builtin checks and
// normalises its arguments, so that two ways to say the same are no difference to plan. What drivers
// take is checked against their schemas, which are asked for only when a script names options.
//
// container.go, image.go and network.go have a builtin or two each; ports.go reads ports; this file
// has the rest and the evaluation.
package env

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/graph"
	"github.com/sampan-project/sampan/starlark/probe"
	"github.com/sampan-project/sampan/starlark/recipe"
	"github.com/sampan-project/sampan/starlark/script"
)

// Options say what an evaluation may know of the engine.
type Options struct {
	// Schemas lists what drivers take; nil leaves their names and options to the engine.
	Schemas func(ctx context.Context) ([]wire.Schema, error)
}

// evaluation is one env.star being evaluated.
type evaluation struct {
	session *script.Session
	graph   *graph.Graph
	named   diag.Site // of env()
	builds  map[string]*recipe.Script
	schemas func() ([]wire.Schema, error)
}

// maxResources bounds an environment.
const maxResources = 10_000

// Evaluate runs a script and returns the environment that it declares. The globals are the script's,
// for tasks.
func Evaluate(ctx context.Context, s *script.Session, file script.File, o Options) (*graph.Graph, starlark.StringDict, error) {
	e := &evaluation{session: s, graph: &graph.Graph{Session: s}, builds: map[string]*recipe.Script{}}
	if o.Schemas != nil {
		e.schemas = sync.OnceValues(func() ([]wire.Schema, error) { return o.Schemas(ctx) })
	}
	globals, err := s.Run(ctx, file, s.Universe(e.universe()))
	if err != nil {
		return nil, nil, s.Files.Explain(err)
	}
	if e.graph.Env == "" {
		e.graph.Env = graph.EnvName(filepath.Base(file.Dir()))
	}
	e.graph.Finish()
	return e.graph, globals, nil
}

func (e *evaluation) universe() starlark.StringDict {
	u := starlark.StringDict{
		"env":   script.NewCallable(e.envFunc().Builtin(), starlark.StringDict{"get": e.session.EnvFunc().Builtin()}),
		"probe": probe.Module(),
	}
	for _, f := range e.funcs() {
		u[f.Name] = f.Builtin()
	}
	return u
}

func (e *evaluation) funcs() []arg.Func {
	return []arg.Func{
		e.containerFunc(), e.imageFunc(), e.buildFunc(), e.networkFunc(), e.volumeFunc(),
		graph.Bind(), graph.Tmpfs(), e.secretFunc(), e.outputFunc(), e.taskFunc(),
	}
}

// Funcs declares the builtins, for the reference.
func Funcs() []arg.Func {
	e := &evaluation{}
	return append([]arg.Func{e.envFunc()}, e.funcs()...)
}

func (e *evaluation) envFunc() arg.Func {
	return arg.Func{
		Name: "env", Positional: 1, Named: true, Returns: "None",
		Doc:     "Names the environment. Its resources are named NAME-RESOURCE in the engine. Without env() the name is the folder's.",
		Example: `env("shop")`,
		Params:  []arg.Param{{Name: "name", Type: envName, Required: true, Doc: "The name."}},
		Do: func(c *arg.Call) (starlark.Value, error) {
			if !e.named.IsZero() {
				return nil, c.Problem("", "the environment is named already at %s", e.named)
			}
			e.graph.Env, e.named = arg.Get[string](c, "name"), script.Site(c.Thread)
			return starlark.None, nil
		},
	}
}

// envName becomes a part of the names of images and networks: lower case.
var envName = arg.Of(`a name of small letters, digits, _ . and -, such as "shop"`, func(v starlark.Value) (string, bool) {
	s, ok := starlark.AsString(v)
	return s, ok && s != "" && len(s) <= 63 && graph.EnvName(s) == s
})

// declare adds resources to the graph and makes the value that stands for them.
func (e *evaluation) declare(c *arg.Call, kind graph.Kind, name string, resources ...*graph.Resource) (*graph.Ref, error) {
	for _, r := range resources {
		r.Site = script.Site(c.Thread)
		if len(e.graph.Resources) >= maxResources {
			return nil, c.Problem("", "expected at most %d resources in an environment", maxResources)
		}
		if err := e.graph.Add(r); err != nil {
			return nil, err
		}
	}
	return graph.NewRef(kind, name, resources), nil
}

func (e *evaluation) secretFunc() arg.Func {
	return arg.Func{
		Name: "secret", Positional: 1, Named: true, Returns: "secret",
		Doc:     "A value that plans, graphs and labels never show. It comes from a variable of the caller's environment, or from a file. Scripts cannot look into it.",
		Example: `env = {"POSTGRES_PASSWORD": secret("db_password", file = "//secrets/db")}`,
		Params: []arg.Param{
			{Name: "name", Type: arg.Name, Required: true, Doc: "Its name, in plans."},
			{Name: "env", Type: arg.String, Shows: "NAME in capitals", Doc: "The variable."},
			{Name: "file", Type: arg.String, Doc: "A file of the workspace, in place of a variable."},
		},
		Do: func(c *arg.Call) (starlark.Value, error) {
			name, variable, file := arg.Get[string](c, "name"), arg.Get[string](c, "env"), arg.Get[string](c, "file")
			if variable != "" && file != "" {
				return nil, c.Problem("file", "expected env or file, got both")
			}
			if variable == "" && file == "" {
				variable = strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(name))
			}
			value, err := script.From(c.Thread).Secret(script.Caller(c.Thread), name, variable, file)
			if err != nil {
				return nil, err
			}
			return graph.NewSecret(name, value, script.Site(c.Thread)), nil
		},
	}
}

func (e *evaluation) outputFunc() arg.Func {
	return arg.Func{
		Name: "output", Positional: 2, Named: true, Returns: "None",
		Doc:     "A value that apply prints at its end.",
		Example: `output("url", app.address.map(lambda ip: "http://" + ip + "/"))`,
		Params: []arg.Param{
			{Name: "name", Type: arg.Name, Required: true, Doc: "What it is called."},
			{Name: "value", Type: graph.TextType, Required: true, Doc: "The value, which may be known only then."},
		},
		Do: func(c *arg.Call) (starlark.Value, error) {
			o := graph.Output{Name: arg.Get[string](c, "name"), Value: arg.Get[graph.Text](c, "value"), Site: script.Site(c.Thread)}
			for _, other := range e.graph.Outputs {
				if other.Name == o.Name {
					return nil, c.Problem("name", "the output is declared already at %s", other.Site)
				}
			}
			e.graph.Outputs = append(e.graph.Outputs, o)
			return starlark.None, nil
		},
	}
}

func (e *evaluation) taskFunc() arg.Func {
	return arg.Func{
		Name: "task", Positional: 2, Named: true, Returns: "None",
		Doc: "Names a function with effects, which `sampan script env.star NAME` runs. The function gets a context (see ctx).",
		Example: `def _migrate(ctx):
    ctx.exec(app, ["/app/migrate", "--to", ctx.args.version])
task("migrate", _migrate, args = {"version": arg.string(default = "latest")})`,
		Params: []arg.Param{
			{Name: "name", Type: arg.Name, Required: true, Doc: "Its name on the command line."},
			{Name: "function", Type: arg.Function, Required: true, Doc: "A function of one argument, ctx."},
			{Name: "args", Type: arg.Dict[script.ArgSpec](script.ArgSpecType), Doc: "Its arguments, NAME=VALUE on the command line and ctx.args.NAME in the function."},
			{Name: "doc", Type: arg.String, Default: "", Shows: "the function's docstring", Doc: "What it does."},
		},
		Do: func(c *arg.Call) (starlark.Value, error) {
			t := graph.Task{Name: arg.Get[string](c, "name"), Run: arg.Get[starlark.Callable](c, "function"), Args: arg.Get[map[string]script.ArgSpec](c, "args"), Doc: arg.Get[string](c, "doc"), Site: script.Site(c.Thread)}
			if f, ok := t.Run.(*starlark.Function); ok && t.Doc == "" {
				t.Doc = f.Doc()
			}
			for _, other := range e.graph.Tasks {
				if other.Name == t.Name {
					return nil, c.Problem("name", "the task is declared already at %s", other.Site)
				}
			}
			e.graph.Tasks = append(e.graph.Tasks, t)
			return starlark.None, nil
		},
	}
}

// checkOptions checks a driver and its options against the drivers' schemas.
func (e *evaluation) checkOptions(c *arg.Call, kind string, builtin []string) error {
	if e.schemas == nil {
		return nil
	}
	driver, options := arg.Get[string](c, "driver"), arg.Get[map[string]string](c, "options")
	for _, b := range builtin {
		if b == driver {
			return nil
		}
	}
	list, err := e.schemas()
	if err != nil {
		return fmt.Errorf("ask the engine for its drivers: %w", err)
	}
	var names []string
	for _, s := range list {
		if s.Kind == kind && s.Driver == driver {
			return checkAttributes(c, s, options)
		}
		if s.Kind == kind {
			names = append(names, s.Driver)
		}
	}
	if len(names) == 0 {
		return nil // an engine that publishes no schemas: it checks by itself
	}
	names = append(names, builtin...)
	return &diag.Problem{Subject: c.Subject, Arg: "driver", Message: fmt.Sprintf("expected a %s driver of this engine (%s), got %q", kind, strings.Join(names, ", "), driver),
		Nearest: fault.Nearest(driver, names)}
}

func checkAttributes(c *arg.Call, s wire.Schema, options map[string]string) error {
	var names []string
	known := map[string]wire.Attribute{}
	for _, a := range s.Attributes {
		names, known[a.Name] = append(names, a.Name), a
		if _, given := options[a.Name]; a.Required && !given {
			return c.Problem("options", "missing option %q of driver %s: %s", a.Name, s.Driver, a.Doc)
		}
	}
	for _, name := range arg.Keys(options) {
		if strings.Contains(name, ".") { // com.docker.network.driver.mtu: Docker's names are the driver's to judge
			continue
		}
		a, ok := known[name]
		if !ok {
			expected := "it takes none"
			if len(names) > 0 {
				expected = "expected one of " + strings.Join(names, ", ")
			}
			return &diag.Problem{Subject: c.Subject, Arg: "options", Path: []diag.Step{diag.Key(name)},
				Message: fmt.Sprintf("no option %q of driver %s: %s", name, s.Driver, expected), Nearest: fault.Nearest(name, names)}
		}
		if expected := fits(a, options[name]); expected != "" {
			return &diag.Problem{Subject: c.Subject, Arg: "options", Path: []diag.Step{diag.Key(name)}, Message: fmt.Sprintf("expected %s, got %q", expected, options[name]), Nearest: fault.Nearest(options[name], a.Enum)}
		}
	}
	return nil
}
