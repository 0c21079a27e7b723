package context

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/context/store"
	"github.com/sampan-project/sampan/core/fault"
)

func newRemove(c *cli.CLI) *cobra.Command {
	var force bool
	cmd := cli.Also(&cobra.Command{
		Use: "rm CONTEXT [CONTEXT...]", Aliases: []string{"remove"}, Short: "Remove one or more contexts", Args: cli.MinArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var errs []error
			for _, name := range args {
				if err := remove(c, name, force); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintln(c.Out, name)
			}
			return cli.Join(errs)
		},
	}, "sampan context rm, sampan context remove")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of a context in use")
	return cmd
}

// remove removes a context. By force also the current one, which is the default then, and one that is not
// there.
func remove(c *cli.CLI, name string, force bool) error {
	if name == store.Default {
		return fault.New(fault.Invalid, "context %q cannot be removed", name)
	}
	current := name == c.ContextName()
	if current && !force {
		return fault.New(fault.Conflict, "context %q is in use, set -f flag to force remove", name)
	}
	valid := store.CheckName(name) == nil
	switch _, err := own(c, name); {
	case !valid, fault.Is(err, fault.NotFound):
		if !force {
			return fault.New(fault.NotFound, "context %q does not exist", name)
		}
	case fault.Is(err, fault.Conflict): // docker's
		return err
	}
	if current {
		if err := c.UseContext(""); err != nil {
			return err
		}
	}
	if !valid {
		return nil // there can be none
	}
	return c.Contexts().Remove(name)
}
