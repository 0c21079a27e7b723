package recipe

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/probe"
	"github.com/sampan-project/sampan/starlark/reference"
	"github.com/sampan-project/sampan/starlark/script"
)

// Funcs declares the functions with which a graph begins.
func Funcs() []arg.Func {
	return []arg.Func{
		{
			Name: "scratch", Returns: "filesystem",
			Doc:     "An empty filesystem.",
			Example: `scratch().copy(ctx.local("bin"), "/bin/")`,
			Do: func(c *arg.Call) (starlark.Value, error) {
				return whole(&node{step: wire.BuildNode{Op: "scratch"}, site: script.Site(c.Thread)}), nil
			},
		},
		{
			Name: "image", Positional: 1, Named: true, Returns: "filesystem",
			Doc:     "An image to begin with, pulled when it is missing.",
			Example: `image("debian:13").run("apt-get update")`,
			Params:  []arg.Param{{Name: "reference", Type: reference.Type, Required: true, Doc: "NAME, NAME:TAG or NAME@DIGEST."}},
			Do: func(c *arg.Call) (starlark.Value, error) {
				step := wire.BuildNode{Op: "image", Image: &wire.BuildImage{Ref: arg.Get[string](c, "reference")}}
				return whole(&node{step: step, site: script.Site(c.Thread)}), nil
			},
		},
	}
}

func whole(n *node) *Files { return &Files{n, "/"} }

// Command is a command line: a list is run as it is, a string by /bin/sh -c.
var commandType = arg.Type{Name: "list of string, or a string for the shell", Convert: func(v starlark.Value) (any, *arg.Reject) {
	if s, ok := starlark.AsString(v); ok {
		return []string{"/bin/sh", "-c", s}, nil
	}
	list, reject := arg.List[string](arg.String).Convert(v)
	if reject != nil && len(reject.Path) == 0 {
		reject.Expected = "list of string, or a string for the shell"
	}
	if reject != nil {
		return nil, reject
	}
	return list, nil
}}

// RunFunc declares filesystem.run.
func RunFunc(f *Files) arg.Func {
	return arg.Func{
		Name: "run", Of: "filesystem", Positional: 1, Returns: "filesystem",
		Doc:     "The filesystem after a command has run on it. A string is run by /bin/sh -c, a list as it is. The command sees the image's environment, user and working directory.",
		Example: `image("debian:13").run("apt-get update && apt-get install -y nginx")`,
		Params: []arg.Param{
			{Name: "command", Type: commandType, Required: true, Doc: "The command."},
			{Name: "env", Type: arg.Dict[string](arg.String), Doc: "Further variables, for this command alone."},
			{Name: "cwd", Type: arg.Absolute, Default: "", Shows: "the image's", Doc: "The working directory."},
			{Name: "user", Type: arg.String, Default: "", Shows: "the image's", Doc: "USER, or USER:GROUP; names or numbers."},
			{Name: "network", Type: arg.OneOf("default", "none", "host"), Default: "default", Doc: "What the command can reach."},
			{Name: "mounts", Type: arg.List[*Mount](mountType), Doc: "What the command sees beside the filesystem."},
		},
		Do: func(c *arg.Call) (starlark.Value, error) {
			run := &wire.BuildRun{Args: arg.Get[[]string](c, "command"), Env: arg.Get[map[string]string](c, "env"), Cwd: arg.Get[string](c, "cwd"), User: arg.Get[string](c, "user")}
			if len(run.Args) == 0 {
				return nil, c.Problem("command", "expected a program and its arguments, got an empty list")
			}
			if network := arg.Get[string](c, "network"); network != "default" {
				run.Network = network
			}
			n := &node{step: wire.BuildNode{Op: "run", Run: run}, base: f.node, site: script.Site(c.Thread)}
			for _, m := range arg.Get[[]*Mount](c, "mounts") {
				run.Mounts, n.inputs = append(run.Mounts, m.mount), append(n.inputs, m.node)
			}
			return whole(n), nil
		},
	}
}

var octal = diag.Pattern(`^[0-7]{3,4}$`)

