package container

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
)

// A start that is told to end is no fault of anything: nothing is logged, and the containers go on.
func TestToldToEndWhileStarting(t *testing.T) {
	h := newHouse(t)
	id := h.runs(t, "one", nil)
	var log bytes.Buffer
	h.log = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Reconcile(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	for range 2 {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
	if log.Len() > 0 {
		t.Errorf("logged: %s", log.String())
	}
	if c, err := h.find(id); err != nil || c.running() == nil {
		t.Errorf("the container: %v", err)
	}
}
