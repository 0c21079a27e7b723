package server

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/monitor"
)

// gate lets nobody through before it is opened, and tells that somebody stands there.
type gate struct{ reached, open chan struct{} }

func newGate() *gate { return &gate{make(chan struct{}), make(chan struct{})} }

func (g *gate) pass() {
	close(g.reached)
	<-g.open
}

// Who gives a Run up and deletes the container leaves none, also when the runtime does not notice that it
// was given up.
func TestDeleteOfWhatIsBeingCreated(t *testing.T) {
	for _, c := range []struct {
		name   string
		remove func(h *harness) error
	}{
		{"delete", func(h *harness) error { return h.Delete(t.Context(), "a", true) }},
		{"discard", func(h *harness) error { return h.Discard(t.Context(), "a") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t)
			g := newGate()
			h.fake.makeBy(g.pass)
			ctx, giveUp := context.WithCancel(t.Context())
			gone := make(chan error, 1)
			go func() {
				_, _, err := h.Run(ctx, h.config("a", "sleep", "100"), nil)
				gone <- err
			}()
			<-g.reached
			giveUp()
			if err := <-gone; err == nil {
				t.Error("a Run that was given up did not fail")
			}
			removed := make(chan error, 1)
			go func() { removed <- c.remove(h) }()
			time.Sleep(20 * time.Millisecond) // so that the deletion is there first
			close(g.open)
			if err := <-removed; err != nil {
				t.Errorf("removal: %v", err)
			}
			if list, err := h.List(t.Context()); err != nil || len(list) != 0 {
				t.Errorf("list: %+v, %v", list, err)
				h.remove("a")
			}
		})
	}
}

// The daemon after one that was killed is told of what that one had begun.
func TestListWaitsForCreations(t *testing.T) {
	h := newHarness(t)
	g := newGate()
	h.fake.makeBy(g.pass)
	first, err := monitor.Dial(t.Context(), h.socket())
	if err != nil {
		t.Fatal(err)
	}
	go first.Run(t.Context(), h.config("a", "sleep", "100"), nil) //nolint:errcheck // it is cut off
	<-g.reached
	_ = first.Close()
	time.AfterFunc(50*time.Millisecond, func() { close(g.open) })
	list, err := h.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Errorf("list: %+v, %v, want the container that was being created", list, err)
	}
	h.remove("a")
}

// A creation that panics is over for those who wait for it, and its id is free.
func TestPanicInCreation(t *testing.T) {
	h := newHarness(t)
	h.fake.makeBy(func() { panic("create panics") })
	if _, err := h.Create(t.Context(), h.config("a", "true")); err == nil {
		t.Error("no error")
	}
	h.fake.makeBy(nil)
	h.start(h.config("a", "true"))
	h.remove("a")
}

// A panic after the answer is no more than one in it: other containers keep their parent.
func TestPanicInRemoval(t *testing.T) {
	h := newHarness(t)
	h.start(h.alone("a", "sleep", "100"))
	var once sync.Once
	h.fake.removeBy("a", func() error {
		once.Do(func() { panic("delete panics") })
		return nil
	})
	if err := h.Discard(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	h.shown("a")
	h.remove("a")
}

// Processes that outlive the init are ended before a discard is answered.
func TestDiscardWithProcessesThatMayBeLeft(t *testing.T) {
	h := newHarness(t)
	h.start(h.config("b", "sleep", "100")) // in its caller's pid namespace
	g := newGate()
	h.fake.removeBy("b", func() error { g.pass(); return nil })
	answered := make(chan error, 1)
	go func() { answered <- h.Discard(t.Context(), "b") }()
	<-g.reached
	select {
	case err := <-answered:
		t.Errorf("answered before the runtime has ended all: %v", err)
		answered <- err
	case <-time.After(50 * time.Millisecond):
	}
	close(g.open)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}
