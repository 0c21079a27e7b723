package server

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/monitor"
)

// Clients that attach, read a little or nothing, and are gone (their connection to the monitor with
// them) cost the container nothing: every line is in its log, in order, and its exit is known to a
// client that comes afterwards.
func TestNoLineIsLostWhenClientsDie(t *testing.T) {
	h := newHarness(t)
	const lines = 3000
	h.start(h.config("a", "sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); done; exit 7", lines)))
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for ctx.Err() == nil {
				killedClient(t, h.socket())
			}
		})
	}
	exit := h.wait("a", "")
	cancel()
	clients.Wait()
	if exit.Code != 7 {
		t.Errorf("got %+v", exit)
	}
	var want strings.Builder
	for i := range lines {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	if got := h.logged("a"); got != want.String() {
		t.Errorf("the log has %d bytes of %d", len(got), want.Len())
	}
	late, err := monitor.Dial(t.Context(), h.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close() //nolint:errcheck // the test is over
	if e, err := late.Wait(t.Context(), "a", ""); err != nil || e.Code != 7 {
		t.Errorf("a later client: got %+v, %v", e, err)
	}
	h.remove("a")
}

// killedClient is a daemon that is killed with a request under way.
func killedClient(t *testing.T, socket string) {
	c, err := monitor.Dial(context.Background(), socket)
	if err != nil {
		t.Error(err)
		return
	}
	f, err := c.Attach(context.Background(), "a", "", all)
	if err != nil {
		t.Error(err)
		_ = c.Close()
		return
	}
	go c.Wait(context.Background(), "a", "") //nolint:errcheck // it is cut off
	if rand.IntN(2) == 0 {
		f.SetReadDeadline(time.Now().Add(time.Millisecond)) //nolint:errcheck // pollable
		f.Read(make([]byte, 100))                           //nolint:errcheck // whatever comes
	}
	time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
	if rand.IntN(2) == 0 {
		_ = c.Close()
		f.Close()
	} else {
		f.Close()
		_ = c.Close()
	}
}
