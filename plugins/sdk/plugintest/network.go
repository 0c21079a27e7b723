package plugintest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	networkv1 "github.com/sampan-project/sampan/proto/sampan/network/v1"
	pluginv1 "github.com/sampan-project/sampan/proto/sampan/plugin/v1"
)

const owner, otherOwner = "0123456789ab", "ba9876543210"

// suite is the state of one run.
type suite struct {
	config   Config
	host     *namespace
	process  *process
	driver   networkv1.NetworkDriverClient
	describe *pluginv1.DescribeResponse
	networks int
}

// Network runs the suite of network drivers: a subtest for each promise.
func Network(t *testing.T, c Config) {
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	s := &suite{config: c, host: newNamespace(t)}
	s.start(t)
	before := s.links(t)
	t.Run("describe", s.testDescribe)
	t.Run("health", s.testHealth)
	t.Run("options", s.testOptions)
	t.Run("malformed", s.testMalformed)
	t.Run("life", s.testLife)
	t.Run("connect", s.testConnect)
	t.Run("publish", s.testPublish)
	t.Run("parallel", s.testParallel)
	t.Run("canceled", s.testCanceled)
	t.Run("reconcile", s.testReconcile)
	t.Run("crash", s.testCrash)
	t.Run("nothing is left", func(t *testing.T) {
		if after := s.links(t); !slices.Equal(before, after) {
			t.Errorf("interfaces on the host: %v, expected those from before: %v", after, before)
		}
	})
}

func (s *suite) start(t *testing.T) {
	t.Helper()
	s.process = start(t, s.config, s.host)
	s.driver = networkv1.NewNetworkDriverClient(s.process.conn)
	var err error
	if s.describe, err = pluginv1.NewPluginClient(s.process.conn).Describe(s.ctx(t), &pluginv1.DescribeRequest{}); err != nil {
		t.Fatal(err)
	}
}

func (s *suite) ctx(t *testing.T) context.Context {
	t.Helper()
	// Not t's context: calls that clean up come after its end.
	ctx, cancel := context.WithTimeout(context.Background(), s.config.Timeout)
	t.Cleanup(cancel)
	return ctx
}

