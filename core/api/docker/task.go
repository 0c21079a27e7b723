package docker

import (
	"context"
	"io"
	"net/http"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/wire"
)

// Tasks are the containers of a swarm's services, each on its node. A task is named by its ID or the beginning of it.
type Tasks interface {
	Tasks(ctx context.Context, filters map[string][]string) ([]wire.Task, error)
	Task(ctx context.Context, ref string) (wire.Task, error)
	// TaskLogs writes the log in frames, or without frames when the task has a terminal.
	TaskLogs(ctx context.Context, ref string, o wire.LogOptions, w io.Writer) error
}

func (s swarm) ofTasks() []route.Route {
	return []route.Route{
		{Method: http.MethodGet, Pattern: "/tasks", Handle: s.tasks},
		{Method: http.MethodGet, Pattern: "/tasks/{id}", Handle: s.task},
		{Method: http.MethodGet, Pattern: "/tasks/{id}/logs", Handle: s.taskLogs},
	}
}

var taskFilters = with(labelFilters, route.FilterKeys{
	"id": nil, "name": nil, "node": nil, "service": nil, "runtime": nil, "_up-to-date": nil,
	"desired-state": route.OneOf("new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running",
		"complete", "completed", "shutdown", "failed", "rejected", "remove", "orphaned"),
})

func (s swarm) tasks(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	filters := q.Filters(taskFilters)
	if err := q.Err(); err != nil {
		return err
	}
	list, err := s.backend.Tasks(r.Context(), filters)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, orEmpty(list))
}

func (s swarm) task(w http.ResponseWriter, r *route.Request) error {
	found, err := s.backend.Task(r.Context(), r.Variable())
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, found)
}

func (s swarm) taskLogs(w http.ResponseWriter, r *route.Request) error {
	found, err := s.backend.Task(r.Context(), r.Variable())
	if err != nil {
		return err
	}
	tty := found.Spec.ContainerSpec != nil && found.Spec.ContainerSpec.TTY
	return swarmLogs(w, r, tty, func(ctx context.Context, o wire.LogOptions, out io.Writer) error {
		return s.backend.TaskLogs(ctx, found.ID, o, out)
	})
}
