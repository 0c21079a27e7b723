package recipe

import (
	"fmt"
	"path"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/diag"
)

// node is one step, before it has a number.
type node struct {
	step   wire.BuildNode // its indices are not set yet
	base   *node
	from   *node
	inputs []*node // of run's mounts, nil for caches
	local  *Local
	site   diag.Site
}

// isImage reports whether the node is a root filesystem with a configuration.
func (n *node) isImage() bool { return n.local == nil }

// Files is a value of the language: the files at a path of a node. The whole of an image node can be
// worked on further: run, copy, config.
type Files struct {
	node *node
	path string // "/" is all of it
}

// String says what it is.
func (f *Files) String() string {
	s := "<" + f.node.step.Op
	switch {
	case f.node.step.Image != nil:
		s += " " + f.node.step.Image.Ref
	case f.node.local != nil:
		s += " " + f.node.local.show
	}
	if f.path != "/" {
		s += " " + f.path
	}
	return s + ">"
}

// Type is "filesystem" for what can become an image, else "files".
func (f *Files) Type() string {
	if f.whole() {
		return "filesystem"
	}
	return "files"
}

func (f *Files) whole() bool { return f.node.isImage() && f.path == "/" }

// Freeze does nothing: every step makes a new value.
func (f *Files) Freeze() {}

// Truth is true.
func (f *Files) Truth() starlark.Bool { return true }

// Hash refuses.
func (f *Files) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable: %s", f.Type()) }

// AttrNames lists the methods.
func (f *Files) AttrNames() []string {
	if f.whole() {
		return []string{"at", "config", "copy", "path", "run"}
	}
	return []string{"at", "path"}
}

// Attr is a method.
func (f *Files) Attr(name string) (starlark.Value, error) {
	for _, m := range f.methods() {
		if m.Name == name {
			return m.Builtin(), nil
		}
	}
	if !f.whole() {
		for _, m := range []string{"config", "copy", "run"} {
			if m == name {
				return nil, &diag.Problem{Message: fmt.Sprintf("%s has no .%s: it is not a whole filesystem", f, name),
					Cure: "copy the files into one, such as scratch().copy(files, \"/\")"}
			}
		}
	}
	return nil, diag.NoField(f.Type(), name, f.AttrNames())
}

func (f *Files) methods() []arg.Func {
	methods := []arg.Func{PathFunc(f), AtFunc(f)}
	if f.whole() {
		methods = append(methods, RunFunc(f), CopyFunc(f), ConfigFunc(f))
	}
	return methods
}

// PathFunc declares files.path.
func PathFunc(f *Files) arg.Func {
	return arg.Func{
		Name: "path", Of: "files", Positional: 1, Returns: "files",
		Doc:     "A file or directory of these files.",
		Example: `scratch().copy(built.path("/out/server"), "/server")`,
		Params:  []arg.Param{{Name: "path", Type: arg.String, Required: true, Doc: "Its path, from the root of the files."}},
		Do: func(c *arg.Call) (starlark.Value, error) {
			return &Files{f.node, path.Join(f.path, path.Clean("/"+arg.Get[string](c, "path")))}, nil
		},
	}
}

// AtFunc declares files.at.
func AtFunc(f *Files) arg.Func {
	return arg.Func{
		Name: "at", Of: "files", Positional: 1, Returns: "a mount of a build step",
		Doc:     "The files, shown to a command at a path. The command cannot write to them.",
		Example: `image("debian").run("dpkg -i /debs/*.deb", mounts = [ctx.local("debs").at("/debs")])`,
		Params:  []arg.Param{{Name: "target", Type: arg.Absolute, Required: true, Doc: "The path that the command sees."}},
		Do: func(c *arg.Call) (starlark.Value, error) {
			return &Mount{node: f.node, mount: wire.BuildMount{Path: f.path, Target: arg.Get[string](c, "target"), ReadOnly: true}}, nil
		},
	}
}

// Mount is what a command sees beside its own filesystem.
type Mount struct {
	node  *node // nil for a cache
	mount wire.BuildMount
}

// String says where.
func (m *Mount) String() string { return "<mount at " + m.mount.Target + ">" }

// Type is "build mount".
func (m *Mount) Type() string { return "build mount" }

// Freeze does nothing.
func (m *Mount) Freeze() {}

// Truth is true.
func (m *Mount) Truth() starlark.Bool { return true }

// Hash refuses.
func (m *Mount) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable: build mount") }

var mountType = arg.Type{Name: "build mount", Convert: func(v starlark.Value) (any, *arg.Reject) {
	if m, ok := v.(*Mount); ok {
		return m, nil
	}
	reject := &arg.Reject{Expected: "build mount", Given: v, Cure: `a mount is files.at("/path") or ctx.cache("/path")`}
	if _, ok := v.(*Files); ok {
		reject.Cure = `say where: files.at("/path")`
	}
	return nil, reject
}}

var filesType = arg.Type{Name: "files", Convert: func(v starlark.Value) (any, *arg.Reject) {
	if f, ok := v.(*Files); ok {
		return f, nil
	}
	reject := &arg.Reject{Expected: "files", Given: v}
	if s, ok := v.(starlark.String); ok {
		reject.Cure = fmt.Sprintf("files of the workspace are ctx.local(%s), those of an image image(...).path(%s)", s, s)
	}
	return nil, reject
}}

// FilesFuncs declares the methods of filesystems, for the reference.
func FilesFuncs() []arg.Func {
	f := whole(&node{})
	return []arg.Func{RunFunc(f), CopyFunc(f), ConfigFunc(f), PathFunc(f), AtFunc(f)}
}
