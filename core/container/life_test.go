package container

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/wire"
)

func TestLife(t *testing.T) {
	h := newHouse(t)
	id := h.runs(t, "web", nil)
	if err := h.Start(t.Context(), "web"); !fault.Is(err, fault.NotModified) {
		t.Errorf("second start: %v, want not modified", err)
	}
	if err := h.Remove(t.Context(), "web", RemoveOptions{}); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "container is running") {
		t.Errorf("remove while it runs: %v", err)
	}
	waited, err := h.Wait(t.Context(), id[:12], nextExit)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Stop(t.Context(), "web", "", nil); err != nil {
		t.Fatal(err)
	}
	if got := <-waited; got.StatusCode != 143 {
		t.Errorf("wait answers %d, want 143", got.StatusCode)
	}
	if err := h.Stop(t.Context(), "web", "", nil); !fault.Is(err, fault.NotModified) {
		t.Errorf("second stop: %v, want not modified", err)
	}
	if err := h.Kill(t.Context(), "web", ""); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "is not running") {
		t.Errorf("kill of what does not run: %v", err)
	}
	if n, m := h.network.count(), h.monitor.count(); n != 0 || m != 0 {
		t.Errorf("after the end %d are in networks and the monitor has %d", n, m)
	}
	if err := h.Restart(t.Context(), "web", "", nil); err != nil {
		t.Fatal(err)
	}
	h.becomes(t, "web", running)
	if err := h.Remove(t.Context(), "/web", RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Inspect(t.Context(), id, false); !fault.Is(err, fault.NotFound) || err.Error() != "No such container: "+id {
		t.Errorf("inspect after rm: %v", err)
	}
	if _, err := os.Stat(h.directory(id)); !errors.Is(err, os.ErrNotExist) || h.layers.count() != 0 {
		t.Errorf("left behind: directory %v, %d snapshots", err, h.layers.count())
	}
}

func TestStopKillsTheDeaf(t *testing.T) {
	h := newHouse(t)
	h.monitor.deaf = true
	h.runs(t, "deaf", nil)
	none := 0
	if err := h.Stop(t.Context(), "deaf", "", &none); err != nil {
		t.Fatal(err)
	}
	if got := h.becomes(t, "deaf", exited).State.ExitCode; got != 137 {
		t.Errorf("exit code %d, want 137", got)
	}
}

func TestStartFails(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		code int
		want fault.Class
	}{
		{"missing", errors.New(`exec: "nope": executable file not found in $PATH`), 127, fault.Invalid},
		{"forbidden", errors.New(`exec: "/etc/passwd": permission denied`), 126, fault.Invalid},
		{"ours", errors.New("cgroup: no space left"), 128, fault.Internal},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			h.runs(t, "other", nil)
			h.monitor.startErr = c.err
			made, err := h.Create(t.Context(), "bad", "", wire.ContainerCreateRequest{ContainerConfig: wire.ContainerConfig{Image: "busybox", Cmd: []string{"x"}, User: "0:0"}})
			if err != nil {
				t.Fatal(err)
			}
			stream, err := h.Attach(t.Context(), "bad", AttachOptions{Stdout: true, Stream: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Start(t.Context(), "bad"); !errors.Is(err, c.err) || !fault.Is(err, c.want) {
				t.Errorf("start: %v of class %v, want class %v", err, fault.ClassOf(err), c.want)
			}
			if data, err := io.ReadAll(stream); len(data) > 0 || err != nil {
				t.Errorf("stream has %q, %v, want its end", data, err)
			}
			got, err := h.Inspect(t.Context(), made.ID, false)
			if err != nil || got.State.ExitCode != c.code || got.State.Error != c.err.Error() {
				t.Errorf("state %+v, %v, want exit code %d", got.State, err, c.code)
			}
			if n, m := h.network.count(), h.monitor.count(); n != 1 || m != 1 {
				t.Errorf("%d are in networks and the monitor has %d, want the other alone", n, m)
			}
		})
	}
}

