package server

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// heldSocket is a socket of ::1 as core/network/port reserves it: with a filter that drops everything.
func heldSocket(t *testing.T, network string) (*os.File, string) {
	t.Helper()
	var f *os.File
	var address string
	program, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		t.Fatal(err)
	}
	if network == "tcp6" {
		var plain net.ListenConfig
		plain.SetMultipathTCP(false) // which takes no filter
		l, err := plain.Listen(t.Context(), network, "[::1]:0")
		if err != nil {
			t.Skipf("this machine has no IPv6: %v", err)
		}
		address = l.Addr().String()
		f, err = l.(*net.TCPListener).File()
		l.Close()
		if err != nil {
			t.Fatal(err)
		}
	} else {
		c, err := net.ListenPacket(network, "[::1]:0")
		if err != nil {
			t.Skipf("this machine has no IPv6: %v", err)
		}
		address = c.LocalAddr().String()
		f, err = c.(*net.UDPConn).File()
		_ = c.Close() // f is a duplicate
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { f.Close() })
	if err := attachFilter(f, program); err != nil {
		t.Fatal(err)
	}
	return f, address
}

// says is a server that answers each connection, or datagram, with a word and what it got.
func says(t *testing.T, network, word string) netip.AddrPort {
	t.Helper()
	if network == "tcp" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
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
				got, _ := io.ReadAll(c)
				_, _ = c.Write([]byte(word + string(got)))
				c.Close()
			}
		}()
		return l.Addr().(*net.TCPAddr).AddrPort()
	}
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(word+string(b[:n])), from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestForwardConnections(t *testing.T) {
	held, address := heldSocket(t, "tcp6")
	list, err := forwardAll([]*os.File{held}, []netip.AddrPort{says(t, "tcp", "first ")})
	if err != nil {
		t.Fatal(err)
	}
	c := &container{forwarders: list}
	ask := func(want string) {
		t.Helper()
		conn, err := net.Dial("tcp6", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = conn.Write([]byte("hello"))
		_ = conn.(*net.TCPConn).CloseWrite() // the server answers at the end: it must hear of it
		if got, err := io.ReadAll(conn); string(got) != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
	ask("first hello")
	c.forward([]netip.AddrPort{says(t, "tcp", "second ")})
	ask("second hello")
	c.forward(nil)
	ask("")
	closeForwarders(list)
	held.Close()
	if conn, err := net.Dial("tcp6", address); err == nil {
		conn.Close()
		t.Error("the port is still served")
	}
}

func TestForwardDatagrams(t *testing.T) {
	held, address := heldSocket(t, "udp6")
	list, err := forwardAll([]*os.File{nil, held}, []netip.AddrPort{{}, says(t, "udp", "first ")})
	if err != nil {
		t.Fatal(err)
	}
	defer closeForwarders(list)
	conn, err := net.Dial("udp6", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func(want string) {
		t.Helper()
		b := make([]byte, 100)
		for end := time.Now().Add(10 * time.Second); ; { // a datagram that comes while the target changes is lost
			_, _ = conn.Write([]byte("hello"))
			_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			if n, _ := conn.Read(b); string(b[:n]) == want {
				return
			} else if time.Now().After(end) {
				t.Fatalf("got %q, want %q", b[:n], want)
			}
		}
	}
	ask("first hello")
	(&container{forwarders: list}).forward([]netip.AddrPort{{}, says(t, "udp", "second ")})
	ask("second hello")
}

func attachFilter(f *os.File, program []bpf.RawInstruction) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	filter := []unix.SockFilter{{Code: program[0].Op, Jt: program[0].Jt, Jf: program[0].Jf, K: program[0].K}}
	controlled := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &filter[0]})
	})
	return errors.Join(controlled, err)
}
