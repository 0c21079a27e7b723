package apply

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/graph"
)

// await waits for a condition that a resource needs.
func (r *runner) await(ctx context.Context, res *graph.Resource, n graph.Need) error {
	if n.Condition != graph.Healthy && n.Condition != graph.Completed {
		return nil // the order of the operations sees to it
	}
	on := r.graph.Find(n.On)
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	tick := time.NewTicker(r.o.Poll)
	defer tick.Stop()
	for first := true; ; first = false {
		c, err := r.engine.ContainerInspect(ctx, on.Name, false)
		if err != nil {
			return err
		}
		met, err := r.met(ctx, n, c)
		if err != nil || met {
			return err
		}
		if first {
			r.event(Event{Address: res.Address, Verb: "waiting for " + n.On.String() + "." + string(n.Condition)})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				return &diag.Problem{Message: fmt.Sprintf("%s is not %s after %s%s", n.On, n.Condition, r.o.Timeout, r.lastWords(context.WithoutCancel(ctx), c)),
					Cure: "--timeout lets it take longer", Cause: fault.New(fault.Deadline, "timeout")}
			}
			return ctx.Err()
		}
	}
}

// met reports whether a condition is true now; that it cannot become true any more is an error.
func (r *runner) met(ctx context.Context, n graph.Need, c wire.ContainerInspect) (bool, error) {
	s := c.State
	if s == nil {
		return false, nil
	}
	ended := s.Status == "exited" || s.Status == "dead"
	if n.Condition == graph.Completed {
		if ended && s.ExitCode != 0 {
			return false, &diag.Problem{Message: fmt.Sprintf("%s has ended with status %d%s", n.On, s.ExitCode, r.lastWords(ctx, c)), Cause: fault.New(fault.Conflict, "ended")}
		}
		return ended, nil
	}
	switch {
	case ended:
		return false, &diag.Problem{Message: fmt.Sprintf("%s has ended with status %d before it was healthy%s", n.On, s.ExitCode, r.lastWords(ctx, c)), Cause: fault.New(fault.Conflict, "ended")}
	case s.Health == nil || s.Health.Status == "none":
		if c.Config == nil || c.Config.Healthcheck == nil || len(c.Config.Healthcheck.Test) == 0 || c.Config.Healthcheck.Test[0] == "NONE" {
			return false, &diag.Problem{Message: fmt.Sprintf("%s has no health probe, so it cannot become healthy", n.On), Cure: "give it one: health = probe.exec([...])", Cause: fault.New(fault.Invalid, "no probe")}
		}
		return false, nil
	case s.Health.Status == "unhealthy":
		said := ""
		if log := s.Health.Log; len(log) > 0 {
			said = fmt.Sprintf(": its probe ended with status %d: %s", log[len(log)-1].ExitCode, strings.TrimSpace(log[len(log)-1].Output))
		}
		return false, &diag.Problem{Message: fmt.Sprintf("%s is unhealthy%s", n.On, said), Cause: fault.New(fault.Conflict, "unhealthy")}
	}
	return s.Health.Status == "healthy", nil
}

// lastWords is the last line that a container wrote, for an error.
func (r *runner) lastWords(ctx context.Context, c wire.ContainerInspect) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	logs, err := r.engine.ContainerLogs(ctx, c.ID, client.LogOptions{Stdout: true, Stderr: true, Tail: "5"})
	if err != nil {
		return ""
	}
	defer logs.Close()
	var b bytes.Buffer
	limited := io.LimitReader(logs, 64<<10)
	if c.Config != nil && c.Config.Tty {
		_, err = io.Copy(&b, limited)
	} else {
		_, err = client.StdCopy(&b, &b, limited)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if last := strings.TrimSpace(lines[len(lines)-1]); err == nil && last != "" {
		return "; it last wrote: " + last
	}
	return ""
}
