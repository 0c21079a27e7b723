package plugin

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
)

// hclogger is the logger that go-plugin wants, over log/slog. What go-plugin says itself is for
// debugging, at whatever level: our own supervision tells of the same things. The lines of the
// plugin, for which go-plugin takes a logger Named as the program, keep their level.
type hclogger struct {
	hclog.Logger // for the methods that go-plugin does not use
	log          *slog.Logger
	program      string // the plugin's path
	lines        bool   // of the plugin
}

// maxLine bounds a line of a plugin in the log.
const maxLine = 16 << 10

func cut(s string) string {
	if len(s) > maxLine {
		return s[:maxLine] + " [...]"
	}
	return s
}

func (l *hclogger) write(level slog.Level, msg string, args []any) {
	if !l.lines {
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, cut(strings.TrimRight(msg, "\n")), args...)
}

func (l *hclogger) Log(level hclog.Level, msg string, args ...any) {
	switch level {
	case hclog.Error:
		l.Error(msg, args...)
	case hclog.Warn:
		l.Warn(msg, args...)
	case hclog.Info:
		l.Info(msg, args...)
	default:
		l.Debug(msg, args...)
	}
}

func (l *hclogger) Trace(msg string, args ...any) { l.write(slog.LevelDebug, msg, args) }
func (l *hclogger) Debug(msg string, args ...any) { l.write(slog.LevelDebug, msg, args) }
func (l *hclogger) Info(msg string, args ...any)  { l.write(slog.LevelInfo, msg, args) }
func (l *hclogger) Warn(msg string, args ...any)  { l.write(slog.LevelWarn, msg, args) }
func (l *hclogger) Error(msg string, args ...any) { l.write(slog.LevelError, msg, args) }

func (l *hclogger) IsDebug() bool { return true }

func (l *hclogger) With(args ...any) hclog.Logger {
	c := *l
	c.log = l.log.With(args...)
	return &c
}

func (l *hclogger) Named(name string) hclog.Logger {
	c := *l
	c.lines = l.lines || name == filepath.Base(l.program)
	return &c
}

// lineLog writes lines to the log.
type lineLog struct {
	log *slog.Logger
	mu  sync.Mutex
	buf []byte
}

func (w *lineLog) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, p...)
	for {
		i := bytes.IndexByte(w.buf, '\n')
		if i < 0 && len(w.buf) < maxLine {
			return len(p), nil
		}
		if i < 0 {
			i = len(w.buf) - 1
		}
		w.log.Info(cut(string(bytes.TrimRight(w.buf[:i+1], "\n"))))
		w.buf = append(w.buf[:0], w.buf[i+1:]...)
	}
}

// lastWords keeps the last line that a program wrote to its standard error before it could log.
type lastWords struct {
	mu   sync.Mutex
	line []byte
	next []byte
}

func (w *lastWords) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for line := range bytes.Lines(p) {
		w.next = append(w.next, line[:min(len(line), maxLastWords)]...)
		if len(w.next) > maxLastWords || bytes.HasSuffix(line, []byte("\n")) {
			if text := bytes.TrimSpace(w.next); len(text) > 0 && text[0] != '{' { // a record for the log is none
				w.line = bytes.Clone(text)
			}
			w.next = w.next[:0]
		}
	}
	return len(p), nil
}

const maxLastWords = 300

func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.line)
}

// oneLine makes an error of go-plugin, which may have paragraphs, fit our log: its first line.
func oneLine(err error) error {
	first, rest, more := strings.Cut(err.Error(), "\n")
	if !more || strings.TrimSpace(rest) == "" {
		return err
	}
	return errors.New(strings.TrimSpace(first))
}
