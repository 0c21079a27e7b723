package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// id is the 64 digits of a container.
func id(n int) string { return fmt.Sprintf("%02x%062x", n+0xc0, n) }

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func web(n int, hostPort string) JoinRequest {
	return JoinRequest{
		ContainerID: id(n), ContainerName: "web" + strconv.Itoa(n), Hostname: "host" + strconv.Itoa(n), Mode: "bridge",
		Ports:        map[string][]wire.PortBinding{"80/tcp": {{HostIP: "127.0.0.1", HostPort: hostPort}}},
		ExposedPorts: map[string]struct{}{"80/tcp": {}, "443/tcp": {}},
	}
}

func TestJoinDefaultBridge(t *testing.T) {
	h := newHouse(t)
	before := h.driver.count("Attach")
	p := freePort(t)
	sb := h.join(web(1, p))
	if sb.NetNS == nil || len(sb.Hold) != 1 {
		t.Fatalf("got namespace %v and %d sockets", sb.NetNS, len(sb.Hold))
	}
	if n := h.driver.count("Attach") - before; n != 1 {
		t.Errorf("%d calls of the driver, want 1", n)
	}
	ep := h.driver.holds()[id(1)][0]
	want := Endpoint{
		ID: ep.ID, NetworkID: ep.NetworkID, ContainerID: id(1), NetNS: ep.NetNS, Interface: "eth0", MAC: "02:42:c6:12:00:02",
		Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.2/24")}, Gateways: []netip.Addr{netip.MustParseAddr("198.18.0.1")},
		Ports: []Port{{"tcp", netip.MustParseAddr("127.0.0.1"), port16(p), 80}},
	}
	if d := cmp.Diff(want, ep, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Error(d)
	}
	if got := string(sb.ResolvConf); got != "nameserver 192.0.2.53\nsearch example.com\n" {
		t.Errorf("resolv.conf %q", got)
	}
	if got := string(sb.Hosts); !strings.HasSuffix(got, "198.18.0.2\thost1\n") || !strings.HasPrefix(got, "127.0.0.1\tlocalhost\n") {
		t.Errorf("hosts %q", got)
	}
	if d := cmp.Diff(map[string][]wire.PortBinding{"80/tcp": {{HostIP: "127.0.0.1", HostPort: p}}, "443/tcp": nil}, sb.Settings.Ports); d != "" {
		t.Error(d)
	}
	if s := h.m.Settings(id(1)); s.IPAddress != "198.18.0.2" || s.Networks["bridge"].Gateway != "198.18.0.1" || s.Networks["bridge"].IPPrefixLen != 24 {
		t.Errorf("settings %+v", s)
	}
	n, err := h.m.Inspect(t.Context(), "bridge")
	if err != nil || n.Containers[id(1)].IPv4Address != "198.18.0.2/24" || n.Containers[id(1)].Name != "web1" {
		t.Errorf("inspect %+v, %v", n.Containers, err)
	}

	_, err = h.m.Join(t.Context(), web(2, p))
	if err == nil || !strings.Contains(err.Error(), "driver failed programming external connectivity on endpoint web2 (") ||
		!strings.HasSuffix(err.Error(), "Bind for 127.0.0.1:"+p+" failed: port is already allocated") {
		t.Errorf("the port is taken: %v", err)
	}
	h.leave(id(1))
	h.leave(id(1))
	sb.close() // as the monitor does
	// The port and the address are free again, however fast somebody comes.
	again := h.join(web(2, p))
	if again.Settings.IPAddress == "" {
		t.Error("no address")
	}
	h.leave(id(2))
	h.empty()
}

func port16(s string) uint16 {
	n, _ := strconv.ParseUint(s, 10, 16)
	return uint16(n)
}

