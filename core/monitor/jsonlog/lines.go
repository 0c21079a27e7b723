package jsonlog

import (
	"bytes"
	"time"
	"unicode/utf8"
)

// maxEntry is the longest text of one entry; a longer line is cut into parts, as by Docker.
const maxEntry = 16 << 10

// keepRest is what an idle stream may hold on to for the beginning of its next line.
const keepRest = 512

// Lines cuts the output of one stream into entries. It belongs to one goroutine.
type Lines struct {
	log    Log
	stream Stream
	rest   []byte    // the beginning of a line whose end has not come
	cut    bool      // whether a part of that line was written already
	began  time.Time // the time of that part, which the others get too
}

// NewLines returns the writer of one stream.
func NewLines(l Log, s Stream) *Lines { return &Lines{log: l, stream: s} }

// Lines returns the writer of one stream.
func (w *Writer) Lines(s Stream) *Lines { return NewLines(w, s) }

// Write takes the next output, whole lines or not. It always takes all: a full disk loses lines of
// the log (see Writer.Dropped) and must not stop the container.
func (l *Lines) Write(p []byte) (int, error) {
	n, now := len(p), time.Now()
	if len(l.rest)+len(p) < maxEntry && bytes.IndexByte(p, '\n') < 0 {
		l.rest = append(l.rest, p...)
		return n, nil
	}
	e := l.log.Begin()
	defer e.End()
	for len(p) > 0 {
		room := maxEntry - len(l.rest)
		window := p[:min(len(p), room)]
		i := bytes.IndexByte(window, '\n')
		if i < 0 && len(window) < room {
			l.rest = append(l.rest, window...)
			break
		}
		if i >= 0 {
			window = window[:i+1]
		}
		p = p[len(window):]
		text := window
		if len(l.rest) > 0 {
			text = append(l.rest, window...)
		}
		if i >= 0 {
			l.emit(e, text, now)
			l.cut = false
			l.drop()
			continue
		}
		whole := len(text) - cutRune(text)
		l.emit(e, text[:whole], now)
		l.cut = true
		l.rest = append(l.rest[:0], text[whole:]...)
	}
	return n, nil
}

// Close writes what came after the last newline, as an entry without one.
func (l *Lines) Close() {
	if len(l.rest) == 0 {
		return
	}
	e := l.log.Begin()
	defer e.End()
	l.emit(e, l.rest, time.Now())
	l.drop()
}

func (l *Lines) emit(e Batch, text []byte, now time.Time) {
	if !l.cut {
		l.began = now
	}
	e.Add(text, l.stream, l.began)
}

func (l *Lines) drop() {
	if cap(l.rest) > keepRest {
		l.rest = nil
	}
	l.rest = l.rest[:0]
}

// cutRune returns how many bytes at the end of b begin a character whose rest is still to come.
func cutRune(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if c := b[len(b)-n:]; utf8.RuneStart(c[0]) {
			if utf8.FullRune(c) {
				return 0
			}
			return n
		}
	}
	return 0
}
