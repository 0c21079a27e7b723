package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

// rtnl is a socket of rtnetlink(7) in one namespace. It is kept open, and messages that belong
// together go in one system call: the kernel does all of them before anything else runs here.
type rtnl struct {
	mu   sync.Mutex
	conn *netlink.Conn
}

// dial opens a socket in the namespace of the calling thread.
func (r *rtnl) dial() error {
	if r.conn != nil {
		return nil
	}
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("netlink socket: %w", err)
	}
	// Texts beside the error numbers, where the kernel has them.
	_ = c.SetOption(netlink.ExtendedAcknowledge, true)
	r.conn = c
	return nil
}

func (r *rtnl) close() {
	if r.conn != nil {
		_ = r.conn.Close()
		r.conn = nil
	}
}

// A request is one message, what it does in words, and the errors that are no failure.
type request struct {
	message netlink.Message
	what    string
	ignore  []error
}

// do sends the requests together. The kernel goes on after one that failed; the first error is
// returned.
func (r *rtnl) do(requests ...request) error {
	if len(requests) == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.dial(); err != nil {
		return err
	}
	messages := make([]netlink.Message, len(requests))
	for i, q := range requests {
		messages[i] = q.message
		messages[i].Header.Flags |= netlink.Request | netlink.Acknowledge
	}
	if _, err := r.conn.SendMessages(messages); err != nil {
		r.close()
		return fmt.Errorf("netlink: %w", err)
	}
	var first error
	for _, q := range requests {
		_, err := r.conn.Receive()
		if err == nil || isAny(err, q.ignore) {
			continue
		}
		if first == nil {
			first = fmt.Errorf("%s: %w", q.what, kernelError(err))
		}
		if !answered(err) {
			r.close() // what is still to come would be taken for the answer to something else
			break
		}
	}
	return first
}

// get sends one request and returns the messages of the answer.
func (r *rtnl) get(m netlink.Message) ([]netlink.Message, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.dial(); err != nil {
		return nil, err
	}
	m.Header.Flags |= netlink.Request
	out, err := r.conn.Execute(m)
	if err != nil && !answered(err) {
		r.close()
	}
	return out, err
}

