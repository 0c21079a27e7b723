package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/network/ipam"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

// fakeDriver keeps what a real one would make in the kernel.
type fakeDriver struct {
	mu        sync.Mutex
	networks  map[string]Network
	endpoints map[string]Endpoint
	calls     []string
	fail      map[string]error // by method
	hook      func(method string)
}

func newFakeDriver() *fakeDriver {
	return &fakeDriver{networks: map[string]Network{}, endpoints: map[string]Endpoint{}, fail: map[string]error{}}
}

// call notes a call; it returns with the lock held.
func (d *fakeDriver) call(method string) error {
	d.mu.Lock()
	hook := d.hook
	d.mu.Unlock()
	if hook != nil {
		hook(method)
	}
	d.mu.Lock()
	d.calls = append(d.calls, method)
	return d.fail[method]
}

func (d *fakeDriver) count(method string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.calls {
		if c == method {
			n++
		}
	}
	return n
}

func (d *fakeDriver) set(method string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail[method] = err
}

// holds returns the endpoints that are there, by container.
func (d *fakeDriver) holds() map[string][]Endpoint {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := map[string][]Endpoint{}
	for _, e := range d.endpoints {
		all[e.ContainerID] = append(all[e.ContainerID], e)
	}
	return all
}

func (d *fakeDriver) Schema(context.Context) (wire.Schema, error) {
	low, high := int64(68), int64(65535)
	return wire.Schema{Kind: "network", Driver: "bridge", Attributes: []wire.Attribute{
		{Name: "name", Type: "string", Aliases: []string{bridgeOption}},
		{Name: "mtu", Type: "int", Min: &low, Max: &high, Aliases: []string{"com.docker.network.driver.mtu"}},
		{Name: "icc", Type: "bool"},
	}}, nil
}

func (d *fakeDriver) CreateNetwork(_ context.Context, n Network) (Network, error) {
	err := d.call("CreateNetwork")
	defer d.mu.Unlock()
	// As a real one that fails half-way: what it made is there until DeleteNetwork.
	d.networks[n.ID] = n
	n.InterfacePrefix = "eth"
	n.Settings = map[string]string{"mtu": "1500"}
	return n, err
}

func (d *fakeDriver) DeleteNetwork(_ context.Context, n Network) error {
	err := d.call("DeleteNetwork")
	defer d.mu.Unlock()
	if err == nil {
		delete(d.networks, n.ID)
	}
	return err
}

func (d *fakeDriver) Attach(_ context.Context, n Network, e Endpoint) (Attachment, error) {
	err := d.call("Attach")
	defer d.mu.Unlock()
	if _, ok := d.networks[n.ID]; !ok {
		return Attachment{}, fmt.Errorf("network %s was not made", n.Name)
	}
	if _, err := os.Stat(e.NetNS); err != nil {
		return Attachment{}, err
	}
	d.endpoints[e.ID] = e
	return Attachment{HostInterface: "veth" + e.ID[:7], MAC: e.MAC}, err
}

func (d *fakeDriver) Detach(_ context.Context, _ Network, e Endpoint) error {
	err := d.call("Detach")
	defer d.mu.Unlock()
	if err == nil {
		delete(d.endpoints, e.ID)
	}
	return err
}

func (d *fakeDriver) Reconcile(_ context.Context, _ string, networks []Network, endpoints []Endpoint) error {
	err := d.call("Reconcile")
	defer d.mu.Unlock()
	if err != nil {
		return err
	}
	clear(d.networks)
	clear(d.endpoints)
	for _, n := range networks {
		d.networks[n.ID] = n
	}
	for _, e := range endpoints {
		if _, err := os.Stat(e.NetNS); err != nil {
			return err
		}
		d.endpoints[e.ID] = e
	}
	return nil
}

// fakeDrivers has one driver, bridge.
type fakeDrivers struct {
	driver  *fakeDriver
	restart func(string)
}

func (f *fakeDrivers) Network(_ context.Context, name string) (Driver, error) {
	if name != "bridge" {
		return nil, fault.New(fault.NotFound, "network driver %q not found", name)
	}
	return f.driver, nil
}