// CopyFunc declares filesystem.copy.
func CopyFunc(f *Files) arg.Func {
	return arg.Func{
		Name: "copy", Of: "filesystem", Positional: 2, Returns: "filesystem",
		Doc:     "The filesystem with files copied into it. A directory's contents are put into dest; a file becomes dest, or a file in it when dest ends with a slash.",
		Example: `image("busybox").copy(ctx.local("www"), "/www/", owner = "33:33")`,
		Params: []arg.Param{
			{Name: "source", Type: arg.Either(filesType, arg.List[*Files](filesType)), Required: true, Doc: "ctx.local(...), another filesystem, or a path of one; or a list of them."},
			{Name: "dest", Type: destType, Required: true, Doc: "Where, an absolute path."},
			{Name: "owner", Type: arg.String, Default: "", Shows: "the source's", Doc: "USER, or USER:GROUP; names of this filesystem or numbers."},
			{Name: "mode", Type: arg.Matching(`permissions in octal, such as "755"`, octal), Default: "", Shows: "the source's", Doc: "Permissions in octal."},
		},
		Do: func(c *arg.Call) (starlark.Value, error) {
			var sources []*Files
			switch v := arg.Get[any](c, "source").(type) {
			case *Files:
				sources = []*Files{v}
			case []*Files:
				sources = v
			}
			dest, out := arg.Get[string](c, "dest"), f
			if len(sources) > 1 && !strings.HasSuffix(dest, "/") {
				return nil, c.Problem("dest", "expected a directory, with a slash at its end, for %d sources; got %q", len(sources), dest)
			}
			for _, from := range sources {
				step := wire.BuildNode{Op: "copy", Copy: &wire.BuildCopy{Source: from.path, Dest: dest, Owner: arg.Get[string](c, "owner"), Mode: arg.Get[string](c, "mode")}}
				out = whole(&node{step: step, base: out.node, from: from.node, site: script.Site(c.Thread)})
			}
			return out, nil
		},
	}
}

// destType is an absolute path whose last slash counts.
var destType = arg.Of(`an absolute path such as "/app/"`, func(v starlark.Value) (string, bool) {
	s, ok := starlark.AsString(v)
	clean := path.Clean("/" + s)
	if strings.HasSuffix(s, "/") && clean != "/" {
		clean += "/"
	}
	return clean, ok && strings.HasPrefix(s, "/") && !strings.Contains(s, "\x00")
})

// portType is a port that an image announces: 80, "80" or "53/udp".
var portType = arg.Of(`a port such as 80 or "53/udp"`, func(v starlark.Value) (string, bool) {
	text := ""
	switch v := v.(type) {
	case starlark.Int:
		text = v.String()
	case starlark.String:
		text = string(v)
	}
	number, protocol, given := strings.Cut(text, "/")
	if !given {
		protocol = "tcp"
	}
	n, err := strconv.ParseUint(number, 10, 16)
	return fmt.Sprintf("%d/%s", n, protocol), err == nil && n > 0 && (protocol == "tcp" || protocol == "udp" || protocol == "sctp")
})

// ConfigFunc declares filesystem.config.
func ConfigFunc(f *Files) arg.Func {
	return arg.Func{
		Name: "config", Of: "filesystem", Returns: "filesystem",
		Doc:     "The filesystem with another image configuration. What is not given stays as it is; env and labels are added to.",
		Example: `scratch().copy(server, "/server").config(entrypoint = ["/server"], expose = [8080])`,
		Params: []arg.Param{
			{Name: "env", Type: arg.Dict[string](arg.String), Doc: "Variables of the environment."},
			{Name: "entrypoint", Type: commandType, Doc: "The program that always runs."},
			{Name: "cmd", Type: commandType, Doc: "Its arguments, or the program, when the container gives none."},
			{Name: "workdir", Type: arg.Absolute, Doc: "The working directory."},
			{Name: "user", Type: arg.String, Doc: "USER, or USER:GROUP; names or numbers."},
			{Name: "labels", Type: arg.Dict[string](arg.String), Doc: "Labels."},
			{Name: "expose", Type: arg.List[string](portType), Doc: "Ports that it serves."},
			{Name: "volumes", Type: arg.List[string](arg.Absolute), Doc: "Paths whose data is to outlive the container."},
			{Name: "stop_signal", Type: arg.String, Doc: "The signal that asks it to end, such as SIGQUIT."},
			{Name: "health", Type: probe.Type, Doc: "How to find out whether it is healthy."},
		},
		Do: func(c *arg.Call) (starlark.Value, error) {
			config := &wire.BuildConfig{
				Env: arg.Get[map[string]string](c, "env"), Labels: arg.Get[map[string]string](c, "labels"),
				Entrypoint: optional[[]string](c, "entrypoint"), Cmd: optional[[]string](c, "cmd"), WorkingDir: optional[string](c, "workdir"),
				User: optional[string](c, "user"), StopSignal: optional[string](c, "stop_signal"),
				Expose: arg.Get[[]string](c, "expose"), Volumes: arg.Get[[]string](c, "volumes"),
			}
			for _, name := range arg.Keys(config.Env) {
				if name == "" || strings.ContainsAny(name, "=\x00") {
					return nil, c.Problem("env", "expected names of variables, got %q", name)
				}
			}
			if p := arg.Get[*probe.Value](c, "health"); p != nil {
				config.Health = &p.Check
			}
			return whole(&node{step: wire.BuildNode{Op: "config", Config: config}, base: f.node, site: script.Site(c.Thread)}), nil
		},
	}
}

