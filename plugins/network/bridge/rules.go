package main

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// nft is a socket to nf_tables in the host's namespace, kept open. What is queued is sent by flush
// as one transaction: all of it or nothing.
type nft struct {
	mu   sync.Mutex
	conn *nftables.Conn
}

// with gives fn the connection, one caller at a time. After an error the socket is not used again:
// answers may be left in it.
func (f *nft) with(fn func(*nftables.Conn) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn == nil {
		c, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return fmt.Errorf("nf_tables: %w", err)
		}
		f.conn = c
	}
	err := fn(f.conn)
	if err != nil {
		_ = f.conn.CloseLasting() // err says more
		f.conn = nil
	}
	return err
}

const ownerChain = "owner_"

func tableName(networkID string) string { return "sampan_" + networkID[:12] }

func tableOf(networkID string) *nftables.Table {
	return &nftables.Table{Name: tableName(networkID), Family: nftables.TableFamilyINet}
}

// setRules makes the network's table so. Published ports stay what they are.
func (d *driver) setRules(n bridgeNetwork) error {
	t := tableOf(n.ID)
	update := func(c *nftables.Conn, old map[string][]nftables.SetElement) error {
		c.AddTable(t)
		c.AddChain(&nftables.Chain{Name: ownerChain + n.Owner, Table: t})
		for _, m := range portMaps(t) {
			if err := c.AddSet(m, old[m.Name]); err != nil {
				return err
			}
		}
		for _, ch := range chains(n, t) {
			c.AddChain(ch.chain)
			c.FlushChain(ch.chain)
			for _, r := range ch.rules {
				c.AddRule(&nftables.Rule{Table: t, Chain: ch.chain, Exprs: r})
			}
		}
		return c.Flush()
	}
	err := d.nft.with(func(c *nftables.Conn) error { return update(c, nil) })
	if err == nil {
		return nil
	}
	// A table of another version of this driver may have chains or maps of another kind: it is made
	// anew, with the ports that it had.
	again := d.nft.with(func(c *nftables.Conn) error {
		old := map[string][]nftables.SetElement{}
		for _, m := range portMaps(t) {
			if elements, err := c.GetSetElements(m); err == nil {
				old[m.Name] = elements
			}
		}
		c.AddTable(t)
		c.DelTable(t)
		return update(c, old)
	})
	if again != nil {
		return fmt.Errorf("rules of network %s: %w", n.Name, err)
	}
	return nil
}

// dropTable removes a network's table with everything in it.
func (d *driver) dropTable(networkID string) error {
	return d.nft.with(func(c *nftables.Conn) error {
		t := tableOf(networkID)
		c.AddTable(t) // so that deleting cannot fail; it is the same transaction
		c.DelTable(t)
		if err := c.Flush(); err != nil {
			return fmt.Errorf("remove table %s: %w", t.Name, err)
		}
		return nil
	})
}

type chainRules struct {
	chain *nftables.Chain
	rules [][]expr.Any
}