func TestAttachBeforeStartMissesNothing(t *testing.T) {
	h := newHouse(t)
	_, err := h.Create(t.Context(), "early", "", wire.ContainerCreateRequest{ContainerConfig: wire.ContainerConfig{Image: "busybox", Cmd: []string{"x"}, User: "0:0"}})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := h.find("early")
	h.users.known.Store(userKey{c.rec.Chain.String(), "0:0", ""}, account{})
	stream, err := h.Attach(t.Context(), "early", AttachOptions{Stdout: true, Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context(), "early"); err != nil {
		t.Fatal(err)
	}
	h.monitor.end(c.id, monitor.Exit{})
	if data, err := io.ReadAll(stream); string(data) != "hello" || err != nil {
		t.Errorf("stream has %q, %v, want hello", data, err)
	}
}

func TestAutoRemove(t *testing.T) {
	h := newHouse(t)
	id := h.runs(t, "brief", func(r *wire.ContainerCreateRequest) {
		r.HostConfig.AutoRemove = true
		r.HostConfig.Mounts = []wire.MountSpec{{Type: "volume", Target: "/x", VolumeOptions: &wire.MountVolumeOptions{NoCopy: true}}}
	})
	gone, err := h.Wait(t.Context(), id, whenGone)
	if err != nil {
		t.Fatal(err)
	}
	h.monitor.end(id, monitor.Exit{Code: 5})
	if got := <-gone; got.StatusCode != 5 {
		t.Errorf("wait answers %d, want 5", got.StatusCode)
	}
	if entries, err := os.ReadDir(h.root + "/volumes"); err != nil || len(entries) != 0 {
		t.Errorf("volumes left: %v, %v", entries, err)
	}
}

func TestDaemonKilled(t *testing.T) {
	h := newHouse(t)
	lives := h.runs(t, "lives", nil)
	ended := h.runs(t, "ended", nil)
	removed := h.runs(t, "removed", func(r *wire.ContainerCreateRequest) { r.HostConfig.AutoRemove = true })
	again := h.runs(t, "again", func(r *wire.ContainerCreateRequest) { r.HostConfig.RestartPolicy.Name = "always" })
	lost := h.runs(t, "lost", nil)
	h.crash(t)
	h.monitor.end(ended, monitor.Exit{Code: 9})
	h.monitor.end(removed, monitor.Exit{})
	h.monitor.end(again, monitor.Exit{Code: 1})
	delete(h.monitor.all, lost)
	if _, _, err := h.monitor.Run(t.Context(), monitor.Config{ID: "step"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(h.directory(strings.Repeat("c", 64)), 0o700); err != nil { // of a create that was cut off
		t.Fatal(err)
	}

	h.open(t)
	h.becomes(t, lives, running)
	if got := h.becomes(t, ended, exited).State.ExitCode; got != 9 {
		t.Errorf("exit code %d, want 9", got)
	}
	if got := h.becomes(t, lost, exited).State.ExitCode; got != lostExit {
		t.Errorf("exit code %d, want %d", got, lostExit)
	}
	if _, err := h.find(removed); !fault.Is(err, fault.NotFound) {
		t.Errorf("--rm container: %v", err)
	}
	if _, err := os.Stat(h.directory(strings.Repeat("c", 64))); !errors.Is(err, os.ErrNotExist) {
		t.Error("directory without a container is left")
	}
	h.monitor.mu.Lock()
	if h.monitor.all["step"] != nil {
		t.Error("process without a container is left")
	}
	h.monitor.mu.Unlock()
	if err := h.Stop(t.Context(), lives, "", nil); err != nil {
		t.Error(err)
	}
}

func TestCreateRefuses(t *testing.T) {
	h := newHouse(t)
	h.runs(t, "taken", nil)
	for _, c := range []struct {
		name   string
		change func(*wire.ContainerCreateRequest)
		class  fault.Class
		want   string
	}{
		{"taken", nil, fault.Conflict, `The container name "/taken" is already in use by container`},
		{"bad/name", nil, fault.Invalid, "Invalid container name (bad/name)"},
		{"x1", func(r *wire.ContainerCreateRequest) { r.Image = "nope" }, fault.NotFound, "No such image: nope:latest"},
		{"x2", func(r *wire.ContainerCreateRequest) { r.Cmd = nil }, fault.Invalid, "no command specified"},
		{"x3", func(r *wire.ContainerCreateRequest) { r.HostConfig.NetworkMode = "nowhere" }, fault.Invalid, "network nowhere not found"},
		{"x4", func(r *wire.ContainerCreateRequest) { r.HostConfig.Binds = []string{"/a:b"} }, fault.Invalid, "mount path must be absolute"},
		{"x5", func(r *wire.ContainerCreateRequest) { r.HostConfig.RestartPolicy.Name = "alway" }, fault.Invalid, "unknown policy 'alway'"},
		{"x6", func(r *wire.ContainerCreateRequest) { r.HostConfig.Runtime = "gvisor" }, fault.Invalid, "unknown or invalid runtime name: gvisor"},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := wire.ContainerCreateRequest{ContainerConfig: wire.ContainerConfig{Image: "busybox", Cmd: []string{"x"}}, HostConfig: &wire.HostConfig{}}
			if c.change != nil {
				c.change(&req)
			}
			_, err := h.Create(t.Context(), c.name, "", req)
			if !fault.Is(err, c.class) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v (%v), want %q (%v)", err, fault.ClassOf(err), c.want, c.class)
			}
		})
	}
	if h.layers.count() != 1 {
		t.Errorf("%d snapshots, want that of the one container", h.layers.count())
	}
}

