package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
)

// lostExit is the status of a container whose end nobody saw: the host went down with it.
const lostExit = 255

// retryWatch is the wait before the monitor is looked for again.
const retryWatch = 200 * time.Millisecond

// Reconcile makes what is known agree with what there is, after a start of the daemon: containers that
// live are taken over, ends that nobody handled are, what belongs to no container is removed, and
// containers whose policy says so are started. It is called once, before the first request.
func (m *Manager) Reconcile(ctx context.Context) error {
	events, err := m.o.Monitor.Watch(m.ctx)
	if err != nil {
		return fmt.Errorf("watch the monitor: %w", err)
	}
	left, err := m.takeOver(ctx)
	if err != nil {
		return err
	}
	live := m.Live()
	for c := range left {
		delete(live, c.id)
	}
	if err := m.o.Volumes.Adopt(ctx, m.liveVolumes(live)); err != nil && ctx.Err() == nil {
		m.log.Error("reconcile volumes", "error", err)
	}
	if err := m.o.Network.Reconcile(ctx, live); err != nil && ctx.Err() == nil {
		m.log.Error("reconcile networks", "error", err)
	}
	if err := ctx.Err(); err != nil {
		return err // told to end: what is left here is for the next start
	}
	m.restoreAllNetworks(ctx)
	// After the networks know who is there: handling an end takes the container off them.
	for c, e := range left {
		m.exit(c, e)
	}
	m.sweepRubbish(ctx)
	m.later(func() { m.watch(events) })
	m.autostart()
	return nil
}

// liveVolumes are the containers that use each volume now.
func (m *Manager) liveVolumes(live map[string]int) map[string][]string {
	users := map[string][]string{}
	for _, c := range m.all() {
		if _, lives := live[c.id]; !lives {
			continue
		}
		rec, _ := c.snapshot()
		for _, p := range rec.Mounts {
			if p.Type == "volume" {
				users[p.Name] = append(users[p.Name], c.id)
			}
		}
	}
	return users
}

// Live returns the process IDs of the containers that have processes.
func (m *Manager) Live() map[string]int {
	live := map[string]int{}
	for _, c := range m.all() {
		if _, st := c.snapshot(); st.live() {
			live[c.id] = st.Pid
		}
	}
	return live
}

// Snapshots returns the keys of the snapshots that must be kept: those of the containers that are there, and of the
// images that these have mounted.
func (m *Manager) Snapshots() (keys []string) {
	for _, c := range m.all() {
		rec, _ := c.snapshot()
		keys = append(append(keys, c.id), slices.Collect(maps.Keys(holds(&rec)))...)
	}
	slices.Sort(keys)
	return keys
}

// takeOver compares the containers with the monitor's, and returns those that have ended.
func (m *Manager) takeOver(ctx context.Context) (map[*Container]monitor.Exit, error) {
	list, err := m.o.Monitor.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the monitor's containers: %w", err)
	}
	known := map[string]monitor.Status{}
	for _, s := range list {
		known[s.ID] = s
	}
	ended := map[*Container]monitor.Exit{}
	for _, c := range m.all() {
		s, there := known[c.id]
		delete(known, c.id)
		if e := m.compare(ctx, c, s, there); e != nil {
			ended[c] = *e
		}
	}
	for id := range known { // steps of builds, and containers that were just being removed
		if err := m.o.Monitor.Delete(ctx, id, true); err != nil && !fault.Is(err, fault.NotFound) {
			m.log.Error("remove a process that belongs to no container", "id", id, "error", err)
		}
	}
	return ended, nil
}

