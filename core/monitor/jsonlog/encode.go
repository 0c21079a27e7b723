// Package jsonlog writes and reads container logs in the format of Docker's json-file driver: one
// JSON object a line, in files that are rotated by size.
//
//	{"log":"hello\n","stream":"stdout","attrs":{"tag":"web"},"time":"2026-01-02T03:04:05.000000006Z"}
//
// A line of output longer than 16 KiB becomes several entries of which only the last ends in a
// newline, and so does output that ends without one. The file that is being written has the path
// itself; path.1 is the one before it, path.2 older.
//
// The Writer lives in the monitor and the Reader in the daemon. They share nothing but the files:
// a daemon that is killed loses its place, and no line.
package jsonlog

import (
	"encoding/json"
	"sort"
	"time"
	"unicode/utf8"
)

// Stream says which of the two outputs an entry is of.
type Stream uint8

// The streams, with the numbers of Docker's frames.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// String returns the name as it stands in the log.
func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// appendEntry appends one line of the log file. It is by hand because a container that writes a
// million lines a second pays for this more than for anything else.
func appendEntry(b, text, tail []byte) []byte {
	b = append(b, `{"log":`...)
	b = appendString(b, text)
	return append(b, tail...)
}

// appendTail appends what follows the text: it is the same for all entries of one moment.
func appendTail(b []byte, s Stream, t time.Time, attrs []byte) []byte {
	if s == Stderr {
		b = append(b, `,"stream":"stderr"`...)
	} else {
		b = append(b, `,"stream":"stdout"`...)
	}
	if len(attrs) > 0 {
		b = append(b, `,"attrs":`...)
		b = append(b, attrs...)
	}
	b = append(b, `,"time":"`...)
	b = t.UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, "\"}\n"...)
}

const hexDigits = "0123456789abcdef"

// plain says which bytes stand for themselves in a JSON string, as encoding/json writes it.
var plain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return t
}()

// appendString appends s as a JSON string, byte for byte what encoding/json.Marshal of the string
// would be: bytes that are not UTF-8 become U+FFFD.
func appendString(b []byte, s []byte) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = append(b, s[start:i]...)
			b = appendEscape(b, c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, s[start:i]...)
			b = append(b, `\ufffd`...)
			start = i + 1
		case r == '\u2028' || r == '\u2029': // line ends in JavaScript
			b = append(b, s[start:i]...)
			b = append(b, `\u202`...)
			b = append(b, hexDigits[r&0xf])
			start = i + size
		}
		i += size
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	case '\b':
		return append(b, '\\', 'b')
	case '\f':
		return append(b, '\\', 'f')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
}

// encodeAttrs returns the attributes as a JSON object, in the order of their keys, or nil.
func encodeAttrs(attrs map[string]string) []byte {
	if len(attrs) == 0 {
		return nil
	}
	keys := make([]string, 0, len(attrs))
	for k := range attrs {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	b := []byte{'{'}
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, []byte(k))
		b = append(b, ':')
		b = appendString(b, []byte(attrs[k]))
	}
	return append(b, '}')
}

// Entry is one entry of a log.
type Entry struct {
	Log    []byte // with the newline, unless it is a part of a line; invalid after the next entry
	Stream Stream
	Time   time.Time
	Attrs  map[string]string
}

// decode decodes one line of a log file. Entries as the Writer writes them are cut up in place;
// what looks different (another writer, an escape) goes through encoding/json.
func decode(line []byte, e *Entry) error {
	if decodeOwn(line, e) {
		return nil
	}
	var v struct {
		Log    string            `json:"log"`
		Stream string            `json:"stream"`
		Time   time.Time         `json:"time"`
		Attrs  map[string]string `json:"attrs"`
	}
	if err := json.Unmarshal(line, &v); err != nil {
		return err
	}
	*e = Entry{Log: append(e.Log[:0], v.Log...), Stream: Stdout, Time: v.Time, Attrs: v.Attrs}
	if v.Stream == "stderr" {
		e.Stream = Stderr
	}
	return nil
}

func decodeOwn(line []byte, e *Entry) bool {
	rest, ok := cutPrefix(line, `{"log":"`)
	if !ok {
		return false
	}
	text, rest, ok := unquote(e.Log[:0], rest)
	if !ok {
		return false
	}
	var s Stream
	if after, ok := cutPrefix(rest, `,"stream":"stdout","time":"`); ok {
		s, rest = Stdout, after
	} else if after, ok := cutPrefix(rest, `,"stream":"stderr","time":"`); ok {
		s, rest = Stderr, after
	} else {
		return false
	}
	if len(rest) < 2 || string(rest[len(rest)-2:]) != `"}` {
		return false
	}
	t, err := parseTime(rest[:len(rest)-2])
	if err != nil {
		return false
	}
	*e = Entry{Log: text, Stream: s, Time: t}
	return true
}

func parseTime(b []byte) (time.Time, error) {
	var t time.Time
	err := t.UnmarshalText(b) // the fast path for RFC 3339
	return t, err
}

func cutPrefix(b []byte, prefix string) ([]byte, bool) {
	if len(b) < len(prefix) || string(b[:len(prefix)]) != prefix {
		return b, false
	}
	return b[len(prefix):], true
}

// unquote decodes a JSON string up to its closing quote. It knows the short escapes and \u00XX and
// leaves others to encoding/json.
func unquote(dst, b []byte) (text, rest []byte, ok bool) {
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c == '"' {
			return append(dst, b[:i]...), b[i+1:], true
		}
		if c < 0x20 {
			return nil, nil, false
		}
		if c != '\\' {
			continue
		}
		dst = append(dst, b[:i]...)
		if i+1 >= len(b) {
			return nil, nil, false
		}
		n := 2
		switch b[i+1] {
		case '"', '\\', '/':
			dst = append(dst, b[i+1])
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'u':
			n = 6
			r, good := hex4(b[i+2:])
			if !good || r >= 0xd800 && r < 0xe000 { // half of a pair
				return nil, nil, false
			}
			dst = utf8.AppendRune(dst, r)
		default:
			return nil, nil, false
		}
		b = b[i+n:]
		i = -1
	}
	return nil, nil, false
}

func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
