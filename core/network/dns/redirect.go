package dns

import (
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// table is the name of the table in containers' namespaces.
const table = "sampan_dns"

// redirect sends port 53 of Address, in the namespace, to the server's ports. It replaces the rules
// of an earlier server.
func redirect(ns *os.File, udp, tcp uint16) error {
	c, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())), nftables.AsLasting())
	if err != nil {
		return err
	}
	defer c.CloseLasting() //nolint:errcheck // Flush has told what matters
	t := &nftables.Table{Name: table, Family: nftables.TableFamilyIPv4}
	old, err := c.ListTablesOfFamily(t.Family)
	if err != nil {
		return err
	}
	// Only when it is there, since a transaction that deletes waits for all processors to have
	// seen it: 10 ms, which the start of a container need not wait for.
	if slices.ContainsFunc(old, func(o *nftables.Table) bool { return o.Name == table }) {
		c.DelTable(t)
	}
	c.AddTable(t)
	chain := c.AddChain(&nftables.Chain{
		Name: "output", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
	})
	for proto, port := range map[byte]uint16{unix.IPPROTO_UDP: udp, unix.IPPROTO_TCP: tcp} {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: redirectRule(proto, port)})
	}
	return c.Flush()
}

// redirectRule is: ip daddr 127.0.0.11 PROTO dport 53 dnat to 127.0.0.11:PORT
func redirectRule(proto byte, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: Address.AsSlice()},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(53)},
		&expr.Immediate{Register: 1, Data: Address.AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	}
}
