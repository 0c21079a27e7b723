package container

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/wire"
)

func newInspect(c *cli.CLI) *cobra.Command {
	var size bool
	cmd := cli.NewInspect(c, "container", Typed, func(ctx context.Context, e *client.Client, name string) (json.RawMessage, error) {
		return e.ContainerInspectRaw(ctx, name, size)
	})
	cmd.Flags().BoolVarP(&size, "size", "s", false, "Display total file sizes")
	return cmd
}

// Typed returns what the daemon says of a container for a template.
var Typed = cli.Typed[wire.ContainerInspect]("container")

func newTop(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use: "top CONTAINER [ps OPTIONS]", Short: "Display the running processes of a container", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			answer, err := engine.ContainerTop(cmd.Context(), args[0], strings.Join(args[1:], " "))
			if err != nil {
				return err
			}
			return cli.Table(c.Out, 20, append([][]string{answer.Titles}, answer.Processes...))
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cli.Also(cmd, "sampan container top, sampan top")
}

func newDiff(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use: "diff CONTAINER", Short: "Inspect changes to files or directories on a container's filesystem", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			changes, err := engine.ContainerDiff(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			letters := map[int]string{wire.ChangeModified: "C", wire.ChangeAdded: "A", wire.ChangeDeleted: "D"}
			for _, change := range changes {
				fmt.Fprintln(c.Out, letters[change.Kind], change.Path)
			}
			return nil
		},
	}
	return cli.Also(cmd, "sampan container diff, sampan diff")
}
