package graph

import (
	"fmt"
	"path/filepath"
	"strings"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/script"
)

// Ref is a resource as a value of the language. A container with replicas is several resources.
type Ref struct {
	kind      Kind
	name      string
	Resources []*Resource
	attrs     map[string]starlark.Value
	order     []string
}

// NewRef makes the value of a resource, or of the replicas of one.
func NewRef(kind Kind, name string, resources []*Resource) *Ref {
	r := &Ref{kind: kind, name: name, Resources: resources, attrs: map[string]starlark.Value{}}
	r.set("name", starlark.String(name))
	first := resources[0]
	switch kind {
	case KindContainer:
		for _, c := range []Condition{Started, Healthy, Completed} {
			r.set(string(c), &ConditionValue{r, c})
		}
		if len(resources) == 1 {
			r.set("id", NewUnknown(first, "id"))
			r.set("address", NewUnknown(first, "address"))
		}
	case KindImage, KindNetwork:
		r.set("id", NewUnknown(first, "id"))
	case KindVolume:
		r.set("at", VolumeAt(r).Builtin())
	}
	return r
}

func (r *Ref) set(name string, v starlark.Value) {
	r.attrs[name] = v
	r.order = append(r.order, name)
}

// Kind is the resource's kind.
func (r *Ref) Kind() Kind { return r.kind }

// Name is the resource's name in the script.
func (r *Ref) Name() string { return r.name }

// Address is the first resource's address.
func (r *Ref) Address() Address { return r.Resources[0].Address }

// String is container("db").
func (r *Ref) String() string { return fmt.Sprintf("%s(%q)", r.kind, r.name) }

// Type is the kind.
func (r *Ref) Type() string { return string(r.kind) }

// Freeze does nothing: a reference never changes.
func (r *Ref) Freeze() {}

// Truth is true.
func (r *Ref) Truth() starlark.Bool { return true }

// Hash makes references keys of dicts.
func (r *Ref) Hash() (uint32, error) { return starlark.String(r.String()).Hash() }

// AttrNames lists the fields.
func (r *Ref) AttrNames() []string { return r.order }

// Attr is a field or method.
func (r *Ref) Attr(name string) (starlark.Value, error) {
	if v, ok := r.attrs[name]; ok {
		return v, nil
	}
	if r.kind == KindContainer && (name == "address" || name == "id") {
		return nil, &diag.Problem{Message: fmt.Sprintf("%s has %d replicas, each with an %s of its own", r, len(r.Resources), name), Cure: fmt.Sprintf("the name %q reaches all of them on their networks", r.name)}
	}
	return nil, diag.NoField(r.Type(), name, r.order)
}

// ConditionValue is db.healthy.
type ConditionValue struct {
	Ref       *Ref
	Condition Condition
}

// String is db.healthy.
func (c *ConditionValue) String() string { return c.Ref.name + "." + string(c.Condition) }

// Type is "condition".
func (c *ConditionValue) Type() string { return "condition" }

// Freeze does nothing.
func (c *ConditionValue) Freeze() {}

// Truth is guarded by package script; this answer is never seen.
func (c *ConditionValue) Truth() starlark.Bool { return true }

// Hash refuses.
func (c *ConditionValue) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable: condition") }

// NotKnown refuses to say whether it holds: that is for needs.
func (c *ConditionValue) NotKnown() error {
	return &diag.Problem{Message: fmt.Sprintf("%s is not known before apply (%s is declared at %s)", c, c.Ref.Address(), c.Ref.Resources[0].Site), Cure: fmt.Sprintf("give it to another container: needs = [%s]", c)}
}

// RefType is a reference to a resource of the kind.
func RefType(kind Kind) arg.Type {
	return arg.Type{Name: string(kind), Convert: func(v starlark.Value) (any, *arg.Reject) {
		if r, ok := v.(*Ref); ok && r.kind == kind {
			return r, nil
		}
		reject := &arg.Reject{Expected: string(kind), Given: v}
		if s, ok := starlark.AsString(v); ok && kind == KindNetwork {
			switch s {
			case "host", "none", "bridge":
				reject.Cure = fmt.Sprintf("for the engine's own networks say network_mode = %q", s)
			default:
				reject.Cure = fmt.Sprintf("give the value that network(%q) returned, without quotes", s)
			}
		}
		return nil, reject
	}}
}

// NeedType is a condition, or a container, which means that it has started.
var NeedType = arg.Type{Name: "condition such as db.healthy", Convert: func(v starlark.Value) (any, *arg.Reject) {
	switch v := v.(type) {
	case *ConditionValue:
		return v, nil
	case *Ref:
		if v.kind == KindContainer {
			return &ConditionValue{v, Started}, nil
		}
		return &ConditionValue{v, Exists}, nil
	}
	return nil, &arg.Reject{Expected: "a condition such as db.healthy, or a container", Given: v}
}}

