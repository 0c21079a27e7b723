// Package container has the commands about containers: run, ps, logs, exec and their like, a file each
// or a few that are alike.
//
// The options of run and create are parsed in options.go and the files named by what they are about
// (ports, volumes, networks, devices, environment, resources), and become the API's request in
// request.go. stream.go joins the client's terminal to a container's.
package container

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
)

// Common returns the commands that most people need, for the root of the tree.
func Common(c *cli.CLI) []*cobra.Command {
	return []*cobra.Command{newRun(c), newExec(c), newList(c)}
}

// Commands returns the others, which stand at the root of the tree too.
func Commands(c *cli.CLI) []*cobra.Command {
	return []*cobra.Command{
		newAttach(c), newCommit(c), newCopy(c), newCreate(c), newDiff(c), newExport(c), newKill(c), newLogs(c), newPause(c),
		newPort(c), newRename(c), newRestart(c), newRemove(c), newStart(c), newStats(c), newStop(c), newTop(c), newUnpause(c),
		newUpdate(c), newWait(c),
	}
}

// Group returns `sampan container`, which has all of them.
func Group(c *cli.CLI) *cobra.Command {
	list := newList(c)
	list.Use, list.Aliases = "ls [OPTIONS]", []string{"ps", "list"}
	list.Annotations = map[string]string{"aliases": "sampan container ls, sampan container list, sampan container ps, sampan ps"}
	group := cli.Group("container", "Manage containers", newRun(c), newExec(c), list, newInspect(c), newPrune(c))
	group.AddCommand(Commands(c)...)
	return group
}

// each runs do for every container that is named, and prints their names as they were given.
func each(cmd *cobra.Command, c *cli.CLI, names []string, do func(ctx context.Context, engine *client.Client, name string) error) error {
	engine, err := c.Client()
	if err != nil {
		return err
	}
	return cli.Named(c.Out, names, func(name string) error { return do(cmd.Context(), engine, name) })
}
