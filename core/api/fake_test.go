package api

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/wire"
)

// fakeContainers runs no processes: a "container" has one of a few commands built in. It counts the
// calls whose order clients rely on.
type fakeContainers struct {
	mu    sync.Mutex
	list  map[string]*fakeContainer
	execs map[string]*fakeExec
	calls []string
	last  wire.ContainerCreateRequest
	lists container.ListOptions
	stop  struct {
		signal  string
		timeout *int
	}
}

type fakeContainer struct {
	id, name string
	req      wire.ContainerCreateRequest
	state    string
	code     int
	log      bytes.Buffer
	attached []*fakeStream
	ended    chan struct{}
}

type fakeExec struct {
	id     string
	config wire.ExecConfig
	code   *int
}

// fakeStream is one attachment: a pipe each way.
type fakeStream struct {
	net.Conn
	peer   net.Conn
	input  *io.PipeReader
	feed   *io.PipeWriter
	closed sync.Once
}

func newFakeStream() *fakeStream {
	ours, theirs := net.Pipe()
	s := &fakeStream{Conn: ours, peer: theirs}
	s.input, s.feed = io.Pipe()
	return s
}

func (s *fakeStream) Write(p []byte) (int, error) { return s.feed.Write(p) }
func (s *fakeStream) CloseWrite() error           { return s.feed.Close() }
func (s *fakeStream) Close() error {
	s.closed.Do(func() {
		_ = s.feed.Close()
		s.Conn.Close()
	})
	return nil
}

func newFakeContainers() *fakeContainers {
	return &fakeContainers{list: map[string]*fakeContainer{}, execs: map[string]*fakeExec{}}
}

func (f *fakeContainers) note(call string) { f.calls = append(f.calls, call) }

func (f *fakeContainers) find(ref string) (*fakeContainer, error) {
	for _, c := range f.list {
		if c.name == ref || strings.HasPrefix(c.id, ref) {
			return c, nil
		}
	}
	return nil, fault.New(fault.NotFound, "No such container: %s", ref)
}

func (f *fakeContainers) Create(_ context.Context, name, _ string, req wire.ContainerCreateRequest) (wire.ContainerCreateResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("create")
	f.last = req
	if req.Image == "missing" {
		return wire.ContainerCreateResponse{}, fault.New(fault.NotFound, "No such image: missing:latest")
	}
	id := fmt.Sprintf("%064x", len(f.list)+1)
	id = digest.FromString(id).Encoded()
	if name == "" {
		name = "fake" + id[:4]
	}
	if _, err := f.find(name); err == nil {
		return wire.ContainerCreateResponse{}, fault.New(fault.Conflict, "Conflict. The container name \"/%s\" is already in use by container \"x\".", name)
	}
	f.list[id] = &fakeContainer{id: id, name: name, req: req, state: "created", ended: make(chan struct{})}
	return wire.ContainerCreateResponse{ID: id}, nil
}

func (f *fakeContainers) Start(_ context.Context, ref string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("start")
	c, err := f.find(ref)
	switch {
	case err != nil:
		return err
	case c.state == "running":
		return fault.New(fault.NotModified, "it runs")
	case len(c.req.Cmd) > 0 && c.req.Cmd[0] == "no-such-program":
		c.code = 127
		if c.req.HostConfig.AutoRemove { // `docker run --rm` waits for the removal
			close(c.ended)
			delete(f.list, c.id)
		}
		return fault.New(fault.Invalid, "exec: \"no-such-program\": executable file not found in $PATH")
	}
	c.state = "running"
	go f.run(c)
	return nil
}

func frame(stream byte, text string) []byte {
	b := make([]byte, 8, 8+len(text))
	b[0] = stream
	binary.BigEndian.PutUint32(b[4:], uint32(len(text)))
	return append(b, text...)
}

// run is the container's process: echo, cat, sleep or fail.
func (f *fakeContainers) run(c *fakeContainer) {
	f.mu.Lock()
	streams := slices.Clone(c.attached)
	f.mu.Unlock()
	say := func(stream byte, text string) {
		b := frame(stream, text)
		if c.req.Tty {
			b = []byte(text)
		}
		f.mu.Lock()
		c.log.Write(b)
		f.mu.Unlock()
		for _, s := range streams {
			_, _ = s.peer.Write(b)
		}
	}
	code := 0
	switch c.req.Cmd[0] {
	case "echo":
		say(1, strings.Join(c.req.Cmd[1:], " ")+"\n")
	case "fail":
		say(2, "it fails\n")
		code = 42
	case "cat":
		buf := make([]byte, 4096)
		for len(streams) > 0 {
			n, err := streams[0].input.Read(buf)
			if n > 0 {
				say(1, string(buf[:n]))
			}
			if err != nil {
				break
			}
		}
	case "sleep":
		<-c.ended
		return
	}
	f.end(c, code)
}