func TestListFilters(t *testing.T) {
	h := newHouse(t)
	one := h.runs(t, "one", func(r *wire.ContainerCreateRequest) { r.Labels = map[string]string{"a": "b"} })
	two := h.runs(t, "two", nil)
	h.monitor.end(two, monitor.Exit{Code: 3})
	h.becomes(t, two, exited)
	for _, c := range []struct {
		all     bool
		filters map[string][]string
		want    []string
	}{
		{false, nil, []string{one}},
		{true, nil, []string{two, one}},
		{true, map[string][]string{"status": {"exited"}}, []string{two}},
		{true, map[string][]string{"exited": {"3"}}, []string{two}},
		{true, map[string][]string{"label": {"a=b"}}, []string{one}},
		{true, map[string][]string{"label!": {"a"}}, []string{two}},
		{true, map[string][]string{"name": {"^/on"}}, []string{one}},
		{true, map[string][]string{"since": {"one"}}, []string{two}},
		{true, map[string][]string{"ancestor": {"busybox"}, "id": {one[:10]}}, []string{one}},
		{true, map[string][]string{"network": {"bridge"}, "before": {"two"}}, []string{one}},
	} {
		list, err := h.List(t.Context(), ListOptions{All: c.all, Filters: c.filters})
		if err != nil {
			t.Fatal(err)
		}
		got := []string{}
		for _, s := range list {
			got = append(got, s.ID)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.filters, diff)
		}
	}
	if _, err := h.List(t.Context(), ListOptions{Filters: map[string][]string{"stauts": {"x"}}}); err == nil || !strings.Contains(err.Error(), `did you mean "status"`) {
		t.Errorf("unknown filter: %v", err)
	}
}

func TestStatusWords(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	before := now.Add(-5 * time.Minute)
	for _, c := range []struct {
		st   runState
		want string
	}{
		{runState{Phase: created}, "Created"},
		{runState{Phase: running, StartedAt: before}, "Up 5 minutes"},
		{runState{Phase: running, StartedAt: before, Health: &wire.HealthState{Status: healthy}}, "Up 5 minutes (healthy)"},
		{runState{Phase: running, StartedAt: before, Health: &wire.HealthState{Status: starting}}, "Up 5 minutes (health: starting)"},
		{runState{Phase: paused, StartedAt: before}, "Up 5 minutes (Paused)"},
		{runState{Phase: exited, StartedAt: before, FinishedAt: before, ExitCode: 3}, "Exited (3) 5 minutes ago"},
		{runState{Phase: restarting, StartedAt: before, FinishedAt: before, ExitCode: 1}, "Restarting (1) 5 minutes ago"},
	} {
		if got := status(&c.st, now); got != c.want {
			t.Errorf("status %q, want %q", got, c.want)
		}
	}
}

func TestRestartDelays(t *testing.T) {
	r := restarter{}
	var got []time.Duration
	for range 12 {
		_, d := r.next(wire.RestartPolicy{Name: "always"}, 0, 0, 0)
		got = append(got, d)
	}
	if got[0] != firstDelay || got[1] != 2*firstDelay || got[11] != maxDelay {
		t.Errorf("delays %v", got)
	}
	if _, d := r.next(wire.RestartPolicy{Name: "always"}, 0, 0, time.Minute); d != firstDelay {
		t.Errorf("delay after a long run %v, want %v", d, firstDelay)
	}
	for _, c := range []struct {
		p        wire.RestartPolicy
		code, at int
		want     bool
	}{
		{wire.RestartPolicy{Name: "no"}, 1, 0, false},
		{wire.RestartPolicy{Name: "on-failure"}, 0, 0, false},
		{wire.RestartPolicy{Name: "on-failure"}, 1, 100, true},
		{wire.RestartPolicy{Name: "on-failure", MaximumRetryCount: 2}, 1, 2, false},
		{wire.RestartPolicy{Name: "unless-stopped"}, 0, 5, true},
	} {
		if got := policyWants(c.p, c.code, c.at); got != c.want {
			t.Errorf("%+v after exit %d and %d restarts: %v", c.p, c.code, c.at, got)
		}
	}
}
