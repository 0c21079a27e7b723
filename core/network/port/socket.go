package port

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// Supported reports whether the protocol is one that ports can be published for.
func Supported(protocol string) bool {
	switch protocol {
	case "tcp", "udp", "sctp":
		return true
	}
	return false
}

// HostHasIPv6 reports whether programs of this host can listen on IPv6: whether ::1 can be bound.
func HostHasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}) == nil
}

// listen opens the socket that reserves b.
func listen(b Binding) (_ *os.File, err error) {
	kind, proto := unix.SOCK_STREAM, 0
	switch b.Protocol {
	case "tcp":
	case "udp":
		kind = unix.SOCK_DGRAM
	case "sctp":
		proto = unix.IPPROTO_SCTP
	default:
		return nil, &fault.Field{Field: "protocol", Given: b.Protocol, Expected: "tcp, udp or sctp"}
	}
	family := unix.AF_INET
	if b.Address.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err == unix.EPROTONOSUPPORT || err == unix.EAFNOSUPPORT || err == unix.ESOCKTNOSUPPORT {
		return nil, fault.New(fault.NotImplemented, "publish %s: this kernel has no such protocol: %w", b, err)
	}
	if err != nil {
		return nil, fmt.Errorf("publish %s: socket: %w", b, err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err := setup(fd, b); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), b.String()), nil
}

func setup(fd int, b Binding) error {
	if b.Address.Is6() {
		// [::] must not reserve 0.0.0.0 as well: that is a binding of its own.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fmt.Errorf("publish %s: IPV6_V6ONLY: %w", b, err)
		}
	}
	if b.Protocol == "tcp" {
		// Connections in TIME_WAIT that an earlier server left must not hold the port for a
		// minute. A listening socket still excludes every other one; see socket(7).
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return fmt.Errorf("publish %s: SO_REUSEADDR: %w", b, err)
		}
	}
	if err := dropAll(fd); err != nil {
		return fmt.Errorf("publish %s: socket filter: %w", b, err)
	}
	if err := unix.Bind(fd, sockaddr(b)); err != nil {
		if err == unix.EADDRNOTAVAIL {
			return fault.New(fault.Invalid, "failed to bind host port %s: cannot assign requested address: this host has no address %s", b, b.Address)
		}
		return fmt.Errorf("failed to bind host port %s: %w", b, err)
	}
	if b.Protocol == "udp" {
		return nil
	}
	if err := unix.Listen(fd, 1); err != nil {
		return fmt.Errorf("failed to bind host port %s: listen: %w", b, err)
	}
	return nil
}

// dropAll makes the socket drop every packet that reaches it.
func dropAll(fd int) error {
	program, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		return err
	}
	filter := []unix.SockFilter{{Code: program[0].Op, Jt: program[0].Jt, Jf: program[0].Jf, K: program[0].K}}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

func sockaddr(b Binding) unix.Sockaddr {
	if b.Address.Is4() {
		return &unix.SockaddrInet4{Port: int(b.Port), Addr: b.Address.As4()}
	}
	return &unix.SockaddrInet6{Port: int(b.Port), Addr: b.Address.As16()}
}
