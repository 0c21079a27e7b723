package container

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/event"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/layer"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/network"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/volume"
	"github.com/sampan-project/sampan/core/wire"
)

// house is a Manager on real databases with the kernel's side faked.
type house struct {
	*Manager
	root    string
	monitor *fakeMonitor
	network *fakeNetwork
	layers  *fakeLayers
	db, run *state.DB
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{root: t.TempDir(), monitor: newFakeMonitor(), network: &fakeNetwork{joined: map[string]bool{}}, layers: &fakeLayers{keys: map[string]bool{}}}
	h.open(t)
	t.Cleanup(func() { h.crash(t) })
	return h
}

// open is a start of the daemon.
func (h *house) open(t *testing.T) {
	t.Helper()
	var err error
	if h.db, err = state.Open(filepath.Join(h.root, "state.db"), state.Options{}); err != nil {
		t.Fatal(err)
	}
	if h.run, err = state.Open(filepath.Join(h.root, "run.db"), state.Options{NoSync: true}); err != nil {
		t.Fatal(err)
	}
	volumes, err := volume.NewManager(volume.Options{DB: h.db, Root: filepath.Join(h.root, "volumes"),
		InUse: func(name string) []string { return h.VolumeUsers(name) }})
	if err != nil {
		t.Fatal(err)
	}
	h.Manager, err = New(Options{DB: h.db, RunDB: h.run, Images: fakeImages{}, Layers: h.layers, Network: h.network,
		Volumes: volumes, Monitor: h.monitor, Events: event.NewLog(), Root: h.root, ExecRoot: filepath.Join(h.root, "exec"),
		CgroupParent: "sampan-" + filepath.Base(filepath.Dir(h.root))}) // not there: what other engines of this machine have is not this one's
	if err != nil {
		t.Fatal(err)
	}
	if err := h.db.Recover(t.Context(), h.Undo()); err != nil {
		t.Fatal(err)
	}
	if err := h.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// crash ends the daemon without a word to anybody.
func (h *house) crash(t *testing.T) {
	t.Helper()
	h.cancel()
	h.background.wait()
	if err := errors.Join(h.db.Close(), h.run.Close()); err != nil {
		t.Error(err)
	}
}

// runs creates and starts a container.
func (h *house) runs(t *testing.T, name string, change func(*wire.ContainerCreateRequest)) string {
	t.Helper()
	req := wire.ContainerCreateRequest{ContainerConfig: wire.ContainerConfig{Image: "busybox", Cmd: []string{"sleep"}, User: "0:0"}, HostConfig: &wire.HostConfig{}}
	if change != nil {
		change(&req)
	}
	made, err := h.Create(t.Context(), name, "", req)
	if err != nil {
		t.Fatal(err)
	}
	// The root filesystem is not there to look users up in.
	c, err := h.find(made.ID)
	if err != nil {
		t.Fatal(err)
	}
	h.users.known.Store(userKey{c.rec.Chain.String(), "0:0", ""}, account{Home: "/root"})
	if err := h.Start(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	return made.ID
}

// becomes waits until the container's state is the one.
func (h *house) becomes(t *testing.T, ref string, want phase) wire.ContainerInspect {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		got, err := h.Inspect(t.Context(), ref, false)
		if err != nil {
			t.Fatal(err)
		}
		if phase(got.State.Status) == want {
			return got
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %s, want %s", ref, got.State.Status, want)
		}
	}
}

// fakeMonitor has processes that do what they are told: any signal but SIGTERM when deaf ends them.
type fakeMonitor struct {
	mu       sync.Mutex
	all      map[string]*fakeProcess
	watches  []chan monitor.Event
	startErr error
	created  func(id string)     // what Run does when there is a process, before it runs
	ended    func(execID string) // tells the end of an exec
	execs    []string            // that run
	deaf     bool

	discarded func() // what Discard does first
	killed    func() // what Kill does last
	Monitor          // what is not faked panics
}

// Forward carries nothing: the networks of these tests publish nothing on IPv6.
func (f *fakeMonitor) Forward(context.Context, string, []netip.AddrPort) error { return nil }

type fakeProcess struct {
	status monitor.Status
	held   int
	out    []*os.File // the monitor's ends of attached streams
}

func newFakeMonitor() *fakeMonitor { return &fakeMonitor{all: map[string]*fakeProcess{}} }

func (f *fakeMonitor) Run(ctx context.Context, c monitor.Config, attach []monitor.AttachConfig) (monitor.Status, []*os.File, error) {
	f.mu.Lock()
	if f.all[c.ID] != nil {
		f.mu.Unlock()
		return monitor.Status{}, nil, fault.New(fault.Exists, "container %s exists already", c.ID)
	}
	p := &fakeProcess{status: monitor.Status{ID: c.ID, Pid: 4000 + len(f.all), State: monitor.Created}, held: len(c.Hold)}
	f.all[c.ID] = p
	f.mu.Unlock()
	if f.created != nil {
		f.created(c.ID)
	}
	var streams []*os.File
	for _, a := range attach {
		s, err := f.Attach(ctx, c.ID, "", a)
		if err != nil {
			return monitor.Status{}, nil, err
		}
		streams = append(streams, s)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.startErr != nil {
		return monitor.Status{}, nil, f.startErr
	}
	p.status.State, p.status.StartedAt = monitor.Running, time.Now()
	for _, out := range p.out {
		_, _ = io.WriteString(out, "hello")
	}
	return p.status, streams, nil
}

// end ends a process as if by itself.
func (f *fakeMonitor) end(id string, e monitor.Exit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.all[id]
	if p == nil || p.status.State == monitor.Stopped {
		return
	}
	e.At = time.Now()
	p.status.State, p.status.Exit = monitor.Stopped, &e
	for _, out := range p.out {
		out.Close()
	}
	for _, w := range f.watches {
		w <- monitor.Event{ID: id, Started: !p.status.StartedAt.IsZero(), Exit: e}
	}
}

// Exec is one whose end is told before its beginning.
func (f *fakeMonitor) Exec(_ context.Context, id string, c monitor.ExecConfig) (monitor.Status, error) {
	f.ended(c.ID)
	return monitor.Status{ID: id, ExecID: c.ID, Pid: 5000}, nil
}

func (*fakeMonitor) DeleteExec(context.Context, string, string) error { return nil }

// unwatched does what nobody is told.
func (f *fakeMonitor) unwatched(do func()) {
	f.mu.Lock()
	watches := f.watches
	f.watches = nil
	f.mu.Unlock()
	do()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watches = watches
}

func (f *fakeMonitor) Kill(_ context.Context, id string, sig int, _ bool) error {
	f.mu.Lock()
	_, there := f.all[id]
	deaf := f.deaf
	f.mu.Unlock()
	if !there {
		return fault.New(fault.NotFound, "No such container: %s", id)
	}
	if !deaf || sig == int(unix.SIGKILL) {
		f.end(id, monitor.Exit{Code: 128 + sig, Signal: sig})
	}
	if f.killed != nil {
		f.killed()
	}
	return nil
}

func (f *fakeMonitor) Delete(_ context.Context, id string, force bool) error {
	if force {
		f.end(id, monitor.Exit{Code: 137, Signal: 9})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all[id] == nil {
		return fault.New(fault.NotFound, "No such container: %s", id)
	}
	delete(f.all, id)
	return nil
}

func (f *fakeMonitor) Discard(ctx context.Context, id string) error {
	if f.discarded != nil {
		f.discarded()
	}
	return f.Delete(ctx, id, true)
}

func (f *fakeMonitor) KillExec(_ context.Context, _, execID string, _ int) error {
	if !slices.Contains(f.execs, execID) {
		return fault.New(fault.NotFound, "No such exec instance: %s", execID)
	}
	return nil
}

func (f *fakeMonitor) Attach(_ context.Context, id, _ string, _ monitor.AttachConfig) (*os.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all[id] == nil {
		return nil, fault.New(fault.NotFound, "No such container: %s", id)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f.all[id].out = append(f.all[id].out, os.NewFile(uintptr(fds[0]), "ours"))
	return os.NewFile(uintptr(fds[1]), "theirs"), nil
}

func (f *fakeMonitor) List(context.Context) (list []monitor.Status, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.all {
		list = append(list, p.status)
	}
	return list, nil
}

func (f *fakeMonitor) Watch(ctx context.Context) (<-chan monitor.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	in, out := make(chan monitor.Event, 100), make(chan monitor.Event)
	f.watches = append(f.watches, in)
	go func() {
		defer close(out)
		for {
			select {
			case e := <-in:
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func (f *fakeMonitor) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.all)
}

// fakeNetwork remembers who joined.
type fakeNetwork struct {
	mu      sync.Mutex
	joined  map[string]bool
	joinErr error
	Network
}

func (f *fakeNetwork) Join(_ context.Context, r network.JoinRequest) (*network.Sandbox, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.joinErr != nil {
		return nil, f.joinErr
	}
	f.joined[r.ContainerID] = true
	return &network.Sandbox{Hosts: []byte("127.0.0.1 localhost\n")}, nil
}

func (f *fakeNetwork) Leave(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.joined, id)
	return nil
}

func (f *fakeNetwork) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.joined)
}

func (f *fakeNetwork) Ports(string) map[string][]wire.PortBinding            { return nil }
func (f *fakeNetwork) Settings(string) wire.NetworkSettings                  { return wire.NetworkSettings{} }
func (f *fakeNetwork) Rename(context.Context, string, string) error          { return nil }
func (f *fakeNetwork) Reconcile(ctx context.Context, _ map[string]int) error { return ctx.Err() }
func (f *fakeNetwork) Resolve(ref string) (network.Network, error) {
	if ref != "bridge" {
		return network.Network{}, fault.New(fault.NotFound, "network %s not found", ref)
	}
	return network.Network{ID: strings.Repeat("b", 64), Name: ref}, nil
}

// fakeLayers remembers the snapshots.
type fakeLayers struct {
	mu     sync.Mutex
	keys   map[string]bool
	limits map[string]uint64 // nil: there can be none
}

func (f *fakeLayers) Prepare(_ context.Context, key string, _ digest.Digest) ([]mount.Mount, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys[key] = true
	return nil, nil
}

func (f *fakeLayers) Mounts(_ context.Context, key string) ([]mount.Mount, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.keys[key] {
		return nil, fault.New(fault.NotFound, "no snapshot %s", key)
	}
	return nil, nil
}

func (f *fakeLayers) Whole(ctx context.Context, key string) error {
	_, err := f.Mounts(ctx, key)
	return err
}

func (f *fakeLayers) Volatile(ctx context.Context, key string) ([]mount.Mount, error) {
	return f.Mounts(ctx, key)
}

func (f *fakeLayers) Remove(_ context.Context, key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.keys, key)
	return nil
}

func (f *fakeLayers) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.keys)
}

