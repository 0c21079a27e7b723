package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/monitor/jsonlog"
)

// testing monitor: a server with the fake runtime in this process, and a client over its socket.
type harness struct {
	*monitor.Client
	t      *testing.T
	dir    string
	server *Server
	fake   *fakeOCI
	ended  chan error
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	dir := t.TempDir()
	h := &harness{t: t, dir: dir, fake: newFakeOCI(t), ended: make(chan error, 1)}
	h.serve()
	var err error
	if h.Client, err = monitor.Dial(t.Context(), h.socket()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = h.Close()
		select {
		case err := <-h.ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the monitor does not end when it is idle")
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*", "*.json")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		if _, err := os.Stat(h.socket()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
	return h
}

func (h *harness) socket() string { return filepath.Join(h.dir, "monitor.sock") }

func (h *harness) serve() {
	h.t.Helper()
	s, err := newServer(Options{Socket: h.socket(), Root: h.dir, Logger: slog.New(slog.DiscardHandler)}, h.fake)
	if err != nil {
		h.t.Fatal(err)
	}
	s.idle = 50 * time.Millisecond
	h.server = s
	go func() { h.ended <- s.serve(context.Background()) }()
}

func (h *harness) config(id string, args ...string) monitor.Config {
	return monitor.Config{
		ID: id, Spec: &specs.Spec{Process: &specs.Process{Args: args}},
		Log: monitor.LogConfig{Driver: "json-file", Path: filepath.Join(h.dir, id+".log")},
	}
}

func (h *harness) create(o monitor.Config) monitor.Status {
	h.t.Helper()
	s, err := h.Create(h.t.Context(), o)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

func (h *harness) start(o monitor.Config) {
	h.t.Helper()
	h.create(o)
	if err := h.Start(h.t.Context(), o.ID); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) wait(id, exec string) monitor.Exit {
	h.t.Helper()
	e, err := h.Wait(h.t.Context(), id, exec)
	if err != nil {
		h.t.Fatal(err)
	}
	return e
}

func (h *harness) remove(id string) {
	h.t.Helper()
	if err := h.Delete(h.t.Context(), id, true); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) logged(id string) string {
	h.t.Helper()
	var b strings.Builder
	for e, err := range jsonlog.Read(h.t.Context(), jsonlog.Query{Path: filepath.Join(h.dir, id+".log"), Tail: jsonlog.All}) {
		if err != nil {
			h.t.Fatal(err)
		}
		if e.Stream == jsonlog.Stderr {
			b.WriteString("E:")
		}
		b.Write(e.Log)
	}
	return b.String()
}

// demux takes the frames of an attached stream apart.
func demux(t *testing.T, r io.Reader) (stdout, stderr string) {
	t.Helper()
	var out [3]bytes.Buffer
	for header := make([]byte, headerSize); ; {
		if _, err := io.ReadFull(r, header); err == io.EOF {
			return out[1].String(), out[2].String()
		} else if err != nil {
			t.Fatal(err)
		}
		n := int64(header[4])<<24 | int64(header[5])<<16 | int64(header[6])<<8 | int64(header[7])
		if _, err := io.CopyN(&out[header[0]], r, n); err != nil {
			t.Fatal(err)
		}
	}
}

func closeWrite(t *testing.T, f *os.File) {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_WR) }); err != nil {
		t.Fatal(err)
	}
}

var all = monitor.AttachConfig{Stdin: true, Stdout: true, Stderr: true}

