package mesh

import (
	"context"
	"net"
	"time"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/fault"
)

const (
	// patience is how long a client waits for a task at most, whatever number of them is tried.
	patience = 30 * time.Second
	// shyness is how long a task that could not be reached comes after the others.
	shyness = 2 * time.Second
)

// carry brings a client to a task.
func (m *Mesh) carry(p *port, client net.Conn) {
	route := p.route.Load()
	task, err := m.reachAny(route, p.turn.Add(1)-1)
	if err != nil {
		m.log.Debug("no task of a service can be reached", "service", route.Service, "port", p.number, "error", err)
		reset(client)
		return
	}
	m.join(client, task)
}

// reachAny connects to one of the tasks, beginning with whose turn it is.
func (m *Mesh) reachAny(route *session.Route, turn uint64) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(m.ctx, patience)
	defer cancel()
	errs := []error{fault.New(fault.Unavailable, "service %s has no running task", route.Service)}
	for _, target := range m.sorted(route.Targets, turn) {
		conn, err := m.reach(ctx, target, route.Port.TargetPort)
		m.remember(target.Task, err != nil)
		if err == nil {
			return conn, nil
		}
		if errs = append(errs, err); ctx.Err() != nil {
			break
		}
	}
	return nil, errs[len(errs)-1]
}

// sorted returns the tasks in the order in which they are tried.
func (m *Mesh) sorted(targets []session.Target, turn uint64) (list []session.Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, n := time.Now(), uint64(len(targets))
	var last []session.Target
	for i := range n {
		t := targets[(turn+i)%n]
		if until, shy := m.shy[t.Task]; shy && now.Before(until) {
			last = append(last, t)
		} else {
			list = append(list, t)
		}
	}
	return append(list, last...)
}

// remember notes whether a task could be reached.
func (m *Mesh) remember(task string, failed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if failed {
		m.shy[task] = time.Now().Add(shyness)
	} else {
		delete(m.shy, task)
	}
}

// reach connects to a task of this node or another.
func (m *Mesh) reach(ctx context.Context, t session.Target, port uint32) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, m.o.DialTimeout)
	defer cancel()
	if t.Node == m.o.NodeID {
		return m.dial(ctx, t.Task, port)
	}
	return m.tunnel(ctx, t, port)
}

// dial connects to a task of this node.
func (m *Mesh) dial(ctx context.Context, task string, port uint32) (net.Conn, error) {
	address, err := m.o.Tasks.Endpoint(ctx, task, port)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	d.SetMultipathTCP(false)
	return d.DialContext(ctx, "tcp", address.String())
}

// reset ends a connection so that the other end sees an error, and not an end of what is sent.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		reset(secure.NetConn()) // before TLS says that it was an end
	}
	_ = conn.Close()
}
