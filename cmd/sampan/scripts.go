package main

import (
	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
)

// scripts returns the commands of environments and build scripts.
func scripts(c *cli.CLI) []*cobra.Command {
	return nil
}
