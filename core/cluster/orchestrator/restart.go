package orchestrator

import (
	"time"

	"github.com/sampan-project/sampan/core/wire"
)

const (
	// defaultDelay is the restart policy's when it says none.
	defaultDelay = 5 * time.Second
	// stopPatience is how long a task waits for the end of the one that it replaces.
	stopPatience = time.Minute
)

// restartEnded replaces the service's tasks that have ended though they are wanted, and those whose node is lost.
func (s *step) restartEnded(service *wire.Service) {
	for _, p := range s.places(service) {
		for _, t := range p.live() {
			if s.Full() {
				return
			}
			if s.needsRestart(service, t) {
				s.restart(service, p, t)
			}
		}
	}
}

func (s *step) needsRestart(service *wire.Service, t *wire.Task) bool {
	if isJob(&service.Spec) && t.Status.State == wire.TaskComplete {
		return false
	}
	// One that has not been started yet has its own delay still before it: without that a task that always fails
	// while it is prepared would be replaced as fast as it fails.
	if t.DesiredState == wire.TaskReady {
		return false
	}
	return ended(t) || (t.NodeID != "" && lost(s.Node(t.NodeID)))
}

// restart shuts t down and makes the task that follows it, if the policy wants one.
func (s *step) restart(service *wire.Service, p place, t *wire.Task) {
	t = s.put(t, func(t *wire.Task) {
		t.DesiredState = wire.TaskShutdown
		if ended(t) && t.Origin.Ended.IsZero() {
			t.Origin.Ended = s.now
		}
	})
	node := s.Node(t.NodeID)
	if !s.mayRestart(service, p, t) || (isGlobal(&service.Spec) && !s.takes(service, node)) {
		return
	}
	// The next task of a replicated service is free to go elsewhere.
	next := place{slot: p.slot, node: p.node}
	s.newTask(service, next, p.newest(), func(n *wire.Task) {
		n.DesiredState = wire.TaskReady
		n.Origin.After = t.ID
		n.Origin.Restarts = 1
		if !s.outdated(service, t) {
			n.Origin.Restarts += originOf(t).Restarts
		}
		if node == nil || node.Spec.Availability != wire.AvailabilityDrain {
			n.Origin.NotBefore = s.now.Add(restartDelay(t))
		}
	})
}

// takes says that a node may be given a task of the global service.
func (s *step) takes(service *wire.Service, node *wire.Node) bool {
	return !lost(node) && node.Spec.Availability != wire.AvailabilityPause &&
		matches(s.constraintsOf(service.Spec.TaskTemplate.Placement), node)
}

func restartDelay(t *wire.Task) time.Duration {
	if p := t.Spec.RestartPolicy; p != nil && p.Delay != nil {
		return *p.Delay
	}
	return defaultDelay
}

// mayRestart says whether the restart policy of t lets another task follow it in its place.
func (s *step) mayRestart(service *wire.Service, p place, t *wire.Task) bool {
	policy := t.Spec.RestartPolicy
	if policy == nil {
		policy = &wire.TaskRestart{}
	}
	complete := t.Status.State == wire.TaskComplete
	switch policy.Condition {
	case wire.RestartNone:
		return false
	case wire.RestartOnFailure:
		if complete {
			return false
		}
	default:
		if complete && isJob(&service.Spec) {
			return false
		}
	}
	if policy.MaxAttempts == nil || *policy.MaxAttempts == 0 {
		return true
	}
	if policy.Window == nil || *policy.Window == 0 {
		return originOf(t).Restarts < *policy.MaxAttempts
	}
	return recentRestarts(p, t, *policy.Window) < *policy.MaxAttempts
}

// recentRestarts counts the tasks that were made in the place, up to t, to follow one of the same specification,
// within a time before the end of t.
func recentRestarts(p place, t *wire.Task, window time.Duration) uint64 {
	end := originOf(t).Ended
	if end.IsZero() {
		end = t.Status.Timestamp
	}
	var n uint64
	for _, o := range p.tasks {
		if originOf(o).Restarts > 0 && !o.CreatedAt.After(t.CreatedAt) && o.CreatedAt.After(end.Add(-window)) && same(o.Spec, t.Spec) {
			n++
		}
	}
	return n
}

// release starts the tasks that have waited long enough.
func (s *step) release() {
	for _, t := range s.Tasks() {
		if t.DesiredState != wire.TaskReady {
			continue
		}
		if s.Full() {
			return
		}
		service := s.Service(t.ServiceID)
		if service == nil {
			continue
		}
		if t = s.rebase(t); !s.mayStart(t) {
			continue
		}
		s.put(t, func(t *wire.Task) { t.DesiredState = goal(service) })
	}
}

// rebase has a task wait for its delay and no longer, from now on, when the clock was set back since it was made.
func (s *step) rebase(t *wire.Task) *wire.Task {
	latest := s.now.Add(restartDelay(t))
	if old := s.Task(originOf(t).After); old != nil {
		latest = s.now.Add(restartDelay(old))
	}
	if !originOf(t).NotBefore.After(latest) {
		return t
	}
	return s.put(t, func(t *wire.Task) { t.Origin.NotBefore = latest })
}

func (s *step) mayStart(t *wire.Task) bool {
	origin := originOf(t)
	if s.now.Before(origin.NotBefore) {
		s.due(origin.NotBefore)
		return false
	}
	old := s.Task(origin.After)
	if old == nil || ended(old) || !Placed(old) {
		return true
	}
	if node := s.Node(old.NodeID); node == nil || node.Status.State == wire.NodeDown {
		return true
	}
	if end := t.CreatedAt.Add(stopPatience); s.now.Before(end) {
		s.due(end)
		return false
	}
	return true
}
