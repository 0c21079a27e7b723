package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/cluster/orchestrator"
	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

const (
	// batchTime gathers what the nodes report into one change of the state.
	batchTime = 100 * time.Millisecond
	// missedHeartbeats are how many periods of silence make a node down, as in Docker's swarm mode.
	missedHeartbeats = 3
	// defaultHeartbeat is the period, when the swarm says nothing else.
	defaultHeartbeat = 5 * time.Second
)

// errNotLed ends sessions with a manager that does not lead (any more).
var errNotLed = fault.As(fault.Unavailable, errors.New("this manager is not the leader of the swarm"))

// objects are the state that a dispatcher works on: *store.Store, or in tests *store.Memory.
type objects interface {
	Reader() store.Reader
	Update(ctx context.Context, fn func(store.Writer) error) error
	Changed() <-chan struct{}
}

// A stream is the leader's end of a session with a node.
type stream interface {
	send(session.Wanted) error
	receive() (session.Report, error) // an error ends the session
	stop()                            // neither of them waits any more
}

// dispatcher speaks with all nodes, on the leader: it tells each what is wanted of it, and the state what the
// nodes report. It works while run does.
type dispatcher struct {
	objects  objects
	managers func() []wire.SwarmPeer
	log      *slog.Logger
	now      func() time.Time

	mu       sync.Mutex
	ctx      context.Context // of run; nil while this manager does not lead
	since    time.Time       // when it began to lead
	sessions map[string]*dialogue
	seen     map[string]time.Time // the last line of each node
	addrs    map[string]string    // cluster addresses, host:port
	news     news
	more     chan struct{} // has one when news has something

	routes routeCache
}

// dialogue is one session. A newer one of the same node ends it.
type dialogue struct{ cancel context.CancelFunc }

// news is what the nodes have reported and the state has not yet.
type news struct {
	tasks map[string]report
	nodes map[string]session.Report // by node: Addr and Description
	alive map[string]bool           // nodes that are there again
}

// report is a task's newest status, or that nothing is left of it.
type report struct {
	node   string
	status wire.TaskStatus
	gone   bool
}

func newNews() news {
	return news{tasks: map[string]report{}, nodes: map[string]session.Report{}, alive: map[string]bool{}}
}

func newDispatcher(o objects, managers func() []wire.SwarmPeer, log *slog.Logger) *dispatcher {
	return &dispatcher{
		objects: o, managers: managers, log: log, now: time.Now,
		sessions: map[string]*dialogue{}, seen: map[string]time.Time{}, addrs: map[string]string{},
		news: newNews(), more: make(chan struct{}, 1),
	}
}

// run serves until ctx ends, that is while this manager leads. Then all sessions end, and what they said and is
// not written is forgotten: nodes tell a new leader all that there is.
func (d *dispatcher) run(ctx context.Context) {
	d.mu.Lock()
	d.ctx, d.since = ctx, d.now()
	d.seen, d.news = map[string]time.Time{}, newNews()
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.ctx = nil
		for _, s := range d.sessions {
			s.cancel()
		}
	}()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { d.watch(ctx) })
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.more:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(batchTime):
		}
		d.write(ctx)
	}
}

// write puts the news into the state. What is not written, as the state did not take it or as it was too much at once,
// comes with the next.
func (d *dispatcher) write(ctx context.Context) {
	d.mu.Lock()
	batch := d.news
	d.news = newNews()
	d.mu.Unlock()
	left := newNews()
	err := d.objects.Update(ctx, func(w store.Writer) error {
		left = apply(w, batch)
		return nil
	})
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		left = batch
		d.log.Warn("write what the nodes report", "error", err)
	}
	d.keep(left)
}

// keep puts news back. What has come since is newer.
func (d *dispatcher) keep(left news) {
	if len(left.tasks)+len(left.nodes)+len(left.alive) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.Copy(left.tasks, d.news.tasks)
	maps.Copy(left.nodes, d.news.nodes)
	maps.Copy(left.alive, d.news.alive)
	d.news = left
	d.wake()
}

func (d *dispatcher) wake() {
	select {
	case d.more <- struct{}{}:
	default:
	}
}

