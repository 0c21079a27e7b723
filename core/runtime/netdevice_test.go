package runtime

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ownNetwork gives the rest of the test a network namespace that stands for the host's. Its thread ends
// with the test.
func ownNetwork(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func device(t *testing.T, name string, addresses ...string) {
	t.Helper()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: 1400}, PeerName: name + "-peer"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	for _, text := range addresses {
		a, err := netlink.ParseAddr(text)
		if err == nil {
			err = netlink.AddrAdd(link, a)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func withDevices(command string, devices map[string]string) *specs.Spec {
	spec := shellSpec(command)
	spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{}
	for name, inside := range devices {
		spec.Linux.NetDevices[name] = specs.LinuxNetDevice{Name: inside}
	}
	return spec
}

func TestNetDevices(t *testing.T) {
	needRoot(t, "a network interface is made")
	b := newBench(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ownNetwork(t)
		device(t, "first", "10.9.0.1/24", "fd09::1/64")
		device(t, "second", "10.9.1.1/24")
		spec := withDevices("ip -o addr show | sed 's/.*: //; s/  */ /g' | grep global; ip -o link show | sed 's/^[0-9]*: //; s/@[^:]*//; s/<.*[<,]UP[,>].*> /UP /; s/ qdisc.*//'",
			map[string]string{"first": "", "second": "port%d"})
		out, err := b.attempt(spec)
		if err != nil {
			t.Error(err)
			return
		}
		for _, want := range []string{
			"first inet 10.9.0.1/24", "first inet6 fd09::1/64", "port0 inet 10.9.1.1/24",
			"first: UP mtu 1400", "port0: UP mtu 1400",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("the container shows %q, want %q", out, want)
			}
		}
		if links, err := netlink.LinkList(); err != nil || slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == "first" || l.Attrs().Name == "second" }) {
			t.Errorf("the host still has the devices: %v", err)
		}
	}()
	<-done
}

// What cannot be is refused, and every device is again where it was and as it was.
func TestNetDevicesRefused(t *testing.T) {
	needRoot(t, "a network interface is made")
	b := newBench(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ownNetwork(t)
		device(t, "first", "10.9.0.1/24")
		device(t, "second")
		fails := withDevices("true", map[string]string{"first": "renamed"})
		fails.Mounts = append(fails.Mounts, bind("/nonexistent", "/x"))
		bare := withDevices("true", map[string]string{"first": ""})
		bare.Linux.Namespaces = slices.DeleteFunc(bare.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
		for _, c := range []struct {
			spec *specs.Spec
			text string
		}{
			{withDevices("true", map[string]string{"first": "x", "second": "x"}), "there is a network device x already"},
			{withDevices("true", map[string]string{"first": "", "third": ""}), "linux.netDevices[third]: there is no network device of this name"},
			{withDevices("true", map[string]string{"lo": "lo9"}), "a loopback device"},
			{withDevices("true", map[string]string{"first": "a/b"}), `linux.netDevices[first].name "a/b"`},
			{withDevices("true", map[string]string{"first": "%s"}), `linux.netDevices[first].name "%s"`},
			{withDevices("true", map[string]string{"a name": ""}), "linux.netDevices[a name]"},
			{bare, "expected a container with its own network namespace"},
			{fails, "/nonexistent"},
		} {
			b.refused(c.spec, c.text)
			link, err := netlink.LinkByName("first")
			if err != nil {
				t.Errorf("after %q: the device is not back: %v", c.text, err)
				return
			}
			addresses, err := netlink.AddrList(link, netlink.FAMILY_V4)
			if err != nil || len(addresses) != 1 || addresses[0].IPNet.String() != "10.9.0.1/24" || link.Attrs().MTU != 1400 {
				t.Errorf("after %q: the device has %v, %v", c.text, addresses, err)
			}
			if _, err := netlink.LinkByName("second"); err != nil {
				t.Errorf("after %q: the other device: %v", c.text, err)
			}
		}
	}()
	<-done
}
