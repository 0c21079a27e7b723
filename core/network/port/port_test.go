package port

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/fault"
)

var (
	all      = netip.MustParseAddr("0.0.0.0")
	loopback = netip.MustParseAddr("127.0.0.1")
	second   = netip.MustParseAddr("127.0.0.2")
)

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func only(p uint16) Range { return Range{p, p} }

// freePort is a port that nobody had a moment ago.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func TestReserveExcludesOthers(t *testing.T) {
	a := NewAllocator()
	p, files, err := a.Reserve("tcp", []netip.Addr{loopback}, Range{}, "web")
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(files)
	if l, err := net.Listen("tcp4", netip.AddrPortFrom(loopback, p).String()); err == nil {
		l.Close()
		t.Error("another process can listen on a reserved port")
	}
	for _, address := range []netip.Addr{loopback, all} {
		_, _, err := a.Reserve("tcp", []netip.Addr{address}, only(p), "db")
		if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "port is already allocated") {
			t.Errorf("a second container on %s: %v", address, err)
		}
	}
	// Another address and another protocol are other ports.
	for protocol, address := range map[string]netip.Addr{"tcp": second, "udp": loopback} {
		_, more, err := a.Reserve(protocol, []netip.Addr{address}, only(p), "db")
		if err != nil {
			t.Errorf("%s on %s: %v", protocol, address, err)
		}
		closeAll(more)
	}
}

func TestReserveTakenByAProcess(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := uint16(l.Addr().(*net.TCPAddr).Port)
	a := NewAllocator()
	begun := time.Now()
	_, _, err = a.Reserve("tcp", []netip.Addr{loopback}, only(p), "web")
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
	if time.Since(begun) > grace/2 {
		t.Error("nothing to wait for: the port was never ours")
	}
	// Of a range the next one is taken.
	if got, files, err := a.Reserve("tcp", []netip.Addr{loopback}, Range{p, p + 5}, "web"); err != nil || got == p {
		t.Errorf("range: %d, %v", got, err)
	} else {
		closeAll(files)
	}
}

// The monitor closes its sockets a little after the manager has released the port.
func TestReserveWaitsForTheMonitor(t *testing.T) {
	a := NewAllocator()
	p, files, err := a.Reserve("tcp", []netip.Addr{loopback}, only(freePort(t)), "web")
	if err != nil {
		t.Fatal(err)
	}
	a.Release("web")
	go func() {
		time.Sleep(30 * time.Millisecond)
		closeAll(files)
	}()
	_, again, err := a.Reserve("tcp", []netip.Addr{loopback}, only(p), "web")
	if err != nil {
		t.Fatal(err)
	}
	closeAll(again)
}

func TestReserveAllOrNothing(t *testing.T) {
	a := NewAllocator()
	nowhere := netip.MustParseAddr("203.0.113.7")
	p := freePort(t)
	_, _, err := a.Reserve("tcp", []netip.Addr{loopback, nowhere}, only(p), "web")
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "cannot assign requested address") {
		t.Fatalf("an address that the host does not have: %v", err)
	}
	_, files, err := a.Reserve("tcp", []netip.Addr{loopback}, only(p), "db")
	if err != nil {
		t.Errorf("what failed holds nothing: %v", err)
	}
	closeAll(files)
}

func TestAdopt(t *testing.T) {
	a := NewAllocator()
	a.Adopt(Binding{"tcp", all, 8001}, "web")
	if _, _, err := a.Reserve("tcp", []netip.Addr{loopback}, only(8001), "db"); !fault.Is(err, fault.Conflict) {
		t.Errorf("an adopted port: %v", err)
	}
	a.Release("web")
	if len(a.held) != 0 {
		t.Errorf("held after release: %v", a.held)
	}
}

// A client that comes before the rules must not find a listener that never answers.
func TestSocketDropsWhatReachesIt(t *testing.T) {
	a := NewAllocator()
	p, files, err := a.Reserve("tcp", []netip.Addr{loopback}, Range{}, "web")
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(files)
	c, err := net.DialTimeout("tcp4", netip.AddrPortFrom(loopback, p).String(), 50*time.Millisecond)
	if err == nil {
		c.Close()
		t.Error("the reservation accepted a connection")
	}
}

func TestRandomPortsDiffer(t *testing.T) {
	a := NewAllocator()
	seen := map[uint16]bool{}
	for range 20 {
		p, files, err := a.Reserve("udp", []netip.Addr{loopback}, Range{}, "web")
		if err != nil {
			t.Fatal(err)
		}
		defer closeAll(files)
		if seen[p] || p < a.low || p > a.high {
			t.Errorf("port %d again, or outside of %d to %d", p, a.low, a.high)
		}
		seen[p] = true
	}
}
