package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/cluster/orchestrator"
	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// tell sends the node what is wanted of it: at first, whenever it changes, and as a sign of life.
func (d *dispatcher) tell(ctx context.Context, node string, s stream) error {
	if err := d.awaitReady(ctx, node); err != nil {
		return err
	}
	var last []byte
	for {
		changed := d.objects.Changed()
		r := d.objects.Reader()
		wanted, err := d.wanted(r, node)
		if err != nil {
			return err
		}
		text, err := json.Marshal(wanted)
		if err != nil {
			return err
		}
		if len(text) >= session.MaxWanted {
			err := fault.New(fault.Internal, "what is wanted of node %s is too much to tell it: %d bytes, expected less than %d", node, len(text), session.MaxWanted)
			d.log.Error("a node goes on with what it was told before", "error", err)
			return err
		}
		if !bytes.Equal(text, last) {
			if err := s.send(wanted); err != nil {
				return err
			}
			last = text
		}
		alive := time.NewTimer(heartbeat(r))
		select {
		case <-ctx.Done():
			alive.Stop()
			return ctx.Err()
		case <-changed:
			alive.Stop()
			select { // what changes at once is told at once
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(batchTime):
			}
		case <-alive.C:
			last = nil
		}
	}
}

// awaitReady waits until the swarm counts the node in: whoever has had it join sees it so.
func (d *dispatcher) awaitReady(ctx context.Context, node string) error {
	for {
		changed := d.objects.Changed()
		if n := d.objects.Reader().Node(node); n == nil || n.Status.State == wire.NodeReady {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wanted is all that concerns a node.
func (d *dispatcher) wanted(r store.Reader, id string) (session.Wanted, error) {
	n, c := r.Node(id), r.Cluster()
	if n == nil || c == nil {
		return session.Wanted{}, fault.New(fault.Forbidden, "node %s is not in this swarm", id)
	}
	w := session.Wanted{
		Role: n.Spec.Role, Managers: d.managers(), HeartbeatSec: heartbeat(r).Seconds(), Roots: c.RootCert,
		Tasks: []session.Task{}, Routes: d.routes.of(r, d.addr),
	}
	for _, t := range r.TasksOn(id) {
		if orchestrator.Placed(t) && t.Status.State != wire.TaskOrphaned {
			w.Tasks = append(w.Tasks, assigned(r, c, t))
		}
	}
	return w, w.Pack()
}

// assigned is a task with what it takes to run it.
func assigned(r store.Reader, c *store.Cluster, t *wire.Task) session.Task {
	a := session.Task{Task: *t, Service: session.ServiceName{ID: t.ServiceID}, LogDriver: c.Spec.TaskDefaults.LogDriver}
	// The node knows its own reports: a line for each would tell it nothing. But that a task has run, or has ended, it
	// must know also after it has lost what it knew: a task does not run twice.
	a.Version, a.UpdatedAt, a.Origin = wire.ObjectVersion{}, time.Time{}, nil
	a.Status = wire.TaskStatus{State: wire.TaskAssigned}
	if t.Status.State == wire.TaskRunning || orchestrator.Ended(t.Status.State) {
		a.Status = t.Status
	}
	service := r.Service(t.ServiceID)
	if service != nil {
		a.Service.Name, a.Service.Labels, a.Service.Global = service.Spec.Name, service.Spec.Labels, t.Slot == 0
	}
	if orchestrator.Ended(t.Status.State) {
		// Nothing is made of it any more, and there are more of these than of others: to find its container is enough.
		a.Spec, a.LogDriver, a.Service.Labels = wire.TaskSpec{}, nil, nil
		return a
	}
	if service != nil {
		a.Ports = service.Endpoint.Ports
		if t.Status.State != wire.TaskRunning { // the login is for its image, which it has then
			a.Auth = r.Auth(service.ID)
		}
	}
	return a
}

// routeCache has the routes of one moment of the state, which all nodes get.
type routeCache struct {
	mu     sync.Mutex
	index  uint64
	made   bool
	routes []session.Route
}

// stale has the next of make the routes anew.
func (c *routeCache) stale() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made = false
}

func (c *routeCache) of(r store.Reader, addr func(*wire.Node) string) []session.Route {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.made || c.index != r.Index() {
		c.routes, c.index, c.made = routes(r, addr), r.Index(), true
	}
	return c.routes
}

// routes are the ports of the whole swarm and the running tasks behind them.
func routes(r store.Reader, addr func(*wire.Node) string) []session.Route {
	list := []session.Route{}
	for _, service := range r.Services() {
		var targets []session.Target
		for i, port := range service.Endpoint.Ports {
			if port.PublishMode == wire.PublishHost {
				continue
			}
			if i == 0 || targets == nil {
				targets = targetsOf(r, service, addr)
			}
			list = append(list, session.Route{Service: service.ID, Port: port, Targets: targets})
		}
	}
	return list
}

func targetsOf(r store.Reader, service *wire.Service, addr func(*wire.Node) string) []session.Target {
	targets := []session.Target{}
	for _, t := range r.TasksOf(service.ID) {
		n := r.Node(t.NodeID)
		if n != nil && n.Status.State == wire.NodeReady && t.Status.State == wire.TaskRunning && t.DesiredState == wire.TaskRunning {
			targets = append(targets, session.Target{Task: t.ID, Node: n.ID, Addr: addr(n)})
		}
	}
	return targets
}
