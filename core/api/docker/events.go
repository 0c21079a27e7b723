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

// Events is what the handlers need of core/event.
type Events interface {
	// Subscribe returns what happened since, then what happens. A zero time is no bound; without
	// since nothing of the past comes. The channel is closed at until, and when ctx ends.
	Subscribe(ctx context.Context, since, until time.Time, filters map[string][]string) (<-chan wire.Event, error)
}

var eventFilters = with(labelFilters, route.FilterKeys{
	"config": nil, "container": nil, "daemon": nil, "event": nil, "image": nil, "network": nil,
	"node": nil, "plugin": nil, "scope": nil, "secret": nil, "service": nil, "type": nil, "volume": nil,
})

// events streams what happens, one JSON object a line, each sent at once.
func (s system) events(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	since, until, filters := q.Time("since"), q.Time("until"), q.Filters(eventFilters)
	if err := q.Err(); err != nil {
		return err
	}
	if !until.IsZero() && until.Before(since) {
		return fault.New(fault.Invalid, "`since` time (%s) cannot be after `until` time (%s)", q.Text("since"), q.Text("until"))
	}
	ctx, cancel := r.Stream()
	defer cancel()
	events, err := s.backends.Events.Subscribe(ctx, since, until, filters)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w).Flush
	if err := flush(); err != nil {
		return err
	}
	out := json.NewEncoder(w)
	for e := range events {
		if r.Version < 46 && e.Type == "image" && e.Action == "create" {
			continue // the event came with v1.46
		}
		if err := out.Encode(e); err != nil {
			return err
		}
		if err := flush(); err != nil {
			return err
		}
	}
	return nil
}
