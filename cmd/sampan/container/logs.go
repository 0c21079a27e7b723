package container

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
)

func newLogs(c *cli.CLI) *cobra.Command {
	o := client.LogOptions{Stdout: true, Stderr: true}
	cmd := &cobra.Command{
		Use: "logs [OPTIONS] CONTAINER", Short: "Fetch the logs of a container", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return logs(cmd.Context(), c, args[0], o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.Details, "details", false, "Show extra details provided to logs")
	f.BoolVarP(&o.Follow, "follow", "f", false, "Follow log output")
	f.StringVar(&o.Since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	f.StringVar(&o.Until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	f.StringVarP(&o.Tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	f.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show timestamps")
	return cli.Also(cmd, "sampan container logs, sampan logs")
}

func logs(ctx context.Context, c *cli.CLI, name string, o client.LogOptions) error {
	var err error
	now := time.Now()
	if o.Since, err = cli.Timestamp("--since", o.Since, now); err != nil {
		return err
	}
	if o.Until, err = cli.Timestamp("--until", o.Until, now); err != nil {
		return err
	}
	engine, err := c.Client()
	if err != nil {
		return err
	}
	k, err := engine.ContainerInspect(ctx, name, false)
	if err != nil {
		return err
	}
	if k.Config == nil {
		return errIncomplete
	}
	stream, err := engine.ContainerLogs(ctx, k.ID, o)
	if err != nil {
		return err
	}
	defer stream.Close()
	if k.Config.Tty {
		_, err = io.Copy(c.Out, stream)
	} else {
		_, err = client.StdCopy(c.Out, c.Err, stream)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
