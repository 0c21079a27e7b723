package main

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/plugins/sdk"
)

func TestReconcile(t *testing.T) {
	d, o := newDriver(), newOutside(t)
	kept, lost, foreign := newNetwork(t), newNetwork(t), newNetwork(t, func(n *bridgeNetwork) { n.Owner = "ba9876543210" })
	port := func(p uint16) sdk.Port {
		return sdk.Port{Protocol: "tcp", HostAddress: any4, HostPort: p, ContainerPort: 80}
	}
	for _, n := range []bridgeNetwork{kept, lost, foreign} {
		create(t, d, n)
	}
	stays, ns := newEndpoint(t, kept, 2, port(8080))
	dies, nsDies := newEndpoint(t, kept, 3, port(8081))
	inLost, _ := newEndpoint(t, lost, 2, port(8082))
	inForeign, nsForeign := newEndpoint(t, foreign, 2, port(8083))
	attach(t, d, kept, stays)
	attach(t, d, kept, dies)
	attach(t, d, lost, inLost)
	attach(t, d, foreign, inForeign)
	for _, f := range []*os.File{ns, nsDies, nsForeign} {
		serve(t, f, "tcp", "0.0.0.0:80")
	}
	// Somebody damages what is there; and the driver starts anew.
	must(t, d.dropTable(kept.ID))
	must(t, d.host.do(deleteLink(bridgeName(kept))))
	must(t, in(t, ns, func() error { return onHost(deleteLink("eth0")) }))
	mustFail(t, o.ns, hostPort(o.host, 8080))
	d = newDriver()
	for range 2 {
		must(t, d.Reconcile(t.Context(), owner, []bridgeNetwork{kept}, []sdk.Endpoint{stays}))
		mustCall(t, o.ns, "tcp", hostPort(o.host, 8080))
		mustFail(t, o.ns, hostPort(o.host, 8081))
		mustCall(t, o.ns, "tcp", hostPort(o.host, 8083))
	}
	for name, want := range map[string]bool{
		bridgeName(kept): true, hostInterface(stays.ID): true, bridgeName(foreign): true, hostInterface(inForeign.ID): true,
		bridgeName(lost): false, hostInterface(dies.ID): false, hostInterface(inLost.ID): false,
	} {
		l, err := d.host.linkByName(name)
		must(t, err)
		if (l != nil) != want {
			t.Errorf("interface %s is there: %v, expected %v", name, l != nil, want)
		}
	}
	if d.tableExists(lost.ID) || !d.tableExists(foreign.ID) {
		t.Error("the wrong table was removed")
	}
}

// A port of an endpoint that died without Detach is free for the next.
func TestPortOfADeadEndpoint(t *testing.T) {
	d, n := newDriver(), newNetwork(t)
	create(t, d, n)
	port := sdk.Port{Protocol: "tcp", HostAddress: any4, HostPort: 8080, ContainerPort: 80}
	dead, _ := newEndpoint(t, n, 2, port)
	attach(t, d, n, dead)
	next, ns := newEndpoint(t, n, 3, port)
	attach(t, d, n, next)
	serve(t, ns, "tcp", "0.0.0.0:80")
	mustCall(t, nil, "tcp", "127.0.0.1:8080")
	must(t, d.Detach(t.Context(), n, dead)) // and its Detach takes nothing from the next
	mustCall(t, nil, "tcp", "127.0.0.1:8080")
}

func TestDetachAfterTheNamespace(t *testing.T) {
	d, n := newDriver(), newNetwork(t)
	create(t, d, n)
	e, ns := newEndpoint(t, n, 2)
	attach(t, d, n, e)
	ns.Close()
	e.NetNS = ""
	must(t, d.Detach(t.Context(), n, e))
}

