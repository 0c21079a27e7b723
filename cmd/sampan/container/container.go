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

// Common are the commands that most people need, for the root of the tree.
var Common = []cli.Verb{{Name: "run", New: newRun}, {Name: "exec", New: newExec}, {Name: "ps", New: newList}}

// Commands are the others, which stand at the root of the tree too.
var Commands = []cli.Verb{
	{Name: "attach", New: newAttach}, {Name: "commit", New: newCommit}, {Name: "cp", New: newCopy}, {Name: "create", New: newCreate},
	{Name: "diff", New: newDiff}, {Name: "export", New: newExport}, {Name: "kill", New: newKill}, {Name: "logs", New: newLogs},
	{Name: "pause", New: newPause}, {Name: "port", New: newPort}, {Name: "rename", New: newRename}, {Name: "restart", New: newRestart},
	{Name: "rm", New: newRemove}, {Name: "start", New: newStart}, {Name: "stats", New: newStats}, {Name: "stop", New: newStop},
	{Name: "top", New: newTop}, {Name: "unpause", New: newUnpause}, {Name: "update", New: newUpdate}, {Name: "wait", New: newWait},
}

// Group returns `sampan container`, which has all of them.
func Group(c *cli.CLI) *cobra.Command {
	list := newList(c)
	list.Use, list.Aliases = "ls [OPTIONS]", []string{"ps", "list"}
	list.Annotations = map[string]string{"aliases": "sampan container ls, sampan container list, sampan container ps, sampan ps"}
	group := cli.Group("container", "Manage containers", newRun(c), newExec(c), list, newInspect(c), newPrune(c))
	for _, v := range Commands {
		group.AddCommand(v.New(c))
	}
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
