package runtime

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A device keeps what it had: its MTU, its hardware address and its addresses, but for those that mean nothing
// elsewhere. In a network namespace that was there before, and is there after, it stays.
func TestNetDeviceInAnExistingNamespace(t *testing.T) {
	needRoot(t, "a network interface is made")
	b := newBench(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ownNetwork(t)
		host, err := os.Open(fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid()))
		if err != nil {
			t.Error(err)
			return
		}
		defer host.Close()
		place, err := anotherNetwork()
		if err != nil {
			t.Error(err)
			return
		}
		defer place.Close()
		device(t, "first", "169.254.169.77/32")
		link, err := netlink.LinkByName("first")
		if err == nil {
			address := &net.IPNet{IP: net.IPv4(127, 0, 0, 33), Mask: net.CIDRMask(32, 32)}
			err = netlink.AddrAdd(link, &netlink.Addr{IPNet: address, Scope: unix.RT_SCOPE_HOST})
		}
		if err == nil {
			err = netlink.LinkSetHardwareAddr(link, net.HardwareAddr{0, 0x11, 0x22, 0x33, 0x44, 0x55})
		}
		if err == nil {
			err = netlink.LinkSetMTU(link, 1789)
		}
		if err != nil {
			t.Error(err)
			return
		}
		spec := withDevices("ip -o addr show dev renamed; ip link show dev renamed", map[string]string{"first": "renamed"})
		i := slices.IndexFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
		spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), place.Fd())
		spec.Linux.Sysctl = nil
		for range 2 { // the second container finds it already there
			out, err := b.attempt(spec)
			if err != nil {
				t.Error(err)
				return
			}
			for _, want := range []string{"169.254.169.77/32", "mtu 1789", "00:11:22:33:44:55"} {
				if !strings.Contains(out, want) {
					t.Errorf("the container shows %q, want %q", out, want)
				}
			}
			if strings.Contains(out, "127.0.0.33") {
				t.Errorf("an address of the host alone came along: %q", out)
			}
			spec.Linux.NetDevices = nil
		}
		// The containers are gone, and it can be taken back.
		there, err := netlink.NewHandleAt(netns.NsHandle(place.Fd()))
		if err != nil {
			t.Error(err)
			return
		}
		defer there.Close()
		if link, err = there.LinkByName("renamed"); err == nil {
			err = there.LinkSetNsFd(link, int(host.Fd()))
		}
		if err == nil {
			_, err = netlink.LinkByName("renamed")
		}
		if err != nil {
			t.Error(err)
		}
	}()
	<-done
}

// anotherNetwork makes a network namespace that lives as long as its file.
func anotherNetwork() (f *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			f, err = os.Open(fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid()))
		}
	}()
	<-done
	return f, err
}

// In a user namespace of the container's own the device comes too, with or without another name.
func TestNetDeviceInAUserNamespace(t *testing.T) {
	needRoot(t, "a network interface is made")
	needUserNamespaces(t)
	b := newBench(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ownNetwork(t)
		for name, inside := range map[string]string{"first": "", "second": "renamed"} {
			device(t, name)
			spec := withDevices("ls /sys/class/net", map[string]string{name: inside})
			b.mapped(spec)
			out, err := b.attempt(spec)
			if err != nil || !slices.Contains(strings.Fields(out), cmp.Or(inside, name)) {
				t.Errorf("%s: %q, %v", name, out, err)
			}
			// It goes with the namespace.
			if _, err := netlink.LinkByName(name); err == nil {
				t.Errorf("%s is still there", name)
			}
		}
	}()
	<-done
}
