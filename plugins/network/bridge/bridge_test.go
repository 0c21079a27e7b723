package main

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/plugins/sdk"
)

var any4, any6 = netip.IPv4Unspecified(), netip.IPv6Unspecified()

func hostPort(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

// outside is a namespace beside the host: a neighbour on its network, with a server in it.
type outside struct {
	ns         *os.File
	host, peer netip.Addr
	host6      netip.Addr
	peer6      netip.Addr
}

func newOutside(t *testing.T) outside {
	t.Helper()
	o := outside{newNamespace(t), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"),
		netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")}
	e := sdk.Endpoint{ID: newID(), Interface: "up0", Addresses: []netip.Prefix{netip.PrefixFrom(o.peer, 24), netip.PrefixFrom(o.peer6, 64)}}
	name := hostInterface(e.ID)
	peer := append(ifinfo(0, 0, 0), attributes(func(ae *netlink.AttributeEncoder) {
		ae.String(unix.IFLA_IFNAME, "up0")
		ae.Uint32(unix.IFLA_NET_NS_FD, uint32(o.ns.Fd()))
	})...)
	r := &rtnl{}
	t.Cleanup(func() { _ = r.do(deleteLink(name)); r.close() })
	must(t, r.do(request{what: "create", message: message(unix.RTM_NEWLINK, netlink.Create|netlink.Excl, ifinfo(0, 0, 0), func(ae *netlink.AttributeEncoder) {
		ae.String(unix.IFLA_IFNAME, name)
		nested(ae, unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) {
			info.String(unix.IFLA_INFO_KIND, "veth")
			nested(info, unix.IFLA_INFO_DATA, func(data *netlink.AttributeEncoder) { data.Bytes(vethInfoPeer, peer) })
		})
	})}, setUp(name)))
	l, err := r.linkByName(name)
	must(t, err)
	must(t, r.do(addAddress(l.index, netip.PrefixFrom(o.host, 24)), addAddress(l.index, netip.PrefixFrom(o.host6, 64))))
	must(t, configure(e, o.ns, true))
	must(t, r.waitReady(name))
	waitAnswering([]netip.Prefix{netip.PrefixFrom(o.host6, 64)})
	return o
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestContainersReachEachOtherAndOut(t *testing.T) {
	d, n, o := newDriver(), newNetwork(t), newOutside(t)
	create(t, d, n)
	a, nsA := newEndpoint(t, n, 2)
	b, nsB := newEndpoint(t, n, 3)
	attach(t, d, n, a)
	attach(t, d, n, b)
	for i := range 2 {
		serve(t, nsB, "tcp", hostPort([]netip.Addr{any4, any6}[i], uint16(80+i)))
		if got := mustCall(t, nsA, "tcp", hostPort(b.Addresses[i].Addr(), uint16(80+i))); got != a.Addresses[i].Addr().String() {
			t.Errorf("seen from %s, expected %s", got, a.Addresses[i].Addr())
		}
		if got := mustCall(t, nil, "tcp", hostPort(b.Addresses[i].Addr(), uint16(80+i))); got != n.Subnets[i].Gateway.String() {
			t.Errorf("the host is seen as %s, expected %s", got, n.Subnets[i].Gateway)
		}
	}
	serve(t, o.ns, "tcp", hostPort(o.peer, 90))
	if got := mustCall(t, nsA, "tcp", hostPort(o.peer, 90)); got != o.host.String() {
		t.Errorf("seen outside as %s, expected the host's address %s", got, o.host)
	}
	serve(t, o.ns, "tcp", hostPort(o.peer6, 90))
	if got := mustCall(t, nsA, "tcp", hostPort(o.peer6, 90)); got != o.host6.String() {
		t.Errorf("seen outside as %s, expected the host's address %s", got, o.host6)
	}
}

func TestPublishedPorts(t *testing.T) {
	d, n, o := newDriver(), newNetwork(t), newOutside(t)
	create(t, d, n)
	web, nsWeb := newEndpoint(t, n, 2,
		sdk.Port{Protocol: "tcp", HostAddress: any4, HostPort: 8080, ContainerPort: 80},
		sdk.Port{Protocol: "tcp", HostAddress: any6, HostPort: 8080, ContainerPort: 81},
		sdk.Port{Protocol: "udp", HostAddress: any4, HostPort: 5353, ContainerPort: 53},
		sdk.Port{Protocol: "tcp", HostAddress: netip.MustParseAddr("127.0.0.1"), HostPort: 9090, ContainerPort: 80},
	)
	attach(t, d, n, web)
	serve(t, nsWeb, "tcp", "0.0.0.0:80")
	serve(t, nsWeb, "tcp", "[::]:81")
	serve(t, nsWeb, "udp", "0.0.0.0:53")
	neighbour, nsNeighbour := newEndpoint(t, n, 3)
	attach(t, d, n, neighbour)
	other := newNetwork(t)
	create(t, d, other)
	stranger, nsStranger := newEndpoint(t, other, 2)
	attach(t, d, other, stranger)

	gateway, gateway6 := n.Subnets[0].Gateway.String(), n.Subnets[1].Gateway.String()
	for _, c := range []struct {
		name, network, address string
		from                   *os.File
		seen                   string
	}{
		{"from outside", "tcp", hostPort(o.host, 8080), o.ns, o.peer.String()},
		{"from outside by IPv6", "tcp", hostPort(o.host6, 8080), o.ns, o.peer6.String()},
		{"from outside by UDP", "udp", hostPort(o.host, 5353), o.ns, o.peer.String()},
		{"from the host by its address", "tcp", hostPort(o.host, 8080), nil, o.host.String()},
		{"from the host by 127.0.0.1", "tcp", "127.0.0.1:8080", nil, gateway},
		{"from the host by UDP", "udp", "127.0.0.1:5353", nil, gateway},
		{"published on 127.0.0.1", "tcp", "127.0.0.1:9090", nil, gateway},
		{"from itself", "tcp", hostPort(o.host, 8080), nsWeb, gateway},
		{"from a neighbour", "tcp", hostPort(o.host, 8080), nsNeighbour, gateway},
		{"from a neighbour by the gateway", "tcp", gateway + ":8080", nsNeighbour, gateway},
		{"from a neighbour by IPv6", "tcp", hostPort(o.host6, 8080), nsNeighbour, gateway6},
		{"from another network", "tcp", hostPort(o.host, 8080), nsStranger, gateway},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := mustCall(t, c.from, c.network, c.address); got != c.seen {
				t.Errorf("seen from %s, expected %s", got, c.seen)
			}
		})
	}
	t.Run("127.0.0.1 is not outside", func(t *testing.T) { mustFail(t, o.ns, hostPort(o.host, 9090)) })
	t.Run("::1 is refused, not silent", func(t *testing.T) {
		if _, err := call(t, nil, "tcp", "[::1]:8080"); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("expected connection refused, got %v", err)
		}
	})

	t.Run("a port is taken back", func(t *testing.T) {
		changed := web
		changed.Ports = []sdk.Port{{Protocol: "tcp", HostAddress: any4, HostPort: 8081, ContainerPort: 80}}
		if _, err := d.Attach(t.Context(), n, changed); err != nil {
			t.Fatal(err)
		}
		mustCall(t, o.ns, "tcp", hostPort(o.host, 8081))
		mustFail(t, o.ns, hostPort(o.host, 8080))
	})
	must(t, d.Detach(t.Context(), n, web))
	mustFail(t, o.ns, hostPort(o.host, 8081))
}

