package service

import (
	"strings"

	"github.com/sampan-project/sampan/core/fault"
)

// command is a flag of words as a shell has them.
type command struct{ words []string }

func (c *command) String() string { return "" }

// Type is the word for the value in help texts.
func (c *command) Type() string { return "command" }

// Set splits the words.
func (c *command) Set(s string) error {
	words, ok := split(s)
	if !ok {
		return &fault.Field{Given: s, Expected: "words with their quotes closed"}
	}
	c.words = words
	return nil
}

// split takes words apart as sh(1) does, 2.2 "Quoting" and 2.3 "Token Recognition", without expansions: blanks
// separate, quotes and backslashes take meaning away, a # begins a comment.
func split(s string) (words []string, closed bool) {
	var word strings.Builder
	open := false // there is a word, if only of quotes
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			if open {
				words = append(words, word.String())
				word.Reset()
				open = false
			}
		case c == '#' && !open:
			end := strings.IndexByte(s[i:], '\n')
			if end < 0 {
				return words, true
			}
			i += end
		case c == '\'':
			end := strings.IndexByte(s[i+1:], '\'')
			if end < 0 {
				return nil, false
			}
			word.WriteString(s[i+1 : i+1+end])
			i, open = i+1+end, true
		case c == '"':
			text, length, ok := quoted(s[i+1:])
			if !ok {
				return nil, false
			}
			word.WriteString(text)
			i, open = i+length, true
		case c == '\\':
			if i++; i == len(s) {
				return nil, false
			}
			word.WriteByte(s[i])
			open = true
		default:
			word.WriteByte(c)
			open = true
		}
	}
	if open {
		words = append(words, word.String())
	}
	return words, true
}

// quoted reads what stands between double quotes, and how long it is with the closing one.
func quoted(s string) (text string, length int, closed bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), i + 1, true
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return "", 0, false
}
