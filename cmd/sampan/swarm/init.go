package swarm

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func newInit(c *cli.CLI) *cobra.Command {
	var o options
	var r wire.SwarmInitRequest
	var given string
	var pools []net.IPNet
	listen := nodeAddress{"0.0.0.0:" + listenPort}
	cmd := &cobra.Command{
		Use: "init [OPTIONS]", Short: "Initialize a swarm", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if r.Availability, err = availability(cmd.Flags(), given); err != nil {
				return err
			}
			r.ListenAddr, r.AutoLockManagers = listen.value, o.autolock
			r.DefaultAddrPool = []string{}
			for _, p := range pools {
				r.DefaultAddrPool = append(r.DefaultAddrPool, p.String())
			}
			o.apply(&r.Spec, cmd.Flags(), "")
			return begin(cmd.Context(), c, r)
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.AdvertiseAddr, "advertise-addr", "", `Advertised address (format: "<ip|interface>[:port]")`)
	f.StringVar(&given, "availability", "active", `Availability of the node ("active", "pause", "drain")`)
	f.StringVar(&r.DataPathAddr, "data-path-addr", "", `Address or interface to use for data path traffic (format: "<ip|interface>")`)
	f.Uint32Var(&r.DataPathPort, "data-path-port", 0, "Port number to use for data path traffic (1024 - 49151). If no value is set or is set to 0, the default port (4789) is used.")
	f.IPNetSliceVar(&pools, "default-addr-pool", nil, "default address pool in CIDR format")
	f.Uint32Var(&r.SubnetSize, "default-addr-pool-mask-length", 24, "default address pool subnet mask length")
	f.BoolVar(&r.ForceNewCluster, "force-new-cluster", false, "Force create a new cluster from current state")
	f.Var(&listen, "listen-addr", `Listen address (format: "<ip|interface>[:port]")`)
	o.addFlags(f, "Enable manager autolocking (requiring an unlock key to start a stopped manager)")
	return cmd
}

func begin(ctx context.Context, c *cli.CLI, r wire.SwarmInitRequest) error {
	engine, err := c.Client()
	if err != nil {
		return err
	}
	id, err := engine.SwarmInit(ctx, r)
	if err != nil {
		if text := err.Error(); strings.Contains(text, "could not choose an IP address to advertise") || strings.Contains(text, "could not find the system's IP address") {
			return fault.New(fault.Invalid, "%w - specify one with --advertise-addr", err)
		}
		return err
	}
	fmt.Fprintf(c.Out, "Swarm initialized: current node (%s) is now a manager.\n\n", id)
	if err := printJoin(ctx, c.Out, engine, id, wire.RoleWorker); err != nil {
		return err
	}
	fmt.Fprintln(c.Out, "To add a manager to this swarm, run 'sampan swarm join-token manager' and follow the instructions.")
	if !r.AutoLockManagers {
		return nil
	}
	return showUnlockKey(ctx, c.Out, engine)
}

// printJoin says what to run on a machine that shall join the swarm in a role.
func printJoin(ctx context.Context, out *cli.Out, engine *client.Client, nodeID, role string) error {
	node, err := engine.NodeInspect(ctx, nodeID)
	if err != nil {
		return err
	}
	swarm, err := engine.SwarmInspect(ctx)
	if err != nil {
		return err
	}
	if node.ManagerStatus != nil {
		fmt.Fprintf(out, "To add a %s to this swarm, run the following command:\n\n    sampan swarm join --token %s %s\n\n", role, token(swarm, role), node.ManagerStatus.Addr)
	}
	return nil
}

// token is what a node shows to join in a role.
func token(swarm wire.Swarm, role string) string {
	if role == wire.RoleManager {
		return swarm.JoinTokens.Manager
	}
	return swarm.JoinTokens.Worker
}