func TestBridgeOfOthers(t *testing.T) {
	d := newDriver()
	must(t, d.host.do(createBridge(newNetwork(t, func(n *bridgeNetwork) { n.Options.Name = "own0" }))[0]))
	defer d.host.do(deleteLink("own0")) //nolint:errcheck // the test is over
	n := newNetwork(t, func(n *bridgeNetwork) { n.Options.Name = "own0" })
	create(t, d, n)
	must(t, d.DeleteNetwork(t.Context(), n))
	if l, err := d.host.linkByName("own0"); err != nil || l == nil {
		t.Errorf("the administrator's bridge is gone: %v", err)
	}

	first := newNetwork(t, func(n *bridgeNetwork) { n.Options.Name = "shared0"; n.Owner = "ba9876543210" })
	second := newNetwork(t, func(n *bridgeNetwork) { n.Options.Name = "shared0" })
	create(t, d, first)
	e, _ := newEndpoint(t, first, 2)
	attach(t, d, first, e)
	if _, err := d.CreateNetwork(t.Context(), second); err == nil || !strings.Contains(err.Error(), "belongs to network") {
		t.Errorf("the bridge of another engine: %v", err)
	}
	must(t, d.Detach(t.Context(), first, e))
	create(t, d, second) // nobody uses it: what an engine that lost its data left behind
	if d.tableExists(first.ID) {
		t.Error("its table is still there")
	}
	if _, err := d.Attach(t.Context(), first, e); err == nil {
		t.Error("the bridge is still the first engine's")
	}
	must(t, d.DeleteNetwork(t.Context(), first)) // leaves the second's alone
	if l, err := d.host.linkByName("shared0"); err != nil || l == nil {
		t.Errorf("the bridge went with the other's network: %v", err)
	}
}

// Docker sets the policy of iptables' FORWARD to drop.
func TestForwardPolicyOfOthers(t *testing.T) {
	c, err := nftables.New()
	must(t, err)
	policy := nftables.ChainPolicyDrop
	for _, f := range ipFamilies {
		table := c.AddTable(filterTable(f))
		c.AddChain(&nftables.Chain{
			Name: forwardChain, Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward,
			Priority: nftables.ChainPriorityFilter, Policy: &policy,
		})
	}
	must(t, c.Flush())
	defer func() {
		for _, f := range ipFamilies {
			c.DelTable(filterTable(f))
		}
		must(t, c.Flush())
	}()

	d, n, o := newDriver(), newNetwork(t), newOutside(t)
	_, err = d.CreateNetwork(t.Context(), n)
	must(t, err)
	a, nsA := newEndpoint(t, n, 2, sdk.Port{Protocol: "tcp", HostAddress: any4, HostPort: 8080, ContainerPort: 80})
	attach(t, d, n, a)
	b, nsB := newEndpoint(t, n, 3)
	attach(t, d, n, b)
	serve(t, nsA, "tcp", "0.0.0.0:80")
	serve(t, o.ns, "tcp", hostPort(o.peer, 90))
	serve(t, o.ns, "tcp", hostPort(o.peer6, 90))
	mustCall(t, nsA, "tcp", hostPort(o.peer, 90))
	mustCall(t, nsA, "tcp", hostPort(o.peer6, 90))
	mustCall(t, o.ns, "tcp", hostPort(o.host, 8080))
	mustCall(t, nsB, "tcp", hostPort(a.Addresses[0].Addr(), 80))
	if iptables, err := exec.LookPath("iptables-nft"); err == nil {
		out, err := exec.Command(iptables, "-S", "FORWARD").CombinedOutput()
		if want := "-A FORWARD -i " + bridgeName(n); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("iptables does not understand our rules: %v\n%s", err, out)
		}
	}
	rules := func() int {
		r, err := c.GetRules(filterTable(nftables.TableFamilyIPv4), &nftables.Chain{Name: forwardChain})
		must(t, err)
		return len(r)
	}
	if got := rules(); got != 2 {
		t.Errorf("%d rules, expected 2", got)
	}
	must(t, d.Detach(t.Context(), n, a))
	must(t, d.Detach(t.Context(), n, b))
	must(t, d.DeleteNetwork(t.Context(), n))
	if got := rules(); got != 0 {
		t.Errorf("%d rules are left", got)
	}
}

func TestPolicyOfLegacyIsSeen(t *testing.T) {
	if drops, err := legacyPolicyDrops(); err != nil || drops {
		t.Errorf("without a table: %v, %v", drops, err)
	}
	iptables, err := exec.LookPath("iptables-legacy")
	if err != nil {
		t.Skip("no iptables-legacy to set a policy with")
	}
	for _, policy := range []string{"DROP", "ACCEPT"} {
		if out, err := exec.Command(iptables, "-P", "FORWARD", policy).CombinedOutput(); err != nil {
			t.Skipf("the kernel has no ip_tables: %s", out)
		}
		must(t, exec.Command(iptables, "-A", "FORWARD", "-i", "some0", "-j", "ACCEPT").Run())
		if drops, err := legacyPolicyDrops(); err != nil || drops != (policy == "DROP") {
			t.Errorf("%s: %v, %v", policy, drops, err)
		}
	}
	must(t, exec.Command(iptables, "-F").Run())
}

