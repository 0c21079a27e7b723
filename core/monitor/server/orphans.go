package server

import (
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// orphanAge is how long a dead child that nobody reaps must have been seen before it is taken for an
// orphan. Children of our own, also those of core/runtime and of hooks, are reaped by whoever
// started them, at once.
const orphanAge = 5 * time.Second

// adoptOrphans makes this process the parent of descendants that lose theirs (PR_SET_CHILD_SUBREAPER):
// processes of containers that share the host's pid namespace. So they stay below the monitor in
// the tree, and are reaped here.
func adoptOrphans(s *Server) (stop func(), err error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGCHLD)
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { reapOrphans(s, signals, done) })
	return func() {
		signal.Stop(signals)
		close(done)
		running.Wait()
	}, nil
}

// reapOrphans looks at dead children when there has been a SIGCHLD, and again while there are any.
func reapOrphans(s *Server, signals <-chan os.Signal, done <-chan struct{}) {
	seen := map[int]bool{}
	var again <-chan time.Time
	for {
		select {
		case <-done:
			return
		case <-signals:
			if again == nil {
				again = time.After(orphanAge)
			}
			continue
		case <-again:
			again = nil
		}
		now := map[int]bool{}
		known := s.children()
		for _, pid := range zombies() {
			if known[pid] {
				continue
			}
			if !seen[pid] {
				now[pid] = true
				continue
			}
			unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil) //nolint:errcheck // it may be gone
			s.log.Debug("orphan reaped", "pid", pid)
		}
		if seen = now; len(seen) > 0 {
			again = time.After(orphanAge)
		}
	}
}

// children returns the processes that have somebody who reaps them.
func (s *Server) children() map[int]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	pids := map[int]bool{}
	for _, c := range s.containers {
		if c == nil {
			continue
		}
		pids[c.init.pid] = true
		c.mu.Lock()
		for _, e := range c.execs {
			pids[e.pid] = true
		}
		c.mu.Unlock()
	}
	return pids
}
