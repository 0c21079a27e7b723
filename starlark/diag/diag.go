// Package diag is the one place that knows how a mistake in a script is told to a person.
//
// A builtin that finds something wrong with a value answers with a Problem, which knows the argument
// and the path into it ("networks[0]") but no line. Files has the text and the syntax tree of every
// file that was read; it turns Problems, and the interpreter's and the parser's own errors, into an
// Error, whose place is the very expression that is wrong. Print writes an Error for people:
//
//	env.star:9:17: container "app": networks[0]: expected network, got string "front"
//	   9 |     networks = ["front"],
//	     |                 ^^^^^^^
//	  networks = [front] takes the value that network("front") returned
//	called from
//	  env.star:21:5
//
// The first line is complete by itself: Error.Error returns just it. A Site is a place kept for
// later, so that a failure at apply time can still show the line that declared the thing.
package diag

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/syntax"

	"github.com/sampan-project/sampan/core/fault"
)

// Span is a place in a file: from Start up to, not including, End. A zero Span is no place.
type Span struct {
	File  string
	Start Pos
	End   Pos // zero, or before Start, when only the start is known
}

// Pos is a line and a column, both from 1, the column in characters.
type Pos struct{ Line, Col int }

// IsZero reports whether the span is no place.
func (s Span) IsZero() bool { return s.Start.Line == 0 }

// String is FILE:LINE:COLUMN.
func (s Span) String() string { return fmt.Sprintf("%s:%d:%d", s.File, s.Start.Line, s.Start.Col) }

// Frame is a call that was being made: the function that holds the call, and where.
type Frame struct {
	In string // the function's name, "" at the top of a file
	At Span
}

// Library reports whether the frame is in a file that is not the user's: a dependency's.
func (f Frame) Library() bool { return strings.HasPrefix(f.At.File, "@") }

// Error is one mistake with its place.
type Error struct {
	At      Span    // no place when no line of a script is at fault
	Subject string  // what was being made: container "db"
	Message string  // networks[0]: expected network, got string "front"
	Nearest string  // the right word that is nearest to the given one, or ""
	Cure    string  // what to do, or ""
	Stack   []Frame // the callers of At's function, innermost first
	More    []*Error
	Cause   error // keeps the class; may be nil
}

// Error is one line: the place, the subject, what was expected and what was given.
func (e *Error) Error() string {
	var b strings.Builder
	if !e.At.IsZero() {
		b.WriteString(e.At.String() + ": ")
	}
	if e.Subject != "" {
		b.WriteString(e.Subject + ": ")
	}
	b.WriteString(oneLine(e.Message))
	if e.Nearest != "" {
		fmt.Fprintf(&b, " (did you mean %q?)", e.Nearest)
	}
	if n := len(e.More); n > 0 {
		fmt.Fprintf(&b, " (and %d more)", n)
	}
	return b.String()
}

// Unwrap is the class and the cause.
func (e *Error) Unwrap() error {
	if e.Cause != nil {
		return e.Cause
	}
	return invalid
}

var invalid = fault.New(fault.Invalid, "invalid")

// oneLine keeps a message of several lines on one, so that the first line of a report is complete.
func oneLine(s string) string {
	if !strings.ContainsAny(s, "\r\n") {
		return s
	}
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), " | ")
}

// Step is one step from an argument into its value.
type Step struct {
	Key   string // of a dict, when Keyed
	Index int    // of a list
	Keyed bool
}

// Index is the step to a list's element.
func Index(i int) Step { return Step{Index: i} }

// Key is the step to a dict's value.
func Key(k string) Step { return Step{Key: k, Keyed: true} }

// Problem is what a builtin finds wrong with its call. It has no place: Files finds that.
type Problem struct {
	Subject    string // container "db"
	Arg        string // the argument's name, "" when the call as a whole is wrong
	Positional int    // from 1: the argument's place when it was given without its name; 0 is unknown
	Unexpected bool   // there is no such argument; Message says it all
	Path       []Step
	Message    string // expected network, got string "front"
	Nearest    string
	Cure       string
	Cause      error
}

// NoField is a value of the type without the field or method; names are those that it has.
func NoField(typ, name string, names []string) *Problem {
	p := &Problem{Message: fmt.Sprintf("%s has no .%s field or method", typ, name), Nearest: fault.Nearest(name, names), Cure: "it has none"}
	if len(names) > 0 {
		sorted := slices.Sorted(slices.Values(names))
		p.Cure = "it has ." + strings.Join(sorted, ", .")
	}
	return p
}

// Where is the argument and the path into it: networks[0], env["A"].
func (p *Problem) Where() string {
	if p.Unexpected {
		return ""
	}
	var b strings.Builder
	b.WriteString(p.Arg)
	for _, s := range p.Path {
		if s.Keyed {
			fmt.Fprintf(&b, "[%q]", s.Key)
		} else {
			fmt.Fprintf(&b, "[%d]", s.Index)
		}
	}
	return b.String()
}

func (p *Problem) text() string {
	if w := p.Where(); w != "" {
		return w + ": " + p.Message
	}
	return p.Message
}

// Error is the problem without its place.
func (p *Problem) Error() string {
	return (&Error{Subject: p.Subject, Message: p.text(), Nearest: p.Nearest}).Error()
}

// Unwrap is the class and the cause.
func (p *Problem) Unwrap() error {
	if p.Cause != nil {
		return p.Cause
	}
	return invalid
}

// At prefixes the problem's path, for a converter that found it inside of an element.
func (p *Problem) At(s Step) *Problem {
	p.Path = append([]Step{s}, p.Path...)
	return p
}

func span(file string, n syntax.Node) Span {
	start, end := n.Span()
	return Span{File: file, Start: pos(start), End: pos(end)}
}

func pos(p syntax.Position) Pos { return Pos{int(p.Line), int(p.Col)} }

// Of finds the diag.Error in a chain.
func Of(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}