func (f *fakeContainers) end(c *fakeContainer, code int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.state == "exited" {
		return
	}
	c.state, c.code = "exited", code
	for _, s := range c.attached {
		s.peer.Close()
	}
	c.attached = nil
	close(c.ended)
	if c.req.HostConfig.AutoRemove {
		delete(f.list, c.id)
	}
}

func (f *fakeContainers) Stop(_ context.Context, ref, signal string, timeout *int) error {
	f.mu.Lock()
	c, err := f.find(ref)
	f.stop.signal, f.stop.timeout = signal, timeout
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if c.state != "running" {
		return fault.New(fault.NotModified, "it does not run")
	}
	f.end(c, 143)
	return nil
}

func (f *fakeContainers) Restart(ctx context.Context, ref, signal string, timeout *int) error {
	return f.Stop(ctx, ref, signal, timeout)
}

func (f *fakeContainers) Kill(_ context.Context, ref, signal string) error {
	f.mu.Lock()
	f.note("kill " + signal)
	c, err := f.find(ref)
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if c.state != "running" {
		return fault.New(fault.Conflict, "Container %s is not running", c.id)
	}
	f.end(c, 137)
	return nil
}

func (f *fakeContainers) Remove(_ context.Context, ref string, o container.RemoveOptions) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.find(ref)
	if err != nil {
		return err
	}
	if c.state == "running" && !o.Force {
		return fault.New(fault.Conflict, "cannot remove container \"/%s\": container is running: stop the container before removing or force remove", c.name)
	}
	delete(f.list, c.id)
	return nil
}

func (f *fakeContainers) Wait(ctx context.Context, ref, condition string) (<-chan wire.WaitResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("wait " + condition)
	c, err := f.find(ref)
	if err != nil {
		return nil, err
	}
	out := make(chan wire.WaitResponse, 1)
	go func() {
		select {
		case <-c.ended:
			out <- wire.WaitResponse{StatusCode: int64(c.code)}
		case <-ctx.Done():
		}
		close(out)
	}()
	return out, nil
}

func (f *fakeContainers) Inspect(_ context.Context, ref string, _ bool) (wire.ContainerInspect, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.find(ref)
	if err != nil {
		return wire.ContainerInspect{}, err
	}
	return wire.ContainerInspect{
		ID: c.id, Name: "/" + c.name, Config: &c.req.ContainerConfig, HostConfig: c.req.HostConfig, NetworkSettings: &wire.NetworkSettings{},
		State: &wire.ContainerState{Status: c.state, Running: c.state == "running", ExitCode: c.code, StartedAt: "2026-01-02T03:04:05Z", FinishedAt: "2026-01-02T03:04:06Z"},
	}, nil
}

func (f *fakeContainers) List(_ context.Context, o container.ListOptions) ([]wire.ContainerSummary, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists = o
	var list []wire.ContainerSummary
	for _, c := range f.list {
		if c.state == "running" || o.All {
			list = append(list, wire.ContainerSummary{ID: c.id, Names: []string{"/" + c.name}, Image: c.req.Image, Command: strings.Join(c.req.Cmd, " "), State: c.state, Status: "Up 2 seconds", Created: time.Now().Unix()})
		}
	}
	return list, nil
}

func (f *fakeContainers) Logs(ctx context.Context, ref string, o container.LogOptions, w io.Writer) error {
	f.mu.Lock()
	c, err := f.find(ref)
	if err != nil {
		f.mu.Unlock()
		return err
	}
	f.mu.Unlock()
	if o.Follow {
		select {
		case <-c.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.mu.Lock()
	log := bytes.Clone(c.log.Bytes())
	f.mu.Unlock()
	if len(log) == 0 {
		return nil
	}
	_, err = w.Write(log)
	return err
}

func (f *fakeContainers) TTY(ref string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.find(ref)
	return err == nil && c.req.Tty, err
}

func (f *fakeContainers) Attach(_ context.Context, ref string, _ container.AttachOptions) (container.Stream, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("attach")
	c, err := f.find(ref)
	if err != nil {
		return nil, err
	}
	s := newFakeStream()
	c.attached = append(c.attached, s)
	return s, nil
}

func (f *fakeContainers) Resize(_ context.Context, ref string, h, w uint16) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(fmt.Sprintf("resize %dx%d", h, w))
	_, err := f.find(ref)
	return err
}

func (f *fakeContainers) ExecCreate(_ context.Context, ref string, config wire.ExecConfig) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.find(ref)
	if err != nil {
		return "", err
	}
	if c.state != "running" {
		return "", fault.New(fault.Conflict, "container %s is not running", c.id)
	}
	id := digest.FromString(fmt.Sprint("exec", len(f.execs))).Encoded()
	f.execs[id] = &fakeExec{id: id, config: config}
	return id, nil
}

