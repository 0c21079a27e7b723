package diag

import (
	"fmt"
	"sort"
	"strings"
	"sync"
	"unicode"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// Files keeps the text and the syntax tree of what was read, by the name that messages show. It is
// safe for use by several goroutines.
type Files struct {
	mu    sync.RWMutex
	files map[string]*file
}

type file struct {
	lines []string
	calls map[Pos]*syntax.CallExpr // by the position of "(", which is where the interpreter says a call is
	dots  map[Pos]*syntax.DotExpr  // by the position of "."
}

// Add remembers a file's text. A tree that is added later, with AddTree, gives precise places.
func (f *Files) Add(name string, text []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.files == nil {
		f.files = map[string]*file{}
	}
	f.files[name] = &file{lines: strings.Split(string(text), "\n")}
}

// AddTree remembers the calls of a file that was added before.
func (f *Files) AddTree(name string, tree *syntax.File) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.files[name]
	if known == nil {
		return
	}
	known.calls, known.dots = map[Pos]*syntax.CallExpr{}, map[Pos]*syntax.DotExpr{}
	syntax.Walk(tree, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.CallExpr:
			known.calls[pos(n.Lparen)] = n
		case *syntax.DotExpr:
			known.dots[pos(n.Dot)] = n
		}
		return true
	})
}

// Line returns a line of a file.
func (f *Files) Line(name string, n int) (string, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if known := f.files[name]; known != nil && n >= 1 && n <= len(known.lines) {
		return strings.TrimSuffix(known.lines[n-1], "\r"), true
	}
	return "", false
}

// Names lists the files, sorted.
func (f *Files) Names() []string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	names := make([]string, 0, len(f.files))
	for n := range f.files {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Text returns the text of a span: the source of a lambda, for instance.
func (f *Files) Text(s Span) string {
	var b strings.Builder
	for n := s.Start.Line; n <= s.End.Line; n++ {
		line, ok := f.Line(s.File, n)
		if !ok {
			break
		}
		runes := []rune(line)
		from, to := 0, len(runes)
		if n == s.Start.Line {
			from = min(max(s.Start.Col-1, 0), len(runes))
		}
		if n == s.End.Line {
			to = min(max(s.End.Col-1, from), len(runes))
		}
		b.WriteString(string(runes[from:to]))
		if n < s.End.Line {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func (f *Files) call(s Span) *syntax.CallExpr {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if known := f.files[s.File]; known != nil {
		return known.calls[s.Start]
	}
	return nil
}

func (f *Files) dot(s Span) *syntax.DotExpr {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if known := f.files[s.File]; known != nil {
		return known.dots[s.Start]
	}
	return nil
}

// Site is a place in a running script, kept for later.
type Site struct {
	files *Files
	stack []Frame // innermost first; At is the interpreter's position
}

// Site keeps the place where a builtin is being called on the thread.
func (f *Files) Site(thread *starlark.Thread) Site {
	return Site{f, frames(thread.CallStack())}
}

// IsZero reports whether the site is no place.
func (s Site) IsZero() bool { return len(s.stack) == 0 }

// Span is the call that the site's user wrote: in a file of a dependency only if there is no other.
func (s Site) Span() Span {
	i := s.primary()
	if i < 0 {
		return Span{}
	}
	return s.files.callSpan(s.stack[i].At)
}

// String is FILE:LINE:COLUMN of the call.
func (s Site) String() string {
	if s.IsZero() {
		return ""
	}
	return s.Span().String()
}

// Error is the problem at this place.
func (s Site) Error(p *Problem) *Error { return s.files.locate(s.stack, p) }

// primary is the innermost frame in the user's own files, or the innermost of all.
func (s Site) primary() int {
	for i, f := range s.stack {
		if !f.Library() {
			return i
		}
	}
	if len(s.stack) == 0 {
		return -1
	}
	return 0
}

// frames turns the interpreter's stack, outermost first with builtins in it, into ours.
func frames(stack starlark.CallStack) []Frame {
	var out []Frame
	for i := len(stack) - 1; i >= 0; i-- {
		if p := stack[i].Pos; p.Line > 0 {
			in := stack[i].Name
			if in == "<toplevel>" {
				in = ""
			}
			out = append(out, Frame{In: in, At: Span{File: p.Filename(), Start: pos(p)}})
		}
	}
	return out
}

// callSpan widens the interpreter's position of a call, its "(", to what people call the place: the
// function's name up to the end of the first line's arguments.
func (f *Files) callSpan(s Span) Span {
	if c := f.call(s); c != nil {
		return span(s.File, calleeName(c))
	}
	if d := f.dot(s); d != nil {
		return span(s.File, d.Name)
	}
	return s
}

func calleeName(c *syntax.CallExpr) syntax.Node {
	if d, ok := c.Fn.(*syntax.DotExpr); ok {
		return d.Name
	}
	return c.Fn
}

// Placed finds a place at the beginning of an error's text, FILE:LINE:COLUMN: as the daemon repeats
// it for a build's step, and makes an Error of the rest, when the file is one that was read. An error
// that has a place already is returned whole: its text lacks the cure and the callers.
func (f *Files) Placed(err error) (*Error, bool) {
	if e, ok := Of(err); ok {
		placed := *e
		return &placed, true
	}
	text := err.Error()
	for _, name := range f.Names() {
		i := strings.Index(text, name+":")
		if i < 0 {
			continue
		}
		var line, col int
		n, scanErr := fmt.Sscanf(text[i+len(name):], ":%d:%d:", &line, &col)
		if n != 2 || scanErr != nil || line < 1 || col < 1 {
			continue
		}
		place := fmt.Sprintf("%s:%d:%d:", name, line, col)
		message := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text[:i]), ":") + " " + strings.TrimSpace(text[i+len(place):]))
		return &Error{At: f.widest(Span{File: name, Start: Pos{line, col}}), Message: message, Cause: err}, true
	}
	return nil, false
}

// widest gives a place that is only a start the end of the word there.
func (f *Files) widest(s Span) Span {
	line, ok := f.Line(s.File, s.Start.Line)
	runes := []rune(line)
	if !ok || s.Start.Col > len(runes) {
		return s
	}
	end := s.Start.Col - 1
	for end < len(runes) && (runes[end] == '_' || runes[end] == '.' || unicode.IsLetter(runes[end]) || unicode.IsDigit(runes[end])) {
		end++
	}
	s.End = Pos{s.Start.Line, max(end, s.Start.Col-1) + 1}
	return s
}
