// Package network has the commands about networks.
package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Group returns `sampan network`.
func Group(c *cli.CLI) *cobra.Command {
	return cli.Group("network", "Manage networks", newConnect(c), newCreate(c), newDisconnect(c), newInspect(c), newList(c), newPrune(c), newRemove(c))
}

// row is one network as ls shows it, in the order of Docker's JSON.
type row struct {
	CreatedAt string
	Driver    string
	ID        string
	IPv4      string
	IPv6      string
	Internal  string
	Labels    string
	Name      string
	Scope     string

	labels map[string]string
}

// Label is {{.Label "name"}}.
func (r row) Label(name string) string { return r.labels[name] }

var listing = cli.Listing[row]{
	Columns: []cli.Column[row]{
		{Head: "NETWORK ID", Value: func(r row) string { return r.ID }},
		{Head: "NAME", Value: func(r row) string { return r.Name }},
		{Head: "DRIVER", Value: func(r row) string { return r.Driver }},
		{Head: "SCOPE", Value: func(r row) string { return r.Scope }},
	},
	Headers: cli.Headers{
		"CreatedAt": "CREATED AT", "Driver": "DRIVER", "ID": "NETWORK ID", "IPv4": "IPV4", "IPv6": "IPV6", "Internal": "INTERNAL",
		"Labels": "LABELS", "Name": "NAME", "Scope": "SCOPE",
	},
	Key: "ID", RawKey: "network_id", Raw: "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}",
}

func newList(c *cli.CLI) *cobra.Command {
	var quiet, full bool
	var format string
	filters := cli.Filters{Keys: []string{"dangling", "driver", "id", "label", "name", "scope", "type"}}
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Short: "List networks", Aliases: []string{"list"}, Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return list(cmd.Context(), c, filters.Values, quiet, full, format)
		},
	}
	f := cmd.Flags()
	f.VarP(&filters, "filter", "f", `Provide filter values (e.g. "driver=bridge")`)
	f.StringVar(&format, "format", "", cli.FormatHelp)
	f.BoolVar(&full, "no-trunc", false, "Do not truncate the output")
	f.BoolVarP(&quiet, "quiet", "q", false, "Only display network IDs")
	return cmd
}

func list(ctx context.Context, c *cli.CLI, filters map[string][]string, quiet, full bool, format string) error {
	if format == "" && !quiet {
		if config, err := c.Config(); err == nil {
			format = config.NetworksFormat
		}
	}
	engine, err := c.Client()
	if err != nil {
		return err
	}
	networks, err := engine.NetworkList(ctx, filters)
	if err != nil {
		return err
	}
	slices.SortFunc(networks, func(a, b wire.NetworkInspect) int { return strings.Compare(a.Name, b.Name) })
	rows := make([]row, len(networks))
	for i, n := range networks {
		rows[i] = row{
			CreatedAt: moment(n.Created), Driver: n.Driver, ID: n.ID, IPv4: fmt.Sprint(n.EnableIPv4), IPv6: fmt.Sprint(n.EnableIPv6), Internal: fmt.Sprint(n.Internal),
			Labels: cli.Labels(n.Labels), Name: n.Name, Scope: n.Scope, labels: n.Labels,
		}
		if !full {
			rows[i].ID = cli.Short(n.ID)
		}
	}
	return listing.List(c.Out, format, quiet, rows)
}

// moment is a time of the API as Go writes it, which is how lists show it.
func moment(s string) string {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return s
	}
	return t.String()
}

func newInspect(c *cli.CLI) *cobra.Command {
	var verbose bool
	cmd := cli.NewInspect(c, "network", Typed, func(ctx context.Context, e *client.Client, name string) (json.RawMessage, error) {
		return e.NetworkInspectRaw(ctx, name, verbose)
	})
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Verbose output for diagnostics")
	return cmd
}