func (f *fakeContainers) ExecStart(_ context.Context, id string, s wire.ExecStart) (container.Stream, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.execs[id]
	if e == nil {
		return nil, fault.New(fault.NotFound, "No such exec instance: %s", id)
	}
	code := 0
	e.code = &code
	if e.config.Cmd[0] == "no-such-program" {
		code = 127
		return nil, fault.New(fault.Invalid, "exec: \"no-such-program\": executable file not found in $PATH")
	}
	if s.Detach {
		return nil, nil
	}
	stream := newFakeStream()
	go func() {
		defer stream.peer.Close()
		text := strings.Join(e.config.Cmd, " ") + "\n"
		if e.config.Cmd[0] == "cat" {
			b, _ := io.ReadAll(stream.input)
			text = string(b)
		}
		if e.config.Tty {
			_, _ = io.WriteString(stream.peer, text)
			return
		}
		_, _ = stream.peer.Write(frame(1, text))
	}()
	return stream, nil
}

func (f *fakeContainers) ExecInspect(_ context.Context, id string) (wire.ExecInspect, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.execs[id]
	if e == nil {
		return wire.ExecInspect{}, fault.New(fault.NotFound, "No such exec instance: %s", id)
	}
	return wire.ExecInspect{ID: id, ExitCode: e.code, OpenStdin: e.config.AttachStdin, ProcessConfig: wire.ExecProcessConfig{Tty: e.config.Tty}}, nil
}

func (f *fakeContainers) ExecResize(context.Context, string, uint16, uint16) error { return nil }
func (f *fakeContainers) Rename(context.Context, string, string) error             { return nil }
func (f *fakeContainers) Pause(context.Context, string) error                      { return nil }
func (f *fakeContainers) Unpause(context.Context, string) error                    { return nil }
func (f *fakeContainers) Top(context.Context, string, string) (wire.TopResponse, error) {
	return wire.TopResponse{Titles: []string{"PID", "CMD"}, Processes: [][]string{{"1", "sleep"}}}, nil
}

// fakeImages has one image and a registry with one more.
type fakeImages struct {
	mu     sync.Mutex
	auth   *wire.AuthConfig
	upload []byte
}

func (f *fakeImages) List(context.Context, image.ListOptions) ([]wire.ImageSummary, error) {
	return []wire.ImageSummary{{ID: "sha256:" + strings.Repeat("ab", 32), RepoTags: []string{"busybox:latest"}, Size: 4_000_000, SharedSize: -1, Containers: -1, Created: time.Now().Unix()}}, nil
}

func (f *fakeImages) Inspect(_ context.Context, ref string) (wire.ImageInspect, error) {
	if ref != "busybox" && ref != "team/app:1" {
		return wire.ImageInspect{}, fault.New(fault.NotFound, "No such image: %s:latest", ref)
	}
	return wire.ImageInspect{ID: "sha256:" + strings.Repeat("ab", 32), Os: "linux", Architecture: "amd64", Config: &wire.ContainerConfig{}}, nil
}

func (f *fakeImages) History(context.Context, string) ([]wire.ImageHistory, error) { return nil, nil }
func (f *fakeImages) Remove(context.Context, string, bool, bool) ([]wire.ImageDelete, error) {
	return []wire.ImageDelete{{Untagged: "busybox:latest"}}, nil
}
func (f *fakeImages) Tag(context.Context, string, string) error { return nil }

func (f *fakeImages) Pull(_ context.Context, ref, _ string, auth *wire.AuthConfig, progress func(wire.Message)) error {
	f.mu.Lock()
	f.auth = auth
	f.mu.Unlock()
	if strings.Contains(ref, "denied") {
		return fault.New(fault.NotFound, "pull access denied for %s", ref)
	}
	progress(wire.Message{Status: "Pulling from library/busybox", ID: "latest"})
	if strings.Contains(ref, "broken") {
		return fault.New(fault.Internal, "the connection broke")
	}
	progress(wire.Message{Status: "Downloading", ID: "abcdef", ProgressDetail: &wire.Progress{Current: 1, Total: 2}})
	progress(wire.Message{Status: "Status: Downloaded newer image for " + ref})
	return nil
}

