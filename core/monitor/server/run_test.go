package server

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
)

func TestRun(t *testing.T) {
	h := newHarness(t)
	c := h.config("a", "sh", "-c", "echo first; exit 4")
	s, streams, err := h.Run(t.Context(), c, []monitor.AttachConfig{all, {Stderr: true}})
	if err != nil {
		t.Fatal(err)
	}
	if s.StartedAt.IsZero() || s.Pid == 0 {
		t.Errorf("status: %+v", s)
	}
	for i, want := range []string{"first\n", ""} {
		if out, _ := demux(t, streams[i]); out != want {
			t.Errorf("stream %d: %q, want %q", i, out, want)
		}
		streams[i].Close()
	}
	if e := h.wait("a", ""); e.Code != 4 {
		t.Errorf("exit: %+v", e)
	}
	if _, _, err := h.Run(t.Context(), c, nil); !fault.Is(err, fault.Exists) {
		t.Errorf("of an id that is there: %v", err)
	}
	h.remove("a")
}

// A program that cannot be executed is the start's failure: the container is there, and is to be deleted.
func TestRunOfMissingProgram(t *testing.T) {
	h := newHarness(t)
	_, streams, err := h.Run(t.Context(), h.config("a", "no-such-program"), []monitor.AttachConfig{all})
	if !fault.Is(err, fault.Invalid) || len(streams) != 0 {
		t.Errorf("%d streams, %v", len(streams), err)
	}
	h.remove("a")
}

func TestDiscard(t *testing.T) {
	h := newHarness(t)
	c := h.alone("a", "sleep", "100")
	reader, held, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	c.Hold = []*os.File{held}
	h.start(c)
	held.Close()
	gate := make(chan struct{})
	h.fake.removeBy("a", func() error { <-gate; return nil })
	if err := h.Discard(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	// Its removal waits at the gate, and nobody else does.
	if list, err := h.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("list: %+v, %v", list, err)
	}
	if err := reader.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the held file: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Shutdown(t.Context()) }()
	select { // after its answer the daemon removes the parent of the cgroups
	case err := <-ended:
		t.Fatalf("the end was answered before the removal: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(gate)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// What cannot be removed is shown again, and can be deleted.
func TestDiscardThatFails(t *testing.T) {
	h := newHarness(t)
	h.start(h.alone("a", "sleep", "100"))
	failed := make(chan struct{})
	h.fake.removeBy("a", func() error {
		select {
		case <-failed:
			return nil
		default:
			close(failed)
			return errors.New("busy")
		}
	})
	if err := h.Discard(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	<-failed
	h.shown("a")
	h.remove("a")
}

// shown waits until the container is listed.
func (h *harness) shown(id string) {
	h.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		list, err := h.List(h.t.Context())
		if err != nil {
			h.t.Fatal(err)
		}
		if len(list) == 1 && list[0].ID == id {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s is not shown again", id)
		}
	}
}

// alone is the configuration of a container that has a pid namespace of its own.
func (h *harness) alone(id string, args ...string) monitor.Config {
	c := h.config(id, args...)
	c.Spec.Linux = &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}}}
	return c
}
