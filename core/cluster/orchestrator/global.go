package orchestrator

import "github.com/sampan-project/sampan/core/wire"

// lost says that nothing can be expected of a node's tasks: it is gone, down, or keeps none.
func lost(n *wire.Node) bool {
	return n == nil || n.Status.State == wire.NodeDown || n.Spec.Availability == wire.AvailabilityDrain
}

// global wants one task on each node that is there, keeps tasks, and satisfies the constraints.
func (s *step) global(service *wire.Service) {
	constraints := s.constraintsOf(service.Spec.TaskTemplate.Placement)
	for _, p := range s.places(service) {
		node := s.Node(p.node)
		if lost(node) || !matches(constraints, node) {
			s.shutDownAll(p)
		}
	}
	s.restartEnded(service)
	there := map[string]place{}
	for _, p := range s.places(service) {
		there[p.node] = p
	}
	var kept []place
	for _, node := range s.Nodes() {
		if s.Full() {
			return
		}
		if lost(node) || node.Spec.Availability == wire.AvailabilityPause || !matches(constraints, node) {
			continue
		}
		p, ok := there[node.ID]
		if ok && s.occupied(service, p) {
			kept = append(kept, p)
			continue
		}
		s.newTask(service, place{node: node.ID}, p.newest(), nil)
	}
	s.update(service, kept)
}

func (s *step) shutDownAll(p place) {
	for _, t := range p.live() {
		if s.Full() {
			return
		}
		s.shutDown(t)
	}
}
