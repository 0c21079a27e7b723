package system

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/wire"
)

func newCheck(c *cli.CLI) *cobra.Command {
	var repair, verify bool
	cmd := &cobra.Command{
		Use: "check [OPTIONS]", Short: "Compare what the daemon knows with the disk and the kernel", Args: cli.NoArgs,
		Long: "Compare what the daemon knows with the disk and the kernel, and print a line for each thing that is inconsistent.\n\n" +
			"The exit status is 0 when there is nothing, or when everything was repaired, and 1 otherwise.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			found, err := engine.Check(cmd.Context(), verify, repair)
			if err != nil {
				return err
			}
			left := false
			for _, f := range found {
				left = left || f.Repaired == ""
				fmt.Fprintln(c.Out, describe(f))
			}
			if left {
				return &cli.Exit{Code: cli.CodeFailed}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "Mend what can be mended without loss")
	cmd.Flags().BoolVar(&verify, "verify", false, "Read every blob and compare it with its digest")
	return cmd
}

// describe is the finding in one line, with what was or can be done about it.
func describe(f wire.Finding) string {
	line := fmt.Sprintf("%s %s: %s", f.Kind, f.Subject, f.Problem)
	switch {
	case f.Repaired != "":
		return line + " (repaired: " + f.Repaired + ")"
	case f.Error != "":
		return line + " (not repaired: " + f.Error + ")"
	case f.Mendable:
		return line + " (--repair mends it)"
	case f.Advice != "":
		return line + " (" + f.Advice + ")"
	}
	return line
}