func optional[T any](c *arg.Call, name string) *T {
	if !c.Given(name) {
		return nil
	}
	v := arg.Get[T](c, name)
	return &v
}

// contextValue is what a target's function gets.
func contextValue() starlark.Value {
	return script.NewValue("context", "<build context>", ContextFuncs())
}

var cacheName = diag.Pattern(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

// ContextFuncs declares the methods of ctx.
func ContextFuncs() []arg.Func {
	return []arg.Func{
		{
			Name: "local", Of: "ctx", Positional: 1, Returns: "files",
			Doc:     "A directory or file of the workspace: relative to this file's folder, or `//from/the/root`. It is sent to the daemon with modes, but owned by root and with fixed times, so that the same files give the same image.",
			Example: `src = ctx.local("src", ignore = ["*.md"])`,
			Params: []arg.Param{
				{Name: "path", Type: arg.String, Required: true, Doc: "The directory or file."},
				{Name: "ignore", Type: arg.List[string](arg.String), Doc: "Patterns of what is left out, as in .dockerignore."},
			},
			Do: func(c *arg.Call) (starlark.Value, error) {
				s := script.From(c.Thread)
				abs, err := s.Local(script.Caller(c.Thread), arg.Get[string](c, "path"))
				if err != nil {
					return nil, at(c, "path", err)
				}
				l, err := newLocal(script.Context(c.Thread), s, abs, arg.Get[[]string](c, "ignore"))
				if err != nil {
					return nil, at(c, "path", err)
				}
				n := &node{step: wire.BuildNode{Op: "local"}, local: l, site: script.Site(c.Thread)}
				return &Files{n, path.Join("/", l.file)}, nil
			},
		},
		{
			Name: "cache", Of: "ctx", Positional: 1, Returns: "a mount of a build step",
			Doc:     "A directory that the daemon keeps from build to build, for a package manager's downloads. It is no part of the image.",
			Example: `base.run(["go", "build", "."], mounts = [ctx.cache("/go/pkg/mod")])`,
			Params: []arg.Param{
				{Name: "target", Type: arg.Absolute, Required: true, Doc: "The path that the command sees."},
				{Name: "name", Type: arg.Matching("a name of letters, digits, _ . and -", cacheName), Default: "", Shows: "made of the target", Doc: "Steps with the same name share the directory."},
			},
			Do: func(c *arg.Call) (starlark.Value, error) {
				target, name := arg.Get[string](c, "target"), arg.Get[string](c, "name")
				if name == "" {
					name = sanitize(target)
				}
				return &Mount{mount: wire.BuildMount{Cache: name, Target: target}}, nil
			},
		},
	}
}

// at puts an error at an argument.
func at(c *arg.Call, name string, err error) error {
	if p, ok := err.(*diag.Problem); ok { //nolint:errorlint // made for this very call
		p.Arg = name
		return p
	}
	p := c.Problem(name, "%v", err)
	if fault.ClassOf(err) != fault.Internal {
		p.Cause = err
	}
	return p
}