// compare makes one container's state what the monitor says of it. It returns the exit that is still
// to be handled.
func (m *Manager) compare(ctx context.Context, c *Container, s monitor.Status, there bool) *monitor.Exit {
	_, st := c.snapshot()
	switch {
	case there && (s.State == monitor.Running || s.State == monitor.Paused):
		m.adopt(c, s)
		return nil
	case st.live():
		c.mu.Lock()
		if c.ended == nil {
			c.ended = make(chan struct{})
		}
		c.mu.Unlock()
		if s.Exit != nil {
			return s.Exit
		}
		return &monitor.Exit{Code: lostExit, At: time.Now(), Lost: true}
	case there && ranUnnoted(&st, &s): // the daemon was killed between the start and the note of it
		c.mu.Lock()
		c.state.takeUp(&s)
		c.ended = make(chan struct{})
		c.mu.Unlock()
		return s.Exit
	case there: // its start was cut off, or the end of its clean-up
		if err := m.o.Monitor.Delete(ctx, c.id, true); err != nil && !fault.Is(err, fault.NotFound) {
			m.log.Error("remove the process of a container", "container", c.id, "error", err)
		}
	}
	if st.Phase == restarting || st.Phase == removing { // nobody waits any more
		c.mu.Lock()
		c.state.Phase = exited
		c.mu.Unlock()
		m.keep(c)
	}
	return nil
}

// ranUnnoted reports whether the monitor has a run that has ended, and of which the state knows nothing: the end of
// each run that was handled is in it, with its time.
func ranUnnoted(st *runState, s *monitor.Status) bool {
	return s.State == monitor.Stopped && s.Exit != nil && !s.StartedAt.IsZero() && !s.Exit.At.Equal(st.FinishedAt)
}

// takeUp makes it that of a run of which only the monitor knows. Its beginning is a new count of restarts, unless it
// was one of them.
func (s *runState) takeUp(m *monitor.Status) {
	if s.Phase != restarting {
		s.Restarts = 0
	}
	s.begin(m.Pid, m.StartedAt.UTC())
}

// adopt takes a container over that runs.
func (m *Manager) adopt(c *Container, s monitor.Status) {
	c.mu.Lock()
	if c.ended != nil && c.state.Pid == s.Pid { // it is ours already
		c.mu.Unlock()
		return
	}
	st := c.state
	if !st.live() { // the daemon was killed between the start and the note of it
		st.takeUp(&s)
	}
	st.Pid, st.Phase = s.Pid, running
	if s.State == monitor.Paused {
		st.Phase = paused
	}
	cut := st.ForCommit && st.Phase == paused
	st.ForCommit = false
	c.state, c.bound = st, true
	if c.ended == nil {
		c.ended = make(chan struct{})
	}
	c.mu.Unlock()
	m.keep(c)
	if cut { // the commit ended with the daemon
		if err := m.resume(m.ctx, c); err != nil {
			m.log.Error("resume a container after its commit", "container", c.id, "error", err)
		}
	}
	m.startProbes(c)
}

// watch handles the ends that the monitor tells, until the Manager is closed. When the monitor itself
// is lost, another is started, and the two are compared again.
func (m *Manager) watch(events <-chan monitor.Event) {
	for {
		for e := range events {
			m.told(e)
		}
		for {
			if m.ctx.Err() != nil {
				return
			}
			var err error
			if events, err = m.rewatch(); err == nil {
				break
			}
			if m.ctx.Err() != nil {
				return
			}
			m.log.Error("watch the monitor", "error", err)
			select {
			case <-time.After(retryWatch):
			case <-m.ctx.Done():
			}
		}
	}
}

func (m *Manager) rewatch() (<-chan monitor.Event, error) {
	events, err := m.o.Monitor.Watch(m.ctx)
	if err != nil {
		return nil, err
	}
	ended, err := m.missed(m.ctx)
	if err != nil {
		return nil, err
	}
	for c, e := range ended {
		m.later(func() { m.exit(c, e) })
	}
	m.later(func() { m.missedExecs(m.ctx) })
	return events, nil
}

