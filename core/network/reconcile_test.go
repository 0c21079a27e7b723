package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/network/netns"
	"github.com/sampan-project/sampan/core/wire"
)

// inside starts a process in the namespace, as a container is one.
func inside(t *testing.T, ns *os.File) int {
	t.Helper()
	// The process is another copy of this test, which does nothing but wait for the end of its input.
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestSleeper$")
	cmd.Env = append(os.Environ(), "SAMPAN_TEST_SLEEPER=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	// Started on a thread that is in the namespace, which its child inherits.
	if err := netns.Do(ns, cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// TestSleeper is not a test but the process of inside.
func TestSleeper(t *testing.T) {
	if os.Getenv("SAMPAN_TEST_SLEEPER") == "" {
		return
	}
	_, _ = os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
}

func TestReconcileTakesOver(t *testing.T) {
	h := newHouse(t)
	h.create(wire.NetworkCreateRequest{Name: "front"})
	p := freePort(t)
	lives := web(1, p)
	lives.Mode = "front"
	sb := h.join(lives)
	pid := inside(t, sb.NetNS)
	other := h.join(JoinRequest{ContainerID: id(2), ContainerName: "db", Mode: "front"})
	dead := h.join(JoinRequest{ContainerID: id(3), ContainerName: "dead", Mode: "front"})
	h.join(JoinRequest{ContainerID: id(4), Mode: "none"})
	had := sb.Settings
	if got := lookup(t, sb.NetNS, "db"); got != "198.18.1.3" {
		t.Fatalf("db is %q", got)
	}

	h.restart(map[string]int{id(1): pid, id(2): inside(t, other.NetNS)})
	_ = dead
	if d := cmp.Diff(had, h.m.Settings(id(1))); d != "" {
		t.Error(d)
	}
	got := h.driver.holds()
	if len(got) != 2 || len(got[id(1)]) != 1 || len(got[id(1)][0].Ports) != 1 {
		t.Errorf("the driver has %+v", got)
	}
	if rows, err := h.m.sandboxes.List(); err != nil || len(rows) != 2 {
		t.Errorf("%d rows, %v: want those of the living", len(rows), err)
	}
	// The name server answers again, in the namespace that was there all along.
	if got := lookup(t, sb.NetNS, "db"); got != "198.18.1.3" {
		t.Errorf("after the restart db is %q", got)
	}
	// Its port is held, its address taken, and that of the dead free.
	if _, err := h.m.Join(t.Context(), web(5, p)); err == nil || !strings.Contains(err.Error(), "port is already allocated") {
		t.Errorf("the port of a container that lives: %v", err)
	}
	if next := h.join(JoinRequest{ContainerID: id(6), Mode: "front"}); next.Settings.Networks["front"].IPAddress != "198.18.1.4" {
		t.Errorf("next address %s, want that of the dead", next.Settings.Networks["front"].IPAddress)
	}
	for _, n := range []int{1, 2, 6} {
		h.leave(id(n))
	}
	h.empty()
}

// A daemon that dies between the row and the end of Join has its endpoint removed by the next.
func TestReconcileAfterDeathInJoin(t *testing.T) {
	h := newHouse(t)
	h.driver.hook = func(method string) {
		if method != "Attach" {
			return
		}
		h.driver.hook = nil
		// What the row says at this moment is all that the next daemon has.
		rows, err := h.m.sandboxes.List()
		if err != nil || len(rows) != 1 || len(rows[0].Endpoints) != 1 || rows[0].Endpoints[0].ID == "" {
			t.Errorf("rows before the driver is called: %+v, %v", rows, err)
		}
	}
	h.join(web(1, freePort(t)))
	h.restart(nil)
	h.empty()
}

func TestDriverRestarts(t *testing.T) {
	h := newHouse(t)
	h.create(wire.NetworkCreateRequest{Name: "front"})
	h.join(JoinRequest{ContainerID: id(1), Mode: "front"})
	h.drivers.die(func() {
		h.driver.mu.Lock()
		defer h.driver.mu.Unlock()
		clear(h.driver.endpoints)
		clear(h.driver.networks)
	})
	if got := h.driver.holds(); len(got[id(1)]) != 1 || len(h.driver.networks) != 2 {
		t.Errorf("after the restart the driver has %v", got)
	}
	h.leave(id(1))
	h.empty()
}

// lookup asks the name server in the namespace as a container does.
func lookup(t *testing.T, ns *os.File, name string) string {
	t.Helper()
	var conn net.Conn
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		err := netns.Do(ns, func() (err error) {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, "127.0.0.11:53")
			return err
		})
		return conn, err
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	list, err := r.LookupNetIP(ctx, "ip4", name+".")
	if err != nil {
		return err.Error()
	}
	var all []string
	for _, a := range list {
		all = append(all, a.Unmap().String())
	}
	return strings.Join(all, " ")
}

func TestNames(t *testing.T) {
	h := newHouse(t)
	h.resolvConf("nameserver 127.0.0.1\n") // nobody is there: other names end quickly
	h.create(wire.NetworkCreateRequest{Name: "front"})
	h.create(wire.NetworkCreateRequest{Name: "back"})
	app := h.join(JoinRequest{ContainerID: id(1), ContainerName: "app", Mode: "front"})
	h.join(JoinRequest{ContainerID: id(2), ContainerName: "DB", Hostname: "pg", Mode: "front",
		Endpoints: map[string]*wire.EndpointSettings{"front": {Aliases: []string{"database"}}}})
	h.join(JoinRequest{ContainerID: id(3), ContainerName: "far", Mode: "back"})
	if got := string(app.ResolvConf); got != "nameserver 127.0.0.11\noptions ndots:0\n" {
		t.Errorf("resolv.conf %q", got)
	}
	for _, name := range []string{"db", "Db", "database", "pg", id(2)[:12], "db.front"} {
		if got := lookup(t, app.NetNS, name); got != "198.18.1.3" {
			t.Errorf("%s is %q", name, got)
		}
	}
	if got := lookup(t, app.NetNS, "app"); got != "198.18.1.2" {
		t.Errorf("its own name is %q", got)
	}
	if _, found := (view{h.m, id(1)}).Lookup("far"); found {
		t.Error("a container on another network is found")
	}
	if got := (view{h.m, id(1)}).Reverse(netip.MustParseAddr("198.18.1.3")); !cmp.Equal(got, []string{"db.front"}) {
		t.Errorf("reverse: %v", got)
	}
	// Connected, renamed, disconnected.
	sb, err := h.m.ConnectRunning(t.Context(), "back", id(1), 0, nil)
	if err != nil || sb.Settings.Networks["back"] == nil || !strings.Contains(string(sb.Hosts), "ip6-localhost") {
		t.Fatalf("connect: %+v, %v", sb, err)
	}
	if err := h.m.Rename(t.Context(), id(3), "near"); err != nil {
		t.Fatal(err)
	}
	if got := lookup(t, app.NetNS, "near"); got != "198.18.2.2" {
		t.Errorf("near is %q", got)
	}
	if _, err := h.m.DisconnectRunning(t.Context(), "back", id(1), 0); err != nil {
		t.Fatal(err)
	}
	if _, found := (view{h.m, id(1)}).Lookup("near"); found {
		t.Error("still found after the container was disconnected")
	}
	h.leave(id(2))
	if _, found := (view{h.m, id(1)}).Lookup("db"); found {
		t.Error("a container that left is found")
	}
	h.leave(id(1))
	h.leave(id(3))
	h.empty()
}

func TestUpstreams(t *testing.T) {
	h := newHouse(t)
	h.create(wire.NetworkCreateRequest{Name: "front"})
	h.create(wire.NetworkCreateRequest{Name: "cage", Internal: true})
	for n, tc := range map[int]struct {
		r    JoinRequest
		want []netip.AddrPort
	}{
		1: {JoinRequest{Mode: "front"}, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}},
		2: {JoinRequest{Mode: "front", DNS: []string{"203.0.113.9"}}, []netip.AddrPort{netip.MustParseAddrPort("203.0.113.9:53")}},
		3: {JoinRequest{Mode: "cage"}, nil},
	} {
		tc.r.ContainerID = id(n)
		h.join(tc.r)
		if got := (view{h.m, id(n)}).Upstreams(); !cmp.Equal(got, tc.want, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })) {
			t.Errorf("%v: %v, want %v", tc.r, got, tc.want)
		}
	}
}

