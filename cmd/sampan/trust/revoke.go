package trust

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/trust"
)

func newRevoke(c *cli.CLI) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "revoke [OPTIONS] IMAGE[:TAG]", Short: "Remove trust for an image", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := trust.ParseReference(args[0])
			if err != nil {
				return err
			}
			if ref.Digest != "" {
				return fault.New(fault.Invalid, "cannot use a digest reference for IMAGE:TAG")
			}
			if ref.Tag == "" && !yes {
				sure, err := c.Confirm(fmt.Sprintf("Confirm you would like to delete all signature data for %s?", args[0]))
				if err != nil {
					return err
				}
				if !sure {
					return fault.New(fault.Canceled, "trust revoke has been cancelled")
				}
			}
			engine, err := c.Client()
			if err != nil {
				return err
			}
			auth, err := c.Auth(args[0])
			if err != nil {
				return err
			}
			if _, err := engine.Revoke(cmd.Context(), ref.String(), auth); err != nil {
				return fmt.Errorf("could not remove signature for %s: %w", args[0], err)
			}
			fmt.Fprintf(c.Out, "Successfully deleted signature for %s\n", args[0])
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "Do not prompt for confirmation")
	return cmd
}