func (s *suite) links(t *testing.T) []string {
	t.Helper()
	var names []string
	err := s.host.do(func() error {
		list, err := net.Interfaces()
		for _, i := range list {
			names = append(names, i.Name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func newID() string {
	b := make([]byte, 32)
	rand.Read(b)
	return hex.EncodeToString(b)
}

func (s *suite) network() *networkv1.Network {
	s.networks++
	return &networkv1.Network{
		Id: newID(), Name: "conformance", Owner: owner, Ipv4: true, Options: s.config.Options,
		Subnets: []*networkv1.Subnet{{Prefix: fmt.Sprintf("10.99.%d.0/24", s.networks), Gateway: fmt.Sprintf("10.99.%d.1", s.networks)}},
	}
}

// endpoint is number i of a network.
func endpoint(n *networkv1.Network, i int, ns *namespace) *networkv1.Endpoint {
	gateway := netip.MustParseAddr(n.GetSubnets()[0].GetGateway()).As4()
	a := gateway
	a[3] = byte(i)
	e := &networkv1.Endpoint{
		Id: newID(), NetworkId: n.GetId(), ContainerId: newID(), Interface: "eth0",
		Mac: fmt.Sprintf("02:42:0a:63:%02x:%02x", a[2], a[3]), Addresses: []string{netip.AddrFrom4(a).String() + "/24"},
		Gateways: []string{netip.AddrFrom4(gateway).String()},
	}
	if ns != nil {
		e.Netns = ns.path()
	}
	return e
}

func (s *suite) create(t *testing.T, n *networkv1.Network) *networkv1.CreateNetworkResponse {
	t.Helper()
	r, err := s.driver.CreateNetwork(s.ctx(t), &networkv1.CreateNetworkRequest{Network: n})
	if err != nil {
		t.Fatalf("CreateNetwork: %v", err)
	}
	t.Cleanup(func() { s.delete(t, n) })
	return r
}

func (s *suite) delete(t *testing.T, n *networkv1.Network) {
	t.Helper()
	if _, err := s.driver.DeleteNetwork(s.ctx(t), &networkv1.DeleteNetworkRequest{Network: n}); err != nil {
		t.Errorf("DeleteNetwork: %v", err)
	}
}

func (s *suite) attach(t *testing.T, n *networkv1.Network, e *networkv1.Endpoint) *networkv1.AttachResponse {
	t.Helper()
	r, err := s.driver.Attach(s.ctx(t), &networkv1.AttachRequest{Network: n, Endpoint: e})
	if err != nil {
		t.Fatalf("Attach: %v", err)
	}
	t.Cleanup(func() { s.detach(t, n, e) })
	return r
}

func (s *suite) detach(t *testing.T, n *networkv1.Network, e *networkv1.Endpoint) {
	t.Helper()
	if _, err := s.driver.Detach(s.ctx(t), &networkv1.DetachRequest{Network: n, Endpoint: e}); err != nil {
		t.Errorf("Detach: %v", err)
	}
}

// configured fails unless the interface is in the namespace as the endpoint says.
func configured(t *testing.T, ns *namespace, e *networkv1.Endpoint) {
	t.Helper()
	err := ns.do(func() error {
		i, err := net.InterfaceByName(e.GetInterface())
		if err != nil {
			return err
		}
		if i.HardwareAddr.String() != e.GetMac() || i.Flags&net.FlagUp == 0 {
			return fmt.Errorf("interface %s: address %v, flags %v: expected %s and up", i.Name, i.HardwareAddr, i.Flags, e.GetMac())
		}
		addresses, err := i.Addrs()
		if err != nil {
			return err
		}
		for _, want := range e.GetAddresses() {
			if !slices.ContainsFunc(addresses, func(a net.Addr) bool { return a.String() == want }) {
				return fmt.Errorf("interface %s has %v: expected %s among them", i.Name, addresses, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func absent(t *testing.T, ns *namespace, name string) {
	t.Helper()
	err := ns.do(func() error {
		if _, err := net.InterfaceByName(name); err == nil {
			t.Errorf("interface %s is still in the namespace", name)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// serve answers every connection in the namespace with a word.
func serve(t *testing.T, ns *namespace, address string) {
	t.Helper()
	var l net.Listener
	err := ns.do(func() (err error) { l, err = net.Listen("tcp", address); return err })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello") // the caller tells what it misses
			c.Close()
		}
	}()
}

func call(ns *namespace, address string) error {
	var c net.Conn
	err := ns.do(func() (err error) { c, err = net.DialTimeout("tcp", address, 2*time.Second); return err })
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	b, err := io.ReadAll(c)
	if err == nil && string(b) != "hello" {
		err = fmt.Errorf("got %q", b)
	}
	return err
}

func addressOf(e *networkv1.Endpoint) string {
	return netip.MustParsePrefix(e.GetAddresses()[0]).Addr().String()
}

func (s *suite) testHealth(t *testing.T) {
	r, err := pluginv1.NewPluginClient(s.process.conn).Health(s.ctx(t), &pluginv1.HealthRequest{})
	if err != nil || !r.GetHealthy() {
		t.Errorf("health: %v, %s", err, r.GetReason())
	}
}

// Every method twice, and the counterpart of what was never done.
func (s *suite) testLife(t *testing.T) {
	n, ns := s.network(), newNamespace(t)
	e := endpoint(n, 2, ns)
	s.detach(t, n, e)
	s.delete(t, n)
	first := s.create(t, n)
	if second := s.create(t, n); fmt.Sprint(first.GetSettings()) != fmt.Sprint(second.GetSettings()) {
		t.Errorf("settings change: %v, then %v", first.GetSettings(), second.GetSettings())
	}
	for range 2 {
		if r := s.attach(t, n, e); r.GetMac() != e.GetMac() {
			t.Errorf("the answer has the address %q: expected %s", r.GetMac(), e.GetMac())
		}
		configured(t, ns, e)
	}
	for range 2 {
		s.detach(t, n, e)
		absent(t, ns, e.GetInterface())
	}
	s.attach(t, n, e)
	ns.close()
	gone := endpoint(n, 2, nil)
	gone.Id, gone.ContainerId = e.GetId(), e.GetContainerId()
	s.detach(t, n, gone)
	for range 2 {
		s.delete(t, n)
	}
}

func (s *suite) testConnect(t *testing.T) {
	n, a, b := s.network(), newNamespace(t), newNamespace(t)
	s.create(t, n)
	inA, inB := endpoint(n, 2, a), endpoint(n, 3, b)
	s.attach(t, n, inA)
	s.attach(t, n, inB)
	serve(t, b, ":80")
	if err := call(a, addressOf(inB)+":80"); err != nil {
		t.Errorf("from one endpoint to the other: %v", err)
	}
	s.detach(t, n, inB)
	if err := call(a, addressOf(inB)+":80"); err == nil {
		t.Error("an endpoint answers after Detach")
	}
}

func (s *suite) testPublish(t *testing.T) {
	if !slices.Contains(s.describe.GetCapabilities(), "publish") {
		t.Skip("the driver does not have the capability publish")
	}
	n, ns := s.network(), newNamespace(t)
	s.create(t, n)
	e := endpoint(n, 2, ns)
	e.Ports = []*networkv1.Port{{Protocol: "tcp", HostAddress: "0.0.0.0", HostPort: 8080, ContainerPort: 80}}
	s.attach(t, n, e)
	serve(t, ns, ":80")
	if err := call(s.host, "127.0.0.1:8080"); err != nil {
		t.Errorf("from the host: %v", err)
	}
	e.Ports[0].HostPort = 8081
	s.attach(t, n, e)
	if err := call(s.host, "127.0.0.1:8081"); err != nil {
		t.Errorf("a port that Attach added: %v", err)
	}
	if err := call(s.host, "127.0.0.1:8080"); err == nil {
		t.Error("a port that Attach took away answers")
	}
	s.detach(t, n, e)
	if err := call(s.host, "127.0.0.1:8081"); err == nil {
		t.Error("a port answers after Detach")
	}
}

func (s *suite) testParallel(t *testing.T) {
	n := s.network()
	s.create(t, n)
	var all sync.WaitGroup
	for i := range 8 {
		ns := newNamespace(t)
		e := endpoint(n, 2+i, ns)
		all.Go(func() {
			for range 2 {
				if _, err := s.driver.Attach(s.ctx(t), &networkv1.AttachRequest{Network: n, Endpoint: e}); err != nil {
					t.Errorf("Attach: %v", err)
				}
				configured(t, ns, e)
				s.detach(t, n, e)
				absent(t, ns, e.GetInterface())
			}
		})
	}
	all.Wait()
}

func (s *suite) testCanceled(t *testing.T) {
	n := s.network()
	ctx, cancel := context.WithCancel(s.ctx(t))
	cancel()
	start := time.Now()
	_, err := s.driver.CreateNetwork(ctx, &networkv1.CreateNetworkRequest{Network: n})
	if status.Code(err) != codes.Canceled || time.Since(start) > time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	s.delete(t, n)
}

func (s *suite) reconcile(t *testing.T, networks []*networkv1.Network, endpoints []*networkv1.Endpoint) {
	t.Helper()
	_, err := s.driver.Reconcile(s.ctx(t), &networkv1.ReconcileRequest{Owner: owner, Networks: networks, Endpoints: endpoints})
	if err != nil {
		t.Fatalf("Reconcile: %v", err)
	}
}

// What is named stays or comes, what is not named goes, what is another engine's is not touched.
func (s *suite) testReconcile(t *testing.T) {
	kept, lost, foreign, missing := s.network(), s.network(), s.network(), s.network()
	foreign.Owner = otherOwner
	spaces := []*namespace{newNamespace(t), newNamespace(t), newNamespace(t), newNamespace(t)}
	stays, goes := endpoint(kept, 2, spaces[0]), endpoint(lost, 2, spaces[1])
	others, comes := endpoint(foreign, 2, spaces[2]), endpoint(missing, 2, spaces[3])
	for _, n := range []*networkv1.Network{kept, lost, foreign} {
		s.create(t, n)
	}
	s.attach(t, kept, stays)
	s.attach(t, lost, goes)
	s.attach(t, foreign, others)
	t.Cleanup(func() { s.detach(t, missing, comes); s.delete(t, missing) })
	for range 2 {
		s.reconcile(t, []*networkv1.Network{kept, missing}, []*networkv1.Endpoint{stays, comes})
		configured(t, spaces[0], stays)
		absent(t, spaces[1], goes.GetInterface())
		configured(t, spaces[2], others)
		configured(t, spaces[3], comes)
	}
}

// After a crash a new process knows what to do from the calls alone.
func (s *suite) testCrash(t *testing.T) {
	n, ns := s.network(), newNamespace(t)
	if _, err := s.driver.CreateNetwork(s.ctx(t), &networkv1.CreateNetworkRequest{Network: n}); err != nil {
		t.Fatal(err)
	}
	e := endpoint(n, 2, ns)
	if _, err := s.driver.Attach(s.ctx(t), &networkv1.AttachRequest{Network: n, Endpoint: e}); err != nil {
		t.Fatal(err)
	}
	s.process.crash()
	configured(t, ns, e) // a container does not notice
	s.start(t)
	s.reconcile(t, []*networkv1.Network{n}, []*networkv1.Endpoint{e})
	configured(t, ns, e)
	s.detach(t, n, e)
	s.delete(t, n)
}
