package graph

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/script"
)

// Text is a string, or what will be a string at apply.
type Text struct {
	Plain   string
	Unknown *Unknown
}

// Plain makes a text that is known.
func Plain(s string) Text { return Text{Plain: s} }

// String is the text as plans show it.
func (t Text) String() string {
	if t.Unknown != nil {
		return t.Unknown.shows()
	}
	return t.Plain
}

// MarshalJSON is the string, or an object that stands for the unknown: never a secret's value.
func (t Text) MarshalJSON() ([]byte, error) {
	if t.Unknown == nil {
		return json.Marshal(t.Plain)
	}
	if s := t.Unknown.secret; s != nil {
		return json.Marshal(map[string]string{"secret": s.name, "fingerprint": s.fingerprint(), "as": t.Unknown.shows()})
	}
	return json.Marshal(map[string]string{"unknown": t.Unknown.source(), "as": t.Unknown.shows()})
}

// Lookup answers a field of a resource that exists by now: container.db, address.
type Lookup func(a Address, field string) (string, error)

// Resolve is the text at apply.
func (t Text) Resolve(ctx context.Context, lookup Lookup) (string, error) {
	if t.Unknown == nil {
		return t.Plain, nil
	}
	return t.Unknown.resolve(ctx, lookup)
}

// secret is a value that only the engine may see.
type secret struct{ name, value string }

// fingerprint tells one value from another without telling the value: 32 bits, too few to search
// for the value and enough to see a change.
func (s *secret) fingerprint() string {
	sum := sha256.Sum256([]byte(s.name + "\x00" + s.value))
	return hex.EncodeToString(sum[:4])
}

// Unknown is a value that is not known while the script is evaluated.
type Unknown struct {
	of     Address
	field  string
	secret *secret
	maps   []mapping
	site   diag.Site // where of was declared
}

// mapping is a function to be applied to the value when it is known.
type mapping struct {
	session *script.Session
	fn      starlark.Callable
	source  string
}

// NewUnknown is a field of a resource, known after apply.
func NewUnknown(r *Resource, field string) *Unknown {
	return &Unknown{of: r.Address, field: field, site: r.Site}
}

// NewSecret is a secret with its value.
func NewSecret(name, value string, site diag.Site) *Unknown {
	return &Unknown{secret: &secret{name, value}, site: site}
}

// Of is the resource that knows the value, zero for a secret.
func (u *Unknown) Of() Address { return u.of }

// source is what the value comes from: container.db.address.
func (u *Unknown) source() string {
	if u.secret != nil {
		return fmt.Sprintf("secret %q", u.secret.name)
	}
	return u.of.String() + "." + u.field
}

// shows is the value with a mark where the unknown part stands. Mapped values are shown, and
// compared between two plans, by what the function makes of that mark.
func (u *Unknown) shows() string {
	text := "<" + u.source() + ">"
	for _, m := range u.maps {
		v, err := m.session.Call(context.Background(), m.fn, starlark.Tuple{starlark.String(text)}, nil)
		if s, ok := starlark.AsString(v); err == nil && ok {
			text = s
		} else { // a function that looks into its argument, which the mark is not: its source stands for it
			text = "<" + u.source() + " mapped by " + m.source + ">"
		}
	}
	return text
}

func (u *Unknown) resolve(ctx context.Context, lookup Lookup) (string, error) {
	var text string
	if u.secret != nil {
		text = u.secret.value
	} else {
		v, err := lookup(u.of, u.field)
		if err != nil {
			return "", err
		}
		text = v
	}
	for _, m := range u.maps {
		v, err := m.session.Call(ctx, m.fn, starlark.Tuple{starlark.String(text)}, nil)
		if err != nil {
			return "", m.session.Files.Explain(err)
		}
		s, ok := starlark.AsString(v)
		if !ok {
			return "", fmt.Errorf("map of %s: expected a function that returns a string, got %s", u.source(), diag.Given(v))
		}
		text = s
	}
	return text, nil
}

