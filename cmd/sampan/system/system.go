// Package system has the commands about the engine as a whole: version, info, events, disk usage,
// logins, plugins, and inspect, which finds a thing of any kind.
package system

import (
	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
)

// Common are the commands that most people need, for the root of the tree.
var Common = []cli.Verb{
	{Name: "login", New: newLogin}, {Name: "logout", New: newLogout}, {Name: "search", New: newSearch}, {Name: "version", New: newVersion},
	{Name: "info", New: newInfo},
}

// Commands are the others that stand at the root of the tree.
var Commands = []cli.Verb{{Name: "events", New: newEvents}, {Name: "inspect", New: newInspect}}

// Groups are `sampan builder`, `sampan system` and `sampan plugin`.
var Groups = []cli.Verb{
	{Name: "builder", New: func(c *cli.CLI) *cobra.Command { return cli.Group("builder", "Manage builds", newBuildPrune(c)) }},
	{Name: "system", New: func(c *cli.CLI) *cobra.Command {
		return cli.Group("system", "Manage Sampan", newCheck(c), newDiskUsage(c), newEvents(c), newInfo(c), newPrune(c), newDialStdio(c))
	}},
	{Name: "plugin", New: func(c *cli.CLI) *cobra.Command {
		return cli.Group("plugin", "Manage drivers", newPlugins(c), newSchemas(c))
	}},
}