func TestJoinModes(t *testing.T) {
	h := newHouse(t)
	none := h.join(JoinRequest{ContainerID: id(1), Mode: "none"})
	if none.NetNS == nil || none.Settings.Networks["none"] == nil || len(none.ResolvConf) == 0 {
		t.Errorf("none: %+v", none)
	}
	host := h.join(JoinRequest{ContainerID: id(2), Mode: "host", ExtraHosts: []string{"db:10.0.0.5"}})
	if host.NetNS != nil || host.Settings.Networks["host"] == nil || !strings.Contains(string(host.Hosts), "10.0.0.5\tdb\n") {
		t.Errorf("host: %+v", host)
	}
	first := h.join(JoinRequest{ContainerID: id(3), Hostname: "first", Mode: "bridge"})
	second := h.join(JoinRequest{ContainerID: id(4), Mode: "container:" + id(3)})
	third := h.join(JoinRequest{ContainerID: id(5), Mode: "container:" + id(4)})
	a, _ := first.NetNS.Stat()
	for _, sb := range []*Sandbox{second, third} {
		b, _ := sb.NetNS.Stat()
		if !os.SameFile(a, b) || string(sb.Hosts) != string(first.Hosts) {
			t.Error("a shared namespace is another")
		}
	}
	if got := second.Settings; len(got.Networks) != 0 || got.SandboxID != first.Settings.SandboxID {
		t.Errorf("settings of a container in another's namespace: %+v", got)
	}
	if _, err := h.m.Join(t.Context(), JoinRequest{ContainerID: id(6), Mode: "container:" + id(9)}); !fault.Is(err, fault.Conflict) {
		t.Errorf("namespace of nobody: %v", err)
	}
	for n := range 6 {
		h.leave(id(n))
	}
	h.empty()
}