// When the host's resolvers are on its loopback interface, containers reach them through ours.
func TestLoopbackResolvers(t *testing.T) {
	h := newHouse(t)
	h.resolvConf("nameserver 127.0.0.53\nnameserver 127.0.0.1\n")
	sb := h.join(JoinRequest{ContainerID: id(1), Mode: "bridge"})
	if got := string(sb.ResolvConf); !strings.Contains(got, "nameserver 127.0.0.11\n") {
		t.Errorf("resolv.conf %q", got)
	}
	asked := h.join(JoinRequest{ContainerID: id(2), Mode: "bridge", DNS: []string{"203.0.113.9"}, DNSSearch: []string{"."}, DNSOptions: []string{"timeout:1"}})
	if got := string(asked.ResolvConf); got != "nameserver 203.0.113.9\noptions timeout:1\n" {
		t.Errorf("resolv.conf %q", got)
	}
}

func TestConnectRefuses(t *testing.T) {
	h := newHouse(t)
	h.create(wire.NetworkCreateRequest{Name: "front"})
	h.join(JoinRequest{ContainerID: id(1), Mode: "bridge"})
	h.join(JoinRequest{ContainerID: id(2), Mode: "host"})
	h.join(JoinRequest{ContainerID: id(3), Mode: "none"})
	h.join(JoinRequest{ContainerID: id(4), Mode: "container:" + id(1)})
	for _, tc := range []struct {
		network string
		n       int
		class   fault.Class
		want    string
	}{
		{"nowhere", 1, fault.NotFound, "network nowhere not found"},
		{"bridge", 1, fault.Forbidden, "already exists in network bridge"},
		{"host", 1, fault.Forbidden, "host network"},
		{"front", 2, fault.Forbidden, "host network"},
		{"front", 3, fault.Forbidden, "private (none) mode"},
		{"front", 4, fault.Forbidden, "sharing network namespace"},
		{"front", 9, fault.Conflict, "is not running"},
	} {
		if _, err := h.m.ConnectRunning(t.Context(), tc.network, id(tc.n), 0, nil); !fault.Is(err, tc.class) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%d to %s: %v", tc.n, tc.network, err)
		}
	}
	if _, err := h.m.DisconnectRunning(t.Context(), "front", id(1), 0); !fault.Is(err, fault.Forbidden) {
		t.Errorf("disconnect what is not connected: %v", err)
	}
	h.driver.set("Attach", errors.New("no such device"))
	if _, err := h.m.ConnectRunning(t.Context(), "front", id(1), 0, nil); err == nil {
		t.Error("no error")
	}
	h.driver.set("Attach", nil)
	if got := h.driver.holds()[id(1)]; len(got) != 1 || len(h.m.Settings(id(1)).Networks) != 1 {
		t.Errorf("a connect that failed left %v", got)
	}
	for n := range 5 {
		h.leave(id(n))
	}
	h.empty()
}

// Many containers come and go at the same time, while the driver dies now and then.
func TestInParallel(t *testing.T) {
	h := newHouse(t)
	h.create(wire.NetworkCreateRequest{Name: "front"})
	var group sync.WaitGroup
	stop := make(chan struct{})
	for n := range 16 {
		group.Go(func() {
			for range 12 {
				mode := []string{"front", "bridge", "none"}[n%3]
				sb, err := h.m.Join(t.Context(), JoinRequest{ContainerID: id(n), ContainerName: "c", Mode: mode,
					Ports: map[string][]wire.PortBinding{"80/tcp": {{HostIP: "127.0.0.1"}}}})
				if err != nil {
					t.Error(err)
					return
				}
				sb.close()
				if err := h.m.Leave(t.Context(), id(n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var deaths sync.WaitGroup
	deaths.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				h.drivers.die(func() {})
			}
		}
	})
	group.Wait()
	close(stop)
	deaths.Wait()
	h.empty()
	if err := h.m.Remove(t.Context(), "front"); err != nil {
		t.Error(err)
	}
}
