package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// createOptions are create's.
type createOptions struct {
	request                      wire.NetworkCreateRequest
	ipv4, ipv6                   bool
	ipam                         wire.IPAM
	configFrom                   string
	subnets, ranges, gateways    cli.List
	auxiliary, options, ipamOpts cli.Map
	labels                       cli.List
}

func newCreate(c *cli.CLI) *cobra.Command {
	var o createOptions
	o.subnets.Commas, o.ranges.Commas, o.gateways.Commas = true, true, true
	o.auxiliary.Strict, o.ipamOpts.Strict = true, true
	r := &o.request
	cmd := &cobra.Command{
		Use: "create [OPTIONS] NETWORK", Short: "Create a network", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Name = args[0]
			if cmd.Flags().Changed("ipv4") {
				r.EnableIPv4 = &o.ipv4
			}
			if cmd.Flags().Changed("ipv6") {
				r.EnableIPv6 = &o.ipv6
			}
			if err := o.complete(); err != nil {
				return err
			}
			engine, err := c.Client()
			if err != nil {
				return err
			}
			made, err := engine.NetworkCreate(cmd.Context(), *r)
			if err != nil {
				return err
			}
			if made.Warning != "" {
				fmt.Fprintf(c.Err, "WARNING: %s\n", made.Warning)
			}
			fmt.Fprintln(c.Out, made.ID)
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&r.Attachable, "attachable", false, "Enable manual container attachment")
	f.Var(&o.auxiliary, "aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver")
	f.StringVar(&o.configFrom, "config-from", "", "The network from which to copy the configuration")
	f.BoolVar(&r.ConfigOnly, "config-only", false, "Create a configuration only network")
	f.StringVarP(&r.Driver, "driver", "d", "bridge", "Driver to manage the Network")
	f.Var(&o.gateways, "gateway", "IPv4 or IPv6 Gateway for the master subnet")
	f.BoolVar(&r.Ingress, "ingress", false, "Create swarm routing-mesh network")
	f.BoolVar(&r.Internal, "internal", false, "Restrict external access to the network")
	f.Var(&o.ranges, "ip-range", "Allocate container ip from a sub-range")
	f.StringVar(&o.ipam.Driver, "ipam-driver", "default", "IP Address Management Driver")
	f.Var(&o.ipamOpts, "ipam-opt", "Set IPAM driver specific options")
	f.BoolVar(&o.ipv4, "ipv4", true, "Enable or disable IPv4 address assignment")
	f.BoolVar(&o.ipv6, "ipv6", false, "Enable or disable IPv6 address assignment")
	f.Var(&o.labels, "label", "Set metadata on a network")
	f.VarP(&o.options, "opt", "o", "Set driver specific options")
	f.StringVar(&r.Scope, "scope", "", "Control the network's scope")
	f.Var(&o.subnets, "subnet", "Subnet in CIDR format that represents a network segment")
	return cmd
}

// complete puts the parsed flags into the request.
func (o *createOptions) complete() error {
	config, err := o.pools()
	if err != nil {
		return err
	}
	o.ipam.Config, o.ipam.Options = config, o.ipamOpts.Values
	o.request.IPAM = &o.ipam
	o.request.Options, o.request.Labels = o.options.Values, cli.ToMap(o.labels.Values)
	if o.request.Options == nil {
		o.request.Options = map[string]string{}
	}
	if o.configFrom != "" {
		o.request.ConfigFrom = &wire.ConfigReference{Network: o.configFrom}
	}
	return nil
}

// pools gives each subnet the range, gateway and auxiliary addresses that lie in it.
func (o *createOptions) pools() ([]wire.IPAMConfig, error) {
	if len(o.subnets.Values) < len(o.ranges.Values) || len(o.subnets.Values) < len(o.gateways.Values) {
		return nil, fault.New(fault.Invalid, "every ip-range or gateway must have a corresponding subnet")
	}
	var prefixes []netip.Prefix
	config := []wire.IPAMConfig{}
	for _, s := range o.subnets.Values {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, &fault.Field{Field: "--subnet", Given: s, Expected: "a subnet such as 172.28.0.0/16 or fd00:1::/64"}
		}
		if i := slices.IndexFunc(prefixes, p.Overlaps); i >= 0 {
			return nil, fault.New(fault.Invalid, "--subnet %q: expected subnets that do not overlap, and %s is one of them", s, prefixes[i])
		}
		prefixes = append(prefixes, p)
		config = append(config, wire.IPAMConfig{Subnet: s})
	}
	pool := func(flag, given, expected string, a netip.Addr, err error) (*wire.IPAMConfig, error) {
		if err != nil {
			return nil, &fault.Field{Field: flag, Given: given, Expected: expected}
		}
		if i := slices.IndexFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) }); i >= 0 {
			return &config[i], nil
		}
		return nil, fault.New(fault.Invalid, "%s %q: expected one in a subnet of %s", flag, given, strings.Join(o.subnets.Values, ", "))
	}
	for _, given := range o.ranges.Values {
		p, err := netip.ParsePrefix(given)
		c, err := pool("--ip-range", given, "a range such as 172.28.5.0/24", p.Addr(), err)
		if err != nil {
			return nil, err
		}
		if c.IPRange != "" {
			return nil, fault.New(fault.Invalid, "cannot configure multiple ranges (%s, %s) on the same subnet (%s)", given, c.IPRange, c.Subnet)
		}
		c.IPRange = given
	}
	for _, given := range o.gateways.Values {
		a, err := netip.ParseAddr(given)
		c, err := pool("--gateway", given, "an address such as 172.28.5.254", a, err)
		if err != nil {
			return nil, err
		}
		if c.Gateway != "" {
			return nil, fault.New(fault.Invalid, "cannot configure multiple gateways (%s, %s) for the same subnet (%s)", given, c.Gateway, c.Subnet)
		}
		c.Gateway = given
	}
	for name, given := range o.auxiliary.Values {
		a, err := netip.ParseAddr(given)
		c, err := pool("--aux-address", name+"="+given, "an address such as host1=172.28.1.5", a, err)
		if err != nil {
			return nil, err
		}
		if c.AuxiliaryAddresses == nil {
			c.AuxiliaryAddresses = map[string]string{}
		}
		c.AuxiliaryAddresses[name] = given
	}
	return config, nil
}
