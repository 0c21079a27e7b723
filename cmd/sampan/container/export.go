package container

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/wire"
)

func newExport(c *cli.CLI) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "export [OPTIONS] CONTAINER", Short: "Export a container's filesystem as a tar archive", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			return c.ToFile(output, func() (io.ReadCloser, error) { return engine.ContainerExport(cmd.Context(), args[0]) })
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	return cli.Also(cmd, "sampan container export, sampan export")
}

func newCommit(c *cli.CLI) *cobra.Command {
	var o client.CommitOptions
	var pause bool
	var changes cli.List
	cmd := &cobra.Command{
		Use: "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]", Short: "Create a new image from a container's changes", Args: cli.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				o.Ref = args[1]
			}
			o.Changes, o.NoPause = changes.Values, !pause
			engine, err := c.Client()
			if err != nil {
				return err
			}
			id, err := engine.ContainerCommit(cmd.Context(), args[0], o)
			if err == nil {
				fmt.Fprintln(c.Out, id)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVarP(&o.Author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	f.VarP(&changes, "change", "c", "Apply Dockerfile instruction to the created image")
	f.StringVarP(&o.Comment, "message", "m", "", "Commit message")
	f.BoolVarP(&pause, "pause", "p", true, "Pause container during commit")
	return cli.Also(cmd, "sampan container commit, sampan commit")
}

func newUpdate(c *cli.CLI) *cobra.Command {
	var limits resources
	var restart string
	cmd := &cobra.Command{
		Use: "update [OPTIONS] CONTAINER [CONTAINER...]", Short: "Update configuration of one or more containers", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().NFlag() == 0 {
				return &cli.Usage{Command: cmd.CommandPath(), Err: fmt.Errorf("you must provide one or more flags when using this command")}
			}
			limits.pidsSet = cmd.Flags().Changed("pids-limit")
			r, err := limits.wire()
			if err != nil {
				return err
			}
			request := wire.UpdateRequest{Resources: r}
			if restart != "" {
				if request.RestartPolicy, err = restartPolicy(restart); err != nil {
					return err
				}
			}
			return each(cmd, c, args, func(ctx context.Context, engine *client.Client, name string) error {
				warnings, err := engine.ContainerUpdate(ctx, name, request)
				for _, w := range warnings {
					fmt.Fprintf(c.Err, "WARNING: %s\n", w)
				}
				return err
			})
		},
	}
	f := cmd.Flags()
	limits.addFlags(f)
	f.StringVar(&restart, "restart", "", "Restart policy to apply when a container exits")
	return cli.Also(cmd, "sampan container update, sampan update")
}
