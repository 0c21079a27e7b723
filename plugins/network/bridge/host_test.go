package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/plugins/sdk"
)

// The tests run in a process of their own in a fresh network namespace: that is their host, and the
// machine's own network is never touched.
const inHost = "SAMPAN_BRIDGE_TEST_HOST"

func TestMain(m *testing.M) {
	if os.Getenv(inHost) != "" {
		if err := onHost(setUp("lo")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	if os.Geteuid() != 0 {
		fmt.Println("SKIP: making a network namespace needs root")
		return
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inHost+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
}

func onHost(requests ...request) error {
	r := &rtnl{}
	defer r.close()
	return r.do(requests...)
}

// newNamespace is a container's: loopback up, nothing else. Its path is as the engine gives it.
func newNamespace(t *testing.T) *os.File {
	t.Helper()
	type answer struct {
		f   *os.File
		err error
	}
	made := make(chan answer)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- answer{nil, err}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err == nil {
			err = onHost(setUp("lo"))
		}
		made <- answer{f, err}
	}()
	a := <-made
	if a.err != nil {
		t.Fatal(a.err)
	}
	t.Cleanup(func() { a.f.Close() })
	return a.f
}

func pathOf(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }

// in runs fn with the calling thread in the namespace.
func in(t *testing.T, ns *os.File, fn func() error) error {
	t.Helper()
	return inNamespace(ns, func(*rtnl) error { return fn() })
}

func newID() string {
	b := make([]byte, 32)
	rand.Read(b)
	return hex.EncodeToString(b)
}

const owner = "0123456789ab"

// subnets gives each network of the tests its own addresses.
var subnets int

func newNetwork(t *testing.T, change ...func(*bridgeNetwork)) bridgeNetwork {
	t.Helper()
	subnets++
	v4 := netip.MustParsePrefix(fmt.Sprintf("10.66.%d.0/24", subnets))
	v6 := netip.MustParsePrefix(fmt.Sprintf("fd66:%x::/64", subnets))
	n := bridgeNetwork{
		ID: newID(), Name: t.Name(), Owner: owner, IPv4: true, IPv6: true,
		Subnets: []sdk.Subnet{{Prefix: v4, Gateway: v4.Addr().Next()}, {Prefix: v6, Gateway: v6.Addr().Next()}},
		Options: options{MTU: 1500, ICC: true, Masquerade: true, Prefix: "eth"},
	}
	for _, c := range change {
		c(&n)
	}
	return n
}

// endpoint is number i of the network, in a namespace of its own.
func newEndpoint(t *testing.T, n bridgeNetwork, i int, ports ...sdk.Port) (sdk.Endpoint, *os.File) {
	t.Helper()
	ns := newNamespace(t)
	e := sdk.Endpoint{ID: newID(), NetworkID: n.ID, ContainerID: newID(), NetNS: pathOf(ns), Interface: "eth0", Ports: ports}
	for _, s := range n.Subnets {
		a := s.Prefix.Addr()
		for range i {
			a = a.Next()
		}
		e.Addresses = append(e.Addresses, netip.PrefixFrom(a, s.Prefix.Bits()))
		if !n.Internal {
			e.Gateways = append(e.Gateways, s.Gateway)
		}
	}
	return e, ns
}

func create(t *testing.T, d *driver, n bridgeNetwork) {
	t.Helper()
	if _, err := d.CreateNetwork(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.DeleteNetwork(context.Background(), n); err != nil {
			t.Error(err)
		}
	})
}

func attach(t *testing.T, d *driver, n bridgeNetwork, e sdk.Endpoint) {
	t.Helper()
	if _, err := d.Attach(t.Context(), n, e); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Detach(context.Background(), n, e); err != nil {
			t.Error(err)
		}
	})
}

// serve answers on the address in the namespace with the caller's address.
func serve(t *testing.T, ns *os.File, network, address string) {
	t.Helper()
	err := in(t, ns, func() error {
		if network == "udp" {
			c, err := net.ListenPacket(network, address)
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = c.Close() })
			go func() {
				b := make([]byte, 100)
				for {
					_, from, err := c.ReadFrom(b)
					if err != nil {
						return
					}
					_, _ = c.WriteTo([]byte(from.(*net.UDPAddr).IP.String()), from)
				}
			}()
			return nil
		}
		l, err := net.Listen(network, address)
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
				c.Close()
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// call returns what the server says: the address from which it sees us. In a nil namespace it is the host.
func call(t *testing.T, ns *os.File, network, address string) (string, error) {
	t.Helper()
	var c net.Conn
	dial := func() (err error) {
		c, err = net.DialTimeout(network, address, 700*time.Millisecond)
		return err
	}
	var err error
	if ns == nil {
		err = dial()
	} else {
		err = in(t, ns, dialHere(network, address, &c))
	}
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(700 * time.Millisecond)); err != nil {
		return "", err
	}
	if network == "udp" {
		if _, err := c.Write([]byte("hello")); err != nil {
			return "", err
		}
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	return string(b[:n]), err
}

// dialHere makes the socket on the calling thread: net.Dial may use another one.
func dialHere(network, address string, c *net.Conn) func() error {
	return func() error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		fam, typ := unix.AF_INET6, unix.SOCK_STREAM
		var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
		if to.Addr().Is4() {
			fam, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
		}
		if network == "udp" {
			typ = unix.SOCK_DGRAM
		}
		fd, err := unix.Socket(fam, typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), address)
		defer f.Close()
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 700_000}); err != nil {
			return err
		}
		if err := unix.Connect(fd, sa); err != nil {
			return fmt.Errorf("connect %s: %w", address, err)
		}
		*c, err = net.FileConn(f)
		return err
	}
}

// mustCall fails the test unless the server answers.
func mustCall(t *testing.T, ns *os.File, network, address string) string {
	t.Helper()
	got, err := call(t, ns, network, address)
	if err != nil {
		t.Fatalf("%s %s: %v", network, address, err)
	}
	return got
}

func mustFail(t *testing.T, ns *os.File, address string) {
	t.Helper()
	if got, err := call(t, ns, "tcp", address); err == nil {
		t.Fatalf("tcp %s: expected no answer, got %q", address, got)
	}
}

// net127 is a server on the host's 127.0.0.1, where no container may come.
func net127(t *testing.T) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("secret"))
			c.Close()
		}
	}()
	return l.Addr().String(), nil
}

// route127 sends 127.0.0.1 of a container to the host: what somebody would try who wants in.
func route127(index int, gateway netip.Addr) netlink.Message {
	m := defaultRoute(unix.RTM_NEWROUTE, netlink.Create|netlink.Replace, index, gateway)
	header := append([]byte{}, m.Data[:unix.SizeofRtMsg]...)
	header[1] = 32
	return message(unix.RTM_NEWROUTE, m.Header.Flags, header, func(ae *netlink.AttributeEncoder) {
		ae.Bytes(unix.RTA_DST, []byte{127, 0, 0, 1})
		ae.Uint32(unix.RTA_OIF, uint32(index))
		ae.Bytes(unix.RTA_GATEWAY, gateway.AsSlice())
	})
}