// missed returns the containers that ended while nobody listened to the monitor, or were lost with it. What else
// differs is in the hands of operations in progress, which are told by their own calls what became of it.
func (m *Manager) missed(ctx context.Context) (map[*Container]monitor.Exit, error) {
	ran := map[*Container]int{} // before the list: what is started meanwhile is not missing in it
	for _, c := range m.all() {
		if _, st := c.snapshot(); st.live() {
			ran[c] = st.Pid
		}
	}
	list, err := m.o.Monitor.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the monitor's containers: %w", err)
	}
	known := map[string]monitor.Status{}
	for _, s := range list {
		known[s.ID] = s
		m.later(func() {
			if err := m.clear(ctx, s.ID); err != nil && ctx.Err() == nil {
				m.log.Error("remove a process that belongs to no container that runs", "id", s.ID, "error", err)
			}
		})
	}
	ended := map[*Container]monitor.Exit{}
	for c, pid := range ran {
		switch s := known[c.id]; {
		case s.State == monitor.Running || s.State == monitor.Paused:
		case s.Exit != nil:
			ended[c] = *s.Exit
		default:
			ended[c] = monitor.Exit{Code: lostExit, At: time.Now(), Pid: pid, Lost: true}
		}
	}
	return ended, nil
}

// clear deletes what the monitor has of a container that does not run, as an operation whose call was cut off
// leaves it there.
func (m *Manager) clear(ctx context.Context, id string) error {
	m.mu.RLock()
	c := m.byID[id]
	m.mu.RUnlock()
	if c == nil {
		return m.deleteStranger(ctx, id)
	}
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	defer c.op.unlock()
	if _, st := c.snapshot(); st.live() {
		return nil
	}
	if err := m.o.Monitor.Delete(ctx, id, true); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	return nil
}

// told handles one end.
func (m *Manager) told(e monitor.Event) {
	m.mu.RLock()
	c := m.byID[e.ID]
	m.mu.RUnlock()
	switch {
	case e.ExecID != "":
		m.execEnded(e.ExecID, e.Exit)
	case c != nil && e.Started: // an end before the start is the start's failure
		m.later(func() { m.exit(c, e.Exit) })
	}
}

// sweepRubbish deletes what removed containers, and creations that were cut off, have left.
func (m *Manager) sweepRubbish(ctx context.Context) {
	rubbish, err := m.store.rubbish()
	errs := []error{err}
	for _, g := range rubbish {
		errs = append(errs, m.sweep(ctx, g))
	}
	entries, err := os.ReadDir(m.containersDir())
	errs = append(errs, err)
	for _, e := range entries {
		m.mu.RLock()
		_, known := m.byID[e.Name()]
		m.mu.RUnlock()
		if !known && hexPattern.MatchString(e.Name()) {
			errs = append(errs, os.RemoveAll(m.directory(e.Name())))
		}
	}
	errs = append(errs, os.RemoveAll(m.stepDirectory(""))) // of steps that were cut off
	if err := errors.Join(errs...); err != nil {
		m.log.Error("clean up after removed containers", "error", err)
	}
}

// autostart starts the containers whose policy wants them to run, and removes those that were to
// remove themselves.
func (m *Manager) autostart() {
	for _, c := range m.all() {
		c.mu.Lock()
		rec, st := c.rec, c.state
		if st.live() || c.removed || st.Phase == restarting {
			c.mu.Unlock()
			continue
		}
		start := st.Phase == exited && policyWants(rec.Host.RestartPolicy, st.ExitCode, st.Restarts) &&
			(rec.Host.RestartPolicy.Name == "always" || !st.StoppedByUser)
		if start {
			c.state.Phase = restarting
		}
		c.mu.Unlock()
		switch {
		case start:
			m.restartLater(c, 0)
		case rec.Host.AutoRemove:
			if err := m.Remove(m.ctx, c.id, RemoveOptions{Volumes: true}); err != nil {
				m.log.Error("remove a container that has ended", "container", c.id, "error", err)
			}
		}
	}
}
