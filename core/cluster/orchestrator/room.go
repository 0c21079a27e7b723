package orchestrator

import (
	"time"

	"github.com/sampan-project/sampan/core/wire"
)

// A node on which a service failed so often in so short a time is the last to be given more of it.
const (
	manyFailures   = 5
	failuresWithin = 5 * time.Minute
)

// hostPort is a port that a task has on its node for itself.
type hostPort struct {
	protocol string
	port     uint32
}

// room is what a node has left, and what it runs.
type room struct {
	node         *wire.Node
	cpu, memory  int64
	ports        map[hostPort]bool
	tasks        int            // wanted
	of, failures map[string]int // wanted, and failed lately, by service
}

// rooms are those of all nodes, in their order.
func (s *step) rooms(tasks []*wire.Task) []*room {
	var all []*room
	at := map[string]*room{}
	for _, n := range s.Nodes() {
		r := &room{
			node: n, cpu: n.Description.Resources.NanoCPUs, memory: n.Description.Resources.MemoryBytes,
			ports: map[hostPort]bool{}, of: map[string]int{}, failures: map[string]int{},
		}
		all = append(all, r)
		at[n.ID] = r
	}
	for _, t := range tasks {
		r := at[t.NodeID]
		switch {
		case r == nil || !Placed(t):
		case !ended(t):
			r.take(t)
		case t.Status.State == wire.TaskFailed || t.Status.State == wire.TaskRejected:
			end := originOf(t).Ended
			if end.IsZero() {
				end = t.Status.Timestamp
			}
			if service := s.Service(t.ServiceID); service != nil && s.now.Sub(end) < failuresWithin && !s.outdated(service, t) {
				r.failures[t.ServiceID]++
			}
		}
	}
	return all
}

// take counts a task that the node has. One that shall end holds what it has until it has ended.
func (r *room) take(t *wire.Task) {
	if wanted(t) {
		r.tasks++
		r.of[t.ServiceID]++
	}
	reserved := reservations(t)
	r.cpu -= reserved.NanoCPUs
	r.memory -= reserved.MemoryBytes
	for _, p := range hostPorts(t) {
		r.ports[p] = true
	}
}

func reservations(t *wire.Task) wire.NodeResources {
	if t.Spec.Resources == nil || t.Spec.Resources.Reservations == nil {
		return wire.NodeResources{}
	}
	return *t.Spec.Resources.Reservations
}

// hostPorts are the ports that a task publishes on its node alone, but those that the node chooses.
func hostPorts(t *wire.Task) []hostPort {
	endpoint := originOf(t).Endpoint
	if endpoint == nil {
		return nil
	}
	var ports []hostPort
	for _, p := range endpoint.Ports {
		if p.PublishMode == wire.PublishHost && p.PublishedPort != 0 {
			ports = append(ports, hostPort{p.Protocol, p.PublishedPort})
		}
	}
	return ports
}

// before says that a task of the service goes to r and not to o, when both can take it.
func (r *room) before(o *room, service string) bool {
	a, b := r.failures[service], o.failures[service]
	if (a >= manyFailures || b >= manyFailures) && a != b {
		return a < b
	}
	if a, b := r.of[service], o.of[service]; a != b {
		return a < b
	}
	return r.tasks < o.tasks
}
