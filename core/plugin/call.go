package plugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/proto"
	pluginv1 "github.com/sampan-project/sampan/proto/sampan/plugin/v1"
)

// Call runs fn, which makes one gRPC call, with a connection to the running plugin. What names the
// call in messages. A timeout of 0 is the host's.
func (p *Plugin) Call(ctx context.Context, what string, timeout time.Duration, fn func(context.Context, grpc.ClientConnInterface) error) error {
	proc, err := p.running(ctx)
	if err != nil {
		return err
	}
	limited, cancel := p.host.deadline(ctx, timeout)
	defer cancel()
	start := time.Now()
	err = fn(metadata.AppendToOutgoingContext(limited, proto.OperationKey, rand.Text()), proc.conn)
	p.host.o.Logger.Debug("plugin call", "plugin", p.String(), "call", what, "took", time.Since(start), "error", err)
	if err == nil {
		return nil
	}
	switch status.Code(err) {
	case codes.DeadlineExceeded:
		go p.probe(proc)
		// The answer of a plugin that looks at its deadline may be here before ours has passed.
		if own, ok := ctx.Deadline(); ok && !own.After(limit(limited)) {
			return fmt.Errorf("%s did not answer %s in time: %w", p, what, context.DeadlineExceeded)
		}
		return fault.New(fault.Deadline, "%s did not answer %s in %v", p, what, time.Since(start).Round(time.Millisecond))
	case codes.Canceled:
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fallthrough // the connection is closed when the process has ended
	case codes.Unavailable:
		if proc.ended() {
			return fault.New(fault.Unavailable, "%s failed in %s: %w", p, what, proc.exitError())
		}
	}
	return FromStatus(err)
}

func limit(ctx context.Context) time.Time {
	t, _ := ctx.Deadline()
	return t
}

// ended reports whether the process is dead; it waits a moment, because a connection breaks before
// the process has been waited for. Whoever is told so finds another process with the next call, as one that
// undoes what it began.
func (proc *process) ended() bool {
	select {
	case <-proc.noticed:
		return true
	case <-time.After(250 * time.Millisecond):
		return false
	}
}

// probeTimeout is how long Health may take: it does nothing that waits.
const probeTimeout = 2 * time.Second

// probe kills a plugin that does not even answer Health, so that it is started anew.
func (p *Plugin) probe(proc *process) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	if _, err := pluginv1.NewPluginClient(proc.conn).Health(ctx, &pluginv1.HealthRequest{}); status.Code(err) == codes.DeadlineExceeded {
		p.host.o.Logger.Error("plugin hangs and is killed", "plugin", p.String(), "pid", proc.pid)
		proc.kill()
	}
}

// Health asks a running plugin whether it can work.
func (p *Plugin) Health(ctx context.Context) error {
	return p.Call(ctx, "Health", probeTimeout, func(ctx context.Context, c grpc.ClientConnInterface) error {
		r, err := pluginv1.NewPluginClient(c).Health(ctx, &pluginv1.HealthRequest{})
		if err == nil && !r.GetHealthy() {
			err = status.Error(codes.Unavailable, r.GetReason())
		}
		return err
	})
}

// classes is the one table from gRPC codes to classes.
var classes = map[codes.Code]fault.Class{
	codes.NotFound: fault.NotFound, codes.AlreadyExists: fault.Exists, codes.FailedPrecondition: fault.Conflict,
	codes.Aborted: fault.Conflict, codes.InvalidArgument: fault.Invalid, codes.OutOfRange: fault.Invalid,
	codes.Unauthenticated: fault.Unauthorized, codes.PermissionDenied: fault.Forbidden,
	codes.Unavailable: fault.Unavailable, codes.ResourceExhausted: fault.Unavailable,
	codes.Unimplemented: fault.NotImplemented, codes.Canceled: fault.Canceled, codes.DeadlineExceeded: fault.Deadline,
}

// FromStatus gives the error of a gRPC call its class, its message without gRPC's words around it,
// and, when it is about one value, the shape of a *fault.Field.
func FromStatus(err error) error {
	s, ok := status.FromError(err)
	if !ok || err == nil {
		return err
	}
	for _, detail := range s.Details() {
		if f, ok := detail.(*pluginv1.FieldError); ok {
			return &fault.Field{Field: f.GetField(), Given: f.GetGiven(), Expected: f.GetExpected(), Nearest: f.GetNearest()}
		}
	}
	return fault.As(classes[s.Code()], errors.New(s.Message()))
}
