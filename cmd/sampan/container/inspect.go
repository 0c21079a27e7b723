package container

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/wire"
)

func newInspect(c *cli.CLI) *cobra.Command {
	var format string
	var size bool
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] CONTAINER [CONTAINER...]", Short: "Display detailed information on one or more containers", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			return cli.Inspect(c.Out, args, format, func(name string) (any, json.RawMessage, error) {
				raw, err := engine.ContainerInspectRaw(cmd.Context(), name, size)
				if err != nil {
					return nil, nil, err
				}
				typed, err := Typed(raw)
				return typed, raw, err
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&format, "format", "f", "", cli.InspectFormatHelp)
	f.BoolVarP(&size, "size", "s", false, "Display total file sizes")
	return cmd
}

// Typed returns what the daemon says of a container for a template.
func Typed(raw json.RawMessage) (any, error) {
	var v wire.ContainerInspect
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, fmt.Errorf("decode the container: %w", err)
	}
	return v, nil
}

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
			return cli.Table(c.Out, append([][]string{answer.Titles}, answer.Processes...))
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