func isAny(err error, targets []error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// answered reports whether the error is the kernel's answer, not one of the socket.
func answered(err error) bool {
	var op *netlink.OpError
	return errors.As(err, &op) && (op.Op == "receive" || op.Message != "")
}

// kernelError is the kernel's own text where it gave one, and the error number.
func kernelError(err error) error {
	var op *netlink.OpError
	if !errors.As(err, &op) {
		return err
	}
	var sys *os.SyscallError
	inner := op.Err
	if errors.As(inner, &sys) {
		inner = sys.Err
	}
	if op.Message != "" {
		return fmt.Errorf("%s: %w", strings.TrimSuffix(op.Message, "."), inner)
	}
	return inner
}

// ifinfo is struct ifinfomsg of rtnetlink(7).
func ifinfo(index int, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

// attributes encodes; the only error there is, a value of more than 64 KiB, cannot come from here.
func attributes(fn func(*netlink.AttributeEncoder)) []byte {
	ae := netlink.NewAttributeEncoder()
	fn(ae)
	b, err := ae.Encode()
	if err != nil {
		panic(err)
	}
	return b
}

func message(typ netlink.HeaderType, flags netlink.HeaderFlags, header []byte, fn func(*netlink.AttributeEncoder)) netlink.Message {
	return netlink.Message{Header: netlink.Header{Type: typ, Flags: flags}, Data: append(header, attributes(fn)...)}
}

func nested(ae *netlink.AttributeEncoder, typ uint16, fn func(*netlink.AttributeEncoder)) {
	ae.Nested(typ, func(inner *netlink.AttributeEncoder) error { fn(inner); return nil })
}

// link is what we need to know of an interface.
type link struct {
	index  int
	master int
	mtu    int
	up     bool
	ready  bool // operational: RFC 2863's state is up
	name   string
	alias  string
	kind   string
}

// linkByName returns the interface, or nil when there is none.
func (r *rtnl) linkByName(name string) (*link, error) {
	out, err := r.get(message(unix.RTM_GETLINK, 0, ifinfo(0, 0, 0), func(ae *netlink.AttributeEncoder) {
		ae.String(unix.IFLA_IFNAME, name)
	}))
	if errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", name, kernelError(err))
	}
	for _, m := range out {
		return parseLink(m.Data)
	}
	return nil, nil
}

func (r *rtnl) links() ([]*link, error) {
	out, err := r.get(message(unix.RTM_GETLINK, netlink.Dump, ifinfo(0, 0, 0), func(*netlink.AttributeEncoder) {}))
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", kernelError(err))
	}
	var all []*link
	for _, m := range out {
		l, err := parseLink(m.Data)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

const operUp = 6 // IF_OPER_UP of linux/if.h

func parseLink(b []byte) (*link, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return nil, fmt.Errorf("answer about an interface has %d bytes", len(b))
	}
	l := &link{
		index: int(binary.NativeEndian.Uint32(b[4:])),
		up:    binary.NativeEndian.Uint32(b[8:])&unix.IFF_UP != 0,
	}
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return nil, err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.IFLA_IFNAME:
			l.name = ad.String()
		case unix.IFLA_IFALIAS:
			l.alias = ad.String()
		case unix.IFLA_MASTER:
			l.master = int(ad.Uint32())
		case unix.IFLA_OPERSTATE:
			l.ready = ad.Uint8() == operUp
		case unix.IFLA_MTU:
			l.mtu = int(ad.Uint32())
		case unix.IFLA_LINKINFO:
			ad.Nested(func(info *netlink.AttributeDecoder) error {
				for info.Next() {
					if info.Type() == unix.IFLA_INFO_KIND {
						l.kind = info.String()
					}
				}
				return nil
			})
		}
	}
	return l, ad.Err()
}

// deleteLink removes an interface by name; that it is gone is no error.
func deleteLink(name string) request {
	return request{
		message: message(unix.RTM_DELLINK, 0, ifinfo(0, 0, 0), func(ae *netlink.AttributeEncoder) { ae.String(unix.IFLA_IFNAME, name) }),
		what:    "delete interface " + name, ignore: []error{unix.ENODEV},
	}
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// addAddress gives an interface an address; one that is there is no error.
func addAddress(index int, p netip.Prefix) request {
	header := make([]byte, unix.SizeofIfAddrmsg) // struct ifaddrmsg
	header[0], header[1] = family(p.Addr()), byte(p.Bits())
	if p.Addr().Is6() {
		header[2] = unix.IFA_F_NODAD // the engine gives each address once
	}
	binary.NativeEndian.PutUint32(header[4:], uint32(index))
	return request{
		message: message(unix.RTM_NEWADDR, netlink.Create|netlink.Excl, header, func(ae *netlink.AttributeEncoder) {
			ae.Bytes(unix.IFA_LOCAL, p.Addr().AsSlice())
			ae.Bytes(unix.IFA_ADDRESS, p.Addr().AsSlice())
			if p.Addr().Is4() && p.Bits() < 31 {
				ae.Bytes(unix.IFA_BROADCAST, broadcast(p))
			}
		}),
		what: "add address " + p.String(), ignore: []error{unix.EEXIST},
	}
}

func deleteAddress(index int, p netip.Prefix) request {
	header := make([]byte, unix.SizeofIfAddrmsg)
	header[0], header[1] = family(p.Addr()), byte(p.Bits())
	binary.NativeEndian.PutUint32(header[4:], uint32(index))
	return request{
		message: message(unix.RTM_DELADDR, 0, header, func(ae *netlink.AttributeEncoder) {
			ae.Bytes(unix.IFA_LOCAL, p.Addr().AsSlice())
		}),
		what: "remove address " + p.String(), ignore: []error{unix.EADDRNOTAVAIL},
	}
}

func broadcast(p netip.Prefix) []byte {
	b := p.Addr().As4()
	n := binary.BigEndian.Uint32(b[:]) | (1<<(32-p.Bits()) - 1)
	return binary.BigEndian.AppendUint32(nil, n)
}

// addresses are those of an interface, without those that the kernel gives itself (link-local).
func (r *rtnl) addresses(index int) ([]netip.Prefix, error) {
	out, err := r.get(message(unix.RTM_GETADDR, netlink.Dump, make([]byte, unix.SizeofIfAddrmsg), func(*netlink.AttributeEncoder) {}))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", kernelError(err))
	}
	var all []netip.Prefix
	for _, m := range out {
		if len(m.Data) < unix.SizeofIfAddrmsg || int(binary.NativeEndian.Uint32(m.Data[4:])) != index {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofIfAddrmsg:])
		if err != nil {
			return nil, err
		}
		var local, address netip.Addr
		for ad.Next() {
			switch ad.Type() {
			case unix.IFA_LOCAL:
				local, _ = netip.AddrFromSlice(ad.Bytes())
			case unix.IFA_ADDRESS:
				address, _ = netip.AddrFromSlice(ad.Bytes())
			}
		}
		if !local.IsValid() {
			local = address
		}
		if local.IsValid() && !local.IsLinkLocalUnicast() {
			all = append(all, netip.PrefixFrom(local, int(m.Data[1])))
		}
	}
	return all, nil
}

