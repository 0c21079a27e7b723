package server

import (
	"context"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/monitor"
)

// Who watches is told an end before it is written down, and who does not is so after it; a removal comes after both.
func TestEndIsToldAndWrittenDown(t *testing.T) {
	for _, test := range []struct {
		name    string
		watched bool
	}{{"watched", true}, {"not watched", false}} {
		t.Run(test.name, func(t *testing.T) {
			h := newHarness(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var events <-chan monitor.Event
			if test.watched {
				var err error
				if events, err = h.Watch(ctx); err != nil {
					t.Fatal(err)
				}
				for !h.server.heard() {
					time.Sleep(time.Millisecond)
				}
				h.server.mu.Lock()
				h.server.told = time.Hour // it is known that it was sent
				h.server.mu.Unlock()
			}
			// A disk that does not go on until somebody reads.
			file := h.server.exits.path("slow")
			if err := unix.Mkfifo(file, 0o600); err != nil {
				t.Fatal(err)
			}
			h.start(h.config("slow", "sh", "-c", "exit 7"))
			waited := make(chan monitor.Exit, 1)
			go func() {
				e, _ := h.Wait(ctx, "slow", "") //nolint:errcheck // its code says it
				waited <- e
			}()
			if test.watched {
				if e := <-events; e.Exit.Code != 7 {
					t.Errorf("told %+v", e)
				}
			} else {
				select {
				case e := <-waited:
					t.Errorf("told %+v before it is written down", e)
				case <-time.After(50 * time.Millisecond):
				}
			}
			removed := make(chan error, 1)
			go func() { removed <- h.Delete(ctx, "slow", true) }()
			select {
			case err := <-removed:
				t.Errorf("removed before it is written down: %v", err)
			case <-time.After(50 * time.Millisecond):
			}
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if data, err := io.ReadAll(f); len(data) == 0 || err != nil {
				t.Errorf("written: %q, %v", data, err)
			}
			if e := <-waited; e.Code != 7 {
				t.Errorf("waited for %+v", e)
			}
			if err := <-removed; err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(file); !os.IsNotExist(err) {
				t.Errorf("the file is left: %v", err)
			}
		})
	}
}

// The end is sent before it is written down, and not only about to be; who watches and does not read holds that up
// for a while only.
func TestEndIsSentBeforeItIsWrittenDown(t *testing.T) {
	for _, test := range []struct {
		name  string
		told  time.Duration
		reads bool
	}{{"a client that reads", time.Hour, true}, {"a client that does not", time.Millisecond, false}} {
		t.Run(test.name, func(t *testing.T) {
			h := newHarness(t)
			w := &watch{wake: make(chan struct{}, 1)}
			h.server.mu.Lock()
			h.server.told = test.told
			h.server.watches[w] = true
			h.server.mu.Unlock()
			h.start(h.config("brief", "sh", "-c", "exit 7"))
			written := make(chan struct{})
			go func() {
				for {
					if r, ok := h.server.exits.read("brief"); ok && r.Exit.Code == 7 || t.Context().Err() != nil {
						close(written)
						return
					}
					time.Sleep(time.Millisecond)
				}
			}()
			<-w.wake
			events := w.take()
			if len(events) != 1 || events[0].Exit.Code != 7 {
				t.Fatalf("queued is %+v", events)
			}
			if test.reads {
				select {
				case <-written:
					t.Error("written down before it is sent")
				case <-time.After(50 * time.Millisecond):
				}
				events[0].sent <- struct{}{}
			}
			<-written
			h.remove("brief")
		})
	}
}
