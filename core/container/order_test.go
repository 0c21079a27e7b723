package container

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/wire"
)

// told are the actions of which the daemon has told so far.
func (h *house) told(t *testing.T) (actions, ends []string) {
	t.Helper()
	events, err := h.o.Events.Subscribe(t.Context(), time.Unix(1, 0), time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for e := range events {
		actions = append(actions, e.Action)
		if e.Action == "die" {
			ends = append(ends, e.Actor.Attributes["exitCode"])
		}
	}
	return actions, ends
}

// A daemon that was killed after the monitor's answer to a start, and before its own note of it, has a successor that
// takes the run for one: its status stands, and its policy applies. The end of a run that was handled is none.
func TestRunThatNobodyNoted(t *testing.T) {
	h := newHouse(t)
	left := h.made(t, "left", nil)
	again := h.made(t, "again", func(r *wire.ContainerCreateRequest) {
		r.HostConfig.RestartPolicy = wire.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3}
	})
	brief := h.made(t, "brief", func(r *wire.ContainerCreateRequest) { r.HostConfig.AutoRemove = true })
	second := h.found(t, h.runs(t, "second", nil))
	handled := h.runs(t, "handled", nil)
	stopped := h.found(t, h.runs(t, "stopped", nil))
	if err := h.Stop(t.Context(), stopped.id, "", nil); err != nil {
		t.Fatal(err)
	}
	h.monitor.end(second.id, monitor.Exit{Code: 1})
	h.becomes(t, second.id, exited)
	h.monitor.mu.Lock()
	clean := h.monitor.all[handled]
	h.monitor.mu.Unlock()
	h.monitor.end(handled, monitor.Exit{Code: 5})
	h.becomes(t, handled, exited)
	for deadline := time.Now().Add(10 * time.Second); h.monitor.count() > 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	h.crash(t)
	for _, c := range []*Container{left, again, brief, second, stopped} {
		s, _, err := h.monitor.Run(t.Context(), monitor.Config{ID: c.id}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c != stopped {
			h.monitor.end(c.id, monitor.Exit{Code: 7, Pid: s.Pid})
		}
	}
	// Its clean-up was cut off. That it is noticed would show as another code.
	clean.status.Exit.Code = 9
	h.monitor.all[handled] = clean

	h.open(t)
	for _, c := range []*Container{left, second} {
		got := h.becomes(t, c.id, exited)
		if got.State.ExitCode != 7 || got.State.StartedAt >= got.State.FinishedAt {
			t.Errorf("%s: %+v, want code 7 and the times of the run", c.rec.Name, got.State)
		}
	}
	if got := h.becomes(t, handled, exited); got.State.ExitCode != 5 {
		t.Errorf("the code of a run that was handled became %d, want 5", got.State.ExitCode)
	}
	if got, err := h.Inspect(t.Context(), again.id, false); err != nil || got.RestartCount == 0 {
		t.Errorf("its policy is not applied: %+v, %v", got, err)
	}
	if _, err := h.find(brief.id); !fault.Is(err, fault.NotFound) {
		t.Errorf("--rm: %v, want it gone", err)
	}
	h.becomes(t, stopped.id, running)
	if _, st := h.found(t, stopped.id).snapshot(); st.StoppedByUser {
		t.Error("what was started again counts as stopped by a user")
	}
	if _, ends := h.told(t); !slices.Equal(ends, []string{"7", "7", "7", "7"}) {
		t.Errorf("ends with %v were told, want four with 7", ends)
	}
}

// Of two who write the state of a container at the same time none writes what is older over what is newer.
func TestStateIsNotWrittenLate(t *testing.T) {
	h := newHouse(t)
	c := h.found(t, h.runs(t, "busy", nil))
	for round := range 100 {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				c.mu.Lock()
				c.state.Restarts++
				c.mu.Unlock()
				h.keep(c)
			})
		}
		all.Go(func() { h.markStopped(c) })
		all.Go(func() { h.setPhase(c, running, paused) })
		all.Go(func() { h.setForCommit(c, true) })
		all.Wait()
		_, want := c.snapshot()
		kept, err := h.store.bootStates.Get(c.id)
		if err != nil {
			t.Fatal(err)
		}
		if kept.Restarts != want.Restarts || kept.Phase != want.Phase || !kept.StoppedByUser || !kept.ForCommit {
			t.Fatalf("round %d: kept is %+v, want %+v", round, kept, want)
		}
		c.mu.Lock()
		c.state.Phase, c.state.StoppedByUser, c.state.ForCommit = running, false, false
		c.mu.Unlock()
	}
}

