package cli

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Printable is a text that somebody else may have written, such as whoever made an image, with what a terminal
// would obey shown instead: control characters (ECMA-48, C0 and C1), what changes the direction of writing (Unicode
// UAX #9, 2) and bytes that are no UTF-8. Tabs and ends of lines stay.
func Printable(s string) string {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f || layout(s[i])
	}
	if plain {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1, r < ' ' && !layout(s[i]), r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case obeyed(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// layout reports whether a byte moves on in the text.
func layout(c byte) bool { return c >= '\t' && c <= '\f' }

func obeyed(r rune) bool {
	return r >= 0x80 && r <= 0x9f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x200e || r == 0x200f
}

// show writes a text whose form the user has chosen: a person gets it as Printable, a program as it is.
func show(out io.Writer, text *bytes.Buffer) error {
	if t, ok := out.(interface{ IsTerminal() bool }); ok && t.IsTerminal() {
		_, err := io.WriteString(out, Printable(text.String()))
		return err
	}
	_, err := text.WriteTo(out)
	return err
}
