// Package arg has the arguments of builtins as data: name, type, default, doc. From one declaration
// come the unpacking, with errors that name the argument and the nearest right word, the reference
// pages, and the JSON that editors complete from.
//
//	var memory = arg.Param{Name: "memory", Type: arg.Size, Doc: "Memory limit, such as 512m."}
//	f := arg.Func{Name: "container", Params: []arg.Param{name, memory}, Positional: 1, Do: ...}
//	universe[f.Name] = f.Builtin()
//
// None means "not said": an argument given None has its default.
package arg

import (
	"fmt"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/starlark/diag"
)

// Param declares one argument.
type Param struct {
	Name     string
	Type     Type
	Required bool
	Default  any    // the Go value that Get answers when the argument is not given; nil is the type's zero
	Shows    string // the default as the reference shows it, when Default does not say it
	Doc      string
}

// Func declares one builtin function or method.
type Func struct {
	Name       string // container, at
	Of         string // the type whose method it is: volume; "" for a function
	Doc        string
	Example    string
	Params     []Param
	Positional int    // how many of Params, from the first, may be given without their name
	Rest       *Param // takes further positional arguments as a list; Type is the element's
	Named      bool   // the first argument names what is made: errors say container "db"
	Returns    string
	Do         func(*Call) (starlark.Value, error)
}

// Call is one call with its arguments unpacked.
type Call struct {
	Thread  *starlark.Thread
	Subject string // container "db", or the function's name
	values  map[string]any
	given   map[string]bool
}

// Get returns an argument's value. Asking for an undeclared name, or with another type than the
// declared Type makes, is a mistake of this program and panics.
func Get[T any](c *Call, name string) T {
	v, ok := c.values[name]
	if !ok {
		panic("arg: undeclared argument " + name)
	}
	if v == nil {
		var zero T
		return zero
	}
	return v.(T)
}

// Given reports whether the caller gave the argument, other than None.
func (c *Call) Given(name string) bool { return c.given[name] }

// Problem is a complaint about one of the call's arguments.
func (c *Call) Problem(name, format string, args ...any) *diag.Problem {
	return &diag.Problem{Subject: c.Subject, Arg: name, Message: fmt.Sprintf(format, args...)}
}

// Builtin is the function as a value of the language.
func (f Func) Builtin() *starlark.Builtin {
	return starlark.NewBuiltin(f.Name, func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		c, err := f.Unpack(thread, args, kwargs)
		if err != nil {
			return nil, err
		}
		v, err := f.Do(c)
		if p, ok := err.(*diag.Problem); ok { //nolint:errorlint // only a problem of this very call has this call's subject
			if p.Subject == "" {
				p.Subject = c.Subject
			}
			if p.Positional == 0 {
				p.Positional = f.position(p.Arg)
			}
			return nil, p
		}
		return v, err
	})
}

// position is the argument's place, from 1, when it may be given without a name.
func (f Func) position(name string) int {
	for i, p := range f.Params[:f.Positional] {
		if p.Name == name {
			return i + 1
		}
	}
	return 0
}

// Unpack checks the arguments against the declaration.
func (f Func) Unpack(thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (*Call, error) {
	c := &Call{Thread: thread, Subject: f.subject(args, kwargs), values: map[string]any{}, given: map[string]bool{}}
	for _, p := range f.Params {
		c.values[p.Name] = p.Default
	}
	if f.Rest != nil {
		c.values[f.Rest.Name] = []any(nil)
	}
	if err := f.positionals(c, args); err != nil {
		return nil, err
	}
	for _, kw := range kwargs {
		name := string(kw[0].(starlark.String))
		p := f.param(name)
		if p == nil {
			return nil, f.unexpected(c, name)
		}
		if c.given[name] {
			return nil, &diag.Problem{Subject: c.Subject, Arg: name, Unexpected: true, Message: fmt.Sprintf("argument %q is given twice", name)}
		}
		if err := c.set(*p, kw[1], 0); err != nil {
			return nil, err
		}
	}
	for _, p := range f.Params {
		if p.Required && !c.given[p.Name] {
			return nil, &diag.Problem{Subject: c.Subject, Message: fmt.Sprintf("missing argument %q: expected %s", p.Name, p.Type.Name)}
		}
	}
	return c, nil
}

func (f Func) positionals(c *Call, args starlark.Tuple) error {
	for i, v := range args {
		if i < f.Positional {
			if err := c.set(f.Params[i], v, i+1); err != nil {
				return err
			}
			continue
		}
		if f.Rest == nil {
			return &diag.Problem{Subject: c.Subject, Arg: "argument", Unexpected: true, Positional: i + 1, Message: f.tooMany(len(args))}
		}
		value, reject := f.Rest.Type.Convert(v)
		if reject != nil {
			return reject.problem(c.Subject, f.Rest.Name, i+1)
		}
		c.values[f.Rest.Name] = append(c.values[f.Rest.Name].([]any), value)
	}
	return nil
}

func (f Func) tooMany(given int) string {
	next := ""
	if f.Positional < len(f.Params) {
		next = fmt.Sprintf("; give the others by name, such as %s = ...", f.Params[f.Positional].Name)
	}
	return fmt.Sprintf("expected at most %d arguments without a name, got %d%s", f.Positional, given, next)
}

func (c *Call) set(p Param, v starlark.Value, positional int) error {
	if v == starlark.None {
		return nil
	}
	value, reject := p.Type.Convert(v)
	if reject != nil {
		return reject.problem(c.Subject, p.Name, positional)
	}
	c.values[p.Name], c.given[p.Name] = value, true
	return nil
}

func (f Func) param(name string) *Param {
	for i := range f.Params {
		if f.Params[i].Name == name {
			return &f.Params[i]
		}
	}
	return nil
}

func (f Func) unexpected(c *Call, name string) error {
	names := make([]string, len(f.Params))
	for i, p := range f.Params {
		names[i] = p.Name
	}
	return &diag.Problem{
		Subject: c.Subject, Arg: name, Unexpected: true,
		Message: fmt.Sprintf("unexpected argument %q", name), Nearest: fault.Nearest(name, names),
	}
}

// subject names the call in errors: container "db" when the first argument says so.
func (f Func) subject(args starlark.Tuple, kwargs []starlark.Tuple) string {
	name := f.Name
	if f.Of != "" {
		name = f.Of + "." + f.Name
	}
	if !f.Named || len(f.Params) == 0 {
		return name
	}
	var first starlark.Value
	if len(args) > 0 {
		first = args[0]
	}
	for _, kw := range kwargs {
		if first == nil && string(kw[0].(starlark.String)) == f.Params[0].Name {
			first = kw[1]
		}
	}
	if s, ok := first.(starlark.String); ok {
		return fmt.Sprintf("%s %q", f.Name, string(s))
	}
	return name
}
