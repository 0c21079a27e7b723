package route

import (
	"strings"
	"unicode"
)

// maxWords bounds the message of an error, which may quote what it is about: an image can name a volume of a megabyte.
const maxWords = 4 << 10

// Words is the message of an error for clients, Docker's among them, that print it as it is: bounded, and without what
// a terminal would obey.
func Words(err error) string {
	s := err.Error()
	if len(s) > maxWords {
		s = strings.ToValidUTF8(s[:maxWords], "") + "..."
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, s)
}
