package cluster

import (
	"strconv"

	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/event"
	"github.com/sampan-project/sampan/core/wire"
)

// moment is the state as it was last told of in events.
type moment struct {
	known    bool
	index    uint64
	nodes    map[string]*wire.Node
	services map[string]*wire.Service
}

// announce tells by events what has become of nodes and services since the moment, on every manager: as dockerd
// does. What is there when a manager starts is not told.
func (s *seat) announce(last moment) moment {
	r := s.store.Reader()
	if s.member.m.o.Events == nil || last.known && r.Index() == last.index || r.Cluster() == nil {
		return last
	}
	now := newMoment(r)
	if last.known {
		emit := func(kind, action, id string, attributes map[string]string) {
			s.member.m.o.Events.Publish(wire.Event{Type: kind, Action: action, Scope: "swarm", Actor: wire.EventActor{ID: id, Attributes: attributes}})
		}
		announceAll(last.nodes, now.nodes, func(action string, old, n *wire.Node) {
			emit(event.Node, action, n.ID, nodeChange(old, n))
		})
		announceAll(last.services, now.services, func(action string, old, service *wire.Service) {
			emit(event.Service, action, service.ID, serviceChange(old, service))
		})
	}
	return now
}

func newMoment(r store.Reader) moment {
	m := moment{known: true, index: r.Index(), nodes: map[string]*wire.Node{}, services: map[string]*wire.Service{}}
	for _, n := range r.Nodes() {
		m.nodes[n.ID] = n
	}
	for _, service := range r.Services() {
		m.services[service.ID] = service
	}
	return m
}

// announceAll compares by identity: an object that is put is never changed.
func announceAll[T any](before, after map[string]*T, tell func(action string, old, now *T)) {
	for id, now := range after {
		switch old := before[id]; {
		case old == nil:
			tell("create", nil, now)
		case old != now:
			tell("update", old, now)
		}
	}
	for id, old := range before {
		if after[id] == nil {
			tell("remove", nil, old)
		}
	}
}

// nodeChange are the attributes of an event, by dockerd's names.
func nodeChange(old, now *wire.Node) map[string]string {
	a := map[string]string{"name": nodeName(now)}
	if now.Spec.Name != "" {
		a["name"] = now.Spec.Name
	}
	if old != nil {
		changed(a, "availability", old.Spec.Availability, now.Spec.Availability)
		changed(a, "role", old.Spec.Role, now.Spec.Role)
		changed(a, "state", old.Status.State, now.Status.State)
	}
	return a
}

func serviceChange(old, now *wire.Service) map[string]string {
	a := map[string]string{"name": now.Spec.Name}
	if old == nil {
		return a
	}
	changed(a, "replicas", replicas(old), replicas(now))
	changed(a, "image", image(old), image(now))
	changed(a, "updatestate", updateState(old), updateState(now))
	return a
}

func changed(a map[string]string, name, old, now string) {
	if old == now {
		return
	}
	if old != "" {
		a[name+".old"] = old
	}
	if now != "" {
		a[name+".new"] = now
	}
}

func replicas(s *wire.Service) string {
	if r := s.Spec.Mode.Replicated; r != nil && r.Replicas != nil {
		return strconv.FormatUint(*r.Replicas, 10)
	}
	return ""
}

func image(s *wire.Service) string {
	if c := s.Spec.TaskTemplate.ContainerSpec; c != nil {
		return c.Image
	}
	return ""
}

func updateState(s *wire.Service) string {
	if s.UpdateStatus == nil {
		return ""
	}
	return s.UpdateStatus.State
}
