package orchestrator

import (
	"bytes"
	"encoding/json"
	"reflect"

	"github.com/sampan-project/sampan/core/wire"
)

// ranks are the states of a task in the order in which they come.
var ranks = func() map[string]int {
	all := []string{
		wire.TaskNew, wire.TaskAllocated, wire.TaskPending, wire.TaskAssigned, wire.TaskAccepted, wire.TaskPreparing,
		wire.TaskReady, wire.TaskStarting, wire.TaskRunning, wire.TaskComplete, wire.TaskShutdown, wire.TaskFailed,
		wire.TaskRejected, wire.TaskRemove, wire.TaskOrphaned,
	}
	ranks := make(map[string]int, len(all))
	for i, state := range all {
		ranks[state] = i
	}
	return ranks
}()

// after says that state a comes after state b. A state that is not known comes first.
func after(a, b string) bool { return ranks[a] > ranks[b] }

// Advances says whether a task's status may follow another: its state never goes back, whatever its node says.
// A task that the leader gave up stays so though its container may run on for a while.
func Advances(from, to wire.TaskStatus) bool {
	_, known := ranks[to.State]
	return known && !after(from.State, to.State)
}

// Ended says that nothing runs of a task in this state, or that nobody counts on it any more.
func Ended(state string) bool { return after(state, wire.TaskRunning) }

func ended(t *wire.Task) bool { return Ended(t.Status.State) }

// wanted says that a task shall run, or run to its end, or is prepared for that.
func wanted(t *wire.Task) bool { return !after(t.DesiredState, wire.TaskComplete) }

// Placed says that a task has a node that shall know of it. One of a global service has its node before it may run there.
func Placed(t *wire.Task) bool {
	return t.NodeID != "" && !after(wire.TaskAssigned, t.Status.State)
}

func originOf(t *wire.Task) wire.TaskOrigin {
	if t.Origin == nil {
		return wire.TaskOrigin{}
	}
	return *t.Origin
}

// goal is what a task of the service shall reach.
func goal(service *wire.Service) string {
	if isJob(&service.Spec) {
		return wire.TaskComplete
	}
	return wire.TaskRunning
}

// newTask puts a task of the service into a place; newest is the last that was made there, or nil.
func (s *step) newTask(service *wire.Service, p place, newest *wire.Task, change func(*wire.Task)) {
	t := &wire.Task{
		ID:           s.newID(),
		Annotations:  wire.Annotations{Labels: map[string]string{}},
		Spec:         service.Spec.TaskTemplate,
		ServiceID:    service.ID,
		Slot:         p.slot,
		NodeID:       p.node,
		Status:       wire.TaskStatus{Timestamp: s.now, State: wire.TaskNew, Message: "created"},
		DesiredState: goal(service),
		Origin:       &wire.TaskOrigin{Endpoint: service.Spec.EndpointSpec},
	}
	// Which task of a place is the newest is told by this time, whatever the clocks of two leaders say.
	t.CreatedAt = s.now
	if newest != nil && !t.CreatedAt.After(newest.CreatedAt) {
		t.CreatedAt = newest.CreatedAt.Add(1)
	}
	if service.JobStatus != nil && isJob(&service.Spec) {
		iteration := service.JobStatus.JobIteration
		t.JobIteration = &iteration
	}
	if change != nil {
		change(t)
	}
	s.PutTask(t)
	s.changed = true
}

// shutDown has the task end, because another one takes its place, or none does.
func (s *step) shutDown(t *wire.Task) {
	if after(wire.TaskShutdown, t.DesiredState) {
		s.put(t, func(t *wire.Task) { t.DesiredState = wire.TaskShutdown })
	}
}

// remove has the task end and be forgotten.
func (s *step) remove(t *wire.Task) {
	if after(wire.TaskRemove, t.DesiredState) {
		s.put(t, func(t *wire.Task) { t.DesiredState = wire.TaskRemove })
	}
}

// NeedsNewTask says whether tasks that were made from the old specification have to be replaced for the new one.
// What is not asked here is whether a task's node satisfies constraints that changed.
func NeedsNewTask(old, new *wire.ServiceSpec) bool {
	return !sameStored(old.TaskTemplate, new.TaskTemplate) || !sameStored(old.EndpointSpec, new.EndpointSpec)
}

// outdated says that the task was not made from the service's present specification, and must be replaced. One that
// differs in its placement alone, and is on a node where it may be, need not.
func (s *step) outdated(service *wire.Service, t *wire.Task) bool {
	if !same(t.Spec, service.Spec.TaskTemplate) && !s.onlyMoved(service, t) {
		return true
	}
	return !same(originOf(t).Endpoint, service.Spec.EndpointSpec)
}

func (s *step) onlyMoved(service *wire.Service, t *wire.Task) bool {
	template := service.Spec.TaskTemplate
	node := s.Node(t.NodeID)
	if node == nil || !matches(s.constraintsOf(template.Placement), node) {
		return false
	}
	template.Placement = t.Spec.Placement
	return same(t.Spec, template)
}

// adopt gives the tasks that need not be replaced the service's placement: from then on they are held to it.
func (s *step) adopt(service *wire.Service, t *wire.Task) {
	if wanted(t) && !same(t.Spec.Placement, service.Spec.TaskTemplate.Placement) && !s.outdated(service, t) {
		s.put(t, func(t *wire.Task) { t.Spec.Placement = service.Spec.TaskTemplate.Placement })
	}
}

// same compares two parts of objects. What came out of the store tells an empty list from none no more.
func same(a, b any) bool { return reflect.DeepEqual(a, b) }

// sameStored compares two values as they would be stored.
func sameStored(a, b any) bool {
	x, err := json.Marshal(a)
	if err != nil {
		return false
	}
	y, err := json.Marshal(b)
	return err == nil && bytes.Equal(x, y)
}
