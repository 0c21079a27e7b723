package script

import (
	"fmt"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/diag"
)

// Value is a simple value with methods and fields.
type Value struct {
	kind, text string
	attrs      starlark.StringDict
}

// NewValue makes a value of a type that is only its methods.
func NewValue(kind, text string, methods []arg.Func) *Value {
	v := &Value{kind: kind, text: text, attrs: starlark.StringDict{}}
	for _, m := range methods {
		v.attrs[m.Name] = m.Builtin()
	}
	return v
}

// With adds a field and returns the value.
func (v *Value) With(name string, field starlark.Value) *Value {
	v.attrs[name] = field
	return v
}

// String shows the value in messages.
func (v *Value) String() string { return v.text }

// Type is the value's type.
func (v *Value) Type() string { return v.kind }

// Freeze does nothing: it never changes.
func (v *Value) Freeze() {}

// Truth is true.
func (v *Value) Truth() starlark.Bool { return true }

// Hash refuses.
func (v *Value) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable: %s", v.kind) }

// Attr is a field or method.
func (v *Value) Attr(name string) (starlark.Value, error) {
	if field, ok := v.attrs[name]; ok {
		return field, nil
	}
	return nil, diag.NoField(v.kind, name, v.AttrNames())
}

// AttrNames lists them.
func (v *Value) AttrNames() []string { return v.attrs.Keys() }
