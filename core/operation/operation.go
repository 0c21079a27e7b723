// Package operation follows the engine's operations: what is done to what, its phases, how long each
// took, and how it ended. With --debug each is one line of the daemon's log; its time is a metric.
//
//	op := recorder.Begin("container", "start", id)
//	defer func() { op.End(err) }()
//	...
//	op.Phase("network") // what has been done since Begin or the phase before
//
// A nil Recorder records nothing, so that rooms need not ask whether they have one.
package operation

import (
	"context"
	"log/slog"
	"time"
)

// Recorder takes operations.
type Recorder struct {
	Logger *slog.Logger
	// Done is told of every operation at its end; nil: nobody.
	Done func(noun, verb string, took time.Duration, err error)
}

// Op is an operation that has begun. It belongs to one goroutine.
type Op struct {
	r                   *Recorder
	noun, verb, subject string
	began, last         time.Time
	phases              []any // of slog: times by name; nil when nobody reads them
	traced              bool
}

// Begin begins an operation.
func (r *Recorder) Begin(noun, verb, subject string) *Op {
	if r == nil {
		return nil
	}
	now := time.Now()
	return &Op{r: r, noun: noun, verb: verb, subject: subject, began: now, last: now,
		traced: r.Logger != nil && r.Logger.Enabled(context.Background(), slog.LevelDebug)}
}

// Phase says that the phase of that name is over.
func (o *Op) Phase(name string) {
	if o == nil || !o.traced {
		return
	}
	now := time.Now()
	o.phases = append(o.phases, slog.Duration(name, now.Sub(o.last)))
	o.last = now
}

// End ends the operation.
func (o *Op) End(err error) {
	if o == nil {
		return
	}
	took := time.Since(o.began)
	if o.r.Done != nil {
		o.r.Done(o.noun, o.verb, took, err)
	}
	if !o.traced {
		return
	}
	attributes := []any{slog.String("operation", o.noun+" "+o.verb), slog.String("id", o.subject), slog.Duration("duration", took)}
	if len(o.phases) > 0 {
		attributes = append(attributes, slog.Group("phases", o.phases...))
	}
	if err != nil {
		attributes = append(attributes, slog.Any("error", err))
	}
	o.r.Logger.Debug("operation", attributes...)
}
