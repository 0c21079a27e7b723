package orchestrator

import (
	"slices"

	"github.com/sampan-project/sampan/core/wire"
)

// replicas is how many tasks a replicated service wants.
func replicas(service *wire.Service) uint64 {
	if n := service.Spec.Mode.Replicated.Replicas; n != nil {
		return *n
	}
	return 1
}

func (s *step) replicated(service *wire.Service, want uint64) {
	s.restartEnded(service)
	var kept, vacant []place
	for _, p := range s.places(service) {
		if s.occupied(service, p) {
			kept = append(kept, p)
		} else {
			vacant = append(vacant, p)
		}
	}
	if uint64(len(kept)) > want {
		kept = s.scaleDown(kept, int(want))
	}
	vacant = s.scaleUp(service, kept, vacant, want)
	for _, p := range vacant {
		s.clear(p)
	}
	s.update(service, kept)
}

// scaleUp makes tasks in the first free slots until there are n places. It answers with the vacant ones that are left.
func (s *step) scaleUp(service *wire.Service, kept, vacant []place, n uint64) []place {
	used, free := map[int]bool{}, map[int]place{}
	for _, p := range kept {
		used[p.slot] = true
	}
	for _, p := range vacant {
		free[p.slot] = p
	}
	slot := 0
	for have := uint64(len(kept)); have < n && !s.Full(); have++ {
		for slot++; used[slot]; slot++ {
		}
		s.newTask(service, place{slot: slot}, free[slot].newest(), nil)
		delete(free, slot)
	}
	return slices.DeleteFunc(vacant, func(p place) bool {
		_, left := free[p.slot]
		return !left
	})
}

// clear removes all tasks of a place that is no more.
func (s *step) clear(p place) {
	for _, t := range p.tasks {
		if s.Full() {
			return
		}
		s.remove(t)
	}
}

// scaleDown removes places until n are left: first those with two tasks or without a node, then those on the nodes
// that have the most of the service, and of these first such that do not run and then those with the highest number.
// It answers with the places that are left, in their order.
func (s *step) scaleDown(all []place, n int) []place {
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b place) int {
		switch ra, rb := a.running(), b.running(); {
		case ra && !rb:
			return -1
		case rb && !ra:
			return 1
		}
		return a.slot - b.slot
	})
	// The nth copy on its node goes before the copies with lower numbers on any node.
	copies, nth := map[string]int{}, map[int]int{}
	for _, p := range sorted {
		tasks := p.live()
		if len(tasks) == 0 {
			tasks = p.tasks[len(p.tasks)-1:]
		}
		if len(tasks) == 1 && tasks[0].NodeID != "" {
			copies[tasks[0].NodeID]++
			nth[p.slot] = copies[tasks[0].NodeID]
		} else {
			nth[p.slot] = len(all) + 1
		}
	}
	slices.SortStableFunc(sorted, func(a, b place) int { return nth[a.slot] - nth[b.slot] })
	for _, p := range sorted[n:] {
		s.clear(p)
	}
	kept := sorted[:n]
	slices.SortFunc(kept, func(a, b place) int { return a.slot - b.slot })
	return kept
}
