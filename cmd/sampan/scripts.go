package main

import (
	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/script"
)

// scripts returns the commands of environments and build scripts.
func scripts(c *cli.CLI) []*cobra.Command {
	return []*cobra.Command{
		script.NewPlan(c), script.NewApply(c), script.NewDestroy(c), script.NewGraph(c), script.NewBuild(c), script.NewScript(c),
	}
}