// NotKnown is the error of every use that needs the value.
func (u *Unknown) NotKnown() error {
	if u.secret != nil {
		return &diag.Problem{Message: u.source() + " cannot be looked into by a script", Cure: "give it to an argument as it is, or use .map(lambda value: ...)"}
	}
	return &diag.Problem{
		Message: fmt.Sprintf("%s is not known before apply (declared at %s)", u.source(), u.site),
		Cure:    "give it to an argument as it is, or use .map(lambda value: ...), which runs when it is known",
	}
}

// String is for print().
func (u *Unknown) String() string { return u.shows() }

// Type is "unknown", or "secret".
func (u *Unknown) Type() string {
	if u.secret != nil {
		return "secret"
	}
	return "unknown"
}

// Freeze does nothing: it never changes.
func (u *Unknown) Freeze() {}

// Truth is guarded by package script; this answer is never seen.
func (u *Unknown) Truth() starlark.Bool { return true }

// Hash refuses: an unknown is no key.
func (u *Unknown) Hash() (uint32, error) { return 0, u.NotKnown() }

// Binary refuses every operator.
func (u *Unknown) Binary(syntax.Token, starlark.Value, starlark.Side) (starlark.Value, error) {
	return nil, u.NotKnown()
}

// CompareSameType refuses every comparison.
func (u *Unknown) CompareSameType(syntax.Token, starlark.Value, int) (bool, error) {
	return false, u.NotKnown()
}

// Attr is .map.
func (u *Unknown) Attr(name string) (starlark.Value, error) {
	if name == "map" {
		return MapFunc(u).Builtin(), nil
	}
	for _, method := range starlark.String("").AttrNames() {
		if name == method { // .upper(), .split(): of the string that it is not yet
			return nil, u.NotKnown()
		}
	}
	return nil, diag.NoField(u.Type(), name, u.AttrNames())
}

// AttrNames is .map.
func (u *Unknown) AttrNames() []string { return []string{"map"} }

// MapFunc declares unknown.map.
func MapFunc(u *Unknown) arg.Func {
	return arg.Func{
		Name: "map", Of: "unknown", Positional: 1, Returns: "unknown",
		Doc:     "The value that the function makes of this one, when it is known.",
		Example: `env = {"DATABASE_URL": db.address.map(lambda ip: "postgres://" + ip + ":5432/shop")}`,
		Params:  []arg.Param{{Name: "function", Type: arg.Function, Required: true, Doc: "A pure function of a string that returns a string."}},
		Do: func(c *arg.Call) (starlark.Value, error) {
			fn := arg.Get[starlark.Callable](c, "function")
			s := script.From(c.Thread)
			mapped := *u
			mapped.maps = append(u.maps[:len(u.maps):len(u.maps)], mapping{s, fn, source(s, fn)})
			return &mapped, nil
		},
	}
}

// source is a function's own text, which stands for it where functions are compared.
func source(s *script.Session, fn starlark.Callable) string {
	f, ok := fn.(*starlark.Function)
	if !ok {
		return fn.Name()
	}
	at := f.Position()
	start := diag.Span{File: at.Filename(), Start: diag.Pos{Line: int(at.Line), Col: int(at.Col)}}
	start.End = diag.Pos{Line: start.Start.Line, Col: 1 << 20}
	return s.Files.Text(start)
}

// TextType is a string or an unknown one.
var TextType = arg.Type{Name: "string", Convert: func(v starlark.Value) (any, *arg.Reject) {
	switch v := v.(type) {
	case starlark.String:
		return Plain(string(v)), nil
	case *Unknown:
		return Text{Unknown: v}, nil
	}
	return nil, &arg.Reject{Expected: "string", Given: v}
}}

// PlainText is a string that must be known: a name, a path. An unknown is refused with its own words.
func PlainText(t arg.Type) arg.Type {
	known := t.Convert
	t.Convert = func(v starlark.Value) (any, *arg.Reject) {
		if u, ok := v.(*Unknown); ok {
			if p, ok := u.NotKnown().(*diag.Problem); ok { //nolint:errorlint // made just above
				return nil, &arg.Reject{Message: p.Message, Cure: p.Cure}
			}
		}
		return known(v)
	}
	return t
}