// Typed returns what the daemon says of a network for a template.
var Typed = cli.Typed[wire.NetworkInspect]("network")

func newRemove(c *cli.CLI) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm NETWORK [NETWORK...]", Short: "Remove one or more networks", Aliases: []string{"remove"}, Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			return cli.Each(c.Out, args, func(name string) (string, error) {
				err := engine.NetworkRemove(cmd.Context(), name)
				if force && fault.Is(err, fault.NotFound) {
					return "", nil
				}
				return name, err
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the network does not exist")
	return cmd
}

func newPrune(c *cli.CLI) *cobra.Command {
	var force bool
	filters := cli.Filters{Keys: []string{"until", "label", "label!"}}
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove all unused networks", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			if ok, err := c.Sure(force, "This will remove all custom networks not used by at least one container."); !ok {
				return err
			}
			report, err := engine.NetworkPrune(cmd.Context(), filters.Values)
			if err == nil {
				c.Pruned("Deleted Networks:", report.NetworksDeleted)
			}
			return err
		},
	}
	cmd.Flags().Var(&filters, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	return cmd
}

func newDisconnect(c *cli.CLI) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "disconnect [OPTIONS] NETWORK CONTAINER", Short: "Disconnect a container from a network", Args: cli.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			return engine.NetworkDisconnect(cmd.Context(), args[0], wire.NetworkDisconnect{Container: args[1], Force: force})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the container to disconnect from a network")
	return cmd
}

func newConnect(c *cli.CLI) *cobra.Command {
	var e wire.EndpointSettings
	var ip, ip6 string
	aliases, linkLocal, options := cli.List{Commas: true}, cli.List{Commas: true}, cli.List{Commas: true}
	var links cli.List
	cmd := &cobra.Command{
		Use: "connect [OPTIONS] NETWORK CONTAINER", Short: "Connect a container to a network", Args: cli.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errorsOf(checkAddress("--ip", ip, true), checkAddress("--ip6", ip6, false)); err != nil {
				return err
			}
			e.Aliases, e.Links = aliases.Values, links.Values
			for _, given := range options.Values {
				if key, _, ok := strings.Cut(given, "="); !ok || key == "" {
					return &fault.Field{Field: "--driver-opt", Given: given, Expected: "KEY=VALUE"}
				}
			}
			if len(options.Values) > 0 {
				e.DriverOpts = cli.ToMap(options.Values)
			}
			if ip != "" || ip6 != "" || len(linkLocal.Values) > 0 {
				e.IPAMConfig = &wire.EndpointIPAM{IPv4Address: ip, IPv6Address: ip6, LinkLocalIPs: linkLocal.Values}
			}
			engine, err := c.Client()
			if err != nil {
				return err
			}
			return engine.NetworkConnect(cmd.Context(), args[0], wire.NetworkConnect{Container: args[1], EndpointConfig: &e})
		},
	}
	f := cmd.Flags()
	f.Var(&aliases, "alias", "Add network-scoped alias for the container")
	f.Var(&options, "driver-opt", "driver options for the network")
	f.IntVar(&e.GwPriority, "gw-priority", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values")
	f.StringVar(&ip, "ip", "", `IPv4 address (e.g., "172.30.100.104")`)
	f.StringVar(&ip6, "ip6", "", `IPv6 address (e.g., "2001:db8::33")`)
	f.Var(&links, "link", "Add link to another container")
	f.Var(&linkLocal, "link-local-ip", "Add a link-local address for the container")
	return cmd
}

func checkAddress(flag, given string, v4 bool) error {
	if given == "" {
		return nil
	}
	if a, err := netip.ParseAddr(given); err != nil || a.Is4() != v4 {
		expected := "an address such as 2001:db8::33"
		if v4 {
			expected = "an address such as 172.30.100.104"
		}
		return &fault.Field{Field: flag, Given: given, Expected: expected}
	}
	return nil
}

// errorsOf returns the first error.
func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
