package orchestrator

import (
	"time"

	"github.com/sampan-project/sampan/core/wire"
)

// gone is how long a node is down until its tasks are given up for good.
const gone = 24 * time.Hour

// abandon removes the tasks of services that are no more, and gives up the tasks of nodes that are no more.
func (s *step) abandon() {
	for _, t := range s.Tasks() {
		if s.Full() {
			return
		}
		if s.Service(t.ServiceID) == nil && after(wire.TaskRemove, t.DesiredState) {
			s.remove(t)
			continue // it is looked at again in the next round
		}
		if Placed(t) && !ended(t) && s.given(t.NodeID) {
			s.put(t, func(t *wire.Task) {
				t.Status.State, t.Status.Timestamp = wire.TaskOrphaned, s.now
			})
		}
	}
}

// given says that a node is given up: it was removed, or is down for long.
func (s *step) given(id string) bool {
	node := s.Node(id)
	if node == nil {
		return true
	}
	if node.Status.State != wire.NodeDown || node.UpdatedAt.IsZero() {
		return false
	}
	end := node.UpdatedAt.Add(gone)
	if s.now.Before(end) {
		s.due(end)
		return false
	}
	return true
}

// enforce rejects tasks that their node may not keep: its labels or its role have changed, or it has less than it had.
// Nodes that keep no tasks, or take no new ones, are not looked at.
func (s *step) enforce() {
	for _, node := range s.Nodes() {
		if node.Spec.Availability != wire.AvailabilityActive {
			continue
		}
		left := node.Description.Resources
		for _, t := range s.TasksOn(node.ID) {
			if s.Full() {
				return
			}
			if !Placed(t) || ended(t) || !wanted(t) {
				continue
			}
			need := reservations(t)
			if !matches(s.constraintsOf(t.Spec.Placement), node) || need.NanoCPUs > max(left.NanoCPUs, 0) || need.MemoryBytes > max(left.MemoryBytes, 0) {
				s.put(t, func(t *wire.Task) {
					t.Status.State, t.Status.Timestamp = wire.TaskRejected, s.now
					t.Status.Message, t.Status.Err = "task rejected by constraint enforcer", "assigned node no longer meets constraints"
				})
				continue
			}
			left.NanoCPUs -= need.NanoCPUs
			left.MemoryBytes -= need.MemoryBytes
		}
	}
}
