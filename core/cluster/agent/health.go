package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// errUnhealthy has Docker's words, which `service ps` shows.
var errUnhealthy = errors.New("dockerexec: unhealthy container")

// end is how a container ended.
type end struct {
	code  int64
	cause error
}

// failure is the error that an end is, nil for a good one.
func (e *end) failure() error {
	switch {
	case e == nil || e.code == 0:
		return nil
	case e.cause != nil:
		return fmt.Errorf("task: non-zero exit (%d): %w", e.code, e.cause)
	}
	return fmt.Errorf("task: non-zero exit (%d)", e.code)
}

// probed reports whether the container has a health check, be it the task's or its image's.
func probed(c *wire.ContainerInspect) bool {
	h := c.Config.Healthcheck
	return h != nil && len(h.Test) > 0 && h.Test[0] != "NONE"
}

// watch waits for the end of a container, and with untilHealthy for its health, upon which there is no end. One that
// becomes unhealthy is stopped.
func (t *task) watch(ctx context.Context, want *session.Task, c *wire.ContainerInspect, untilHealthy bool) (*end, error) {
	exit, err := t.a.o.Containers.Wait(ctx, c.ID, "not-running")
	if err != nil {
		return nil, err
	}
	w := watch{t: t, want: want, id: c.ID, probed: probed(c)}
	for {
		// After the subscription, so that nothing comes to pass between the two.
		well, err := w.look(ctx)
		if err != nil {
			return nil, err
		}
		if well && untilHealthy {
			return nil, nil
		}
		select {
		case answer, ok := <-exit:
			if !ok {
				return nil, cancelled(ctx)
			}
			e := &end{answer.StatusCode, w.cause}
			if e.cause == nil && answer.Error != nil {
				e.cause = errors.New(answer.Error.Message)
			}
			return e, nil
		case _, ok := <-w.beats:
			if !ok {
				w.beats = nil // cut off, as it was too slow: again
			}
		case <-ctx.Done():
			return nil, cancelled(ctx)
		}
	}
}

func cancelled(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return fault.New(fault.Unavailable, "the engine does not wait for containers any more")
}

// watch is what is known of a container's health.
type watch struct {
	t      *task
	want   *session.Task
	id     string
	probed bool
	beats  <-chan wire.Event
	cause  error // why it was stopped
}

// look reports whether the container is healthy. It stops one that is not.
func (w *watch) look(ctx context.Context) (well bool, err error) {
	if !w.probed || w.cause != nil {
		return false, nil //nolint:nilerr // the cause is of its end, which is told
	}
	if w.beats == nil {
		filters := map[string][]string{"type": {"container"}, "container": {w.id}, "event": {"health_status"}}
		if w.beats, err = w.t.a.o.Events.Subscribe(ctx, time.Time{}, time.Time{}, filters); err != nil {
			return false, err
		}
	}
	c, err := w.t.a.o.Containers.Inspect(ctx, w.id, false)
	if fault.Is(err, fault.NotFound) {
		return false, nil // its end is told
	}
	if err != nil {
		return false, err
	}
	if c.State == nil || c.State.Health == nil || !c.State.Running {
		return false, nil
	}
	if c.State.Health.Status != "unhealthy" {
		return c.State.Health.Status == "healthy", nil
	}
	w.cause = errUnhealthy
	w.t.a.log.Info("the container of a task is unhealthy and is stopped", "task", w.t.id, "container", w.id)
	return false, w.t.a.halt(ctx, w.id, w.want)
}
