package diag

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// PrintOptions say how much Print shows.
type PrintOptions struct {
	Prefix string // before the first line: "sampan: "
	Trace  bool   // also the frames inside of dependencies
}

// Print writes err for people: one complete line, then the excerpt with a caret, the cure, and who
// called. An error that no script is to blame for is its one line.
func (f *Files) Print(w io.Writer, err error, o PrintOptions) {
	err = f.Explain(err)
	e, ok := Of(err)
	if !ok {
		fmt.Fprintf(w, "%s%v\n", o.Prefix, err)
		return
	}
	first := *e
	first.More = nil
	fmt.Fprintf(w, "%s%s\n", o.Prefix, wrapped(err, e, first.Error()))
	f.excerpt(w, e.At)
	if e.Cure != "" {
		fmt.Fprintf(w, "  %s\n", e.Cure)
	}
	printStack(w, e.Stack, o.Trace)
	for _, more := range e.More {
		fmt.Fprintln(w, more.Error())
		f.excerpt(w, more.At)
	}
}

// wrapped keeps what was said around the placed error, after the place: "FILE:1:2: cause".
func wrapped(outer error, e *Error, line string) string {
	if outer == error(e) { //nolint:errorlint // whether anything is around it
		return line
	}
	return strings.Replace(outer.Error(), e.Error(), line, 1)
}

func (f *Files) excerpt(w io.Writer, s Span) {
	if s.IsZero() || s.Start.Col < 1 {
		return
	}
	line, ok := f.Line(s.File, s.Start.Line)
	if !ok {
		return
	}
	const longest = 160 // characters: a generated file's line may have megabytes
	runes := []rune(line)
	if s.Start.Col > longest || s.Start.Col > len(runes)+1 {
		return
	}
	width := 1
	if s.End.Line == s.Start.Line && s.End.Col > s.Start.Col {
		width = s.End.Col - s.Start.Col
	} else if s.End.Line > s.Start.Line {
		width = len([]rune(strings.TrimRight(line, " \t"))) - s.Start.Col + 1
	}
	if len(runes) > longest {
		runes = append(runes[:longest:longest], '.', '.', '.')
	}
	width = max(1, min(width, len(runes)-s.Start.Col+1))
	var pad strings.Builder
	for _, r := range runes[:s.Start.Col-1] {
		if r == '\t' {
			pad.WriteByte('\t')
		} else {
			pad.WriteString(strings.Repeat(" ", cells(r)))
		}
	}
	number := fmt.Sprintf("%4d", s.Start.Line)
	fmt.Fprintf(w, "%s | %s\n", number, string(runes))
	fmt.Fprintf(w, "%s | %s%s\n", strings.Repeat(" ", utf8.RuneCountInString(number)), pad.String(), strings.Repeat("^", width))
}

// cells is how wide a terminal shows a character: the wide blocks of East Asian scripts take two.
func cells(r rune) int {
	if r >= 0x1100 && r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf || r >= 0xac00 && r <= 0xd7a3 ||
		r >= 0xf900 && r <= 0xfaff || r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 || r >= 0x1f300 && r <= 0x1faff {
		return 2
	}
	return 1
}

func printStack(w io.Writer, stack []Frame, trace bool) {
	hidden := 0
	var shown []string
	for _, fr := range stack {
		if fr.Library() && !trace {
			hidden++
			continue
		}
		line := "  " + fr.At.String()
		if fr.In != "" {
			line += " in " + fr.In
		}
		shown = append(shown, line)
	}
	if len(shown) > 0 {
		fmt.Fprintln(w, "called from")
		for _, line := range shown {
			fmt.Fprintln(w, line)
		}
	}
	if hidden > 0 {
		fmt.Fprintf(w, "  (%d frames of libraries hidden; --trace shows them)\n", hidden)
	}
}