func TestLifeOfContainer(t *testing.T) {
	h := newHarness(t)
	c := h.config("a", "sh", "-c", "echo out; echo err >&2; exit 3")
	s := h.create(c)
	if s.State != monitor.Created || s.Pid == 0 || !s.StartedAt.IsZero() {
		t.Errorf("after create: %+v", s)
	}
	if _, err := h.Create(t.Context(), c); !fault.Is(err, fault.Exists) {
		t.Errorf("second create: %v", err)
	}
	if err := h.Delete(t.Context(), "a", false); !fault.Is(err, fault.Conflict) {
		t.Errorf("delete of a created container: %v", err)
	}
	if err := h.Start(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), "a"); !fault.Is(err, fault.Conflict) {
		t.Errorf("second start: %v", err)
	}
	if e := h.wait("a", ""); e.Code != 3 || e.Signal != 0 || time.Since(e.At) > time.Minute {
		t.Errorf("exit: %+v", e)
	}
	if got := h.logged("a"); got != "out\nE:err\n" && got != "E:err\nout\n" {
		t.Errorf("log: %q", got)
	}
	list, err := h.List(t.Context())
	if err != nil || len(list) != 1 || list[0].State != monitor.Stopped || list[0].Exit.Code != 3 || list[0].StartedAt.IsZero() {
		t.Errorf("list: %+v, %v", list, err)
	}
	if err := h.Kill(t.Context(), "a", 15, false); !fault.Is(err, fault.Conflict) {
		t.Errorf("kill after the end: %v", err)
	}
	h.remove("a")
	if err := h.Delete(t.Context(), "a", true); !fault.Is(err, fault.NotFound) || err.Error() != "No such container: a" {
		t.Errorf("second delete: %v", err)
	}
}

func TestExitStatuses(t *testing.T) {
	h := newHarness(t)
	tests := []struct {
		script       string
		code, signal int
	}{
		{"exit 0", 0, 0}, {"exit 255", 255, 0}, {"kill -9 $$", 137, 9}, {"kill -15 $$", 143, 15}, {"kill -11 $$", 139, 11},
	}
	for i, tt := range tests {
		id := fmt.Sprint("c", i)
		h.start(h.config(id, "sh", "-c", tt.script))
		if e := h.wait(id, ""); e.Code != tt.code || e.Signal != tt.signal {
			t.Errorf("%s: got %+v", tt.script, e)
		}
		h.remove(id)
	}
}

func TestStartOfMissingProgram(t *testing.T) {
	h := newHarness(t)
	h.create(h.config("a", "no-such-program"))
	err := h.Start(t.Context(), "a")
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "executable file not found in $PATH") {
		t.Errorf("got %v", err)
	}
	if e := h.wait("a", ""); e.Code != 127 {
		t.Errorf("got %+v", e)
	}
	h.remove("a")
}

func TestBadRequests(t *testing.T) {
	h := newHarness(t)
	ctx := t.Context()
	for _, id := range []string{"", ".", "..", "a/b", "a\x00b", strings.Repeat("x", 201)} {
		var f *fault.Field
		if _, err := h.Create(ctx, h.config(id, "true")); !errors.As(err, &f) {
			t.Errorf("id %q: got %v", id, err)
		}
	}
	c := h.config("a", "true")
	c.Log.Driver = "gelf"
	if _, err := h.Create(ctx, c); !fault.Is(err, fault.Invalid) {
		t.Errorf("unknown log driver: %v", err)
	}
	c = h.config("a", "true")
	c.Log.Path = filepath.Join(h.dir, "no", "log")
	if _, err := h.Create(ctx, c); err == nil {
		t.Error("a log in no directory is taken")
	}
	if _, err := h.Create(ctx, monitor.Config{ID: "a"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("no spec: %v", err)
	}
	for name, err := range map[string]error{
		"start": h.Start(ctx, "x"), "kill": h.Kill(ctx, "x", 9, false), "delete": h.Delete(ctx, "x", true),
		"pause": h.Pause(ctx, "x"), "resize": h.Resize(ctx, "x", "", 1, 1), "delete-exec": h.DeleteExec(ctx, "x", "y"),
	} {
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("%s of no container: %v", name, err)
		}
	}
	h.create(h.config("a", "true"))
	if _, err := h.Exec(ctx, "a", monitor.ExecConfig{ID: "e", Process: &specs.Process{Args: []string{"true"}}}); !fault.Is(err, fault.Conflict) {
		t.Errorf("exec in a container that was not started: %v", err)
	}
	h.remove("a")
}

func TestPanicFailsOneRequest(t *testing.T) {
	h := newHarness(t)
	h.start(h.config("a", "sleep", "100"))
	c := h.fake.containers["a"]
	c.panics.Store(true)
	if err := h.Kill(t.Context(), "a", 9, false); !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "kill panics") {
		t.Errorf("got %v", err)
	}
	c.panics.Store(false)
	h.remove("a")
}

