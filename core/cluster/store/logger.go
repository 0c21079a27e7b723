package store

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// logger is the logger that Raft wants, over log/slog. Elections and connections that come and go are Raft's daily
// life: what it calls an error is a warning for us at most (what stops the store is told by the store), and a warning
// a piece of information.
type logger struct {
	hclog.Logger // for the methods that Raft does not use
	log          *slog.Logger
}

func newLogger(l *slog.Logger) *logger { return &logger{hclog.NewNullLogger(), l} }

func (l *logger) write(level slog.Level, msg string, args []any) {
	for i, arg := range args {
		if f, ok := arg.(hclog.Format); ok {
			args[i] = fmt.Sprintf(f[0].(string), f[1:]...)
		}
	}
	l.log.Log(context.Background(), level, msg, args...)
}

func (l *logger) Log(level hclog.Level, msg string, args ...any) {
	switch level {
	case hclog.Error:
		l.Error(msg, args...)
	case hclog.Warn:
		l.Warn(msg, args...)
	default:
		l.Debug(msg, args...)
	}
}

func (l *logger) Trace(string, ...any)           {}
func (l *logger) Debug(msg string, args ...any)  { l.write(slog.LevelDebug, msg, args) }
func (l *logger) Info(msg string, args ...any)   { l.write(slog.LevelDebug, msg, args) }
func (l *logger) Warn(msg string, args ...any)   { l.write(slog.LevelInfo, msg, args) }
func (l *logger) Error(msg string, args ...any)  { l.write(slog.LevelWarn, msg, args) }
func (l *logger) IsDebug() bool                  { return l.log.Enabled(context.Background(), slog.LevelDebug) }
func (l *logger) With(args ...any) hclog.Logger  { return &logger{l.Logger, l.log.With(args...)} }
func (l *logger) Named(string) hclog.Logger      { return l }
func (l *logger) ResetNamed(string) hclog.Logger { return l }
func (l *logger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.log.Handler(), slog.LevelDebug)
}
func (l *logger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(o).Writer()
}
