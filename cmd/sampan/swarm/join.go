package swarm

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func newJoin(c *cli.CLI) *cobra.Command {
	var r wire.SwarmJoinRequest
	var given string
	listen := nodeAddress{"0.0.0.0:" + listenPort}
	cmd := &cobra.Command{
		Use: "join [OPTIONS] HOST:PORT", Short: "Join a swarm as a node and/or manager", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if r.Availability, err = availability(cmd.Flags(), given); err != nil {
				return err
			}
			r.ListenAddr, r.RemoteAddrs = listen.value, args
			return join(cmd.Context(), c, r)
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.AdvertiseAddr, "advertise-addr", "", `Advertised address (format: "<ip|interface>[:port]")`)
	f.StringVar(&given, "availability", "active", `Availability of the node ("active", "pause", "drain")`)
	f.StringVar(&r.DataPathAddr, "data-path-addr", "", `Address or interface to use for data path traffic (format: "<ip|interface>")`)
	f.Var(&listen, "listen-addr", `Listen address (format: "<ip|interface>[:port]")`)
	f.StringVar(&r.JoinToken, "token", "", "Token for entry into the swarm")
	return cmd
}

func join(ctx context.Context, c *cli.CLI, r wire.SwarmJoinRequest) error {
	engine, err := c.Client()
	if err != nil {
		return err
	}
	if err := engine.SwarmJoin(ctx, r); err != nil {
		return err
	}
	info, err := engine.Info(ctx)
	if err != nil {
		return err
	}
	role := wire.RoleWorker
	if info.Swarm.ControlAvailable {
		role = wire.RoleManager
	}
	fmt.Fprintf(c.Out, "This node joined a swarm as a %s.\n", role)
	return nil
}

func newJoinToken(c *cli.CLI) *cobra.Command {
	var rotate, quiet bool
	cmd := &cobra.Command{
		Use: "join-token [OPTIONS] (worker|manager)", Short: "Manage join tokens", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return showToken(cmd.Context(), c, args[0], rotate, quiet)
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display token")
	cmd.Flags().BoolVar(&rotate, "rotate", false, "Rotate join token")
	return cmd
}

func showToken(ctx context.Context, c *cli.CLI, role string, rotate, quiet bool) error {
	if role != wire.RoleWorker && role != wire.RoleManager {
		return fault.New(fault.Invalid, "unknown role %s", role)
	}
	engine, err := c.Client()
	if err != nil {
		return err
	}
	if rotate {
		swarm, err := engine.SwarmInspect(ctx)
		if err != nil {
			return err
		}
		which := wire.SwarmRotation{WorkerToken: role == wire.RoleWorker, ManagerToken: role == wire.RoleManager}
		if err := engine.SwarmUpdate(ctx, swarm.Version, swarm.Spec, which); err != nil {
			return err
		}
		if !quiet {
			fmt.Fprintf(c.Out, "Successfully rotated %s join token.\n\n", role)
		}
	}
	if quiet {
		swarm, err := engine.SwarmInspect(ctx)
		if err == nil {
			fmt.Fprintln(c.Out, token(swarm, role))
		}
		return err
	}
	if _, err := engine.SwarmInspect(ctx); err != nil { // it says it if this is no manager
		return err
	}
	info, err := engine.Info(ctx)
	if err != nil {
		return err
	}
	return printJoin(ctx, c.Out, engine, info.Swarm.NodeID, role)
}
