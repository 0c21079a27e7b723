package script

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/starlark/graph"
	"github.com/sampan-project/sampan/starlark/plan"
)

// codeChanges is the exit code of a plan that has changes.
const codeChanges = 2

// NewPlan is `sampan plan`.
func NewPlan(c *cli.CLI) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use: "plan [OPTIONS] [FILE]", Short: "Show what apply would change", Args: cli.RangeArgs(0, 1), GroupID: "script",
		Long:    "Show what apply would change.\n\nFILE is a script that declares an environment, env.star by default. The exit code is 0 when there\nis nothing to do, and 2 when there is.",
		Example: "  sampan plan --arg port=8001",
	}
	o.flags(cmd)
	o.jsonFlag(cmd)
	cmd.RunE = o.verb(c, func(ctx context.Context, e *client.Client, g *graph.Graph) error {
		p, err := plan.Make(ctx, e, g)
		if err != nil {
			return err
		}
		if o.json {
			if err := printJSON(c.Out, p); err != nil {
				return err
			}
		} else {
			p.Print(c.Out)
		}
		if !p.Empty() {
			return &cli.Exit{Code: codeChanges}
		}
		return nil
	})
	return cmd
}
