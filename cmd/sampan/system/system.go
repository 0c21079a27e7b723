// Package system has the commands about the engine as a whole: version, info, events, disk usage,
// logins, plugins, and inspect, which finds a thing of any kind.
package system

import (
	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
)

// Common returns the commands that most people need, for the root of the tree.
func Common(c *cli.CLI) []*cobra.Command {
	return []*cobra.Command{newLogin(c), newLogout(c), newSearch(c), newVersion(c), newInfo(c)}
}

// Commands returns the others that stand at the root of the tree.
func Commands(c *cli.CLI) []*cobra.Command { return []*cobra.Command{newEvents(c), newInspect(c)} }

// Groups returns `sampan system` and `sampan plugin`.
func Groups(c *cli.CLI) []*cobra.Command {
	return []*cobra.Command{
		cli.Group("builder", "Manage builds", newBuildPrune(c)),
		cli.Group("system", "Manage Sampan", newCheck(c), newDiskUsage(c), newEvents(c), newInfo(c), newPrune(c), newDialStdio(c)),
		cli.Group("plugin", "Manage drivers", newPlugins(c), newSchemas(c)),
	}
}
