package orchestrator

import (
	"cmp"
	"slices"

	"github.com/sampan-project/sampan/core/wire"
)

// place is a slot of a service, or for global services a node, with all the tasks that were made for it one after the
// other, oldest first, but those that shall be removed.
type place struct {
	slot  int
	node  string
	tasks []*wire.Task
}

// live are the tasks that are wanted. There are two while one takes the place of the other before that has ended.
func (p place) live() []*wire.Task {
	var live []*wire.Task
	for _, t := range p.tasks {
		if wanted(t) {
			live = append(live, t)
		}
	}
	return live
}

// newest is the last task that was made, or nil.
func (p place) newest() *wire.Task {
	if len(p.tasks) == 0 {
		return nil
	}
	return p.tasks[len(p.tasks)-1]
}

// running says that a wanted task of the place runs.
func (p place) running() bool {
	return slices.ContainsFunc(p.live(), func(t *wire.Task) bool { return t.Status.State == wire.TaskRunning })
}

// places are the service's, by number or by node.
func (s *step) places(service *wire.Service) []place {
	type key struct {
		slot int
		node string
	}
	byNode := isGlobal(&service.Spec)
	at := map[key]int{}
	var all []place
	for _, t := range s.TasksOf(service.ID) {
		if !after(wire.TaskRemove, t.DesiredState) {
			continue
		}
		k := key{slot: t.Slot}
		if byNode {
			k = key{node: t.NodeID}
		}
		i, ok := at[k]
		if !ok {
			i = len(all)
			at[k] = i
			all = append(all, place{slot: k.slot, node: k.node})
		}
		all[i].tasks = append(all[i].tasks, t)
	}
	slices.SortFunc(all, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.slot, b.slot), cmp.Compare(a.node, b.node))
	})
	return all
}

// occupied says that a place needs no new task: one is wanted there, or the last one has ended and the restart policy
// leaves it at that.
func (s *step) occupied(service *wire.Service, p place) bool {
	return len(p.live()) > 0 || (p.newest() != nil && !s.mayRestart(service, p, p.newest()))
}

func isGlobal(spec *wire.ServiceSpec) bool {
	return spec.Mode.Global != nil || spec.Mode.GlobalJob != nil
}

func isJob(spec *wire.ServiceSpec) bool {
	return spec.Mode.ReplicatedJob != nil || spec.Mode.GlobalJob != nil
}
