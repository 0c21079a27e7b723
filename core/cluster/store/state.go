package store

import "github.com/sampan-project/sampan/core/wire"

// state is all tables at one moment. It is changed by exchanging it: a copy of the value is another moment.
type state struct {
	index    uint64 // of the log entry that made it
	cluster  *Cluster
	nodes    table[wire.Node]
	services table[wire.Service]
	tasks    table[wire.Task]
	of, on   index[wire.Task] // by service and by node: the owner's ID, NUL, time, ID
	auth     index[string]
}

func newState() state {
	return state{
		nodes: newTable[wire.Node](), services: newTable[wire.Service](), tasks: newTable[wire.Task](),
		of: newIndex[wire.Task](), on: newIndex[wire.Task](), auth: newIndex[string](),
	}
}

func (s *state) Index() uint64                         { return s.index }
func (s *state) Cluster() *Cluster                     { return s.cluster }
func (s *state) Node(id string) *wire.Node             { return s.nodes.get(id) }
func (s *state) Nodes() []*wire.Node                   { return s.nodes.all() }
func (s *state) Service(id string) *wire.Service       { return s.services.get(id) }
func (s *state) Services() []*wire.Service             { return s.services.all() }
func (s *state) Task(id string) *wire.Task             { return s.tasks.get(id) }
func (s *state) Tasks() []*wire.Task                   { return s.tasks.all() }
func (s *state) TasksOf(serviceID string) []*wire.Task { return s.of.list(under(serviceID)) }
func (s *state) TasksOn(nodeID string) []*wire.Task    { return s.on.list(under(nodeID)) }

func (s *state) ServiceNamed(name string) *wire.Service {
	for _, service := range s.services.all() {
		if service.Spec.Name == name {
			return service
		}
	}
	return nil
}

func (s *state) Auth(serviceID string) string {
	if auth := s.auth.get([]byte(serviceID)); auth != nil {
		return *auth
	}
	return ""
}

// The kinds of objects, as they are named in the log and in snapshots.
const (
	kindCluster = "cluster"
	kindNode    = "node"
	kindService = "service"
	kindTask    = "task"
	kindAuth    = "auth"
)

// row is one object with what finds it. The object is a *Cluster, *wire.Node, *wire.Service, *wire.Task or
// *string (auth).
type row struct {
	kind, id string
	object   any
}

// meta is the part that all objects but auth have.
func meta(object any) *wire.ObjectMeta {
	switch o := object.(type) {
	case *Cluster:
		return &o.ObjectMeta
	case *wire.Node:
		return &o.ObjectMeta
	case *wire.Service:
		return &o.ObjectMeta
	case *wire.Task:
		return &o.ObjectMeta
	}
	return nil
}

// find answers with the object of a kind and ID, or nil.
func (s *state) find(kind, id string) any {
	switch kind {
	case kindCluster:
		if s.cluster != nil && s.cluster.ID == id {
			return s.cluster
		}
	case kindNode:
		if o := s.nodes.get(id); o != nil {
			return o
		}
	case kindService:
		if o := s.services.get(id); o != nil {
			return o
		}
	case kindTask:
		if o := s.tasks.get(id); o != nil {
			return o
		}
	case kindAuth:
		if o := s.auth.get([]byte(id)); o != nil {
			return o
		}
	}
	return nil
}

// put has the tables show r in the place of what they had of its kind and ID.
func (s *state) put(r row) {
	s.remove(r.kind, r.id)
	switch o := r.object.(type) {
	case *Cluster:
		s.cluster = o
	case *wire.Node:
		s.nodes = s.nodes.put(r.id, o.CreatedAt, o)
	case *wire.Service:
		s.services = s.services.put(r.id, o.CreatedAt, o)
	case *wire.Task:
		s.tasks = s.tasks.put(r.id, o.CreatedAt, o)
		s.of = s.of.put(moment(under(o.ServiceID), o.CreatedAt, o.ID), o)
		s.on = s.on.put(moment(under(o.NodeID), o.CreatedAt, o.ID), o)
	case *string:
		s.auth = s.auth.put([]byte(r.id), o)
	}
}

// remove takes an object out; one that is not there is no error.
func (s *state) remove(kind, id string) {
	switch o := s.find(kind, id).(type) {
	case *wire.Node:
		s.nodes = s.nodes.remove(id, o.CreatedAt)
	case *wire.Service:
		s.services = s.services.remove(id, o.CreatedAt)
	case *wire.Task:
		s.tasks = s.tasks.remove(id, o.CreatedAt)
		s.of = s.of.remove(moment(under(o.ServiceID), o.CreatedAt, id))
		s.on = s.on.remove(moment(under(o.NodeID), o.CreatedAt, id))
	case *string:
		s.auth = s.auth.remove([]byte(id))
	}
}

// rows lists all objects, kind by kind, always in the same order.
func (s *state) rows() []row {
	var all []row
	if s.cluster != nil {
		all = append(all, row{kindCluster, s.cluster.ID, s.cluster})
	}
	for _, o := range s.Nodes() {
		all = append(all, row{kindNode, o.ID, o})
	}
	for _, o := range s.Services() {
		all = append(all, row{kindService, o.ID, o})
	}
	for _, o := range s.Tasks() {
		all = append(all, row{kindTask, o.ID, o})
	}
	s.auth.tree.Root().Walk(func(id []byte, auth any) bool {
		all = append(all, row{kindAuth, string(id), auth})
		return false
	})
	return all
}
