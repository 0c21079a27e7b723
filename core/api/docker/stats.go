package docker

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// ContainerStatser samples a container's use of resources. PreRead and PreCPUStats are the
// handler's to fill in. A container that does not run is Conflict.
type ContainerStatser interface {
	Stats(ctx context.Context, ref string) (wire.Stats, error)
}

// statsInterval is the distance of two samples, as clients expect it.
const statsInterval = time.Second

// stats streams samples, each with the one before it, from which clients compute a rate. Without
// "stream" it answers with one, after a first that only primes the rate; "one-shot" leaves that out.
func (c containers) stats(w http.ResponseWriter, r *route.Request) error {
	b, err := ability[ContainerStatser](c.backend, "sampling the statistics of a container")
	if err != nil {
		return err
	}
	q := r.Query()
	stream, oneShot := q.BoolOr("stream", true), r.Version >= 41 && q.Bool("one-shot")
	if err := q.Err(); err != nil {
		return err
	}
	ctx, cancel := r.Stream()
	defer cancel()
	sampler := &sampler{backend: b, ref: r.Variable(), inspect: c.backend.Inspect}
	sample, running, err := sampler.next(ctx)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	if !stream && (oneShot || !running) {
		return json.NewEncoder(w).Encode(sample)
	}
	ticker := time.NewTicker(statsInterval)
	defer ticker.Stop()
	for primed := stream; ; primed = true {
		if primed {
			if err := json.NewEncoder(w).Encode(sample); err != nil || !stream {
				return err
			}
			if err := http.NewResponseController(w).Flush(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if sample, _, err = sampler.next(ctx); err != nil {
			return streamEnd(err)
		}
	}
}

// streamEnd makes the removal of what was streamed a plain end.
func streamEnd(err error) error {
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// A sampler puts the sample before into each sample.
type sampler struct {
	backend ContainerStatser
	ref     string
	inspect func(ctx context.Context, ref string, size bool) (wire.ContainerInspect, error)
	before  wire.Stats
}

// next takes a sample. A container that does not run has one of zeros.
func (s *sampler) next(ctx context.Context) (sample wire.Stats, running bool, err error) {
	sample, err = s.backend.Stats(ctx, s.ref)
	running = err == nil
	if fault.Is(err, fault.Conflict) {
		var c wire.ContainerInspect
		if c, err = s.inspect(ctx, s.ref, false); err == nil {
			sample = wire.Stats{ID: c.ID, Name: c.Name, Read: never}
		}
	}
	if err != nil {
		return wire.Stats{}, false, err
	}
	sample.PreRead, sample.PreCPUStats = s.before.Read, s.before.CPUStats
	if sample.PreRead == "" {
		sample.PreRead = never
	}
	s.before = sample
	return sample, running, nil
}

// never is Go's zero time, which stands for a moment that was not.
const never = "0001-01-01T00:00:00Z"
