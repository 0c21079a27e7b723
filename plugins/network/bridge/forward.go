package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
)

// A packet is forwarded only if no base chain of any table drops it: an accept in our table is worth
// nothing to another. Docker, and some firewalls, set the policy of iptables' chain FORWARD to
// drop, and so would cut off our networks (and with br_netfilter even containers from each other).
//
// So where the policy is drop, each network appends two rules to that chain, which are what
// iptables itself would write for
//
//	-A FORWARD -i BRIDGE -j ACCEPT
//	-A FORWARD -o BRIDGE -j ACCEPT
//
// or, of an internal network, the one rule for what stays on the bridge,
//
//	-A FORWARD -i BRIDGE -o BRIDGE -j ACCEPT
//
// At the end, so that every rule that somebody wrote there has its say before; only the policy is
// answered. What may come in is still decided by our own chain. They have our mark as a comment and
// go with the network.
//
// The limits: a policy of iptables-legacy is not in nf_tables (legacy.go: a warning with the commands that
// help), and another firewall's own rules that drop are left alone: they are the administrator's.
const forwardChain = "FORWARD"

func filterTable(f nftables.TableFamily) *nftables.Table {
	return &nftables.Table{Name: "filter", Family: f}
}

var ipFamilies = []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6}

// passForeign appends the rules where they are needed and missing.
func (d *driver) passForeign(n bridgeNetwork) error {
	d.warnLegacy(bridgeName(n))
	for _, f := range ipFamilies {
		if f == nftables.TableFamilyIPv6 && !n.IPv6 {
			continue
		}
		if err := d.passIn(f, n); err != nil {
			return fmt.Errorf("rules for bridge %s in chain %s: %w", bridgeName(n), forwardChain, err)
		}
	}
	return nil
}

func (d *driver) passIn(f nftables.TableFamily, n bridgeNetwork) error {
	return d.nft.with(func(c *nftables.Conn) error {
		chain, err := c.ListChain(filterTable(f), forwardChain)
		if err != nil || chain == nil || chain.Hooknum == nil || chain.Policy == nil || *chain.Policy != nftables.ChainPolicyDrop {
			return ignoreMissing(err)
		}
		chain.Table = filterTable(f)
		rules, err := c.GetRules(chain.Table, chain)
		if err != nil {
			return err
		}
		comment := ruleComment(networkMark(n))
		for _, r := range rules {
			if bytes.Equal(r.UserData, comment) {
				return nil
			}
		}
		bridge := bridgeName(n)
		in, out := inputInterface(bridge), outputInterface(bridge, expr.CmpOpEq)
		matches := [][]expr.Any{in, out}
		if n.Internal {
			matches = [][]expr.Any{rule(in, out)}
		}
		for _, match := range matches {
			// With a counter, as iptables has it: then iptables can read the rule.
			exprs := rule(match, []expr.Any{&expr.Counter{}}, accept)
			c.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: exprs, UserData: comment})
		}
		return c.Flush()
	})
}

func ruleComment(m mark) []byte {
	return userdata.AppendString(nil, userdata.TypeComment, m.String())
}

// unpassForeign takes back the rules of a network.
func (d *driver) unpassForeign(m mark) error {
	return d.removeForeign(func(other mark) bool { return other == m })
}

// removeForeign removes the rules whose mark unwanted accepts.
func (d *driver) removeForeign(unwanted func(mark) bool) error {
	for _, f := range ipFamilies {
		err := d.nft.with(func(c *nftables.Conn) error {
			chain, err := c.ListChain(filterTable(f), forwardChain)
			if err != nil || chain == nil {
				return ignoreMissing(err)
			}
			chain.Table = filterTable(f)
			rules, err := c.GetRules(chain.Table, chain)
			if err != nil {
				return err
			}
			for _, r := range rules {
				text, _ := userdata.GetString(r.UserData, userdata.TypeComment)
				if m, ok := parseMark(text); ok && unwanted(m) {
					r.Table, r.Chain = chain.Table, chain
					if err := c.DelRule(r); err != nil {
						return err
					}
				}
			}
			return c.Flush()
		})
		if err != nil && !gone(err) {
			return fmt.Errorf("rules in chain %s: %w", forwardChain, err)
		}
	}
	return nil
}

func ignoreMissing(err error) error {
	if err != nil && (gone(err) || strings.Contains(err.Error(), "no such file")) {
		return nil
	}
	return err
}

// check reports whether nf_tables answers.
func (f *nft) check() error {
	return f.with(func(c *nftables.Conn) error {
		_, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
		return err
	})
}
