package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/wire"
)

// runtimes are OCI runtimes beside the engine's own, by name: an object of daemon.json, and the flag
// --add-runtime of name=path.
type runtimes map[string]ociRuntime

// ociRuntime is one of them, with dockerd's keys.
type ociRuntime struct {
	Path    string         `json:"path"`
	Args    []string       `json:"runtimeArgs"`
	Type    string         `json:"runtimeType"`
	Options map[string]any `json:"options"`
}

func (r *runtimes) Set(text string) error {
	name, path, ok := strings.Cut(text, "=")
	name, path = strings.TrimSpace(name), strings.TrimSpace(path)
	switch {
	case !ok || name == "" || path == "":
		return fault.New(fault.Invalid, "invalid runtime argument: %.128s (expected name=path)", text)
	case (*r)[name].Path != "":
		return fault.New(fault.Invalid, "runtime '%s' was already defined", name)
	case *r == nil:
		*r = runtimes{}
	}
	(*r)[name] = ociRuntime{Path: path}
	return nil
}

// String lists them as dockerd's event of a reload does.
func (r *runtimes) String() string { return r.text() }

func (r runtimes) text() string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(r)) {
		list = append(list, name+":"+r[name].Path)
	}
	return strings.Join(list, " ")
}

func (r *runtimes) Type() string { return "name=path" }

// check reports what dockerd would, in its words, and what only containerd could do.
func (r runtimes) check() error {
	for _, name := range slices.Sorted(maps.Keys(r)) {
		one, problem := r[name], ""
		switch {
		case name == spec.OwnRuntime:
			return fault.New(fault.Invalid, "runtime name '%s' is reserved", name)
		case name == "":
			return &fault.Field{Field: "runtimes", Given: name, Expected: "a name"}
		case one.Path == "" && one.Type == "":
			problem = "either a runtimeType or a path must be configured"
		case one.Path != "" && one.Type != "":
			problem = "cannot configure both path and runtimeType for the same runtime"
		case one.Path != "" && len(one.Options) > 0:
			problem = "options cannot be used with a path runtime"
		case one.Type != "" && len(one.Args) > 0:
			problem = "args cannot be used with a runtimeType runtime"
		case one.Type != "":
			return fault.New(fault.NotImplemented, "runtime %s: runtimeType %s is not supported: there is no containerd, whose shim it is; name the runtime's path", name, one.Type)
		}
		if problem != "" {
			return fault.New(fault.Invalid, "runtime %s: %s", name, problem)
		}
	}
	return nil
}

// programs are what the containers' manager is told.
func (r runtimes) programs() map[string]monitor.Runtime {
	all := map[string]monitor.Runtime{}
	for name, one := range r {
		all[name] = monitor.Runtime{Path: one.Path, Args: one.Args}
	}
	return all
}

// info lists them with the engine's own.
func (r runtimes) info() map[string]wire.InfoRuntime {
	all := map[string]wire.InfoRuntime{spec.OwnRuntime: {Path: "sampan-runtime"}}
	for name, one := range r {
		all[name] = wire.InfoRuntime{Path: one.Path, Args: one.Args}
	}
	return all
}

// checkRuntimes checks them and the default one.
func (o *options) checkRuntimes() error {
	if err := o.Runtimes.check(); err != nil {
		return err
	}
	if _, ok := o.Runtimes[o.DefaultRuntime]; !ok && !spec.IsOwnRuntime(o.DefaultRuntime) {
		known := append(slices.Sorted(maps.Keys(o.Runtimes)), spec.OwnRuntime)
		return fault.New(fault.Invalid, "specified default runtime '%s' does not exist (expected one of %s)", o.DefaultRuntime, strings.Join(known, ", "))
	}
	return nil
}

// defaultRuntime is the default one by the name that info lists.
func (o *options) defaultRuntime() string {
	if _, ok := o.Runtimes[o.DefaultRuntime]; ok {
		return o.DefaultRuntime
	}
	return spec.OwnRuntime
}
