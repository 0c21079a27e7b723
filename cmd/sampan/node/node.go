// Package node has the commands about the nodes of a swarm.
//
// list.go shows them, pretty.go is inspect --pretty, update.go changes what users decide of them.
package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/task"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Group returns `sampan node`.
func Group(c *cli.CLI) *cobra.Command {
	return cli.Group("node", "Manage Swarm nodes", newDemote(c), newInspect(c), newList(c), newPromote(c), newPs(c), newRemove(c), newUpdate(c))
}

// Reference is the ID of a node that is called self, and any other reference as it is.
func Reference(ctx context.Context, engine *client.Client, ref string) (string, error) {
	if ref != "self" {
		return ref, nil
	}
	info, err := engine.Info(ctx)
	if err != nil {
		return "", err
	}
	if info.Swarm.NodeID != "" {
		return info.Swarm.NodeID, nil
	}
	if _, err := engine.NodeList(ctx, nil); err != nil {
		return "", err // it says why there is none
	}
	return "", fault.New(fault.Unavailable, "the daemon does not say which node it is")
}

func newInspect(c *cli.CLI) *cobra.Command {
	var pretty bool
	var format string
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] self|NODE [NODE...]", Short: "Display detailed information on one or more nodes", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.HasPrefix(format, "pretty") && format != "pretty" && !pretty {
				return fault.New(fault.Invalid, "cannot supply extra formatting options to the pretty template")
			}
			engine, err := c.Client()
			if err != nil {
				return err
			}
			get := func(ref string) (json.RawMessage, error) {
				id, err := Reference(cmd.Context(), engine, ref)
				if err != nil {
					return nil, err
				}
				return engine.NodeInspectRaw(cmd.Context(), id)
			}
			if pretty || format == "pretty" {
				return printPretty(c.Out, args, get)
			}
			return cli.Inspect(c.Out, args, format, func(ref string) (any, json.RawMessage, error) {
				raw, err := get(ref)
				if err != nil {
					return nil, nil, err
				}
				v, err := Typed(raw)
				return v, raw, err
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", cli.InspectFormatHelp)
	cmd.Flags().BoolVar(&pretty, "pretty", false, "Print the information in a human friendly format")
	return cmd
}

// Typed returns what the daemon says of a node for a template.
var Typed = cli.Typed[wire.Node]("node")

func newRemove(c *cli.CLI) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] NODE [NODE...]", Short: "Remove one or more nodes from the swarm", Aliases: []string{"remove"}, Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range args { // one after the other: each is a change of who decides
				if err := engine.NodeRemove(cmd.Context(), name, force); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintln(c.Out, name)
			}
			return cli.Join(errs)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force remove a node from the swarm")
	return cmd
}

func newPs(c *cli.CLI) *cobra.Command {
	var list task.Listing
	cmd := &cobra.Command{
		Use: "ps [OPTIONS] [NODE...]", Short: "List tasks running on one or more nodes, defaults to current node",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"self"}
			}
			engine, err := c.Client()
			if err != nil {
				return err
			}
			var tasks []wire.Task
			var errs []error
			for _, ref := range args {
				found, err := tasksOn(cmd.Context(), engine, ref, list.Filters.Values)
				if err != nil {
					errs = append(errs, err)
				}
				tasks = append(tasks, found...)
			}
			if len(errs) == 0 || len(tasks) > 0 {
				errs = append(errs, list.Print(cmd.Context(), c, engine, tasks))
			}
			return errors.Join(errs...)
		},
	}
	list.AddFlags(cmd.Flags())
	return cmd
}

// tasksOn are the tasks on a node that match the filters.
func tasksOn(ctx context.Context, engine *client.Client, ref string, filters client.Filters) ([]wire.Task, error) {
	id, err := Reference(ctx, engine, ref)
	if err != nil {
		return nil, err
	}
	node, err := engine.NodeInspect(ctx, id)
	if err != nil {
		return nil, err
	}
	on := client.Filters{"node": {node.ID}}
	for key, values := range filters {
		on[key] = append(on[key], values...)
	}
	return engine.TaskList(ctx, on)
}
