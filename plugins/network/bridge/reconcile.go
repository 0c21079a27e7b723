package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/nftables"

	"github.com/sampan-project/sampan/plugins/sdk"
)

// Reconcile makes the networks and endpoints so and removes the rest that has the owner's mark. What
// fails does not keep the others from being done.
func (d *driver) Reconcile(ctx context.Context, owner string, networks []bridgeNetwork, endpoints []sdk.Endpoint) error {
	byID := map[string]bridgeNetwork{}
	known := map[string]bool{} // first 12 digits of networks and endpoints
	var errs []error
	for _, n := range networks {
		byID[n.ID] = n
		known["network "+n.ID[:12]] = true
	}
	for _, e := range endpoints {
		known["endpoint "+e.ID[:12]] = true
	}
	// First away with the unknown: it may hold the name of a bridge or an address that is wanted.
	errs = append(errs, d.removeUnknown(owner, known))
	for _, n := range networks {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := d.CreateNetwork(ctx, n); err != nil {
			errs = append(errs, fmt.Errorf("network %s: %w", n.Name, err))
			continue
		}
		keep := func(o element) bool { return known["endpoint "+o.endpoint] }
		errs = append(errs, d.changePorts(n.ID, keep, nil))
	}
	for _, e := range endpoints {
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.NetNS == "" {
			continue // its container is about to be detached
		}
		if _, err := d.Attach(ctx, byID[e.NetworkID], e); err != nil {
			errs = append(errs, fmt.Errorf("endpoint %s of container %.12s: %w", e.ID[:12], e.ContainerID, err))
		}
	}
	return together(errs...)
}

// together is several errors in one line.
func together(errs ...error) error {
	var all error
	for _, err := range errs {
		switch {
		case err == nil:
		case all == nil:
			all = err
		default:
			all = fmt.Errorf("%w; %w", all, err)
		}
	}
	return all
}

// removeUnknown removes links, tables and rules in others' tables with the owner's mark.
func (d *driver) removeUnknown(owner string, known map[string]bool) error {
	links, err := d.host.links()
	if err != nil {
		return err
	}
	var requests []request
	for _, l := range links {
		if m, ok := parseMark(l.alias); ok && m.owner == owner && !known[m.what+" "+m.id] {
			requests = append(requests, deleteLink(l.name))
		}
	}
	err = d.host.do(requests...)
	return together(err, d.removeTables(owner, known), d.removeForeign(func(m mark) bool {
		return m.owner == owner && !known[m.what+" "+m.id]
	}))
}

func (d *driver) removeTables(owner string, known map[string]bool) error {
	var chains []*nftables.Chain
	err := d.nft.with(func(c *nftables.Conn) (err error) {
		chains, err = c.ListChainsOfTableFamily(nftables.TableFamilyINet)
		return err
	})
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	var errs []error
	for _, ch := range chains {
		id, ours := strings.CutPrefix(ch.Table.Name, "sampan_")
		if ours && len(id) == 12 && ch.Name == ownerChain+owner && !known["network "+id] {
			errs = append(errs, d.dropTable(id))
		}
	}
	return together(errs...)
}