func TestIsolation(t *testing.T) {
	d, o := newDriver(), newOutside(t)
	a, b := newNetwork(t), newNetwork(t)
	internal := newNetwork(t, func(n *bridgeNetwork) { n.Internal = true })
	lonely := newNetwork(t, func(n *bridgeNetwork) { n.Options.ICC = false })
	for _, n := range []bridgeNetwork{a, b, internal, lonely} {
		create(t, d, n)
	}
	enter := func(n bridgeNetwork, i int) (sdk.Endpoint, *os.File) {
		e, ns := newEndpoint(t, n, i)
		attach(t, d, n, e)
		serve(t, ns, "tcp", "0.0.0.0:80")
		serve(t, ns, "tcp", "[::]:81")
		return e, ns
	}
	inA, nsA := enter(a, 2)
	inB, nsB := enter(b, 2)
	in1, ns1 := enter(internal, 2)
	in2, _ := enter(internal, 3)
	lonely1, nsL := enter(lonely, 2)
	lonely2, _ := enter(lonely, 3)
	serve(t, o.ns, "tcp", hostPort(o.peer, 90))
	addr := func(e sdk.Endpoint) string { return hostPort(e.Addresses[0].Addr(), 80) }
	addr6 := func(e sdk.Endpoint) string { return hostPort(e.Addresses[1].Addr(), 81) }

	mustFail(t, nsA, addr(inB))
	mustFail(t, nsB, addr6(inA))
	mustCall(t, ns1, "tcp", addr(in2))
	mustCall(t, ns1, "tcp", addr6(in2))
	mustFail(t, ns1, hostPort(o.peer, 90))
	mustFail(t, nsA, addr(in1))
	mustFail(t, nsL, addr(lonely2))
	mustFail(t, nsL, addr6(lonely2))
	mustCall(t, nsL, "tcp", hostPort(o.peer, 90))
	mustCall(t, nil, "tcp", addr(lonely1))
	// From outside, past the published ports.
	must(t, inNamespace(o.ns, func(r *rtnl) error {
		l, err := r.linkByName("up0")
		must(t, err)
		return r.do(addDefaultRoute(l.index, o.host))
	}))
	mustFail(t, o.ns, addr(inA))
	// Through the door of route_localnet.
	l, err := net127(t)
	must(t, err)
	must(t, inNamespace(nsA, func(r *rtnl) error {
		must(t, sysctl("ipv4/conf/eth0/route_localnet", "1"))
		eth, err := r.linkByName("eth0")
		must(t, err)
		return r.do(request{what: "route to 127.0.0.1", message: route127(eth.index, a.Subnets[0].Gateway)})
	}))
	mustFail(t, nsA, l)
}