func (f *fakeDrivers) NetworkNames() []string    { return []string{"bridge"} }
func (f *fakeDrivers) OnRestart(fn func(string)) { f.restart = fn }
func (f *fakeDrivers) die(fn func())             { fn(); f.restart("bridge") }

// house is a daemon's worth of surroundings, which can be started again.
type house struct {
	t       *testing.T
	dir     string
	driver  *fakeDriver
	drivers *fakeDrivers
	db, run *state.DB
	m       *Manager
	options Options

	mu     sync.Mutex
	events []string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	d := newFakeDriver()
	h := &house{t: t, dir: t.TempDir(), driver: d, drivers: &fakeDrivers{driver: d}}
	h.options = Options{
		// Ranges for documentation: no route of the host is there.
		Pools:      []ipam.Pool{{Base: netip.MustParsePrefix("198.18.0.0/16"), Bits: 24}},
		ResolvConf: filepath.Join(h.dir, "resolv.conf"),
	}
	h.resolvConf("nameserver 192.0.2.53\nsearch example.com\n")
	h.open()
	t.Cleanup(h.stop)
	if err := h.m.Reconcile(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) resolvConf(text string) {
	h.t.Helper()
	if err := os.WriteFile(h.options.ResolvConf, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) open() {
	h.t.Helper()
	var err error
	if h.db, err = state.Open(filepath.Join(h.dir, "state.db"), state.Options{NoSync: true}); err != nil {
		h.t.Fatal(err)
	}
	if h.run, err = state.Open(filepath.Join(h.dir, "run.db"), state.Options{NoSync: true}); err != nil {
		h.t.Fatal(err)
	}
	o := h.options
	o.DB, o.RunDB, o.Drivers = h.db, h.run, h.drivers
	o.Events = func(action, _ string, a map[string]string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.events = append(h.events, action+" "+a["name"])
	}
	if h.m, err = NewManager(o); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) stop() {
	_ = h.m.Close()
	if err := errors.Join(h.db.Close(), h.run.Close()); err != nil {
		h.t.Error(err)
	}
}

// restart is a daemon that ends and another that comes up.
func (h *house) restart(running map[string]int) {
	h.t.Helper()
	h.stop()
	h.open()
	if err := h.m.Reconcile(h.t.Context(), running); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) create(r wire.NetworkCreateRequest) string {
	h.t.Helper()
	n, err := h.m.Create(h.t.Context(), r)
	if err != nil {
		h.t.Fatal(err)
	}
	return n.ID
}

func (h *house) join(r JoinRequest) *Sandbox {
	h.t.Helper()
	sb, err := h.m.Join(h.t.Context(), r)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { sb.close() })
	return sb
}

func (s *Sandbox) close() {
	if s.NetNS != nil {
		s.NetNS.Close()
	}
	closeAll(s.Hold)
}

func (h *house) leave(id string) {
	h.t.Helper()
	if err := h.m.Leave(h.t.Context(), id); err != nil {
		h.t.Fatal(err)
	}
}

// settled waits until nothing runs in the background.
func (h *house) settled() { h.m.background.Wait() }

// empty checks that no trace of any container is left.
func (h *house) empty() {
	h.t.Helper()
	h.settled()
	if got := h.driver.holds(); len(got) > 0 {
		h.t.Errorf("the driver still has endpoints: %v", got)
	}
	if rows, err := h.m.sandboxes.List(); err != nil || len(rows) > 0 {
		h.t.Errorf("rows left: %v, %v", rows, err)
	}
	h.m.mu.RLock()
	defer h.m.mu.RUnlock()
	if n := len(h.m.joined) + len(h.m.leaving) + len(h.m.dead); n > 0 {
		h.t.Errorf("%d containers left in memory", n)
	}
}

// files counts the open files of this process, without those of the Go runtime's poller.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(slices.DeleteFunc(entries, func(e os.DirEntry) bool {
		target, _ := os.Readlink("/proc/self/fd/" + e.Name())
		return len(target) > 10 && target[:10] == "anon_inode"
	}))
}