func TestAttach(t *testing.T) {
	h := newHarness(t)
	c := h.config("a", "sh", "-c", "echo one; echo two >&2; cat; echo end")
	c.OpenStdin, c.StdinOnce = true, true
	h.create(c)
	first, err := h.Attach(t.Context(), "a", "", all)
	if err != nil {
		t.Fatal(err)
	}
	second, err := h.Attach(t.Context(), "a", "", monitor.AttachConfig{Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(first, "input\n")
	closeWrite(t, first)
	stdout, stderr := demux(t, first)
	if stdout != "one\ninput\nend\n" || stderr != "two\n" {
		t.Errorf("first: got %q, %q", stdout, stderr)
	}
	stdout, stderr = demux(t, second)
	if stdout != "one\ninput\nend\n" || stderr != "" {
		t.Errorf("second: got %q, %q", stdout, stderr)
	}
	first.Close()
	second.Close()
	h.wait("a", "")
	late, err := h.Attach(t.Context(), "a", "", all)
	if err != nil {
		t.Fatal(err)
	}
	if stdout, stderr := demux(t, late); stdout+stderr != "" {
		t.Errorf("after the end: got %q, %q", stdout, stderr)
	}
	late.Close()
	h.remove("a")
}

func TestStdinStaysOpenWithoutStdinOnce(t *testing.T) {
	h := newHarness(t)
	c := h.config("a", "cat")
	c.OpenStdin = true
	h.start(c)
	for _, text := range []string{"one\n", "two\n"} {
		f, err := h.Attach(t.Context(), "a", "", all)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(f, text)
		closeWrite(t, f)
		got := make([]byte, headerSize+len(text))
		if _, err := io.ReadFull(f, got); err != nil || string(got[headerSize:]) != text {
			t.Errorf("got %q, %v", got, err)
		}
		f.Close()
	}
	h.remove("a")
}

func TestStdinOnceEndsWithKilledClient(t *testing.T) {
	h := newHarness(t)
	c := h.config("a", "cat")
	c.OpenStdin, c.StdinOnce = true, true
	h.start(c)
	f, err := h.Attach(t.Context(), "a", "", all)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if e := h.wait("a", ""); e.Code != 0 {
		t.Errorf("got %+v", e)
	}
	h.remove("a")
}

// A client that ends while input of it is unread must read the end, not an error.
func TestUnreadInputIsNoError(t *testing.T) {
	h := newHarness(t)
	c := h.config("a", "sh", "-c", "sleep 0.1; echo done")
	c.OpenStdin = true
	h.create(c)
	f, err := h.Attach(t.Context(), "a", "", all)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := f.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(f, strings.NewReader(strings.Repeat("x", 1<<20))) // nobody reads it
	if stdout, _ := demux(t, f); stdout != "done\n" {
		t.Errorf("got %q", stdout)
	}
	f.Close()
	h.remove("a")
}

// The client reads late and slowly, the container writes more than all buffers hold, and is deleted
// as soon as it has ended: not a byte may be lost, and the log and the exit do not wait.
func TestSlowClientGetsAll(t *testing.T) {
	h := newHarness(t)
	const size = 2_000_000
	c := h.config("a", "sh", "-c", fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x", size))
	h.create(c)
	f, err := h.Attach(t.Context(), "a", "", all)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	if s, err := h.List(t.Context()); err != nil || s[0].State != monitor.Running {
		t.Errorf("the container was not held back: %+v, %v", s, err)
	}
	// Read until the process can end, then no more before it is gone.
	read := io.LimitReader(f, size-500_000)
	got, err := io.ReadAll(read)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.AfterFunc(5*time.Second, func() { t.Error("the end waits for the client"); f.Close() })
	for more := make([]byte, 50_000); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := h.Wait(ctx, "a", "")
		cancel()
		if err == nil {
			break
		}
		n, err := f.Read(more)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, more[:n]...)
	}
	deadline.Stop()
	if n := len(h.logged("a")); n != size {
		t.Errorf("the log has %d bytes of %d at the end of the process", n, size)
	}
	h.remove("a")
	rest, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if stdout, _ := demux(t, bytes.NewReader(append(got, rest...))); len(stdout) != size {
		t.Errorf("got %d bytes of %d, %d of them after the end", len(stdout), size, len(rest))
	}
}

func TestTerminal(t *testing.T) {
	h := newHarness(t)
	c := h.config("a", "sh", "-c", "stty size; read x; stty size; echo got $x; exit 5")
	c.Spec.Process.Terminal = true
	c.OpenStdin, c.StdinOnce = true, true
	c.ConsoleHeight, c.ConsoleWidth = 24, 80
	h.create(c)
	f, err := h.Attach(t.Context(), "a", "", all)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, len("24 80\r\n"))
	if _, err := io.ReadFull(f, first); err != nil || string(first) != "24 80\r\n" {
		t.Errorf("got %q, %v", first, err)
	}
	if err := h.Resize(t.Context(), "a", "", 50, 132); err != nil {
		t.Error(err)
	}
	fmt.Fprint(f, "hi\n")
	rest, err := io.ReadAll(f)
	if want := "hi\r\n50 132\r\ngot hi\r\n"; string(rest) != want || err != nil {
		t.Errorf("got %q, want %q, %v", rest, want, err)
	}
	f.Close()
	if e := h.wait("a", ""); e.Code != 5 {
		t.Errorf("got %+v", e)
	}
	if err := h.Resize(t.Context(), "a", "", 1, 1); !fault.Is(err, fault.Conflict) {
		t.Errorf("resize after the end: %v", err)
	}
	h.remove("a")
}

