package container

import (
	"io"
	"maps"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/wire"
)

// made creates a container and does not start it.
func (h *house) made(t *testing.T, name string, change func(*wire.ContainerCreateRequest)) *Container {
	t.Helper()
	req := wire.ContainerCreateRequest{ContainerConfig: wire.ContainerConfig{Image: "busybox", Cmd: []string{"x"}, User: "0:0"}, HostConfig: &wire.HostConfig{}}
	if change != nil {
		change(&req)
	}
	made, err := h.Create(t.Context(), name, "", req)
	if err != nil {
		t.Fatal(err)
	}
	c := h.found(t, made.ID)
	h.users.known.Store(userKey{c.rec.Chain.String(), "0:0", ""}, account{})
	return c
}

func (h *house) found(t *testing.T, ref string) *Container {
	t.Helper()
	c, err := h.find(ref)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Who waits for a container that is between two runs is told when there will be no second.
func TestWaitForWhatIsStoppedWhileRestarting(t *testing.T) {
	h := newHouse(t)
	id := h.runs(t, "again", func(r *wire.ContainerCreateRequest) { r.HostConfig.RestartPolicy.Name = "always" })
	c := h.found(t, id)
	c.mu.Lock()
	c.restart.delay = maxDelay // the wait for the next run outlasts the test
	c.mu.Unlock()
	h.monitor.end(id, monitor.Exit{Code: 3})
	h.becomes(t, id, restarting)
	answers := map[string]<-chan wire.WaitResponse{}
	var err error
	for _, condition := range []string{notRunning, nextExit} {
		if answers[condition], err = h.Wait(t.Context(), id, condition); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Stop(t.Context(), id, "", nil); err != nil {
		t.Fatal(err)
	}
	for condition, answer := range answers {
		select {
		case got := <-answer:
			if got.StatusCode != 3 {
				t.Errorf("%s: %d, want 3", condition, got.StatusCode)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s: no answer", condition)
		}
	}
}

// A start that is under way when the daemon is told to end leaves no container behind that runs.
func TestShutdownDuringStart(t *testing.T) {
	h := newHouse(t)
	c := h.made(t, "late", nil)
	reached, open := make(chan struct{}), make(chan struct{})
	h.monitor.created = func(string) { close(reached); <-open }
	started := make(chan error, 1)
	go func() { started <- h.Start(t.Context(), c.id) }()
	<-reached
	time.AfterFunc(50*time.Millisecond, func() { close(open) })
	if err := h.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-started; err != nil {
		t.Error(err)
	}
	if n := h.Running(); n != 0 {
		t.Errorf("%d run, want none", n)
	}
	if err := h.Start(t.Context(), c.id); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a start afterwards: %v", err)
	}
}

// The end of the input is noted when there is no process yet: who has no more to say, and goes away, is not
// kept until somebody starts the container.
func TestInputEndsBeforeStart(t *testing.T) {
	h := newHouse(t)
	c := h.made(t, "silent", func(r *wire.ContainerCreateRequest) { r.OpenStdin, r.StdinOnce = true, true })
	stream, err := h.Attach(t.Context(), "silent", AttachOptions{Stdin: true, Stdout: true, Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	ended := make(chan error, 1)
	go func() { ended <- stream.CloseWrite() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the end of the input waits for the process")
	}
	if err := h.Start(t.Context(), "silent"); err != nil {
		t.Fatal(err)
	}
	h.monitor.mu.Lock()
	process := h.monitor.all[c.id].out[0]
	h.monitor.mu.Unlock()
	if err := process.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := process.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // os.File returns it bare
		t.Errorf("the process reads %d, %v, want the end", n, err)
	}
}

// Streams that are given up before there is a process are not kept.
func TestForgottenStreams(t *testing.T) {
	h := newHouse(t)
	c := h.made(t, "idle", nil)
	for range 100 {
		stream, err := h.Attach(t.Context(), "idle", AttachOptions{Stdout: true, Stream: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Close(); err != nil {
			t.Fatal(err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) > 1 {
		t.Errorf("%d streams are kept", len(c.streams))
	}
}

// A container that ends by itself while it is found unhealthy is not started against its policy at the end of
// a later run.
func TestUnwellWhenItHasEnded(t *testing.T) {
	h := newHouse(t)
	id := h.runs(t, "ill", nil)
	h.monitor.end(id, monitor.Exit{Code: 1})
	h.becomes(t, id, exited)
	c := h.found(t, id)
	h.treat(c, "restart")
	if err := h.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	ended := c.running()
	h.monitor.end(id, monitor.Exit{Signal: int(unix.SIGTERM)})
	<-ended
	if _, st := c.snapshot(); st.Phase != exited {
		t.Errorf("it is %s, want exited", st.Phase)
	}
}

// When the connection to the monitor was lost, only what ran is compared with what there is: a restart that is
// waited for, a start under way and a step of a build are not touched.
func TestConnectionLost(t *testing.T) {
	h := newHouse(t)
	again := h.runs(t, "again", func(r *wire.ContainerCreateRequest) { r.HostConfig.RestartPolicy.Name = "always" })
	lost := h.runs(t, "lost", nil)
	missed := h.runs(t, "missed", nil)
	lives := h.runs(t, "lives", nil)
	h.monitor.end(again, monitor.Exit{Code: 3})
	h.becomes(t, again, restarting)
	h.setStep("step", true)
	left := h.made(t, "left", nil).id // of a run whose clean-up was cut off
	for _, id := range []string{"step", "stranger", left} {
		if _, _, err := h.monitor.Run(t.Context(), monitor.Config{ID: id}, nil); err != nil {
			t.Fatal(err)
		}
	}
	late := h.made(t, "late", nil)
	reached, open := make(chan struct{}), make(chan struct{})
	h.monitor.created = func(id string) {
		if id == late.id {
			close(reached)
			<-open
		}
	}
	started := make(chan error, 1)
	go func() { started <- h.Start(t.Context(), late.id) }()
	<-reached
	if err := h.monitor.Delete(t.Context(), lost, false); err != nil {
		t.Fatal(err)
	}
	h.monitor.unwatched(func() { h.monitor.end(missed, monitor.Exit{Code: 4}) })

	if _, err := h.rewatch(); err != nil {
		t.Fatal(err)
	}
	close(open)
	if err := <-started; err != nil {
		t.Error(err)
	}
	for id, want := range map[string]phase{again: running, lost: exited, missed: exited, lives: running, late.id: running} {
		h.becomes(t, id, want)
	}
	if _, st := h.found(t, lost).snapshot(); st.ExitCode != lostExit {
		t.Errorf("exit code of the lost one: %d, want %d", st.ExitCode, lostExit)
	}
	want := []string{again, late.id, lives, "step"}
	slices.Sort(want)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		h.monitor.mu.Lock()
		got := slices.Sorted(maps.Keys(h.monitor.all))
		h.monitor.mu.Unlock()
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the monitor has %v, want %v", got, want)
		}
	}
}

// Who attaches at the moment of the end finds an ended stream, and not that there is no container.
func TestAttachAtTheEnd(t *testing.T) {
	h := newHouse(t)
	id := h.runs(t, "brief", nil)
	if err := h.monitor.Delete(t.Context(), id, false); err != nil { // its end has not been handled
		t.Fatal(err)
	}
	stream, err := h.Attach(t.Context(), id, AttachOptions{Stdout: true, Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(stream); len(data) > 0 || err != nil {
		t.Errorf("stream has %q, %v, want its end", data, err)
	}
}

// An exec whose end is told before its beginning has no process.
func TestExecEndsBeforeItsStartIsAnswered(t *testing.T) {
	h := newHouse(t)
	h.monitor.ended = func(id string) { h.execEnded(id, monitor.Exit{Code: 6}) }
	exec, err := h.ExecCreate(t.Context(), h.runs(t, "web", nil), wire.ExecConfig{Cmd: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.ExecStart(t.Context(), exec, wire.ExecStart{Detach: true}); err != nil {
		t.Fatal(err)
	}
	got, err := h.ExecInspect(t.Context(), exec)
	if err != nil || got.Running || got.Pid != 0 || got.ExitCode == nil || *got.ExitCode != 6 {
		t.Errorf("got %+v, %v", got, err)
	}
}