func (f *fakeLayers) Ease(context.Context, string, bool) error { return nil }

// CanLimit says that a limit is one of a filesystem, of which there is none.
func (f *fakeLayers) CanLimit() error {
	if f.limits == nil {
		return fault.New(fault.Invalid, "no limits here")
	}
	return nil
}

func (f *fakeLayers) Limit(_ context.Context, key string, bytes uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limits[key] = bytes
	return nil
}

// ViewAt shows an overlay without layers.
func (f *fakeLayers) ViewAt(chain digest.Digest, path string) (mount.Mount, error) {
	if path == "nosuch" {
		return mount.Mount{}, fault.New(fault.NotFound, "path %q: no such file or directory", path)
	}
	return mount.Mount{Type: "overlay", Source: "overlay", Target: "/", Options: []string{"ro", "lowerdir=" + chain.String() + "/" + path}}, nil
}

func (*fakeLayers) Usage(context.Context, string) (int64, error)            { return 0, nil }
func (*fakeLayers) Changes(context.Context, string) ([]layer.Change, error) { return nil, nil }
func (*fakeLayers) Paths(string) map[string]string                          { return nil }

type fakeImages struct{ Images }

func (f fakeImages) Use(ctx context.Context, ref string) (*image.Image, error) {
	return f.Get(ctx, ref)
}

func (fakeImages) Get(_ context.Context, ref string) (*image.Image, error) {
	if ref != "busybox" {
		return nil, fault.New(fault.NotFound, "No such image: %s:latest", ref)
	}
	return &image.Image{ID: digest.FromString("image"), ChainID: digest.FromString("chain"),
		Config: ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}}}, nil
}