func TestResizeWithoutTerminal(t *testing.T) {
	h := newHarness(t)
	h.start(h.config("a", "sleep", "100"))
	if err := h.Resize(t.Context(), "a", "", 1, 1); !fault.Is(err, fault.Conflict) {
		t.Errorf("got %v", err)
	}
	h.remove("a")
}

func TestExec(t *testing.T) {
	h := newHarness(t)
	h.start(h.config("a", "sleep", "100"))
	ctx := t.Context()
	process := func(script string) *specs.Process { return &specs.Process{Args: []string{"sh", "-c", script}} }

	s, f, err := h.ExecAttach(ctx, "a", monitor.ExecConfig{ID: "e1", Process: process("echo out; cat; echo err >&2; exit 4"), OpenStdin: true}, all)
	if err != nil || s.ExecID != "e1" || s.Pid == 0 {
		t.Fatal(s, err)
	}
	fmt.Fprint(f, "in\n")
	closeWrite(t, f)
	if stdout, stderr := demux(t, f); stdout != "out\nin\n" || stderr != "err\n" {
		t.Errorf("got %q, %q", stdout, stderr)
	}
	f.Close()
	if e := h.wait("a", "e1"); e.Code != 4 {
		t.Errorf("got %+v", e)
	}
	if _, err := h.Exec(ctx, "a", monitor.ExecConfig{ID: "e1", Process: process("true")}); !fault.Is(err, fault.Exists) {
		t.Errorf("second exec of one id: %v", err)
	}
	if _, err := h.Exec(ctx, "a", monitor.ExecConfig{ID: "e2", Process: process("head -c 1000000 /dev/zero")}); err != nil {
		t.Error(err)
	}
	if e := h.wait("a", "e2"); e.Code != 0 {
		t.Errorf("a detached exec is held back: %+v", e)
	}
	_, err = h.Exec(ctx, "a", monitor.ExecConfig{ID: "e3", Process: &specs.Process{Args: []string{"no-such-program"}}})
	if !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
	p := process("stty size; exit 6")
	p.Terminal = true
	_, f, err = h.ExecAttach(ctx, "a", monitor.ExecConfig{ID: "e4", Process: p, OpenStdin: true, ConsoleHeight: 30, ConsoleWidth: 90}, all)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(f); !strings.HasSuffix(string(got), "\r\n") || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	f.Close()
	h.wait("a", "e4")
	list, err := h.List(ctx)
	if err != nil || len(list[0].Execs) != 3 || list[0].Execs[0].Exit.Code != 4 {
		t.Errorf("got %+v, %v", list, err)
	}
	if err := h.DeleteExec(ctx, "a", "e1"); err != nil {
		t.Error(err)
	}
	if _, err := h.Wait(ctx, "a", "e1"); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
	h.remove("a")
}

func TestEndedExecsAreBounded(t *testing.T) {
	h := newHarness(t)
	h.start(h.config("a", "sleep", "100"))
	for i := range keepExecs + 10 {
		id := fmt.Sprint("e", i)
		if _, err := h.Exec(t.Context(), "a", monitor.ExecConfig{ID: id, Process: &specs.Process{Args: []string{"true"}}}); err != nil {
			t.Fatal(err)
		}
		h.wait("a", id)
	}
	list, err := h.List(t.Context())
	if err != nil || len(list[0].Execs) > keepExecs+1 {
		t.Errorf("%d are kept, %v", len(list[0].Execs), err)
	}
	h.remove("a")
}

