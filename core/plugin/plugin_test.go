package plugin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/plugins/sdk"
	"github.com/sampan-project/sampan/proto"
	networkv1 "github.com/sampan-project/sampan/proto/sampan/network/v1"
)

// The test program is the plugin too: a copy of it called sampan-network-NAME behaves as NAME says.
// And it is an engine that can be killed.
const engineVariable = "SAMPAN_TEST_ENGINE"

func TestMain(m *testing.M) {
	if os.Getenv(proto.CookieKey) != "" {
		name := strings.TrimPrefix(filepath.Base(os.Args[0]), "sampan-network-")
		if name == "mute" {
			time.Sleep(time.Minute)
		}
		if name == "stillborn" {
			fmt.Fprintln(os.Stderr, "no bread")
			os.Exit(3)
		}
		if name == "wrongname" {
			name = "other"
		}
		sdk.ServeNetwork(sdk.Info{Name: name, Version: "0.1", Doc: "A fake."}, fake{})
		return
	}
	if dir := os.Getenv(engineVariable); dir != "" {
		engine(dir)
	}
	os.Exit(m.Run())
}

// engine starts a plugin, says its pid, and waits for its death.
func engine(dir string) {
	h, err := NewHost(Options{Dirs: []string{dir}})
	if err == nil {
		var p *Plugin
		if p, err = h.Plugin("network", "good"); err == nil {
			_, err = p.Describe(context.Background())
			fmt.Println(p.Status().Pid)
		}
	}
	if err != nil {
		fmt.Println(err)
	}
	select {}
}

type fakeOptions struct {
	MTU int `sampan:"mtu,default=1500,min=576" doc:"Largest packet."`
}

// fake does what the network's name says.
type fake struct{}

func (fake) CreateNetwork(_ context.Context, n sdk.Network[fakeOptions]) (sdk.Created, error) {
	switch n.Name {
	case "crash":
		os.Exit(7)
	case "panic":
		panic("a bug")
	case "hang":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP) // the test sees whether it did
		time.Sleep(time.Second)                        // the other threads stop a moment later
	case "slow":
		time.Sleep(time.Second)
	case "talk":
		fmt.Println("printed by mistake")
		slog.Warn("said on purpose", "network", n.Name)
	case "environment":
		return sdk.Created{}, errors.New(strings.Join(os.Environ(), " "))
	case "conflict":
		return sdk.Created{}, sdk.Errorf(sdk.Conflict, "the bridge is taken")
	}
	return sdk.Created{}, nil
}
func (fake) DeleteNetwork(context.Context, sdk.Network[fakeOptions]) error { return nil }
func (fake) Attach(context.Context, sdk.Network[fakeOptions], sdk.Endpoint) (sdk.Attachment, error) {
	return sdk.Attachment{}, nil
}
func (fake) Detach(context.Context, sdk.Network[fakeOptions], sdk.Endpoint) error { return nil }
func (fake) Reconcile(context.Context, string, []sdk.Network[fakeOptions], []sdk.Endpoint) error {
	return nil
}
func (fake) Health(context.Context) error { return nil }

