package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/plugins/sdk"
)

// The kernel remembers connections, and with them the translation of their addresses. A client
// that keeps sending datagrams from one port keeps its translation for ever: to a container that is gone, and
// perhaps to the next one of that address; or to the host itself, from the time before the port was
// published. Such entries are removed. (TCP looks after itself: a new connection is a new entry.)

// From linux/netfilter/nfnetlink_conntrack.h.
const (
	ctGet, ctDelete = 1, 2

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaID         = 12
	ctaZone       = 18

	ctaTupleIP    = 1
	ctaTupleProto = 2

	ctaIPv4Src, ctaIPv6Src = 1, 3

	ctaProtoNum, ctaProtoDstPort = 1, 3
)

// tracked is what we need to know of an entry.
type tracked struct {
	family    byte
	protocol  uint8
	port      uint16     // to which the first packet went
	answer    netip.Addr // who answers it: the container, when the destination was translated
	tupleOrig []byte     // as it came, to name the entry
	id, zone  []byte
}

func ctMessage(typ uint16, flags netlink.HeaderFlags, family byte, body []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | typ), Flags: netlink.Request | flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, body...), // struct nfgenmsg
	}
}

// forgetConnections removes the entries that unwanted accepts. It is the last thing that is done, and a
// failure takes nothing back: it is said in the log.
func forgetConnections(unwanted func(tracked) bool) {
	if err := removeConnections(unwanted); err != nil {
		slog.Warn("connections of an endpoint stay in the kernel's memory", "error", err)
	}
}

func removeConnections(unwanted func(tracked) bool) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("conntrack: %w", err)
	}
	defer c.Close() //nolint:errcheck // a socket; its answers were read
	entries, err := c.Execute(ctMessage(ctGet, netlink.Dump, unix.AF_UNSPEC, nil))
	if err != nil {
		return fmt.Errorf("list connections: %w", kernelError(err))
	}
	for _, m := range entries {
		t, err := parseTracked(m.Data)
		if err != nil || !unwanted(t) {
			continue
		}
		body := attributes(func(ae *netlink.AttributeEncoder) {
			ae.Bytes(ctaTupleOrig|unix.NLA_F_NESTED, t.tupleOrig)
			if t.id != nil {
				ae.Bytes(ctaID, t.id)
			}
			if t.zone != nil {
				ae.Bytes(ctaZone, t.zone)
			}
		})
		_, err = c.Execute(ctMessage(ctDelete, netlink.Acknowledge, t.family, body))
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forget a connection: %w", kernelError(err))
		}
	}
	return nil
}

func parseTracked(b []byte) (tracked, error) {
	var t tracked
	if len(b) < 4 {
		return t, fmt.Errorf("answer of %d bytes", len(b))
	}
	t.family = b[0]
	ad, err := netlink.NewAttributeDecoder(b[4:])
	if err != nil {
		return t, err
	}
	for ad.Next() {
		switch ad.Type() {
		case ctaTupleOrig:
			t.tupleOrig = slices.Clone(ad.Bytes())
			ad.Nested(func(tuple *netlink.AttributeDecoder) error {
				return parseTuple(tuple, new(netip.Addr), &t.protocol, &t.port)
			})
		case ctaTupleReply:
			ad.Nested(func(tuple *netlink.AttributeDecoder) error {
				return parseTuple(tuple, &t.answer, new(uint8), new(uint16))
			})
		case ctaID:
			t.id = slices.Clone(ad.Bytes())
		case ctaZone:
			t.zone = slices.Clone(ad.Bytes())
		}
	}
	return t, ad.Err()
}

func parseTuple(tuple *netlink.AttributeDecoder, source *netip.Addr, protocol *uint8, port *uint16) error {
	for tuple.Next() {
		switch tuple.Type() {
		case ctaTupleIP:
			tuple.Nested(func(ip *netlink.AttributeDecoder) error {
				for ip.Next() {
					if ip.Type() == ctaIPv4Src || ip.Type() == ctaIPv6Src {
						*source, _ = netip.AddrFromSlice(ip.Bytes())
					}
				}
				return nil
			})
		case ctaTupleProto:
			tuple.Nested(func(proto *netlink.AttributeDecoder) error {
				for proto.Next() {
					switch b := proto.Bytes(); {
					case proto.Type() == ctaProtoNum && len(b) == 1:
						*protocol = b[0]
					case proto.Type() == ctaProtoDstPort && len(b) == 2:
						*port = binary.BigEndian.Uint16(b)
					}
				}
				return nil
			})
		}
	}
	return nil
}

// datagramPorts are the UDP ports that the endpoint has on the host. The kernel's list of
// connections is walked only for them.
func datagramPorts(e sdk.Endpoint) map[uint16]bool {
	ports := map[uint16]bool{}
	for _, p := range e.Ports {
		if p.Protocol == "udp" {
			ports[p.HostPort] = true
		}
	}
	return ports
}

// forgetUnpublished removes what clients of a UDP port had with the host before it was published.
func forgetUnpublished(e sdk.Endpoint) {
	if ports := datagramPorts(e); len(ports) > 0 {
		forgetConnections(func(t tracked) bool {
			return t.protocol == unix.IPPROTO_UDP && ports[t.port] && !has(e, t.answer)
		})
	}
}

// forgetEndpoint removes what is remembered of an endpoint that is gone: connections to its
// published ports, and its link address.
func (d *driver) forgetEndpoint(n bridgeNetwork, e sdk.Endpoint) {
	if len(datagramPorts(e)) > 0 {
		forgetConnections(func(t tracked) bool { return has(e, t.answer) })
	}
	l, err := d.host.linkByName(bridgeName(n))
	if err != nil || l == nil {
		return
	}
	var requests []request
	for _, a := range e.Addresses {
		requests = append(requests, deleteNeighbour(l.index, a.Addr()))
	}
	_ = d.host.do(requests...) // what is not there is no error, and the rest corrects itself
}

func has(e sdk.Endpoint, a netip.Addr) bool {
	return slices.ContainsFunc(e.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
}