// A descendant that keeps the pipe open holds up the end for drainWait, and then no more.
func TestDescendantKeepsPipe(t *testing.T) {
	h := newHarness(t)
	h.start(h.config("a", "sh", "-c", "echo before; (trap '' PIPE; for i in 1 2 3 4 5 6 7 8; do sleep 0.5; echo $i 2>/dev/null || exit; done) & exit 0"))
	begun := time.Now()
	h.wait("a", "")
	if d := time.Since(begun); d < drainWait-500*time.Millisecond || d > drainWait+2*time.Second {
		t.Errorf("waited %v", d)
	}
	if got := h.logged("a"); !strings.HasPrefix(got, "before\n1\n2\n") {
		t.Errorf("log: %q", got)
	}
	h.remove("a")
}

func TestWatch(t *testing.T) {
	h := newHarness(t)
	h.start(h.config("before", "sh", "-c", "exit 1"))
	h.wait("before", "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := h.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	h.start(h.config("after", "sh", "-c", "exit 2"))
	h.create(h.config("never", "true"))
	if err := h.Kill(ctx, "never", 9, false); err != nil {
		t.Error(err)
	}
	got := map[string]monitor.Event{}
	for len(got) < 3 {
		e := <-events
		got[e.ID] = e
	}
	if got["before"].Exit.Code != 1 || got["after"].Exit.Code != 2 || !got["after"].Started || got["never"].Started || got["never"].Exit.Code != 137 {
		t.Errorf("got %+v", got)
	}
	cancel()
	if _, ok := <-events; ok {
		t.Error("the channel is open after the context's end")
	}
	for id := range got {
		h.remove(id)
	}
}

func TestWaitIsCanceledAlone(t *testing.T) {
	h := newHarness(t)
	h.start(h.config("a", "sleep", "100"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := h.Wait(ctx, "a", ""); !errors.Is(err, context.DeadlineExceeded) || !fault.Is(err, fault.Deadline) {
		t.Errorf("got %v", err)
	}
	if _, err := h.List(t.Context()); err != nil {
		t.Error(err)
	}
	h.remove("a")
}

func TestPauseStatsPids(t *testing.T) {
	h := newHarness(t)
	h.start(h.config("a", "sleep", "100"))
	ctx := t.Context()
	if err := h.Pause(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if err := h.Pause(ctx, "a"); !fault.Is(err, fault.Conflict) {
		t.Errorf("second pause: %v", err)
	}
	if l, err := h.List(ctx); err != nil || l[0].State != monitor.Paused {
		t.Errorf("got %+v, %v", l, err)
	}
	if err := h.Resume(ctx, "a"); err != nil {
		t.Error(err)
	}
	if err := h.Resume(ctx, "a"); !fault.Is(err, fault.Conflict) {
		t.Errorf("second resume: %v", err)
	}
	if s, err := h.Stats(ctx, "a"); err != nil || s.Pids.Current != 7 {
		t.Errorf("got %+v, %v", s, err)
	}
	if p, err := h.Pids(ctx, "a"); err != nil || len(p) != 1 {
		t.Errorf("got %v, %v", p, err)
	}
	if err := h.Update(ctx, "a", &specs.LinuxResources{}); err != nil {
		t.Error(err)
	}
	if err := h.Pause(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	h.remove("a") // thaws it, or it would not die
}

func TestFilesAreHeldUntilDelete(t *testing.T) {
	h := newHarness(t)
	netns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	c := h.config("a", "sleep", "100")
	c.NetNS = netns
	var readers []*os.File
	for range 600 { // more than one message can carry
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		readers, c.Hold = append(readers, r), append(c.Hold, w)
	}
	s := h.create(c)
	for _, f := range append(c.Hold, netns) {
		f.Close()
	}
	var want, got unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &want); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(s.Netns, &got); err != nil || got.Ino != want.Ino {
		t.Errorf("%s: %v", s.Netns, err)
	}
	one := make([]byte, 1)
	for _, r := range readers {
		if err := r.SetReadDeadline(time.Now()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(one); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a held file is closed: %v", err)
		}
	}
	h.remove("a")
	for _, r := range readers {
		if err := r.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(one); err != io.EOF {
			t.Fatalf("a held file is open after delete: %v", err)
		}
	}
}

func TestShutdown(t *testing.T) {
	h := newHarness(t)
	h.start(h.config("a", "sleep", "100"))
	if err := h.Shutdown(t.Context()); !fault.Is(err, fault.Conflict) {
		t.Errorf("with a running container: %v", err)
	}
	h.remove("a")
	if err := h.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// A monitor that was killed leaves processes and exit files; the next one takes them over.
func TestNextMonitorTakesOver(t *testing.T) {
	h := newHarness(t)
	ctx := t.Context()
	h.start(h.config("ended", "sh", "-c", "exit 9"))
	h.wait("ended", "")
	h.start(h.config("running", "sleep", "100"))

	second, err := newServer(Options{Socket: filepath.Join(h.dir, "second.sock"), Root: h.dir, Logger: slog.New(slog.DiscardHandler)}, h.fake)
	if err != nil {
		t.Fatal(err)
	}
	second.idle = 50 * time.Millisecond
	over := make(chan error, 1)
	go func() { over <- second.serve(context.Background()) }()
	c, err := monitor.Dial(ctx, filepath.Join(h.dir, "second.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the test is over
	list, err := c.List(ctx)
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	byID := map[string]monitor.Status{list[0].ID: list[0], list[1].ID: list[1]}
	if s := byID["ended"]; !s.Adopted || s.State != monitor.Stopped || s.Exit.Code != 9 {
		t.Errorf("got %+v", s)
	}
	if s := byID["running"]; !s.Adopted || s.State != monitor.Running {
		t.Errorf("got %+v", s)
	}
	if _, err := c.Attach(ctx, "running", "", all); !fault.Is(err, fault.Conflict) {
		t.Errorf("got %v", err)
	}
	if err := c.Kill(ctx, "running", int(unix.SIGTERM), false); err != nil {
		t.Error(err)
	}
	e, err := c.Wait(ctx, "running", "")
	if err != nil || e.Code != 143 && !e.Lost {
		t.Errorf("got %+v, %v", e, err)
	}
	t.Logf("exit of an adopted process: %+v", e)
	h.wait("running", "")
	for _, id := range []string{"ended", "running"} {
		if err := c.Delete(ctx, id, true); err != nil {
			t.Error(err)
		}
		h.remove(id)
	}
	_ = c.Close()
	if err := <-over; err != nil {
		t.Error(err)
	}
}

// Many short containers at once leave no descriptor and no goroutine.
func TestParallelContainersLeakNothing(t *testing.T) {
	h := newHarness(t)
	h.start(h.config("warm", "true"))
	h.remove("warm")
	before := descriptors(t)
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			id := fmt.Sprint("c", i)
			c := h.config(id, "sh", "-c", fmt.Sprintf("echo hello %d; exit %d", i, i%100))
			if _, err := h.Create(t.Context(), c); err != nil {
				t.Error(err)
				return
			}
			f, err := h.Attach(t.Context(), id, "", monitor.AttachConfig{Stdout: true})
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if err := h.Start(t.Context(), id); err != nil {
				t.Error(err)
			}
			want := fmt.Sprintf("hello %d\n", i)
			if stdout, _ := demux(t, f); stdout != want {
				t.Errorf("got %q, want %q", stdout, want)
			}
			if e, err := h.Wait(t.Context(), id, ""); err != nil || e.Code != i%100 {
				t.Errorf("got %+v, %v", e, err)
			}
			if got := h.logged(id); got != want {
				t.Errorf("log: %q", got)
			}
			h.remove(id)
		})
	}
	all.Wait()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		after := descriptors(t)
		diff := cmp.Diff(before, after)
		if diff == "" {
			break
		}
		if time.Now().After(end) {
			t.Errorf("descriptors: %s", diff)
			break
		}
	}
}

// descriptors counts open files by what they are.
func descriptors(t *testing.T) map[string]int {
	t.Helper()
	count := map[string]int{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil {
			continue
		}
		kind, _, _ := strings.Cut(target, ":[")
		count[kind]++
	}
	return count
}
