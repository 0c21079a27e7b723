// Package fault gives every error of the engine a class that a program can act on, and gives
// errors about bad input one shape that a person can act on.
//
// A class maps to an HTTP status in core/api, to a gRPC code in core/plugin and to an exit code
// in cmd/sampan: one table each, in those places. This package knows no protocol.
package fault

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Class says what kind of failure an error is.
type Class int

// The classes. Internal is the class of every error that was given none.
const (
	Internal Class = iota
	NotFound
	Exists
	Conflict
	Invalid
	Unauthorized
	Forbidden
	Unavailable
	NotImplemented
	NotModified
	Canceled
	Deadline
)

var names = [...]string{
	Internal: "internal", NotFound: "not found", Exists: "exists", Conflict: "conflict",
	Invalid: "invalid", Unauthorized: "unauthorized", Forbidden: "forbidden",
	Unavailable: "unavailable", NotImplemented: "not implemented", NotModified: "not modified",
	Canceled: "canceled", Deadline: "deadline exceeded",
}

// String returns the class as words, such as "not found".
func (c Class) String() string {
	if c < 0 || int(c) >= len(names) {
		return names[Internal]
	}
	return names[c]
}

type classified struct {
	class Class
	err   error
}

func (e *classified) Error() string { return e.err.Error() }
func (e *classified) Unwrap() error { return e.err }

// New returns an error of the class with a formatted message; %w works as in fmt.Errorf.
func New(class Class, format string, args ...any) error {
	return &classified{class, fmt.Errorf(format, args...)}
}

// As gives err the class, keeping its message and chain. As(c, nil) is nil.
func As(class Class, err error) error {
	if err == nil {
		return nil
	}
	return &classified{class, err}
}

// ClassOf returns the class given nearest to the outside of err's chain. A Field error is Invalid,
// context errors are Canceled or Deadline, and an error without any class is Internal.
func ClassOf(err error) Class {
	var c *classified
	if errors.As(err, &c) {
		return c.class
	}
	var f *Field
	switch {
	case errors.As(err, &f):
		return Invalid
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return Deadline
	}
	return Internal
}

// Is reports whether err is of the class.
func Is(err error, class Class) bool { return err != nil && ClassOf(err) == class }

// Field is the error for one bad input value. Its class is Invalid.
type Field struct {
	Field    string // the flag, key or attribute path as the user wrote it: "--memory", "networks[0]"
	Given    string // the value that was given
	Expected string // what would have been right: "a size such as 512m or 2g"
	Nearest  string // the nearest right word, or ""
}

// Error is one line: field, value, expectation and, where there is one, the nearest right word.
func (e *Field) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q: expected %s", e.Field, e.Given, e.Expected)
	if e.Nearest != "" {
		fmt.Fprintf(&b, " (did you mean %q?)", e.Nearest)
	}
	return b.String()
}

// Nearest returns the candidate that is most likely meant by word, or "" when none is close:
// one edit in each five letters that it has begun. Ties go to the earlier candidate.
func Nearest(word string, candidates []string) string {
	best, bestDistance := "", 1+max(0, len(word)-1)/5
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d <= bestDistance && d < max(len(word), len(c)) {
			if best == "" || d < bestDistance {
				best, bestDistance = c, d
			}
		}
	}
	return best
}

// distance is the optimal string alignment distance: edits, with a swap of neighbours as one.
func distance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