func TestJoinRefuses(t *testing.T) {
	h := newHouse(t)
	h.create(wire.NetworkCreateRequest{Name: "chosen"})
	h.create(wire.NetworkCreateRequest{Name: "asked", IPAM: &wire.IPAM{Config: []wire.IPAMConfig{{Subnet: "198.19.7.0/24"}}}})
	at := func(network, address string) map[string]*wire.EndpointSettings {
		return map[string]*wire.EndpointSettings{network: {IPAMConfig: &wire.EndpointIPAM{IPv4Address: address}}}
	}
	for name, tc := range map[string]struct {
		r    JoinRequest
		want string
	}{
		"no such network":     {JoinRequest{Mode: "nowhere"}, "network nowhere not found"},
		"address on bridge":   {JoinRequest{Mode: "bridge", Endpoints: at("bridge", "198.18.0.9")}, "user specified IP address is supported on user defined networks only"},
		"address of no plan":  {JoinRequest{Mode: "chosen", Endpoints: at("chosen", "198.18.1.9")}, "user specified IP address is supported only when connecting to networks with user configured subnets"},
		"address elsewhere":   {JoinRequest{Mode: "asked", Endpoints: at("asked", "10.9.9.9")}, "does not belong to any of this network's subnets"},
		"address no number":   {JoinRequest{Mode: "asked", Endpoints: at("asked", "nine")}, "invalid IPv4 address: nine"},
		"alias on bridge":     {JoinRequest{Mode: "bridge", Endpoints: map[string]*wire.EndpointSettings{"bridge": {Aliases: []string{"db"}}}}, "network-scoped alias is supported only"},
		"mac":                 {JoinRequest{Mode: "asked", Endpoints: map[string]*wire.EndpointSettings{"asked": {MacAddress: "01:00:00:00:00:01"}}}, "mac-address"},
		"interface name":      {JoinRequest{Mode: "asked", Endpoints: map[string]*wire.EndpointSettings{"asked": {DriverOpts: map[string]string{interfaceOption: "../eth0"}}}}, interfaceOption},
		"port":                {JoinRequest{Mode: "bridge", Ports: map[string][]wire.PortBinding{"80/tcp": {{HostPort: "99999"}}}}, "host port of port 80/tcp"},
		"host address":        {JoinRequest{Mode: "bridge", Ports: map[string][]wire.PortBinding{"80/tcp": {{HostIP: "home"}}}}, "host address of port 80/tcp"},
		"host address family": {JoinRequest{Mode: "bridge", Ports: map[string][]wire.PortBinding{"80/sctp": {{HostIP: "::1"}}}}, "no IPv6 address"},
		"extra host":          {JoinRequest{Mode: "bridge", ExtraHosts: []string{"db"}}, "extra host"},
		"twice":               {JoinRequest{Mode: "asked", Endpoints: map[string]*wire.EndpointSettings{"asked": {}, h.m.named("asked").ID: {}}}, "already exists in network asked"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.r.ContainerID = id(1)
			sb, err := h.m.Join(t.Context(), tc.r)
			if err == nil {
				sb.close()
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	h.empty()
}

// Whatever fails, nothing is left: no endpoint, row, port, address or open file.
func TestJoinLeavesNothingAfterAnError(t *testing.T) {
	h := newHouse(t)
	h.create(wire.NetworkCreateRequest{Name: "front"})
	p := freePort(t)
	r := web(1, p)
	r.Mode, r.Endpoints = "front", map[string]*wire.EndpointSettings{"front": {}, "bridge": {}}
	before := 0
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		before = max(before, openFiles(t)) // until the pool of namespaces is full
	}
	h.driver.set("Attach", errors.New("no such device"))
	for range 3 {
		if _, err := h.m.Join(t.Context(), r); err == nil || !strings.Contains(err.Error(), "no such device") {
			t.Fatalf("got %v", err)
		}
	}
	h.empty()
	after := openFiles(t)
	for end := time.Now().Add(5 * time.Second); after > before && time.Now().Before(end); after = openFiles(t) {
		time.Sleep(10 * time.Millisecond)
	}
	if after > before {
		t.Errorf("%d open files before, %d after", before, after)
	}
	h.driver.set("Attach", nil)
	sb := h.join(r)
	if got := sb.Settings.Networks["front"].IPAddress; got != "198.18.1.2" {
		t.Errorf("the first address is %s: earlier ones were lost", got)
	}
	h.leave(id(1))
	h.empty()
}

func TestJoinWithAContextThatEnds(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithCancel(t.Context())
	h.driver.hook = func(method string) {
		if method == "Attach" {
			cancel()
		}
	}
	h.driver.set("Attach", context.Canceled)
	if _, err := h.m.Join(ctx, web(1, freePort(t))); err == nil {
		t.Fatal("no error")
	}
	h.empty()
}

// A container that a driver does not let go stays on record until the driver does.
func TestDetachFails(t *testing.T) {
	h := newHouse(t)
	h.join(web(1, freePort(t)))
	h.driver.set("Detach", errors.New("device busy"))
	h.driver.set("Reconcile", errors.New("device busy"))
	h.leave(id(1))
	h.m.drain(t.Context())
	if rows, _ := h.m.sandboxes.List(); len(rows) != 1 || !rows[0].Dead {
		t.Fatalf("rows %+v", rows)
	}
	// Its address is not given to another one, and the container can start again.
	sb := h.join(web(1, freePort(t)))
	if sb.Settings.IPAddress != "198.18.0.3" {
		t.Errorf("address %s", sb.Settings.IPAddress)
	}
	h.driver.comesBack()
	h.drivers.die(func() {})
	if rows, _ := h.m.sandboxes.List(); len(rows) != 1 || rows[0].Dead {
		t.Errorf("after the driver's restart: %+v", rows)
	}
	if got := h.driver.holds()[id(1)]; len(got) != 1 || got[0].Addresses[0].Addr().String() != "198.18.0.3" {
		t.Errorf("the driver has %+v", got)
	}
	h.leave(id(1))
	h.empty()
}

func TestGatewayAndPortsFollowThePriority(t *testing.T) {
	h := newHouse(t)
	h.create(wire.NetworkCreateRequest{Name: "aaa", Internal: true})
	h.create(wire.NetworkCreateRequest{Name: "bbb"})
	h.create(wire.NetworkCreateRequest{Name: "ccc"})
	r := web(1, freePort(t))
	r.Mode = "bbb"
	r.Endpoints = map[string]*wire.EndpointSettings{"aaa": {}, "bbb": {}}
	h.join(r)
	route := func() (network string, ports int) {
		t.Helper()
		for _, ep := range h.driver.holds()[id(1)] {
			if len(ep.Gateways) > 0 {
				if network != "" {
					t.Error("two endpoints have a gateway")
				}
				n, _ := h.m.Resolve(ep.NetworkID)
				network, ports = n.Name, len(ep.Ports)
			} else if len(ep.Ports) > 0 {
				t.Errorf("%s has ports and no gateway", ep.NetworkID)
			}
		}
		return network, ports
	}
	if n, p := route(); n != "bbb" || p != 1 {
		t.Errorf("gateway on %s with %d ports, want bbb: aaa is internal", n, p)
	}
	if _, err := h.m.ConnectRunning(t.Context(), "ccc", id(1), os.Getpid(), &wire.EndpointSettings{GwPriority: 5}); err != nil {
		t.Fatal(err)
	}
	if n, p := route(); n != "ccc" || p != 1 {
		t.Errorf("gateway on %s with %d ports, want ccc: it has the priority", n, p)
	}
	if _, err := h.m.DisconnectRunning(t.Context(), "ccc", id(1), os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if n, p := route(); n != "bbb" || p != 1 {
		t.Errorf("gateway on %s with %d ports, want bbb again", n, p)
	}
	h.leave(id(1))
	h.empty()
}
