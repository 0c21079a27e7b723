package orchestrator

import (
	"github.com/sampan-project/sampan/core/wire"
)

// jobSize is how many tasks of a job run at once, and how many have to end well.
func jobSize(spec *wire.ServiceSpec) (concurrent, total uint64) {
	job := spec.Mode.ReplicatedJob
	concurrent = 1
	if job.MaxConcurrent != nil {
		concurrent = *job.MaxConcurrent
	}
	total = concurrent
	if job.TotalCompletions != nil {
		total = *job.TotalCompletions
	}
	return concurrent, total
}

// iteration answers with the places of the job's present run, and removes what is left of earlier runs.
func (s *step) iteration(service *wire.Service) []place {
	var index uint64
	if service.JobStatus != nil {
		index = service.JobStatus.JobIteration.Index
	}
	for _, t := range s.TasksOf(service.ID) {
		if s.Full() {
			break
		}
		if t.JobIteration == nil || t.JobIteration.Index != index {
			s.remove(t)
		}
	}
	s.restartEnded(service)
	return s.places(service)
}

// replicatedJob makes tasks in slots of their own until as many have ended well as the job wants. A slot whose task
// failed and is not tried again stays as it is.
func (s *step) replicatedJob(service *wire.Service) {
	concurrent, total := jobSize(&service.Spec)
	used := map[int]bool{}
	var busy uint64
	for _, p := range s.iteration(service) {
		used[p.slot] = true
		for _, t := range p.live() {
			if t.Status.State != wire.TaskComplete {
				busy++
				break
			}
		}
	}
	for slot := 0; uint64(slot) < total && busy < concurrent && !s.Full(); slot++ {
		if !used[slot] {
			s.newTask(service, place{slot: slot}, nil, nil)
			busy++
		}
	}
}

// globalJob makes one task on each node that takes one.
func (s *step) globalJob(service *wire.Service) {
	there := map[string]bool{}
	for _, p := range s.iteration(service) {
		live := p.live()
		there[p.node] = len(live) > 0 || !s.mayRestart(service, p, p.newest())
		if lost(s.Node(p.node)) {
			for _, t := range live {
				if !ended(t) {
					s.shutDown(t)
				}
			}
		}
	}
	for _, node := range s.Nodes() {
		if s.Full() {
			return
		}
		if !there[node.ID] && node.Status.State == wire.NodeReady && s.takes(service, node) {
			s.newTask(service, place{node: node.ID}, nil, nil)
		}
	}
}