// MountValue is what volume.at, bind.at and tmpfs.at make.
type MountValue struct {
	Mount Mount
	Ref   *Ref // of the volume
}

// String is volume("data").at("/data").
func (m *MountValue) String() string { return m.Mount.Type + " at " + m.Mount.Target }

// Type is "mount".
func (m *MountValue) Type() string { return "mount" }

// Freeze does nothing.
func (m *MountValue) Freeze() {}

// Truth is true.
func (m *MountValue) Truth() starlark.Bool { return true }

// Hash refuses.
func (m *MountValue) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable: mount") }

// MountType is a mount. A volume or a bind without .at says so.
var MountType = arg.Type{Name: "mount", Convert: func(v starlark.Value) (any, *arg.Reject) {
	if m, ok := v.(*MountValue); ok {
		return m, nil
	}
	reject := &arg.Reject{Expected: "mount", Given: v, Cure: `a mount is volume.at("/path"), bind(":dir").at("/path") or tmpfs().at("/path")`}
	if r, ok := v.(*Ref); ok && r.kind == KindVolume {
		reject.Cure = fmt.Sprintf("say where: %s.at(\"/path\")", r.name)
	}
	return nil, reject
}}

var targetParam = arg.Param{Name: "target", Type: arg.Absolute, Required: true, Doc: "The path in the container."}
var readOnlyParam = arg.Param{Name: "read_only", Type: arg.Bool, Default: false, Doc: "The container cannot write to it."}

// VolumeAt declares volume.at.
func VolumeAt(r *Ref) arg.Func {
	return arg.Func{
		Name: "at", Of: "volume", Positional: 1, Returns: "mount",
		Doc:     "The volume, mounted at a path of a container.",
		Example: `mounts = [data.at("/var/lib/data")]`,
		Params: []arg.Param{targetParam, readOnlyParam,
			{Name: "subpath", Type: arg.String, Default: "", Doc: "A directory of the volume, instead of its root."}},
		Do: func(c *arg.Call) (starlark.Value, error) {
			return &MountValue{Ref: r, Mount: Mount{Type: "volume", Volume: r.Address(), Target: arg.Get[string](c, "target"),
				Subpath: arg.Get[string](c, "subpath"), ReadOnly: arg.Get[bool](c, "read_only")}}, nil
		},
	}
}

// Bind declares bind().
func Bind() arg.Func {
	return arg.Func{
		Name: "bind", Positional: 1, Returns: "a value with .at(target, read_only = False)",
		Doc:     "A file or directory of the engine's machine, to be mounted in a container: an absolute path, or one of the workspace (`//conf`, `:conf`).",
		Example: `mounts = [bind(":conf").at("/etc/app", read_only = True)]`,
		Params:  []arg.Param{{Name: "source", Type: arg.String, Required: true, Doc: "The path."}},
		Do: func(c *arg.Call) (starlark.Value, error) {
			source := arg.Get[string](c, "source")
			if filepath.IsAbs(source) && !strings.HasPrefix(source, "//") {
				return place("bind", Mount{Type: "bind", Source: filepath.Clean(source)}), nil
			}
			abs, err := script.From(c.Thread).Local(script.Caller(c.Thread), source)
			if err != nil {
				return nil, c.Problem("source", "%v", err)
			}
			return place("bind", Mount{Type: "bind", Source: abs}), nil
		},
	}
}

// Tmpfs declares tmpfs().
func Tmpfs() arg.Func {
	return arg.Func{
		Name: "tmpfs", Returns: "a value with .at(target, read_only = False)",
		Doc:     "A directory in memory, to be mounted in a container.",
		Example: `mounts = [tmpfs(size = "64m").at("/tmp")]`,
		Params: []arg.Param{
			{Name: "size", Type: arg.Size, Default: int64(0), Shows: "half of the memory", Doc: "The most that it holds."},
			{Name: "mode", Type: arg.Int(0, 0o7777), Default: int64(0), Shows: "0o1777", Doc: "The directory's permissions."},
		},
		Do: func(c *arg.Call) (starlark.Value, error) {
			return place("tmpfs", Mount{Type: "tmpfs", Size: arg.Get[int64](c, "size"), Mode: uint32(arg.Get[int64](c, "mode"))}), nil
		},
	}
}

// place is a mount that lacks its target.
func place(kind string, m Mount) starlark.Value {
	return script.NewValue(kind, kind, []arg.Func{{
		Name: "at", Of: kind, Positional: 1, Doc: "Where the container sees it.", Returns: "mount",
		Params: []arg.Param{targetParam, readOnlyParam},
		Do: func(c *arg.Call) (starlark.Value, error) {
			placed := m
			placed.Target, placed.ReadOnly = arg.Get[string](c, "target"), arg.Get[bool](c, "read_only")
			return &MountValue{Mount: placed}, nil
		},
	}})
}