// apply changes the state by the news, and answers with what does not fit into one change.
func apply(w store.Writer, batch news) (left news) {
	left = newNews()
	for _, id := range slices.Sorted(maps.Keys(batch.alive)) {
		if n := w.Node(id); n != nil && n.Status.State != wire.NodeReady {
			changed := *n
			changed.Status.State, changed.Status.Message = wire.NodeReady, ""
			w.PutNode(&changed)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(batch.nodes)) {
		switch n := w.Node(id); {
		case n == nil:
		case w.Full():
			left.nodes[id] = batch.nodes[id]
		default:
			w.PutNode(described(n, batch.nodes[id]))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(batch.tasks)) {
		r := batch.tasks[id]
		t := w.Task(id)
		switch {
		case w.Full():
			left.tasks[id] = r
		case t == nil || t.NodeID != r.node: // it is gone since
		case r.gone:
			if t.DesiredState == wire.TaskRemove {
				w.DeleteTask(id)
			}
		case orchestrator.Advances(t.Status, r.status):
			changed := *t
			changed.Status = r.status
			w.PutTask(&changed)
		}
	}
	return left
}

// described is the node with what it says of itself.
func described(n *wire.Node, r session.Report) *wire.Node {
	changed := *n
	if r.Description != nil {
		changed.Description = *r.Description
	}
	if host, _, err := net.SplitHostPort(r.Addr); err == nil {
		changed.Status.Addr = host
	}
	return &changed
}

// serve is a session with a node, until one side ends it.
func (d *dispatcher) serve(ctx context.Context, node string, s stream) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	mine := &dialogue{cancel}
	if err := d.enter(node, mine); err != nil {
		return err
	}
	defer d.leave(node, mine)
	var both sync.WaitGroup
	ended := make(chan error, 2)
	both.Go(func() { ended <- d.listen(node, mine, s) })
	both.Go(func() { ended <- d.tell(ctx, node, s) })
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = errNotLed
	}
	cancel()
	s.stop()
	both.Wait() // the stream is the caller's when this returns
	return err
}

func (d *dispatcher) enter(node string, mine *dialogue) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx == nil || d.ctx.Err() != nil {
		return errNotLed
	}
	if d.objects.Reader().Node(node) == nil {
		return fault.New(fault.Forbidden, "node %s is not in this swarm", node)
	}
	if older := d.sessions[node]; older != nil {
		older.cancel()
	}
	d.sessions[node] = mine
	d.seen[node] = d.now()
	d.news.alive[node] = true
	d.wake()
	return nil
}

func (d *dispatcher) leave(node string, mine *dialogue) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sessions[node] == mine {
		delete(d.sessions, node)
	}
}

// forget ends the session of a node that was removed.
func (d *dispatcher) forget(node string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.sessions[node]; s != nil {
		s.cancel()
	}
	delete(d.seen, node)
	delete(d.addrs, node)
}

// listen takes the node's lines.
func (d *dispatcher) listen(node string, mine *dialogue, s stream) error {
	for {
		r, err := s.receive()
		if err == nil {
			err = bounded(&r)
		}
		if err != nil {
			return err
		}
		d.hear(node, mine, r)
	}
}

// Bounds of what a node says: all of it becomes the state of all managers.
const (
	maxDescription = 128 << 10 // of its JSON
	maxStatus      = 256 << 10 // of its JSON: an agent tells 1024 ports at most
	maxMessage     = 4 << 10
)

// bounded refuses a report that is more than a node can have to say, and cuts off texts that are long.
func bounded(r *session.Report) error {
	if r.Addr != "" {
		if err := checkPeerAddr(r.Addr); err != nil {
			return err
		}
	}
	if r.Description != nil {
		text, err := json.Marshal(r.Description)
		if err != nil {
			return err
		}
		if len(text) > maxDescription {
			return fault.New(fault.Invalid, "a description of %d bytes, expected %d at most", len(text), maxDescription)
		}
	}
	for id, status := range r.Tasks {
		status.Message, status.Err = status.Message[:min(len(status.Message), maxMessage)], status.Err[:min(len(status.Err), maxMessage)]
		text, err := json.Marshal(status)
		if err != nil {
			return err
		}
		if len(text) > maxStatus {
			return fault.New(fault.Invalid, "a status of task %.64s of %d bytes, expected %d at most", id, len(text), maxStatus)
		}
		r.Tasks[id] = status
	}
	return nil
}

