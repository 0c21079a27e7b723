package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// errAsItIs is a node that already is as it shall be.
var errAsItIs = errors.New("the node is so already")

// change applies a change to each node, and says so of each. The first that fails is the last.
func change(ctx context.Context, c *cli.CLI, refs []string, edit func(*wire.Node) error, done func(ref string)) error {
	engine, err := c.Client()
	if err != nil {
		return err
	}
	for _, ref := range refs {
		node, err := engine.NodeInspect(ctx, ref)
		if err != nil {
			return err
		}
		switch err := edit(&node); {
		case errors.Is(err, errAsItIs):
			continue
		case err != nil:
			return err
		}
		if err := engine.NodeUpdate(ctx, node.ID, node.Version, node.Spec); err != nil {
			return err
		}
		done(ref)
	}
	return nil
}

// newRole returns a command that gives nodes a role.
func newRole(c *cli.CLI, role, use, short, already, done string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return change(cmd.Context(), c, args, func(n *wire.Node) error {
				if n.Spec.Role == role {
					fmt.Fprintf(c.Out, already, n.ID)
					return errAsItIs
				}
				n.Spec.Role = role
				return nil
			}, func(ref string) { fmt.Fprintf(c.Out, done, ref) })
		},
	}
}

func newPromote(c *cli.CLI) *cobra.Command {
	return newRole(c, wire.RoleManager, "promote NODE [NODE...]", "Promote one or more nodes to manager in the swarm",
		"Node %s is already a manager.\n", "Node %s promoted to a manager in the swarm.\n")
}

func newDemote(c *cli.CLI) *cobra.Command {
	return newRole(c, wire.RoleWorker, "demote NODE [NODE...]", "Demote one or more nodes from manager in the swarm",
		"Node %s is already a worker.\n", "Manager %s demoted in the swarm.\n")
}

func newUpdate(c *cli.CLI) *cobra.Command {
	var role, availability string
	var add, remove cli.List
	cmd := &cobra.Command{
		Use: "update [OPTIONS] NODE", Short: "Update a node", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return change(cmd.Context(), c, args, func(n *wire.Node) error {
				if cmd.Flags().Changed("role") {
					n.Spec.Role = role
				}
				if cmd.Flags().Changed("availability") {
					n.Spec.Availability = availability
				}
				if n.Spec.Labels == nil {
					n.Spec.Labels = map[string]string{}
				}
				for name, value := range cli.ToMap(add.Values) {
					n.Spec.Labels[name] = value
				}
				for _, name := range remove.Values {
					if _, ok := n.Spec.Labels[name]; !ok {
						return fault.New(fault.NotFound, "key %s doesn't exist in node's labels", name)
					}
					delete(n.Spec.Labels, name)
				}
				return nil
			}, func(ref string) { fmt.Fprintln(c.Out, ref) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&availability, "availability", "", `Availability of the node ("active", "pause", "drain")`)
	f.Var(&add, "label-add", `Add or update a node label ("key=value")`)
	f.Var(&remove, "label-rm", "Remove a node label if exists")
	f.StringVar(&role, "role", "", `Role of the node ("worker", "manager")`)
	return cmd
}