func install(t *testing.T, dir string, names ...string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		from, err := os.Open(self)
		if err != nil {
			t.Fatal(err)
		}
		to, err := os.OpenFile(filepath.Join(dir, "sampan-network-"+name), os.O_CREATE|os.O_WRONLY, 0o755)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(to, from); err != nil {
			t.Fatal(err)
		}
		from.Close()
		to.Close()
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newTestHost(t *testing.T, names ...string) (*Host, *syncBuffer) {
	t.Helper()
	dir := t.TempDir()
	install(t, dir, names...)
	log := &syncBuffer{}
	h, err := NewHost(Options{Dirs: []string{filepath.Join(dir, "missing"), dir}, Logger: slog.New(slog.NewTextHandler(log, nil)), StartTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return h, log
}

func plugin(t *testing.T, h *Host, name string) *Plugin {
	t.Helper()
	p, err := h.Plugin("network", name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func create(ctx context.Context, p *Plugin, name string, timeout time.Duration, options map[string]string) error {
	return p.Call(ctx, "CreateNetwork", timeout, func(ctx context.Context, c grpc.ClientConnInterface) error {
		_, err := networkv1.NewNetworkDriverClient(c).CreateNetwork(ctx, &networkv1.CreateNetworkRequest{Network: &networkv1.Network{
			Id: strings.Repeat("ab", 32), Owner: strings.Repeat("c", 12), Name: name, Options: options,
		}})
		return err
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("%s: not within 10 s", what)
}

func TestStartOnFirstUse(t *testing.T) {
	h, log := newTestHost(t, "good")
	p := plugin(t, h, "good")
	if s := p.Status(); s.State != Idle || s.Pid != 0 {
		t.Errorf("before the first call: %+v", s)
	}
	t.Setenv("SECRET", "of the engine")
	err := create(t.Context(), p, "environment", 0, nil)
	if err == nil || strings.Contains(err.Error(), "SECRET") || fault.ClassOf(err) != fault.Internal {
		t.Errorf("environment: %v", err)
	}
	if s := p.Status(); s.State != Running || s.Pid == 0 || s.Version != "0.1" {
		t.Errorf("after it: %+v", s)
	}
	if err := create(t.Context(), p, "talk", 0, nil); err != nil {
		t.Error(err)
	}
	eventually(t, "what the plugin says is in the log", func() bool {
		return strings.Contains(log.String(), "printed by mistake") &&
			strings.Contains(log.String(), `level=WARN msg="said on purpose" plugin="network driver good"`)
	})
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings, expected that of the plugin alone", n)
	}
	if err := p.Health(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestErrorsKeepTheirClass(t *testing.T) {
	h, _ := newTestHost(t, "good")
	p := plugin(t, h, "good")
	err := create(t.Context(), p, "conflict", 0, nil)
	if fault.ClassOf(err) != fault.Conflict || err.Error() != "the bridge is taken" {
		t.Errorf("%v: %v", fault.ClassOf(err), err)
	}
	err = create(t.Context(), p, "panic", 0, nil)
	if fault.ClassOf(err) != fault.Internal || !strings.Contains(err.Error(), "a bug") {
		t.Errorf("%v: %v", fault.ClassOf(err), err)
	}
	var field *fault.Field
	if err = create(t.Context(), p, "x", 0, map[string]string{"mtv": "9000"}); !errors.As(err, &field) || field.Nearest != "mtu" {
		t.Errorf("%#v", err)
	}
	if err = create(t.Context(), p, "x", 0, map[string]string{"mtu": "9"}); !errors.As(err, &field) || field.Field != "mtu" || field.Given != "9" {
		t.Errorf("%#v", err)
	}
	if p.Status().State != Running {
		t.Errorf("after errors: %+v", p.Status())
	}
}

func TestUnknownNameNamesTheNearest(t *testing.T) {
	h, _ := newTestHost(t, "good")
	_, err := h.Plugin("network", "goood")
	if fault.ClassOf(err) != fault.NotFound || !strings.Contains(err.Error(), `did you mean "good"`) {
		t.Error(err)
	}
	install(t, h.o.Dirs[1], "late")
	if _, err := h.Plugin("network", "late"); err != nil {
		t.Errorf("a plugin that came later: %v", err)
	}
}

func TestWhatIsNotTaken(t *testing.T) {
	h, _ := newTestHost(t)
	dir := h.o.Dirs[1]
	install(t, dir, "open", "plain", "wrongname", "stillborn", "changed")
	for name, mode := range map[string]os.FileMode{"open": 0o777, "plain": 0o644} {
		if err := os.Chmod(filepath.Join(dir, "sampan-network-"+name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"open": "chmod o-w", "plain": "expected an executable"} {
		if _, err := h.Plugin("network", name); fault.ClassOf(err) != fault.Unavailable || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	changed := plugin(t, h, "changed")
	f, err := os.OpenFile(changed.Path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("more"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for name, want := range map[string]string{"changed": "is not the file that was found", "wrongname": "the file has the wrong name", "stillborn": `it said "no bread"`} {
		_, err := plugin(t, h, name).Describe(t.Context())
		if fault.ClassOf(err) != fault.Unavailable || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		if s := plugin(t, h, name).Status(); s.State != Failed || s.Err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestStartHasADeadline(t *testing.T) {
	h, _ := newTestHost(t, "mute")
	h.o.StartTimeout = 300 * time.Millisecond
	start := time.Now()
	if _, err := plugin(t, h, "mute").Describe(t.Context()); err == nil || time.Since(start) > 3*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

func TestCrashIsOneErrorAndARestart(t *testing.T) {
	h, _ := newTestHost(t, "good")
	restarts := make(chan string, 10)
	h.OnRestart(func(kind, name string) { restarts <- kind + "/" + name })
	p := plugin(t, h, "good")
	if _, err := p.Describe(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := p.Status().Pid
	err := create(t.Context(), p, "crash", 0, nil)
	if fault.ClassOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("%v: %v", fault.ClassOf(err), err)
	}
	select {
	case got := <-restarts:
		if got != "network/good" || p.Status().Pid == first {
			t.Errorf("restarted %s, pid %d after %d", got, p.Status().Pid, first)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("not started again")
	}
	if err := create(t.Context(), p, "x", 0, nil); err != nil {
		t.Error(err)
	}
	// After the second crash in a short time the next start waits, and calls with it.
	_ = create(t.Context(), p, "crash", 0, nil)
	for range 3 {
		eventually(t, "another start", func() bool { return p.Status().State == Running })
		_ = create(t.Context(), p, "crash", 0, nil)
	}
	eventually(t, "the end is seen", func() bool { return p.Status().State == Failed })
	hurried, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := create(hurried, p, "x", 0, nil); fault.ClassOf(err) != fault.Deadline {
		t.Errorf("with no time to wait: %v", err)
	}
	if err := create(t.Context(), p, "x", 0, nil); err != nil {
		t.Errorf("with time to wait: %v", err)
	}
}

// Whoever was told that the process ended can undo at once what it had begun.
func TestCallAfterACrash(t *testing.T) {
	h, _ := newTestHost(t, "good")
	p := plugin(t, h, "good")
	for range 4 {
		if err := create(t.Context(), p, "crash", 0, nil); fault.ClassOf(err) != fault.Unavailable {
			t.Fatalf("%v: %v", fault.ClassOf(err), err)
		}
		if err := create(t.Context(), p, "x", 0, nil); err != nil {
			t.Error(err)
		}
	}
}

func TestLongPauseIsAnErrorAtOnce(t *testing.T) {
	h, _ := newTestHost(t, "good")
	p := plugin(t, h, "good")
	p.mu.Lock()
	p.err, p.notUntil = errors.New("exit status 7"), time.Now().Add(time.Minute)
	p.mu.Unlock()
	start := time.Now()
	err := create(t.Context(), p, "x", 0, nil)
	if fault.ClassOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "exit status 7; next start in") || time.Since(start) > time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

func TestHangIsKilled(t *testing.T) {
	h, _ := newTestHost(t, "good")
	p := plugin(t, h, "good")
	if _, err := p.Describe(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := p.Status().Pid
	// Slow is not hanging.
	if err := create(t.Context(), p, "slow", 100*time.Millisecond, nil); fault.ClassOf(err) != fault.Deadline {
		t.Errorf("%v: %v", fault.ClassOf(err), err)
	}
	err := create(t.Context(), p, "hang", 200*time.Millisecond, nil)
	if fault.ClassOf(err) != fault.Deadline || !strings.Contains(err.Error(), "did not answer CreateNetwork") {
		t.Errorf("%v: %v", fault.ClassOf(err), err)
	}
	if p.Status().Pid != first {
		t.Errorf("killed too early")
	}
	eventually(t, "a new process", func() bool { s := p.Status(); return s.State == Running && s.Pid != first })
}

func TestCallerGivesUp(t *testing.T) {
	h, _ := newTestHost(t, "good")
	p := plugin(t, h, "good")
	if _, err := p.Describe(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := create(ctx, p, "slow", 0, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// A plugin dies with the engine, however that dies.
func TestDiesWithTheEngine(t *testing.T) {
	dir := t.TempDir()
	install(t, dir, "good")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), engineVariable+"="+dir, "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, convErr := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || convErr != nil || syscall.Kill(pid, 0) != nil {
		t.Fatalf("the engine said %q: %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	eventually(t, "the plugin is dead", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(b), ") Z ")
	})
}