// chains are the whole of a network's rules, but for the elements of the maps.
func chains(n bridgeNetwork, t *nftables.Table) []chainRules {
	bridge := bridgeName(n)
	base := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		return &nftables.Chain{Name: name, Table: t, Type: typ, Hooknum: hook, Priority: priority}
	}
	return []chainRules{
		// A container must not reach what listens on the host's 127.0.0.1 by route_localnet.
		{base("raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw),
			[][]expr.Any{rule(inputInterface(bridge), destination(netip.MustParsePrefix("127.0.0.0/8")), drop)}},
		{base("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest), publish()},
		{base("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest), publish()},
		{base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter), forward(n, bridge)},
		{base("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource), masquerade(n, bridge)},
	}
}

// forward lets in what was asked for, and what goes to published ports. What goes to a container's
// own address comes from another network, or from outside past the published ports: neither is let in.
func forward(n bridgeNetwork, bridge string) [][]expr.Any {
	in, out := inputInterface(bridge), outputInterface(bridge, expr.CmpOpEq)
	if n.Internal {
		return [][]expr.Any{
			rule(in, out, icc(n)),
			rule(in, drop), rule(out, drop),
		}
	}
	rules := [][]expr.Any{
		rule(out, connectionState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept),
		rule(out, dnatDone, accept),
		// Packets between containers come here only when br_netfilter is loaded, or routed.
		rule(in, out, icc(n)),
	}
	for _, v4 := range []bool{true, false} {
		family := ofFamily(familyOf(v4))
		switch mode(n, v4) {
		case modeUnprotected:
			rules = append(rules, rule(out, family, accept))
		case modeRouted:
			rules = append(rules, rule(out, family, isPing(v4), accept), rule(out, isOpen(v4), accept))
		default:
			for _, name := range trusted(n) {
				rules = append(rules, rule(inputInterface(name), out, isOpen(v4), accept))
			}
		}
	}
	return append(rules, rule(out, drop))
}

func familyOf(v4 bool) byte {
	if v4 {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

// meta l4proto icmp; for IPv6 it is what the neighbours need too
func isPing(v4 bool) []expr.Any {
	proto := byte(unix.IPPROTO_ICMPV6)
	if v4 {
		proto = unix.IPPROTO_ICMP
	}
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}}}
}

func icc(n bridgeNetwork) []expr.Any {
	if n.Options.ICC {
		return accept
	}
	return drop
}

func masquerade(n bridgeNetwork, bridge string) [][]expr.Any {
	if n.Internal {
		return nil
	}
	in, away := outputInterface(bridge, expr.CmpOpEq), outputInterface(bridge, expr.CmpOpNeq)
	rules := [][]expr.Any{
		// From the host's 127.0.0.1 to a published port: the container could not answer there.
		rule(in, source(netip.MustParsePrefix("127.0.0.0/8")), masq),
	}
	for _, s := range n.Subnets {
		// From a container to a published port of the same network: the answer would go past us.
		rules = append(rules, rule(in, source(s.Prefix), destination(s.Prefix), dnatDone, masq))
		if n.Options.Masquerade && mode(n, s.Prefix.Addr().Is4()) != modeRouted {
			rules = append(rules, rule(away, source(s.Prefix), leave(n, s.Prefix)))
		}
	}
	return rules
}

// leave gives a packet its new source: the address that the user asked for or that of the interface.
func leave(n bridgeNetwork, p netip.Prefix) []expr.Any {
	a := n.Options.HostIPv6
	if p.Addr().Is4() {
		a = n.Options.HostIPv4
	}
	if !a.IsValid() {
		return masq
	}
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: a.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(nfproto(a)), RegAddrMin: 1},
	}
}

// The words that rules are made of. Each comment is how nft(8) writes it.

func rule(words ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, w := range words {
		all = append(all, w...)
	}
	return all
}

var (
	accept = []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	drop   = []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
	masq   = []expr.Any{&expr.Masq{}}

	// ct status dnat; IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h
	dnatDone = []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(1 << 5), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}

	// fib daddr type local
	toThisHost = []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
)

// iifname NAME
func inputInterface(name string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifname(name)}}
}

// oifname NAME
func outputInterface(name string, op expr.CmpOp) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: ifname(name)}}
}

func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// ct state established,related
func connectionState(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func nfproto(a netip.Addr) byte {
	if a.Is4() {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

// meta nfproto ipv4
func ofFamily(proto byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}}}
}

// ip saddr PREFIX
func source(p netip.Prefix) []expr.Any { return addressIn(p, 12, 8) }

// ip daddr PREFIX
func destination(p netip.Prefix) []expr.Any { return addressIn(p, 16, 24) }

func addressIn(p netip.Prefix, offset4, offset6 uint32) []expr.Any {
	a := p.Masked().Addr().AsSlice()
	offset := offset6
	if len(a) == 4 {
		offset = offset4
	}
	mask := make([]byte, len(a))
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return rule(ofFamily(nfproto(p.Addr())), []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(a))},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(a)), Mask: mask, Xor: make([]byte, len(a))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a},
	})
}

// gone reports whether the kernel says that there is no such table, chain or map.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) }