func TestTwice(t *testing.T) {
	d, n := newDriver(), newNetwork(t)
	e, ns := newEndpoint(t, n, 2, sdk.Port{Protocol: "tcp", HostAddress: any4, HostPort: 8080, ContainerPort: 80})
	must(t, d.Detach(t.Context(), n, e))
	must(t, d.DeleteNetwork(t.Context(), n))
	for range 2 {
		_, err := d.CreateNetwork(t.Context(), n)
		must(t, err)
	}
	for range 2 {
		_, err := d.Attach(t.Context(), n, e)
		must(t, err)
	}
	serve(t, ns, "tcp", "0.0.0.0:80")
	mustCall(t, nil, "tcp", "127.0.0.1:8080")
	_, err := d.CreateNetwork(t.Context(), n) // keeps the ports
	must(t, err)
	mustCall(t, nil, "tcp", "127.0.0.1:8080")
	for range 2 {
		must(t, d.Detach(t.Context(), n, e))
	}
	for range 2 {
		must(t, d.DeleteNetwork(t.Context(), n))
	}
	nothingLeft(t, d)
}

// nothingLeft fails if there is a link or a table of ours.
func nothingLeft(t *testing.T, d *driver) {
	t.Helper()
	links, err := d.host.links()
	must(t, err)
	for _, l := range links {
		if _, ours := parseMark(l.alias); ours {
			t.Errorf("interface %s is left: %s", l.name, l.alias)
		}
	}
	c, err := nftables.New()
	must(t, err)
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	must(t, err)
	for _, table := range tables {
		t.Errorf("table %s is left", table.Name)
	}
}
