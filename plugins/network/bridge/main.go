// Sampan-network-bridge is the network driver "bridge": one Linux bridge on the host for each
// network, a veth pair for each endpoint, and one nft table for each network.
//
//	driver.go     the methods that the engine calls
//	option.go     what a network takes
//	netlink.go    links, addresses and routes as messages of rtnetlink(7)
//	bridge.go     the bridge of a network: addresses, settings of the kernel
//	endpoint.go   the veth pair of an endpoint and what is inside of its namespace
//	rules.go      the nft table: masquerade, isolation, published ports
//	ports.go      published ports, as elements of the table's maps
//	forward.go    other people's firewalls that drop what is forwarded
//	legacy.go     the same of iptables-legacy, which can only be read
//	conntrack.go  connections that the kernel remembers
//	reconcile.go  what is there, against what should be
//
// No program is run: the kernel is asked by netlink only. The driver remembers nothing. What it
// makes has a mark: links an alias "sampan OWNER network|endpoint ID", tables a chain without rules
// called owner_OWNER, rules in the tables of others a comment.
package main

import (
	"github.com/sampan-project/sampan/plugins/sdk"
)

func main() {
	sdk.ServeNetwork(sdk.Info{
		Name: "bridge", Version: "1.0", Doc: "One bridge on this host for each network, with masquerading and published ports.",
		Capabilities: []string{"publish", "ipv6", "internal"},
	}, newDriver())
}
