package diag

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/sampan-project/sampan/core/fault"
)

// Explain turns whatever evaluation failed with into an Error with a place. Errors that no line of a
// script is to blame for come back as they are.
func (f *Files) Explain(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*Error); ok { //nolint:errorlint // only an error that is placed already is left alone
		return e
	}
	var eval *starlark.EvalError
	var syn syntax.Error
	var res resolve.ErrorList
	var problem *Problem
	var placed *Error
	switch {
	case errors.As(err, &eval):
		return f.explainEval(eval)
	case errors.As(err, &placed):
		return err // it has a place below what was said around it
	case errors.As(err, &syn):
		return f.at(syn.Pos, syn.Msg)
	case errors.As(err, &res) && len(res) > 0:
		first := f.at(res[0].Pos, res[0].Msg)
		for _, r := range res[1:] {
			first.More = append(first.More, f.at(r.Pos, r.Msg))
		}
		return first
	case errors.As(err, &problem):
		return f.locate(nil, problem)
	}
	return err
}

func (f *Files) at(p syntax.Position, msg string) *Error {
	e := &Error{At: Span{File: p.Filename(), Start: pos(p)}, Message: msg}
	e.Message, e.Nearest, e.Cure = sentence(msg)
	return e
}

func (f *Files) explainEval(eval *starlark.EvalError) *Error {
	stack := frames(eval.CallStack)
	cause := errors.Unwrap(eval)
	var placed *Error
	var problem *Problem
	var inner *starlark.EvalError
	switch {
	case errors.As(cause, &placed): // another file's or thread's mistake: its place counts, we are its callers
		e := *placed
		e.Stack = append(append([]Frame(nil), placed.Stack...), f.widen(stack)...)
		return &e
	case errors.As(cause, &inner):
		e := *f.explainEval(inner)
		e.Stack = append(append([]Frame(nil), e.Stack...), f.widen(stack)...)
		return &e
	case errors.As(cause, &problem):
		return f.locate(stack, problem)
	}
	message, nearest, cure := sentence(eval.Msg)
	p := &Problem{Message: message, Nearest: nearest, Cure: cure, Cause: classOnly(cause)}
	return f.locate(stack, p)
}

// classOnly keeps a cause that somebody gave a class (a cancelled context, an engine's refusal).
func classOnly(err error) error {
	if err != nil && fault.ClassOf(err) != fault.Internal {
		return err
	}
	return nil
}

// locate gives the problem the place of its argument, in the innermost call that is the user's own.
func (f *Files) locate(stack []Frame, p *Problem) *Error {
	e := &Error{Subject: p.Subject, Message: p.text(), Nearest: p.Nearest, Cure: p.Cure, Cause: p.Cause}
	site := Site{f, stack}
	i := site.primary()
	if i < 0 {
		return e
	}
	e.At = f.argument(stack[i].At, p, i == 0)
	// A library's frames come after the user's own line only in --trace; the callers always.
	e.Stack = append(f.widen(stack[:i]), f.widen(stack[i+1:])...)
	return e
}

func (f *Files) widen(stack []Frame) []Frame {
	out := make([]Frame, len(stack))
	for i, fr := range stack {
		out[i] = Frame{In: fr.In, At: f.callSpan(fr.At)}
	}
	return out
}

// argument finds the expression that the problem is about in the call at s. In a call further out
// than the one that failed (direct is false), only an argument of the same name is meant.
func (f *Files) argument(s Span, p *Problem, direct bool) Span {
	c := f.call(s)
	if c == nil {
		return f.callSpan(s)
	}
	if p.Arg == "" {
		return f.callSpan(s)
	}
	positional := 0
	for _, a := range c.Args {
		if b, ok := a.(*syntax.BinaryExpr); ok && b.Op == syntax.EQ {
			if id, ok := b.X.(*syntax.Ident); ok && id.Name == p.Arg {
				if p.Unexpected {
					return span(s.File, id)
				}
				return span(s.File, descend(b.Y, p.Path))
			}
			continue
		}
		if u, ok := a.(*syntax.UnaryExpr); ok && (u.Op == syntax.STAR || u.Op == syntax.STARSTAR) {
			if u.Op == syntax.STARSTAR && direct && p.Positional == 0 {
				return span(s.File, descend(u.X, append([]Step{Key(p.Arg)}, p.Path...)))
			}
			continue
		}
		if positional++; direct && positional == p.Positional {
			return span(s.File, descend(a, p.Path))
		}
	}
	return f.callSpan(s)
}

// descend follows the path as long as the expression is a literal that shows its parts.
func descend(x syntax.Expr, path []Step) syntax.Expr {
	for _, step := range path {
		for {
			paren, ok := x.(*syntax.ParenExpr)
			if !ok {
				break
			}
			x = paren.X
		}
		next := child(x, step)
		if next == nil {
			return x
		}
		x = next
	}
	return x
}

func child(x syntax.Expr, step Step) syntax.Expr {
	switch x := x.(type) {
	case *syntax.ListExpr:
		if !step.Keyed && step.Index < len(x.List) {
			return x.List[step.Index]
		}
	case *syntax.TupleExpr:
		if !step.Keyed && step.Index < len(x.List) {
			return x.List[step.Index]
		}
	case *syntax.DictExpr:
		for _, entry := range x.List {
			d, ok := entry.(*syntax.DictEntry)
			if !ok || !step.Keyed {
				continue
			}
			if lit, ok := d.Key.(*syntax.Literal); ok && lit.Value == step.Key {
				return d.Value
			}
		}
	}
	return nil
}

// sentences are the interpreter's own words, said so that a reader of a script knows what to do.
var sentences = []struct {
	match func() *regexp.Regexp
	say   string
	cure  string
}{
	{Pattern(`^Starlark computation cancelled: (.*)$`), "$1", ""},
	{Pattern(`^fail: (.*)$`), "$1", ""},
	{Pattern(`^cannot (.*) frozen (.*)$`), "cannot $1 frozen $2", "a file's values are fixed once it has been evaluated: make a new value instead"},
	{Pattern(`^function (\S+) called recursively$`), "function $1 calls itself: scripts have no recursion", "write a for loop over a list that is long enough"},
	{Pattern(`^undefined: (\S+)(?: \(did you mean (\S+?)\?\))?$`), `undefined: $1`, ""},
}

var didYouMean = Pattern(` \(did you mean \.?(\S+?)\?\)$`)

// sentence says an error of the interpreter in our words.
func sentence(msg string) (message, nearest, cure string) {
	if m := didYouMean().FindStringSubmatch(msg); m != nil {
		msg, nearest = strings.TrimSuffix(msg, m[0]), m[1]
	}
	for _, s := range sentences {
		if s.match().MatchString(msg) {
			return s.match().ReplaceAllString(msg, s.say), nearest, s.cure
		}
	}
	return msg, nearest, ""
}

// Given describes a value for "got ...": the type, and the value where it is short.
func Given(v starlark.Value) string {
	switch v := v.(type) {
	case starlark.NoneType:
		return "None"
	case starlark.String:
		if len(v) > 60 {
			return fmt.Sprintf("string %q...", string(v[:57]))
		}
		return fmt.Sprintf("string %q", string(v))
	case starlark.Int, starlark.Float, starlark.Bool:
		if s := v.String(); len(s) <= 40 {
			return v.Type() + " " + s
		}
	}
	return v.Type()
}