func (f *fakeImages) Load(_ context.Context, r io.Reader, progress func(wire.Message)) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.upload = b
	f.mu.Unlock()
	progress(wire.Message{Status: "Loading layer", ID: "x", ProgressDetail: &wire.Progress{Current: 1}})
	progress(wire.Message{Stream: "Loaded image: busybox:latest\n"})
	return nil
}

func (f *fakeImages) Import(_ context.Context, r io.Reader, _, _ string, _ []string, _ func(wire.Message)) (digest.Digest, error) {
	_, err := io.Copy(io.Discard, r)
	return digest.FromString("imported"), err
}

func (f *fakeImages) Save(_ context.Context, refs []string, w io.Writer) error {
	if refs[0] == "late" { // fails with half of it written
		_, _ = io.WriteString(w, strings.Repeat("half", 100_000)) // the error to come says more
		return fault.New(fault.Internal, "disk error")
	}
	_, err := io.WriteString(w, "an archive of "+strings.Join(refs, ","))
	return err
}

type fakeNetworks struct{ filters map[string][]string }

func (f *fakeNetworks) Create(_ context.Context, r wire.NetworkCreateRequest) (wire.NetworkCreateResponse, error) {
	return wire.NetworkCreateResponse{ID: digest.FromString(r.Name).Encoded()}, nil
}
func (f *fakeNetworks) Inspect(_ context.Context, ref string) (wire.NetworkInspect, error) {
	if ref != "bridge" {
		return wire.NetworkInspect{}, fault.New(fault.NotFound, "network %s not found", ref)
	}
	return wire.NetworkInspect{Name: "bridge", ID: strings.Repeat("cd", 32), Driver: "bridge", Scope: "local"}, nil
}
func (f *fakeNetworks) List(_ context.Context, filters map[string][]string) ([]wire.NetworkInspect, error) {
	f.filters = filters
	n, err := f.Inspect(context.Background(), "bridge")
	return []wire.NetworkInspect{n}, err
}
func (f *fakeNetworks) Remove(_ context.Context, ref string) error {
	return fault.New(fault.Forbidden, "%s is a pre-defined network and cannot be removed", ref)
}

type fakeVolumes struct{}

func (fakeVolumes) Create(_ context.Context, r wire.VolumeCreateRequest) (wire.Volume, error) {
	return wire.Volume{Name: r.Name, Driver: "local", Mountpoint: "/m"}, nil
}
func (fakeVolumes) Inspect(_ context.Context, name string) (wire.Volume, error) {
	return wire.Volume{}, fault.New(fault.NotFound, "get %s: no such volume", name)
}
func (fakeVolumes) List(context.Context, map[string][]string) (wire.VolumeList, error) {
	return wire.VolumeList{Volumes: []*wire.Volume{{Name: "data", Driver: "local"}}}, nil
}
func (fakeVolumes) Remove(context.Context, string, bool) error { return nil }

type fakeEvents struct{ ch chan wire.Event }

func (f fakeEvents) Subscribe(ctx context.Context, _, until time.Time, _ map[string][]string) (<-chan wire.Event, error) {
	out := make(chan wire.Event)
	go func() {
		defer close(out)
		var deadline <-chan time.Time
		if !until.IsZero() {
			deadline = time.After(time.Until(until))
		}
		for {
			select {
			case e := <-f.ch:
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			case <-deadline:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

type fakeSystem struct{}

func (fakeSystem) Version(context.Context) wire.Version {
	return wire.Version{Version: "test", APIVersion: wire.APIVersion, MinAPIVersion: wire.MinAPIVersion, Os: "linux", Arch: "amd64", GoVersion: "go", GitCommit: "c"}
}
func (fakeSystem) Info(context.Context) (wire.Info, error) {
	return wire.Info{ID: "x", Driver: "overlay2", OSType: "linux", ServerVersion: "test", Containers: 3}, nil
}

type fakeBuilder struct {
	solve func(g wire.BuildGraph, locals map[string]string, progress func(wire.Message)) error
}

func (f *fakeBuilder) Solve(_ context.Context, g wire.BuildGraph, locals map[string]string, progress func(wire.Message)) (digest.Digest, error) {
	if f.solve != nil {
		if err := f.solve(g, locals, progress); err != nil {
			return "", err
		}
	}
	return digest.FromString("built"), nil
}

type fakePlugins struct{}

func (fakePlugins) Schemas(context.Context) ([]wire.Schema, error) {
	return []wire.Schema{{Kind: "network", Driver: "bridge"}}, nil
}
func (fakePlugins) Plugins(context.Context) ([]wire.PluginInfo, error) { return nil, nil }
