package plugin

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
)

// hclogger is the logger that go-plugin wants, over log/slog. What go-plugin says itself, at every
// level, is for debugging; the lines of the plugin come by Log and keep their level.
type hclogger struct {
	hclog.Logger // for the methods that go-plugin does not use
	log          *slog.Logger
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
	l.log.Log(context.Background(), level, cut(strings.TrimRight(msg, "\n")), args...)
}

func (l *hclogger) Log(level hclog.Level, msg string, args ...any) {
	switch level {
	case hclog.Error:
		l.write(slog.LevelError, msg, args)
	case hclog.Warn:
		l.write(slog.LevelWarn, msg, args)
	case hclog.Info:
		l.write(slog.LevelInfo, msg, args)
	default:
		l.write(slog.LevelDebug, msg, args)
	}
}

func (l *hclogger) Trace(msg string, args ...any) { l.write(slog.LevelDebug, msg, args) }
func (l *hclogger) Debug(msg string, args ...any) { l.write(slog.LevelDebug, msg, args) }
func (l *hclogger) Info(msg string, args ...any)  { l.write(slog.LevelInfo, msg, args) }
func (l *hclogger) Warn(msg string, args ...any)  { l.write(slog.LevelWarn, msg, args) }
func (l *hclogger) Error(msg string, args ...any) { l.write(slog.LevelError, msg, args) }

func (l *hclogger) IsDebug() bool                  { return true }
func (l *hclogger) With(args ...any) hclog.Logger  { return &hclogger{l.Logger, l.log.With(args...)} }
func (l *hclogger) Named(string) hclog.Logger      { return l }
func (l *hclogger) ResetNamed(string) hclog.Logger { return l }

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

// oneLine makes an error of go-plugin, which may have paragraphs, fit our log: its first line.
func oneLine(err error) error {
	first, rest, more := strings.Cut(err.Error(), "\n")
	if !more || strings.TrimSpace(rest) == "" {
		return err
	}
	return errors.New(strings.TrimSpace(first))
}
