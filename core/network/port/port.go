// Package port reserves ports of the host for containers.
//
// A reservation is a real socket, bound and, for TCP, listening: the kernel itself then refuses the
// port to anybody else as long as the socket is open, and the monitor keeps it open as long as the
// container lives. Packets for the port are sent on to the container by the driver's rules before
// they reach the socket; those that come before the rules are there are dropped by the socket, so
// that the client tries again instead of talking to nobody. What comes to an IPv6 address and has no
// rule the monitor takes from the socket and forwards (network.Sandbox.Forward).
package port

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// grace is how long a port that was released may still be held by the monitor, which closes its
// sockets by itself when the container is deleted.
const grace = 500 * time.Millisecond

// Binding is one port of one address of the host.
type Binding struct {
	Protocol string // tcp, udp, sctp
	Address  netip.Addr
	Port     uint16
}

// String is as in error messages: "0.0.0.0:8001/tcp".
func (b Binding) String() string {
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(b.Address, b.Port), b.Protocol)
}

// Allocator knows which ports are reserved, and by whom. It is safe for parallel use.
type Allocator struct {
	low, high uint16

	mu       sync.Mutex
	held     map[key][]holder
	released map[key]time.Time
	next     uint16 // where the search for a free port goes on
}

type key struct {
	protocol string
	port     uint16
}

type holder struct {
	address netip.Addr
	owner   string
}

// NewAllocator returns an allocator that takes ports that nobody chose from the kernel's range of
// ephemeral ports, ip_local_port_range in ip(7).
func NewAllocator() *Allocator {
	a := &Allocator{low: 32768, high: 60999, held: map[key][]holder{}, released: map[key]time.Time{}}
	if data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		if f := strings.Fields(string(data)); len(f) == 2 {
			low, err1 := strconv.ParseUint(f[0], 10, 16)
			high, err2 := strconv.ParseUint(f[1], 10, 16)
			if err1 == nil && err2 == nil && 0 < low && low <= high {
				a.low, a.high = uint16(low), uint16(high)
			}
		}
	}
	a.next = a.low
	return a
}

// Range is the ports from which one is chosen; the zero Range is any free port.
type Range struct{ Low, High uint16 }

// Reserve binds the same port on all addresses for owner and returns it with its sockets. The port
// is the first free one of the range. When there is none the error says what is wrong with the
// first, in Docker's words, which clients look for.
func (a *Allocator) Reserve(protocol string, addresses []netip.Addr, r Range, owner string) (uint16, []*os.File, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r == (Range{}) {
		return a.any(protocol, addresses, owner)
	}
	var first error
	for p := uint32(r.Low); p <= uint32(r.High); p++ {
		files, err := a.reserve(protocol, addresses, uint16(p), owner)
		if err == nil {
			return uint16(p), files, nil
		}
		if first == nil {
			first = err
		}
		if !errors.Is(err, errTaken) {
			break
		}
	}
	return 0, nil, first
}

// any goes round the ephemeral range, so that a port that was just given up is not given out at once.
func (a *Allocator) any(protocol string, addresses []netip.Addr, owner string) (uint16, []*os.File, error) {
	size := int(a.high) - int(a.low) + 1
	for range size {
		p := a.next
		if a.next++; a.next > a.high || a.next < a.low {
			a.next = a.low
		}
		if _, recent := a.released[key{protocol, p}]; recent && time.Since(a.released[key{protocol, p}]) < grace {
			continue
		}
		files, err := a.reserve(protocol, addresses, p, owner)
		if err == nil {
			return p, files, nil
		}
		if !errors.Is(err, errTaken) {
			return 0, nil, err
		}
	}
	return 0, nil, fault.New(fault.Conflict, "all ports are allocated: none of %d to %d is free for %s", a.low, a.high, protocol)
}

// errTaken marks the errors after which another port may do.
var errTaken = errors.New("taken")

type takenError struct{ error }

func (takenError) Is(target error) bool { return target == errTaken }
func (e takenError) Unwrap() error      { return e.error }

func (a *Allocator) reserve(protocol string, addresses []netip.Addr, port uint16, owner string) (_ []*os.File, err error) {
	k := key{protocol, port}
	for _, address := range addresses {
		for _, h := range a.held[k] {
			if clash(h.address, address) {
				return nil, takenError{fault.New(fault.Conflict, "Bind for %s failed: port is already allocated", netip.AddrPortFrom(address, port))}
			}
		}
	}
	var files []*os.File
	defer func() {
		if err != nil {
			for _, f := range files {
				f.Close()
			}
		}
	}()
	for _, address := range addresses {
		f, err := a.open(Binding{protocol, address, port})
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	for _, address := range addresses {
		a.held[k] = append(a.held[k], holder{address, owner})
	}
	return files, nil
}

// open binds; when the port was ours a moment ago it waits for the monitor to let go.
func (a *Allocator) open(b Binding) (*os.File, error) {
	for {
		f, err := listen(b)
		if !errors.Is(err, unix.EADDRINUSE) {
			return f, err
		}
		at, ours := a.released[key{b.Protocol, b.Port}]
		if !ours || time.Since(at) > grace {
			return nil, takenError{fault.New(fault.Conflict, "failed to bind host port %s: address already in use (by a process of the host); stop it, or choose another port", b)}
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// clash reports whether two bindings of one port exclude each other.
func clash(a, b netip.Addr) bool {
	if a.Is4() != b.Is4() {
		return false
	}
	return a == b || a.IsUnspecified() || b.IsUnspecified()
}

// Adopt notes a reservation whose socket somebody else has: the monitor, of a container that lived
// through a restart of the daemon.
func (a *Allocator) Adopt(b Binding, owner string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := key{b.Protocol, b.Port}
	a.held[k] = append(a.held[k], holder{b.Address, owner})
}

// Release forgets what owner reserved. The sockets are closed by those who have them.
func (a *Allocator) Release(owner string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for k, at := range a.released {
		if now.Sub(at) > grace {
			delete(a.released, k)
		}
	}
	for k, holders := range a.held {
		var rest []holder
		for _, h := range holders {
			if h.owner != owner {
				rest = append(rest, h)
			}
		}
		if len(rest) == len(holders) {
			continue
		}
		a.released[k] = now
		if len(rest) == 0 {
			delete(a.held, k)
		} else {
			a.held[k] = rest
		}
	}
}
