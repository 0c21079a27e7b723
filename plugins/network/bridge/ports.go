package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/plugins/sdk"
)

// Published ports are elements of four maps, two for each family, so that a thousand of them cost
// a packet as much as one, and each comes and goes without a rule being touched:
//
//	address4  destination address . protocol . port : container address . port
//	any4      the same without the address, for ports published on 0.0.0.0
//
// Two more are no translation but the container ports that are published, for those who reach the
// containers at their own addresses (gateway mode routed, trusted interfaces):
//
//	open4      container address . protocol . port : the same
//
// An element's comment is the endpoint whose it is.
var protocols = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

const (
	mapAddress4, mapAny4 = "address4", "any4"
	mapAddress6, mapAny6 = "address6", "any6"
	mapOpen4, mapOpen6   = "open4", "open6"
)

func portMaps(t *nftables.Table) []*nftables.Set {
	of := func(name string, types ...nftables.SetDatatype) *nftables.Set {
		address := nftables.TypeIPAddr
		if name == mapAddress6 || name == mapAny6 || name == mapOpen6 {
			address = nftables.TypeIP6Addr
		}
		key := append(types, nftables.TypeInetProto, nftables.TypeInetService)
		return &nftables.Set{
			Table: t, Name: name, IsMap: true, Concatenation: true,
			KeyType:  nftables.MustConcatSetType(key...),
			DataType: nftables.MustConcatSetType(address, nftables.TypeInetService),
		}
	}
	return []*nftables.Set{
		of(mapAddress4, nftables.TypeIPAddr), of(mapAny4),
		of(mapAddress6, nftables.TypeIP6Addr), of(mapAny6),
		of(mapOpen4, nftables.TypeIPAddr), of(mapOpen6, nftables.TypeIP6Addr),
	}
}

// The registers of nf_tables are 16 of 4 bytes; the first is number 8 (NFT_REG32_00).
const reg = 8

// publish sends what comes to this host's addresses on:
//
//	fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @address4
func publish() [][]expr.Any {
	return [][]expr.Any{
		publishBy(mapAddress4, unix.NFPROTO_IPV4), publishBy(mapAny4, unix.NFPROTO_IPV4),
		publishBy(mapAddress6, unix.NFPROTO_IPV6), publishBy(mapAny6, unix.NFPROTO_IPV6),
	}
}

// ip6 daddr != ::1. IPv6 has no route_localnet: an answer that br_netfilter translates back to ::1 is
// dropped as it comes from outside. A client that is refused goes on to 127.0.0.1; one that hears
// nothing waits.
var notLoopback6 = []expr.Any{
	&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 24, Len: 16},
	&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: netip.IPv6Loopback().AsSlice()},
}

func publishBy(name string, family byte) []expr.Any {
	length, offset := uint32(4), uint32(16)
	if family == unix.NFPROTO_IPV6 {
		length, offset = 16, 24
	}
	words, next := rule(ofFamily(family), toThisHost), uint32(reg)
	if family == unix.NFPROTO_IPV6 {
		words = append(words, notLoopback6...)
	}
	if name == mapAddress4 || name == mapAddress6 {
		words = append(words, &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length})
		next += length / 4
	}
	return append(words,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: next},
		&expr.Payload{DestRegister: next + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg, DestRegister: reg, IsDestRegSet: true, SetName: name},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(family), RegAddrMin: reg, RegProtoMin: reg + length/4},
	)
}

// isOpen is a packet to a container's published port: the lookup of what is not in the map ends the rule.
//
//	ip daddr . meta l4proto . th dport map @open4
func isOpen(v4 bool) []expr.Any {
	name, length, offset := mapOpen6, uint32(16), uint32(24)
	if v4 {
		name, length, offset = mapOpen4, 4, 16
	}
	next := reg + length/4
	return append(ofFamily(familyOf(v4)),
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: next},
		&expr.Payload{DestRegister: next + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg, DestRegister: reg, IsDestRegSet: true, SetName: name},
	)
}

