package sdk

import (
	"context"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// logHandler sends records of log/slog as the lines that the engine's side of go-plugin understands.
type logHandler struct {
	logger hclog.Logger
	prefix string
}

func level(l slog.Level) hclog.Level {
	switch {
	case l < slog.LevelInfo:
		return hclog.Debug
	case l < slog.LevelWarn:
		return hclog.Info
	case l < slog.LevelError:
		return hclog.Warn
	}
	return hclog.Error
}

func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool {
	return level(l) >= h.logger.GetLevel()
}

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	args := make([]any, 0, 2*r.NumAttrs())
	r.Attrs(func(a slog.Attr) bool {
		args = append(args, h.prefix+a.Key, a.Value.Resolve().String())
		return true
	})
	h.logger.Log(level(r.Level), r.Message, args...)
	return nil
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	args := make([]any, 0, 2*len(attrs))
	for _, a := range attrs {
		args = append(args, h.prefix+a.Key, a.Value.Resolve().String())
	}
	return &logHandler{h.logger.With(args...), h.prefix}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{h.logger, h.prefix + name + "."}
}