// hear takes a line of a session.
func (d *dispatcher) hear(node string, mine *dialogue, r session.Report) {
	if d.note(node, mine, r) {
		d.routes.stale() // without the mutex: whoever makes the routes has theirs, and asks for addresses
	}
}

// note keeps what a line says until it is written; moved is that the node has another address. What an older session of
// the node still brings is older than what the newer has said.
func (d *dispatcher) note(node string, mine *dialogue, r session.Report) (moved bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sessions[node] != mine {
		return false
	}
	d.seen[node] = d.now()
	state := d.objects.Reader()
	if n := state.Node(node); n != nil && n.Status.State != wire.NodeReady {
		d.news.alive[node] = true // whoever has called it down did not know yet
		d.wake()
	}
	if r.Addr != "" && d.addrs[node] != r.Addr {
		d.addrs[node] = r.Addr
		moved = true
	}
	if r.Addr == "" && r.Description == nil && len(r.Tasks) == 0 && len(r.Gone) == 0 {
		return false // a sign of life
	}
	if r.Addr != "" || r.Description != nil {
		d.news.nodes[node] = session.Report{Addr: r.Addr, Description: r.Description}
	}
	for id, status := range r.Tasks {
		d.noteTask(state, id, report{node: node, status: status})
	}
	for _, id := range r.Gone {
		d.noteTask(state, id, report{node: node, gone: true})
	}
	d.wake()
	return moved
}

// noteTask keeps a report of a task. Nobody speaks for another node's tasks, nor for those that there are not.
func (d *dispatcher) noteTask(state store.Reader, id string, r report) {
	if t := state.Task(id); t != nil && t.NodeID == r.node {
		d.news.tasks[id] = r
	}
}

// addr is the cluster address of a node.
func (d *dispatcher) addr(n *wire.Node) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if addr := d.addrs[n.ID]; addr != "" {
		return addr
	}
	// It has not spoken since this manager leads, and most listen on the usual port.
	return net.JoinHostPort(n.Status.Addr, defaultPort)
}

// watch calls nodes down that are silent. A new leader gives all of them time to come to it.
func (d *dispatcher) watch(ctx context.Context) {
	for {
		period := heartbeat(d.objects.Reader())
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(period, time.Second)):
		}
		silent := d.silent(missedHeartbeats * period)
		if len(silent) == 0 {
			continue
		}
		err := d.objects.Update(ctx, func(w store.Writer) error {
			for _, id := range d.silent(missedHeartbeats * period) { // it may have waited for its turn
				n := w.Node(id)
				if n == nil || n.Status.State == wire.NodeDown {
					continue
				}
				changed := *n
				changed.Status.State, changed.Status.Message = wire.NodeDown, "heartbeat failure"
				w.PutNode(&changed)
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			d.log.Warn("call silent nodes down", "nodes", fmt.Sprint(silent), "error", err)
		}
	}
}

// silent are the nodes that are not down and have said nothing for so long.
func (d *dispatcher) silent(patience time.Duration) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []string
	now := d.now()
	for _, n := range d.objects.Reader().Nodes() {
		last := d.seen[n.ID]
		for _, t := range []time.Time{d.since, n.CreatedAt} {
			if t.After(last) && !t.After(now) { // it was made before somebody set the clock back
				last = t
			}
		}
		if n.Status.State != wire.NodeDown && now.Sub(last) > patience {
			list = append(list, n.ID)
			if s := d.sessions[n.ID]; s != nil {
				s.cancel() // a connection that is dead and does not know it
			}
		}
	}
	return list
}

func heartbeat(r store.Reader) time.Duration {
	if c := r.Cluster(); c != nil && c.Spec.Dispatcher.HeartbeatPeriod > 0 {
		return c.Spec.Dispatcher.HeartbeatPeriod
	}
	return defaultHeartbeat
}
