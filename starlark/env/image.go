package env

import (
	"fmt"
	"slices"
	"sort"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/graph"
	"github.com/sampan-project/sampan/starlark/recipe"
	"github.com/sampan-project/sampan/starlark/reference"
	"github.com/sampan-project/sampan/starlark/script"
)

// buildValue is what build() returns.
type buildValue struct{ *recipe.Build }

// String says which target.
func (b *buildValue) String() string { return fmt.Sprintf("<build %s>", b.Target) }

// Type is "build".
func (b *buildValue) Type() string { return "build" }

// Freeze does nothing: it never changes.
func (b *buildValue) Freeze() {}

// Truth is true.
func (b *buildValue) Truth() starlark.Bool { return true }

// Hash refuses.
func (b *buildValue) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable: build") }

var buildType = arg.Type{Name: "build", Convert: func(v starlark.Value) (any, *arg.Reject) {
	if b, ok := v.(*buildValue); ok {
		return b.Build, nil
	}
	reject := &arg.Reject{Expected: "build", Given: v}
	if s, ok := v.(starlark.String); ok {
		reject.Cure = fmt.Sprintf("say build(%s)", s)
	}
	return nil, reject
}}

func (e *evaluation) buildFunc() arg.Func {
	return arg.Func{
		Name: "build", Positional: 1, Returns: "build",
		Doc:     "A target of a build script, for image().",
		Example: `app = image("shop/app", build = build("build.star", target = "app"))`,
		Params: []arg.Param{
			{Name: "script", Type: plain, Required: true, Doc: "The build script: relative to this file's folder, or `//from/the/root`."},
			{Name: "target", Type: plain, Default: "", Shows: "main, or the only one", Doc: "The function that describes the image."},
			{Name: "args", Type: arg.Dict[string](option), Doc: "Values for arg() in the build script."},
		},
		Do: e.build,
	}
}

func (e *evaluation) build(c *arg.Call) (starlark.Value, error) {
	s, label := script.From(c.Thread), arg.Get[string](c, "script")
	abs, err := s.Local(script.Caller(c.Thread), label)
	if err != nil {
		if p, ok := err.(*diag.Problem); ok { //nolint:errorlint // made for this very call
			p.Arg = "script"
		}
		return nil, err
	}
	args := arg.Get[map[string]string](c, "args")
	if args == nil {
		args = map[string]string{}
	}
	key := fmt.Sprintf("%s %q", abs, args)
	loaded, ok := e.builds[key]
	if !ok {
		// The fork is a session of its own universe: what a build script says is not what an environment says.
		fork := s.Fork(nil, args)
		file, err := fork.At(abs)
		if err != nil {
			p := c.Problem("script", "%v", err)
			p.Cause = err
			return nil, p
		}
		if loaded, err = recipe.Load(script.Context(c.Thread), fork, file); err != nil {
			return nil, err
		}
		if err := fork.Inputs.Unused(); err != nil {
			return nil, c.Problem("args", "%v", err)
		}
		e.builds[key] = loaded
	}
	b, err := loaded.Build(script.Context(c.Thread), arg.Get[string](c, "target"))
	if err != nil {
		if p, ok := err.(*diag.Problem); ok { //nolint:errorlint // choose's own
			p.Arg = "target"
		}
		return nil, err
	}
	return &buildValue{b}, nil
}

func (e *evaluation) imageFunc() arg.Func {
	return arg.Func{
		Name: "image", Positional: 1, Named: true, Returns: "image",
		Doc:     "An image that the environment builds. Containers that use it are replaced when it changes.",
		Example: `app = image("shop/app", build = build("build.star"), tags = ["dev"])`,
		Params: []arg.Param{
			{Name: "name", Type: graph.PlainText(reference.Type), Required: true, Doc: "Its name, or NAME:TAG."},
			{Name: "build", Type: buildType, Required: true, Doc: "How it is made: build(...)."},
			{Name: "tags", Type: arg.List[string](graph.PlainText(reference.Tag)), Shows: `["latest"]`, Doc: "Its tags."},
		},
		Do: e.image,
	}
}

func (e *evaluation) image(c *arg.Call) (starlark.Value, error) {
	ref, tags := arg.Get[string](c, "name"), arg.Get[[]string](c, "tags")
	base, tag := reference.Split(ref)
	if len(tags) > 0 && tag != "latest" {
		return nil, c.Problem("tags", "expected a tag in the name or tags, got both: %q and %q", tag, tags)
	}
	i := &graph.Image{Build: arg.Get[*recipe.Build](c, "build"), Tags: []string{ref}}
	if len(tags) > 0 {
		i.Tags = nil
		for _, t := range tags {
			i.Tags = append(i.Tags, base+":"+t)
		}
	}
	sort.Strings(i.Tags)
	i.Tags = slices.Compact(i.Tags)
	i.Recipe = i.Build.Digest
	name := ref
	if tag == "latest" {
		name = base
	}
	r := &graph.Resource{Address: graph.Address{Kind: graph.KindImage, Name: name}, Name: i.Tags[0], Spec: i}
	for _, other := range e.graph.Resources {
		o, ok := other.Spec.(*graph.Image)
		if !ok {
			continue
		}
		for _, t := range i.Tags {
			if slices.Contains(o.Tags, t) && other.Address != r.Address {
				return nil, c.Problem("tags", "%s is a tag of %s, declared at %s", t, other.Address, other.Site)
			}
		}
		for _, b := range i.Build.Bases { // begins with an image of this environment
			if slices.Contains(o.Tags, b) {
				r.Require(other.Address, graph.Exists)
			}
		}
	}
	return e.declare(c, graph.KindImage, name, r)
}

// builtImage is the image resource of a reference, when the environment builds it.
func (e *evaluation) builtImage(ref string) *graph.Resource {
	for _, r := range e.graph.Resources {
		if i, ok := r.Spec.(*graph.Image); ok && slices.Contains(i.Tags, ref) {
			return r
		}
	}
	return nil
}