// A client that never stops sending from one port gets the container that is there now.
func TestDatagramsFollowTheContainer(t *testing.T) {
	d, n, o := newDriver(), newNetwork(t), newOutside(t)
	create(t, d, n)
	var client net.Conn
	must(t, in(t, o.ns, dialHere("udp", hostPort(o.host, 5353), &client)))
	defer client.Close()
	ask := func() bool {
		_, _ = client.Write([]byte("hello")) // where nobody is, an earlier refusal is told here
		must(t, client.SetReadDeadline(time.Now().Add(500*time.Millisecond)))
		_, err := client.Read(make([]byte, 100))
		return err == nil
	}
	if ask() { // nobody is there yet: the host refuses
		t.Fatal("an answer from nobody")
	}
	for i := range 2 {
		e, ns := newEndpoint(t, n, 2+i, sdk.Port{Protocol: "udp", HostAddress: any4, HostPort: 5353, ContainerPort: 53})
		serve(t, ns, "udp", "0.0.0.0:53")
		attach(t, d, n, e)
		if !ask() {
			t.Errorf("no answer from container %d", i)
		}
		must(t, d.Detach(t.Context(), n, e))
	}
}

func TestOptionsAreChecked(t *testing.T) {
	d := newDriver()
	for _, change := range []func(*bridgeNetwork){
		func(n *bridgeNetwork) { n.Options.Name = "a name" },
		func(n *bridgeNetwork) { n.Options.Name = strings.Repeat("x", 16) },
		func(n *bridgeNetwork) { n.Options.HostIPv4 = netip.MustParseAddr("::1") },
		func(n *bridgeNetwork) { n.Options.MTU = 1000 },
	} {
		_, err := d.CreateNetwork(t.Context(), newNetwork(t, change))
		if field := new(sdk.FieldError); !errors.As(err, &field) {
			t.Errorf("%v", err)
		}
	}
	if _, err := sdk.SchemaOf(options{}); err != nil {
		t.Error(err)
	}
}

func TestSourceAddressOfTheHost(t *testing.T) {
	d, o := newDriver(), newOutside(t)
	second := netip.MustParseAddr("192.0.2.7")
	links, err := d.host.links()
	must(t, err)
	for _, l := range links {
		if addresses, _ := d.host.addresses(l.index); len(addresses) > 0 && addresses[0].Addr() == o.host {
			must(t, d.host.do(addAddress(l.index, netip.PrefixFrom(second, 24))))
		}
	}
	n := newNetwork(t, func(n *bridgeNetwork) { n.Options.HostIPv4 = second })
	plain := newNetwork(t, func(n *bridgeNetwork) { n.Options.Masquerade = false })
	create(t, d, n)
	create(t, d, plain)
	a, nsA := newEndpoint(t, n, 2)
	attach(t, d, n, a)
	b, nsB := newEndpoint(t, plain, 2)
	attach(t, d, plain, b)
	serve(t, o.ns, "tcp", hostPort(o.peer, 90))
	if got := mustCall(t, nsA, "tcp", hostPort(o.peer, 90)); got != second.String() {
		t.Errorf("seen as %s, expected %s", got, second)
	}
	must(t, inNamespace(o.ns, func(r *rtnl) error {
		l, err := r.linkByName("up0")
		must(t, err)
		return r.do(addDefaultRoute(l.index, o.host))
	}))
	if got := mustCall(t, nsB, "tcp", hostPort(o.peer, 90)); got != b.Addresses[0].Addr().String() {
		t.Errorf("seen as %s, expected its own address", got)
	}
}

// A message that the kernel refuses does not spoil the answers to the next.
func TestErrorsDoNotSpoilTheSocket(t *testing.T) {
	r := &rtnl{}
	defer r.close()
	for range 3 {
		err := r.do(setUp("nosuch0"), setUp("lo"), setUp("nosuch1"))
		if err == nil || !strings.HasPrefix(err.Error(), "bring up nosuch0") {
			t.Errorf("%v", err)
		}
		if l, err := r.linkByName("lo"); err != nil || l == nil || !l.up {
			t.Errorf("%+v %v", l, err)
		}
		if l, err := r.linkByName("nosuch0"); err != nil || l != nil {
			t.Errorf("%+v %v", l, err)
		}
	}
}

func FuzzParseLink(f *testing.F) {
	f.Add(message(unix.RTM_NEWLINK, 0, ifinfo(1, 0, 0), func(ae *netlink.AttributeEncoder) { ae.String(unix.IFLA_IFNAME, "lo") }).Data)
	f.Add(bytes.Repeat([]byte{1}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Only that they do not panic.
		_, _ = parseLink(b)
		_, _ = parseTracked(b)
		_, _ = legacyVerdict(b, uint32(len(b)/2))
	})
}