// elements are the endpoint's ports, by map. A port on an IPv6 address needs an endpoint with one;
// on an internal network nothing is published.
func elements(n bridgeNetwork, e sdk.Endpoint) map[string][]nftables.SetElement {
	out := map[string][]nftables.SetElement{}
	if n.Internal {
		return out
	}
	for _, p := range e.Ports {
		host := p.HostAddress.Unmap()
		to := addressOf(e, host.Is4())
		if !to.IsValid() {
			continue
		}
		opened := mapOpen6
		if to.Is4() {
			opened = mapOpen4
		}
		value := appendPort(to.AsSlice(), p.ContainerPort)
		open := nftables.SetElement{Key: appendPort(append(to.AsSlice(), protocols[p.Protocol], 0, 0, 0), p.ContainerPort), Val: value, Comment: e.ID[:12]}
		if !slices.ContainsFunc(out[opened], func(o nftables.SetElement) bool { return bytes.Equal(o.Key, open.Key) }) {
			out[opened] = append(out[opened], open)
		}
		if p.HostPort == 0 {
			continue
		}
		name, key := mapAny6, []byte(nil)
		switch {
		case host.Is4() && host.IsUnspecified():
			name = mapAny4
		case host.Is4():
			name, key = mapAddress4, host.AsSlice()
		case !host.IsUnspecified():
			name, key = mapAddress6, host.AsSlice()
		}
		key = append(key, protocols[p.Protocol], 0, 0, 0)
		out[name] = append(out[name], nftables.SetElement{
			Key: appendPort(key, p.HostPort), Val: value, Comment: e.ID[:12],
		})
	}
	return out
}

// appendPort pads to a register.
func appendPort(b []byte, port uint16) []byte {
	return append(binary.BigEndian.AppendUint16(b, port), 0, 0)
}

func addressOf(e sdk.Endpoint, v4 bool) netip.Addr {
	for _, a := range e.Addresses {
		if a.Addr().Is4() == v4 {
			return a.Addr()
		}
	}
	return netip.Addr{}
}

// addPorts publishes the ports of an endpoint that has none yet.
func (d *driver) addPorts(n bridgeNetwork, e sdk.Endpoint) error {
	want := elements(n, e)
	if len(want) == 0 {
		return nil
	}
	err := d.nft.with(func(c *nftables.Conn) error {
		for _, m := range portMaps(tableOf(n.ID)) {
			if len(want[m.Name]) > 0 {
				if err := c.SetAddElements(m, want[m.Name]); err != nil {
					return err
				}
			}
		}
		return c.Flush()
	})
	if err == nil {
		return nil
	}
	if gone(err) {
		return sdk.Errorf(sdk.NotFound, "network %s has no table: it was not created or was taken away", n.Name)
	}
	// Something is in the way: an endpoint that died without Detach.
	return d.changePorts(n.ID, func(element) bool { return false }, want)
}

// element is one of a map, as keep sees it.
type element struct {
	endpoint string // first 12 digits
}

// changePorts makes the maps have the elements wanted, without those that are in their way, and
// without those that keep refuses; in one transaction.
func (d *driver) changePorts(networkID string, keep func(element) bool, want map[string][]nftables.SetElement) error {
	err := d.nft.with(func(c *nftables.Conn) error {
		changed := false
		for _, m := range portMaps(tableOf(networkID)) {
			have, err := c.GetSetElements(m)
			if err != nil {
				return err
			}
			remove, add := difference(have, want[m.Name], keep)
			if len(remove) > 0 {
				changed = true
				if err := c.SetDeleteElements(m, remove); err != nil {
					return err
				}
			}
			if len(add) > 0 {
				changed = true
				if err := c.SetAddElements(m, add); err != nil {
					return err
				}
			}
		}
		if !changed {
			return nil
		}
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("published ports: %w", err)
	}
	return nil
}

func difference(have, want []nftables.SetElement, keep func(element) bool) (remove, add []nftables.SetElement) {
	there := map[string]bool{}
	for _, h := range have {
		sameKey, same := false, false
		for _, w := range want {
			if bytes.Equal(w.Key, h.Key) {
				sameKey, same = true, bytes.Equal(w.Val, h.Val) && w.Comment == h.Comment
				break
			}
		}
		switch {
		case same:
			there[string(h.Key)] = true
		case sameKey || !keep(element{endpoint: h.Comment}):
			remove = append(remove, nftables.SetElement{Key: h.Key, Val: h.Val})
		}
	}
	for _, w := range want {
		if !there[string(w.Key)] {
			add = append(add, w)
		}
	}
	return remove, add
}

// dropPorts takes an endpoint's ports back. That the network is gone is no error.
func (d *driver) dropPorts(n bridgeNetwork, e sdk.Endpoint) error {
	err := d.changePorts(n.ID, func(o element) bool { return o.endpoint != e.ID[:12] }, nil)
	if err != nil && (gone(err) || !d.tableExists(n.ID)) {
		return nil
	}
	return err
}

func (d *driver) tableExists(networkID string) bool {
	err := d.nft.with(func(c *nftables.Conn) error {
		t, err := c.ListTableOfFamily(tableName(networkID), nftables.TableFamilyINet)
		if err == nil && t == nil {
			err = errors.New("no such table")
		}
		return err
	})
	return err == nil
}
