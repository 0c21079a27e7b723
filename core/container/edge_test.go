package container

import (
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/wire"
)

// Requests that begin something in the background come to the end of the Manager.
func TestLaterWhileClosing(t *testing.T) {
	for range 50 {
		h := newHouse(t)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 20 {
					h.later(func() {})
				}
			})
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		all.Wait()
	}
}

// Who attaches while a start is under way is either early enough for all of the output, or is answered when the
// container runs.
func TestAttachDuringStart(t *testing.T) {
	for _, test := range []struct {
		name string
		fail error
	}{{"it runs", nil}, {"it fails", fault.New(fault.Internal, "broken")}} {
		t.Run(test.name, func(t *testing.T) {
			h := newHouse(t)
			c := h.made(t, "both", nil)
			h.monitor.startErr = test.fail
			reached, open := make(chan struct{}), make(chan struct{})
			h.monitor.created = func(string) { close(reached); <-open }
			started := make(chan error, 1)
			go func() { started <- h.Start(t.Context(), c.id) }()
			<-reached
			attached := make(chan error, 1)
			var stream Stream
			go func() {
				var err error
				stream, err = h.Attach(t.Context(), c.id, AttachOptions{Stdout: true, Stream: true})
				attached <- err
			}()
			select {
			case err := <-attached:
				t.Error("attached before it runs, and too late for its first bytes")
				attached <- err
			case <-time.After(50 * time.Millisecond):
			}
			close(open)
			if err := <-started; (err != nil) != (test.fail != nil) {
				t.Errorf("start: %v", err)
			}
			if err := <-attached; err != nil {
				t.Fatal(err)
			}
			h.monitor.created, h.monitor.startErr = nil, nil
			if test.fail != nil { // then it is early for the next one
				if err := h.Start(t.Context(), c.id); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len("hello"))
				if _, err := io.ReadFull(stream, got); err != nil || string(got) != "hello" {
					t.Errorf("got %q, %v", got, err)
				}
			}
			if err := stream.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A container that goes with its end goes also when its restart fails.
func TestFailingRestartRemoves(t *testing.T) {
	h := newHouse(t)
	id := h.runs(t, "brief", func(r *wire.ContainerCreateRequest) { r.HostConfig.AutoRemove = true })
	h.monitor.startErr = fault.New(fault.Internal, "broken")
	seconds := 1
	if err := h.Restart(t.Context(), id, "", &seconds); err == nil {
		t.Error("no error")
	}
	if _, err := h.find(id); !fault.Is(err, fault.NotFound) {
		t.Errorf("the container: %v, want it gone", err)
	}
}

// Of a restart that comes through nothing is removed.
func TestRestartKeeps(t *testing.T) {
	h := newHouse(t)
	id := h.runs(t, "brief", func(r *wire.ContainerCreateRequest) { r.HostConfig.AutoRemove = true })
	seconds := 1
	if err := h.Restart(t.Context(), id, "", &seconds); err != nil {
		t.Fatal(err)
	}
	h.becomes(t, id, running)
}

// The execs of a monitor that is lost have ended, as far as anybody can know; those that it has still, and those
// that are being started, go on.
func TestExecsOfALostMonitor(t *testing.T) {
	h := newHouse(t)
	id := h.runs(t, "web", nil)
	h.monitor.ended = func(string) {}
	var execs []string
	for range 3 {
		exec, err := h.ExecCreate(t.Context(), id, wire.ExecConfig{Cmd: []string{"sleep", "100"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.ExecStart(t.Context(), exec, wire.ExecStart{Detach: true}); err != nil {
			t.Fatal(err)
		}
		execs = append(execs, exec)
	}
	known, lost, starts := execs[0], execs[1], execs[2]
	h.monitor.execs = []string{known}
	e, err := h.exec(starts)
	if err != nil {
		t.Fatal(err)
	}
	e.container.mu.Lock()
	e.pid = 0
	e.container.mu.Unlock()
	if _, err := h.rewatch(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); slices.Contains(h.runningExecs(e.container), lost); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the lost one is shown as running")
		}
	}
	for exec, running := range map[string]bool{known: true, lost: false, starts: true} {
		got, err := h.ExecInspect(t.Context(), exec)
		if err != nil || got.Running != running {
			t.Errorf("running %v, %v, want %v", got.Running, err, running)
		}
		if !running && (got.ExitCode == nil || *got.ExitCode != lostExit || got.Pid != 0) {
			t.Errorf("got %+v, want %d", got, lostExit)
		}
	}
}

// What goes with its end is struck first: a daemon that dies anywhere in the end leaves nothing behind that the next
// one does not remove, and nobody is told that it is gone before its process is let go of.
func TestDiesWhileAContainerVanishes(t *testing.T) {
	h := newHouse(t)
	id := h.runs(t, "brief", func(r *wire.ContainerCreateRequest) { r.HostConfig.AutoRemove = true })
	gone, err := h.Wait(t.Context(), id, whenGone)
	if err != nil {
		t.Fatal(err)
	}
	reached, open := make(chan struct{}), make(chan struct{})
	h.monitor.discarded = func() { close(reached); <-open }
	h.monitor.end(id, monitor.Exit{Code: 3})
	<-reached
	select {
	case <-gone:
		t.Error("told that it is gone, while its process and ports are there")
	default:
	}
	if _, err := h.find("brief"); err != nil {
		t.Errorf("its name is free already: %v", err)
	}
	c := h.found(t, id)
	h.markStopped(c) // somebody stops it at this moment
	if _, err := h.store.bootStates.Get(id); !fault.Is(err, fault.NotFound) {
		t.Errorf("a state is kept of it: %v", err)
	}
	if there, err := h.store.has(&c.rec); there || err != nil {
		t.Errorf("its record is there: %v, %v", there, err)
	}
	rubbish, err := h.store.rubbish()
	if err != nil || len(rubbish) != 1 || rubbish[0].ID != id {
		t.Errorf("noted as left: %v, %v", rubbish, err)
	}
	close(open)
	if answer := <-gone; answer.StatusCode != 3 {
		t.Errorf("got %d, want 3", answer.StatusCode)
	}
}
