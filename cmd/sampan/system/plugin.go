package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/wire"
)

var plugins = cli.Listing[wire.PluginInfo]{
	Columns: []cli.Column[wire.PluginInfo]{
		{Head: "KIND", Value: func(p wire.PluginInfo) string { return p.Kind }},
		{Head: "NAME", Value: func(p wire.PluginInfo) string { return p.Name }},
		{Head: "VERSION", Value: func(p wire.PluginInfo) string { return p.Version }},
		{Head: "STATE", Value: func(p wire.PluginInfo) string { return p.State }},
		{Head: "PATH", Value: func(p wire.PluginInfo) string { return p.Path }},
		{Head: "ERROR", Value: func(p wire.PluginInfo) string { return p.Error }},
	},
	Headers: cli.Headers{
		"Kind": "KIND", "Name": "NAME", "Version": "VERSION", "Path": "PATH", "Digest": "DIGEST", "State": "STATE", "Pid": "PID", "Error": "ERROR",
	},
}

func newPlugins(c *cli.CLI) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Short: "List the driver programs that the daemon has found", Aliases: []string{"list"}, Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			list, err := engine.Plugins(cmd.Context())
			if err != nil {
				return err
			}
			return plugins.Write(c.Out, format, list)
		},
	}
	cmd.Flags().StringVar(&format, "format", "", cli.FormatHelp)
	return cmd
}

func newSchemas(c *cli.CLI) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "schema [OPTIONS] [DRIVER]", Short: "Show the options of drivers", Args: cli.RangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			list, err := engine.Schemas(cmd.Context())
			if err != nil {
				return err
			}
			for _, s := range list {
				if len(args) == 1 && s.Driver != args[0] {
					continue
				}
				if format != "" {
					err = cli.One(c.Out, format, s)
				} else {
					err = writeSchema(c.Out, s)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", cli.InspectFormatHelp)
	return cmd
}

func writeSchema(out io.Writer, s wire.Schema) error {
	fmt.Fprintf(out, "%s %s %s: %s\n", s.Kind, s.Driver, s.Version, s.Doc)
	rows := [][]string{{"OPTION", "TYPE", "DEFAULT", "DESCRIPTION"}}
	for _, a := range s.Attributes {
		kind := a.Type
		if len(a.Enum) > 0 {
			kind = strings.Join(a.Enum, "|")
		}
		rows = append(rows, []string{a.Name, kind, a.Default, a.Doc})
	}
	if err := cli.Table(out, 10, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out)
	return err
}

// newDialStdio is the far end of a client with an ssh:// host.
func newDialStdio(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use: "dial-stdio", Short: "Proxy the stdio stream to the daemon connection", Args: cli.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return dialStdio(cmd.Context(), c) },
	}
}

func dialStdio(ctx context.Context, c *cli.CLI) error {
	engine, err := c.Client()
	if err != nil {
		return err
	}
	conn, err := engine.Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, c.In)
		if half, ok := conn.(client.HalfCloser); ok {
			err = errors.Join(err, half.CloseWrite())
		}
		sent <- err
	}()
	// The daemon's end is the end; that of the input alone is not.
	_, err = io.Copy(c.Out, conn)
	return err
}