// What is written of a state is what it is then, and not what it was when somebody decided to write it.
func TestStateIsReadWhenItIsWritten(t *testing.T) {
	h := newHouse(t)
	c := h.found(t, h.runs(t, "busy", nil))
	c.keeping.Lock()
	var late sync.WaitGroup
	late.Go(func() { h.markStopped(c) })
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, st := c.snapshot(); st.StoppedByUser {
			break
		}
	}
	time.Sleep(20 * time.Millisecond) // it waits for the lock by now
	c.mu.Lock()
	c.state.Phase, c.state.ExitCode = exited, 3
	c.mu.Unlock()
	c.keeping.Unlock()
	late.Wait()
	if kept, err := h.store.bootStates.Get(c.id); err != nil || kept.Phase != exited || kept.ExitCode != 3 || !kept.StoppedByUser {
		t.Errorf("kept is %+v, %v, want exited with 3, stopped by a user", kept, err)
	}
}

// Who writes the record of a container that is just being removed does not bring it back.
func TestRecordIsNotWrittenAfterItsEnd(t *testing.T) {
	for _, test := range []struct {
		name  string
		write func(h *house, c *Container) error
		gone  bool // it says that there is none
	}{
		{"a link is removed", func(h *house, c *Container) error {
			return h.Remove(t.Context(), "web/db", RemoveOptions{Link: true})
		}, true},
		{"its record is missing", func(h *house, c *Container) error { return h.rewrite(t.Context(), c) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHouse(t)
			h.runs(t, "db", nil)
			c := h.made(t, "web", func(r *wire.ContainerCreateRequest) { r.HostConfig.Links = []string{"db"} })
			if err := c.op.lock(t.Context()); err != nil {
				t.Fatal(err)
			}
			written := make(chan error, 1)
			go func() { written <- test.write(h, c) }()
			select {
			case err := <-written:
				t.Errorf("it does not wait for who changes the container: %v", err)
				written <- err
			case <-time.After(50 * time.Millisecond):
			}
			err := h.remove(t.Context(), c, false)
			c.op.unlock()
			if err != nil {
				t.Fatal(err)
			}
			if err := <-written; fault.Is(err, fault.NotFound) != test.gone {
				t.Errorf("got %v", err)
			}
			if there, err := h.store.has(&c.rec); there || err != nil {
				t.Errorf("its record is there: %v, %v", there, err)
			}
		})
	}
}

// A link that is removed is so for the next daemon.
func TestRemovedLinkStaysAway(t *testing.T) {
	h := newHouse(t)
	h.runs(t, "db", nil)
	h.made(t, "web", func(r *wire.ContainerCreateRequest) { r.HostConfig.Links = []string{"db"} })
	if err := h.Remove(t.Context(), "web/db", RemoveOptions{Link: true}); err != nil {
		t.Fatal(err)
	}
	if err := h.Remove(t.Context(), "web/db", RemoveOptions{Link: true}); !fault.Is(err, fault.NotFound) {
		t.Errorf("once more: %v", err)
	}
	h.crash(t)
	h.open(t)
	if c := h.found(t, "web"); len(c.rec.Host.Links) > 0 {
		t.Errorf("it has %v", c.rec.Host.Links)
	}
}

// What ends a container is told before its removal, however long it takes to say so.
func TestStopIsToldBeforeDestroy(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(h *house, id string) error
		last string
	}{
		{"stop", func(h *house, id string) error { return h.Stop(t.Context(), id, "", nil) }, "stop"},
		{"kill", func(h *house, id string) error { return h.Kill(t.Context(), id, "TERM") }, "kill"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHouse(t)
			id := h.runs(t, "brief", func(r *wire.ContainerCreateRequest) { r.HostConfig.AutoRemove = true })
			gone, err := h.Wait(t.Context(), id, whenGone)
			if err != nil {
				t.Fatal(err)
			}
			over := make(chan struct{})
			go func() { <-gone; close(over) }()
			h.monitor.killed = func() {
				select {
				case <-over:
					t.Error("gone before it is told what ended it")
				case <-time.After(50 * time.Millisecond):
				}
			}
			if err := test.end(h, id); err != nil {
				t.Fatal(err)
			}
			<-over
			actions, _ := h.told(t)
			if die, end, destroy := slices.Index(actions, "die"), slices.Index(actions, test.last), slices.Index(actions, "destroy"); die < 0 || end < die || destroy < end {
				t.Errorf("told %v, want die, %s, destroy", actions, test.last)
			}
		})
	}
}
