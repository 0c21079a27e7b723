package container

import (
	"context"
	"sync"
	"time"
)

// Shutdown ends the Manager in peace: containers are stopped, each with its own grace, unless they are
// to live on. What has not ended when ctx ends is killed.
func (m *Manager) Shutdown(ctx context.Context) error {
	m.closing.Store(true)
	if !m.live.Load().LiveRestore {
		var all sync.WaitGroup
		for _, c := range m.all() {
			all.Go(func() { m.stopForShutdown(ctx, c) })
		}
		all.Wait()
	}
	return m.Close()
}

// Close ends the Manager and leaves the containers as they are, for the next start to find: all that is left to do
// once Shutdown has stopped them, and what a start that failed does. It may be called again.
func (m *Manager) Close() error {
	m.closing.Store(true)
	m.cancel()
	m.mu.RLock()
	for _, c := range m.byID {
		c.mu.Lock()
		if c.stopProbes != nil {
			c.stopProbes()
		}
		c.mu.Unlock()
	}
	m.mu.RUnlock()
	m.background.wait()
	return m.store.flush()
}

func (m *Manager) stopForShutdown(ctx context.Context, c *Container) {
	if c.running() == nil && c.op.lock(ctx) == nil {
		c.op.unlock() // a start that was under way is through, and the next is refused
	}
	rec, _ := c.snapshot()
	sig, err := stopSignal(&rec, "")
	if err == nil {
		err = m.stop(ctx, c, sig, grace(&rec, nil), false)
	}
	if err == nil {
		return
	}
	m.log.Warn("stop a container before the daemon ends", "container", c.id, "error", err)
	ended := c.running()
	if ended == nil {
		return
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := m.kill(last, c, ended); err != nil {
		m.log.Error("kill a container before the daemon ends", "container", c.id, "error", err)
	}
}

// Running counts the containers that have processes.
func (m *Manager) Running() (n int) {
	for _, c := range m.all() {
		if _, st := c.snapshot(); st.live() {
			n++
		}
	}
	return n
}

// Counts are the numbers of containers by what they do, for `info`.
func (m *Manager) Counts() (all, run, pause, stop int) {
	for _, c := range m.all() {
		all++
		switch _, st := c.snapshot(); st.Phase {
		case running:
			run++
		case paused:
			pause++
		default:
			stop++
		}
	}
	return all, run, pause, stop
}
