package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/wire"
)

func taskID(t *wire.Task) string { return t.ID }

// taskName is the name by which clients and containers show a task: SERVICE.SLOT.ID, with the node where there is no slot.
func taskName(r store.Reader, t *wire.Task) string {
	name := t.ServiceID
	if service := r.Service(t.ServiceID); service != nil {
		name = service.Spec.Name
	}
	if t.Slot == 0 {
		return fmt.Sprintf("%s.%s.%s", name, t.NodeID, t.ID)
	}
	return fmt.Sprintf("%s.%d.%s", name, t.Slot, t.ID)
}

// Tasks lists the tasks that pass the filters.
func (m *Manager) Tasks(_ context.Context, filters map[string][]string) ([]wire.Task, error) {
	s, err := m.leading()
	if err != nil {
		return nil, err
	}
	r := s.store.Reader()
	services, nodes := []string{}, []string{}
	for _, ref := range filters["service"] {
		service, err := s.service(r, ref)
		if err != nil {
			return nil, err
		}
		services = append(services, service.ID)
	}
	for _, ref := range filters["node"] {
		n, err := s.node(r, ref)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n.ID)
	}
	var list []wire.Task
	for _, t := range r.Tasks() {
		if anyPrefix(t.ID, filters["id"]) && anyPrefix(taskName(r, t), filters["name"]) && hasLabels(taskLabels(t), filters["label"]) &&
			anyOf(t.ServiceID, services) && anyOf(t.NodeID, nodes) && wantedIn(t.DesiredState, filters["desired-state"]) &&
			(len(filters["runtime"]) == 0 || slices.Contains(filters["runtime"], "container")) &&
			(len(filters["_up-to-date"]) == 0 || upToDate(r.Service(t.ServiceID), t)) {
			list = append(list, shownTask(t))
		}
	}
	return list, nil
}

// taskLabels are those that the service gave to its tasks' containers.
func taskLabels(t *wire.Task) map[string]string {
	if t.Spec.ContainerSpec == nil {
		return t.Labels
	}
	return t.Spec.ContainerSpec.Labels
}

// wantedIn also knows the state that swarm mode once called completed.
func wantedIn(state string, values []string) bool {
	return len(values) == 0 || slices.ContainsFunc(values, func(v string) bool {
		return strings.EqualFold(v, state) || v == "completed" && state == wire.TaskComplete
	})
}

// shownTask is a task as clients expect it: lists and maps that are there.
func shownTask(t *wire.Task) wire.Task {
	shown := *t
	shown.Origin, shown.Spec.Runtime = nil, "" // Docker shows the runtime with services only
	if shown.Labels == nil {
		shown.Labels = map[string]string{}
	}
	return shown
}

// Task is one task.
func (m *Manager) Task(_ context.Context, ref string) (wire.Task, error) {
	s, err := m.leading()
	if err != nil {
		return wire.Task{}, err
	}
	t, err := s.task(s.store.Reader(), ref)
	if err != nil {
		return wire.Task{}, err
	}
	return shownTask(t), nil
}

func (s *seat) task(r store.Reader, ref string) (*wire.Task, error) {
	return find("task", ref, r.Tasks(), taskID, func(t *wire.Task) string { return taskName(r, t) })
}
