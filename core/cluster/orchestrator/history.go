package orchestrator

import (
	"github.com/sampan-project/sampan/core/wire"
)

const (
	// defaultHistory is how many tasks of a place are kept when the swarm says nothing else.
	defaultHistory = 5
	// maxAttemptsKept bounds what a restart policy makes of that.
	maxAttemptsKept = 1000
)

// forget deletes the tasks that shall be removed and have ended, and in each place the oldest that ended.
func (s *step) forget() {
	for _, t := range s.Tasks() {
		if s.Full() {
			return
		}
		if t.DesiredState == wire.TaskRemove && (ended(t) || !Placed(t)) {
			s.delete(t)
		}
	}
	for _, service := range s.Services() {
		limit := s.history(service)
		if limit < 0 {
			continue
		}
		for _, p := range s.places(service) {
			s.forgetOldest(service, p, len(p.tasks)-limit)
		}
	}
}

// history is how many tasks of a place are kept, or -1 for all. A restart policy that counts attempts needs them.
func (s *step) history(service *wire.Service) int {
	if p := service.Spec.TaskTemplate.RestartPolicy; p != nil && p.MaxAttempts != nil && *p.MaxAttempts > 0 {
		return int(min(*p.MaxAttempts, maxAttemptsKept)) + 1
	}
	cluster := s.Cluster()
	if cluster == nil || cluster.Spec.Orchestration.TaskHistoryRetentionLimit == nil {
		return defaultHistory
	}
	return int(max(-1, min(*cluster.Spec.Orchestration.TaskHistoryRetentionLimit, 1<<30)))
}

// forgetOldest deletes up to n tasks that have ended. The newest stays, which tells what became of the place, and so does
// what the update under way is told by, and what another task waits for.
func (s *step) forgetOldest(service *wire.Service, p place, n int) {
	if n <= 0 {
		return
	}
	update := ""
	if u := service.UpdateStatus; u != nil && (u.State == wire.UpdateUpdating || u.State == wire.UpdateRollbackStarted) {
		update = updateKey(u)
	}
	for _, t := range p.tasks[:len(p.tasks)-1] {
		if n == 0 || s.Full() {
			return
		}
		if !ended(t) || wanted(t) || (update != "" && originOf(t).Update == update) {
			continue
		}
		s.delete(t)
		n--
	}
}