// defaultRoute is the message for a default route by a gateway and an interface.
func defaultRoute(typ netlink.HeaderType, flags netlink.HeaderFlags, index int, gateway netip.Addr) netlink.Message {
	header := make([]byte, unix.SizeofRtMsg) // struct rtmsg
	header[0] = family(gateway)
	header[4] = unix.RT_TABLE_MAIN
	if typ == unix.RTM_NEWROUTE {
		header[5], header[6], header[7] = unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST
	} else {
		header[6] = unix.RT_SCOPE_NOWHERE // of any scope
	}
	return message(typ, flags, header, func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.RTA_OIF, uint32(index))
		if !gateway.IsUnspecified() {
			ae.Bytes(unix.RTA_GATEWAY, gateway.AsSlice())
		}
	})
}

func addDefaultRoute(index int, gateway netip.Addr) request {
	return request{
		message: defaultRoute(unix.RTM_NEWROUTE, netlink.Create|netlink.Replace, index, gateway),
		what:    "add default route by " + gateway.String(),
	}
}

// deleteDefaultRoute removes the default route of a family by the interface, whatever its gateway.
func deleteDefaultRoute(index int, unspecified netip.Addr) request {
	return request{
		message: defaultRoute(unix.RTM_DELROUTE, 0, index, unspecified),
		what:    "remove default route", ignore: []error{unix.ESRCH, unix.ENOENT, unix.EAFNOSUPPORT, unix.EOPNOTSUPP},
	}
}

// deleteNeighbour forgets the link address of an address, which another container may have next.
func deleteNeighbour(index int, a netip.Addr) request {
	header := make([]byte, 12) // struct ndmsg
	header[0] = family(a)
	binary.NativeEndian.PutUint32(header[4:], uint32(index))
	return request{
		message: message(unix.RTM_DELNEIGH, 0, header, func(ae *netlink.AttributeEncoder) { ae.Bytes(unix.NDA_DST, a.AsSlice()) }),
		what:    "forget neighbour " + a.String(),
		ignore:  []error{unix.ENOENT, unix.ENXIO, unix.EINVAL, unix.ENODEV, unix.EAFNOSUPPORT, unix.EOPNOTSUPP},
	}
}

// macOf makes a link address, locally administered and unicast, from the digits of an ID.
func macOf(id string) net.HardwareAddr {
	mac := net.HardwareAddr{0x02, 0, 0, 0, 0, 0}
	for i := 1; i < len(mac); i++ {
		n, _ := strconv.ParseUint(id[2*i:2*i+2], 16, 8)
		mac[i] = byte(n)
	}
	return mac
}
