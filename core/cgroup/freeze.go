package cgroup

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// keep keeps the values alive until here, whose addresses a system call was given as numbers.
func keep(values ...any) { runtime.KeepAlive(values) }

// freezeWait is how long Freeze waits: a process in an uninterruptible sleep freezes only after it.
const freezeWait = 10 * time.Second

// Freeze stops all processes of the container, and returns when they have stopped.
func (m *Manager) Freeze() error {
	if m.host.pure() {
		return m.freezeUnified()
	}
	name, err := m.freezer()
	if err != nil {
		return err
	}
	wait := 20 * time.Microsecond
	for waited := time.Duration(0); waited < freezeWait; waited += wait {
		if err := writeFile(name, "FROZEN"); err != nil {
			return fmt.Errorf("freeze: %w", err)
		}
		state, err := readFile(name)
		if err != nil {
			return fmt.Errorf("freeze: %w", err)
		}
		if state == "FROZEN" {
			return nil
		}
		// While they fork, some can escape the first write; and a vfork's parent freezes only after
		// its child, which is frozen: letting them go for a moment untangles both.
		if wait > 2*time.Millisecond {
			writeFile(name, "THAWED") //nolint:errcheck // the next write tells
		}
		time.Sleep(wait)
		wait = min(wait*3/2, 20*time.Millisecond)
	}
	return errors.Join(fault.New(fault.Deadline, "freeze %s: the processes did not stop within %v", m.path, freezeWait), m.Thaw())
}

// freezer is the name of v1's freezer.state.
func (m *Manager) freezer() (string, error) {
	h := m.host.of("freezer")
	if h == nil {
		return "", fault.New(fault.NotImplemented, "freeze: this host has no freezer cgroup controller")
	}
	return h.mount + m.path + "/freezer.state", nil
}

func (m *Manager) freezeUnified() error {
	dir := m.host.unified.mount + m.path
	events, err := os.Open(dir + "/cgroup.events")
	if err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	defer events.Close()
	if err := writeFile(dir+"/cgroup.freeze", "1"); err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	for end := time.Now().Add(freezeWait); time.Now().Before(end); {
		now, err := numbers(dir + "/cgroup.events")
		if err != nil {
			return fmt.Errorf("freeze: %w", err)
		}
		if now["frozen"] == 1 {
			return nil
		}
		// The kernel says POLLPRI when a line of the file changes.
		fds := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, 10); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("freeze: %w", err)
		}
	}
	return errors.Join(fault.New(fault.Deadline, "freeze %s: the processes did not stop within %v", m.path, freezeWait), m.Thaw())
}

// Thaw lets them go on.
func (m *Manager) Thaw() error {
	var name string
	value := "THAWED"
	if m.host.pure() {
		name, value = m.host.unified.mount+m.path+"/cgroup.freeze", "0"
	} else {
		var err error
		if name, err = m.freezer(); err != nil {
			return err
		}
	}
	if err := writeFile(name, value); err != nil {
		return fmt.Errorf("thaw: %w", err)
	}
	return nil
}

// Frozen reports whether Freeze was called. It is false where there is no cgroup.
func (m *Manager) Frozen() (bool, error) {
	if m.host.pure() {
		n, err := number(m.host.unified.mount + m.path + "/cgroup.freeze")
		return n == 1, err
	}
	h := m.host.of("freezer")
	if h == nil {
		return false, nil
	}
	// self_freezing and not freezer.state: this is about the container, not about its parents.
	n, err := number(h.mount + m.path + "/freezer.self_freezing")
	return n == 1, err
}

// Kill sends a signal to every process of the container, also to those that they fork meanwhile.
// After SIGKILL a frozen container goes on, to its end.
func (m *Manager) Kill(sig unix.Signal) error {
	done, ours := m.guard()
	if !ours {
		return nil
	}
	defer done()
	if sig == unix.SIGKILL && m.host.pure() {
		// Since Linux 5.14.
		err := writeFile(m.host.unified.mount+m.path+"/cgroup.kill", "1")
		if err == nil {
			return nil
		}
		if !exists(m.host.unified.mount + m.path) {
			return nil
		}
	}
	was, err := m.Frozen()
	if err != nil {
		return err
	}
	// Processes that have stopped do not fork, and their numbers are not given to others.
	stopped := was || m.Freeze() == nil
	signalled := map[int]bool{}
	for again := true; again; {
		again = false
		pids, err := m.Pids()
		if err != nil {
			return errors.Join(err, m.thawAfter(stopped && !was))
		}
		for _, pid := range pids {
			if !signalled[pid] {
				signalled[pid], again = true, !stopped
				if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
					return errors.Join(fmt.Errorf("kill %d: %w", pid, err), m.thawAfter(stopped && !was))
				}
			}
		}
	}
	return m.thawAfter(stopped && (!was || sig == unix.SIGKILL))
}

func (m *Manager) thawAfter(really bool) error {
	if !really {
		return nil
	}
	if err := m.Thaw(); err != nil && !gone(err) {
		return err
	}
	return nil
}
