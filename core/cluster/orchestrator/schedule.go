package orchestrator

import (
	"github.com/sampan-project/sampan/core/wire"
)

// schedule gives nodes to the tasks that have none, and confirms those of global services, which were made for a
// node. A task that fits nowhere says why, and waits.
func (s *step) schedule() {
	tasks := s.Tasks()
	var waiting []*wire.Task
	for _, t := range tasks {
		if after(wire.TaskAssigned, t.Status.State) {
			waiting = append(waiting, t)
		}
	}
	if len(waiting) == 0 {
		return
	}
	rooms := s.rooms(tasks)
	for _, t := range waiting {
		if s.Full() {
			return
		}
		switch {
		case t.DesiredState == wire.TaskRemove: // forgotten anyhow
		case !wanted(t):
			s.report(t, t.NodeID, wire.TaskStatus{State: wire.TaskShutdown, Message: t.Status.Message})
		case t.NodeID != "":
			s.confirm(t, rooms)
		default:
			s.assign(t, rooms)
		}
	}
}

const waitingMessage = "pending task scheduling"

func (s *step) confirm(t *wire.Task, rooms []*room) {
	for _, r := range rooms {
		if r.node.ID != t.NodeID {
			continue
		}
		var why refusals
		if !s.fits(t, r, &why) {
			s.report(t, t.NodeID, wire.TaskStatus{State: wire.TaskPending, Message: waitingMessage, Err: why.String()})
			return
		}
		r.take(s.report(t, t.NodeID, wire.TaskStatus{State: wire.TaskAssigned, Message: "scheduler confirmed task can run on preassigned node"}))
	}
}

func (s *step) assign(t *wire.Task, rooms []*room) {
	var why refusals
	var can []*room
	for _, r := range rooms {
		if s.fits(t, r, &why) {
			can = append(can, r)
		}
	}
	if len(can) == 0 {
		reason := "no suitable node"
		if said := why.String(); said != "" {
			reason += " (" + said + ")"
		}
		s.report(t, "", wire.TaskStatus{State: wire.TaskPending, Message: waitingMessage, Err: reason})
		return
	}
	r := best(t, can, rooms)
	r.take(s.report(t, r.node.ID, wire.TaskStatus{State: wire.TaskAssigned, Message: "scheduler assigned task to node"}))
}

// report gives a task a node and a status, unless it says so already.
func (s *step) report(t *wire.Task, node string, status wire.TaskStatus) *wire.Task {
	if t.NodeID == node && t.Status.State == status.State && t.Status.Message == status.Message && t.Status.Err == status.Err {
		return t
	}
	status.Timestamp = s.now
	return s.put(t, func(t *wire.Task) { t.NodeID, t.Status = node, status })
}

// best chooses among the nodes that can take a task: by each placement preference those with the value under which the
// service has the fewest tasks, then the node with the fewest of the service, then with the fewest of all. all are
// the nodes that count.
func best(t *wire.Task, can, all []*room) *room {
	if t.Spec.Placement != nil {
		for _, p := range t.Spec.Placement.Preferences {
			if p.Spread != nil {
				can, all = fewest(t.ServiceID, p.Spread.SpreadDescriptor, can, all)
			}
		}
	}
	chosen := can[0]
	for _, r := range can[1:] {
		if r.before(chosen, t.ServiceID) {
			chosen = r
		}
	}
	return chosen
}

// fewest keeps the nodes that have one value: the one under which the service has the fewest tasks, if a node with it
// can take another.
func fewest(service, descriptor string, can, all []*room) (stillCan, stillAll []*room) {
	count := map[string]int{}
	for _, r := range all {
		value, _ := attribute(r.node, descriptor)
		count[value] += r.of[service]
	}
	least, _ := attribute(can[0].node, descriptor)
	for _, r := range can[1:] {
		if value, _ := attribute(r.node, descriptor); count[value] < count[least] {
			least = value
		}
	}
	keep := func(rooms []*room) (kept []*room) {
		for _, r := range rooms {
			if value, _ := attribute(r.node, descriptor); value == least {
				kept = append(kept, r)
			}
		}
		return kept
	}
	return keep(can), keep(all)
}
