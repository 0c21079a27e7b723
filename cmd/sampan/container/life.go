package container

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
)

func newStop(c *cli.CLI) *cobra.Command {
	return newEnding(c, "stop", "Stop", " running ", (*client.Client).ContainerStop)
}

func newRestart(c *cli.CLI) *cobra.Command {
	return newEnding(c, "restart", "Restart", " ", (*client.Client).ContainerRestart)
}

// newEnding returns stop or restart.
func newEnding(c *cli.CLI, verb, title, which string, do func(*client.Client, context.Context, string, string, *int) error) *cobra.Command {
	var signal string
	var timeout int
	cmd := &cobra.Command{
		Use: verb + " [OPTIONS] CONTAINER [CONTAINER...]", Short: title + " one or more" + which + "containers", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var seconds *int
			if cmd.Flags().Changed("timeout") && cmd.Flags().Changed("time") {
				return fault.New(fault.Invalid, "conflicting options: cannot specify both --timeout and --time")
			}
			if cmd.Flags().Changed("timeout") || cmd.Flags().Changed("time") {
				seconds = &timeout
			}
			return each(cmd, c, args, func(ctx context.Context, engine *client.Client, name string) error {
				return do(engine, ctx, name, signal, seconds)
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	f.IntVarP(&timeout, "timeout", "t", 0, "Seconds to wait before killing the container")
	f.IntVar(&timeout, "time", 0, "Seconds to wait before killing the container")
	f.MarkHidden("time") //nolint:errcheck // it is a flag of ours
	return cli.Also(cmd, "sampan container "+verb+", sampan "+verb)
}

func newKill(c *cli.CLI) *cobra.Command {
	var signal string
	cmd := &cobra.Command{
		Use: "kill [OPTIONS] CONTAINER [CONTAINER...]", Short: "Kill one or more running containers", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return each(cmd, c, args, func(ctx context.Context, engine *client.Client, name string) error {
				return engine.ContainerKill(ctx, name, signal)
			})
		},
	}
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	return cli.Also(cmd, "sampan container kill, sampan kill")
}

func newPause(c *cli.CLI) *cobra.Command {
	return newPlain(c, "pause", "Pause all processes within one or more containers", (*client.Client).ContainerPause)
}

func newUnpause(c *cli.CLI) *cobra.Command {
	return newPlain(c, "unpause", "Unpause all processes within one or more containers", (*client.Client).ContainerUnpause)
}

// newPlain returns a verb without options.
func newPlain(c *cli.CLI, verb, short string, do func(*client.Client, context.Context, string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " CONTAINER [CONTAINER...]", Short: short, Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return each(cmd, c, args, func(ctx context.Context, engine *client.Client, name string) error { return do(engine, ctx, name) })
		},
	}
	return cli.Also(cmd, "sampan container "+verb+", sampan "+verb)
}

func newRename(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use: "rename CONTAINER NEW_NAME", Short: "Rename a container", Args: cli.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			if strings.TrimSpace(args[1]) == "" {
				return fault.New(fault.Invalid, "error renaming %s: the new name is empty", args[0])
			}
			return engine.ContainerRename(cmd.Context(), args[0], args[1])
		},
	}
	return cli.Also(cmd, "sampan container rename, sampan rename")
}

func newRemove(c *cli.CLI) *cobra.Command {
	var o client.RemoveOptions
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] CONTAINER [CONTAINER...]", Short: "Remove one or more containers", Aliases: []string{"remove"}, Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			return cli.Each(c.Out, args, func(name string) (string, error) {
				err := engine.ContainerRemove(cmd.Context(), strings.TrimPrefix(name, "/"), o)
				if o.Force && fault.Is(err, fault.NotFound) { // not there is as wanted, and nothing was removed
					fmt.Fprintln(c.Err, cli.Message(err))
					return "", nil
				}
				return name, err
			})
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.Force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	f.BoolVarP(&o.Link, "link", "l", false, "Remove the specified link")
	f.BoolVarP(&o.Volumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	return cli.Also(cmd, "sampan container rm, sampan container remove, sampan rm")
}

func newWait(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use: "wait CONTAINER [CONTAINER...]", Short: "Block until one or more containers stop, then print their exit codes", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			return cli.Each(c.Out, args, func(name string) (string, error) {
				wait, err := engine.ContainerWait(cmd.Context(), name, client.WaitNotRunning)
				if err != nil {
					return "", err
				}
				answer, err := wait()
				if err == nil && answer.Error != nil {
					err = fault.New(fault.Internal, "%s", answer.Error.Message)
				}
				return fmt.Sprint(answer.StatusCode), err
			})
		},
	}
	return cli.Also(cmd, "sampan container wait, sampan wait")
}

func newPrune(c *cli.CLI) *cobra.Command {
	var force bool
	filters := cli.Filters{Keys: []string{"until", "label", "label!"}}
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove all stopped containers", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			if ok, err := c.Sure(force, "This will remove all stopped containers."); !ok {
				return err
			}
			report, err := engine.ContainerPrune(cmd.Context(), filters.Values)
			if err != nil {
				return err
			}
			c.Pruned("Deleted Containers:", report.ContainersDeleted)
			c.Reclaimed(report.SpaceReclaimed)
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().Var(&filters, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}
