// Sampan is the client: docker's commands, and those of environments and build scripts.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/complete"
	"github.com/sampan-project/sampan/cmd/sampan/container"
	contexts "github.com/sampan-project/sampan/cmd/sampan/context"
	"github.com/sampan-project/sampan/cmd/sampan/image"
	"github.com/sampan-project/sampan/cmd/sampan/manual"
	"github.com/sampan-project/sampan/cmd/sampan/network"
	"github.com/sampan-project/sampan/cmd/sampan/system"
	"github.com/sampan-project/sampan/cmd/sampan/volume"
	"github.com/sampan-project/sampan/core/wire"
)

func main() {
	c := cli.New(os.Stdin, os.Stdout, os.Stderr)
	ctx, stop := c.Interruptible(context.Background())
	root := newRoot(c)
	if slices.Contains(os.Args, cobra.ShellCompRequestCmd) || slices.Contains(os.Args, cobra.ShellCompNoDescRequestCmd) {
		complete.Tree(root, c)
	}
	err := root.ExecuteContext(ctx)
	stop()
	if text := cli.Message(err); text != "" {
		fmt.Fprintln(c.Err, text)
	}
	os.Exit(c.Code(err))
}

// newRoot returns the whole tree.
func newRoot(c *cli.CLI) *cobra.Command {
	root := &cobra.Command{
		Use: "sampan [OPTIONS] COMMAND", Short: "A container engine", Args: cli.Unknown, TraverseChildren: true,
		Version: fmt.Sprintf("%s, build %s", wire.Release, wire.Commit),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("Sampan version {{.Version}}\n")
	cli.Prepare(root, c.Out, c.Err)
	cli.Groups(root)
	addGlobalFlags(root, &c.Globals)
	add := func(group string, commands ...*cobra.Command) {
		for _, cmd := range commands {
			cmd.GroupID = group
		}
		root.AddCommand(commands...)
	}
	add("common", container.Common(c)...)
	add("common", image.Common(c)...)
	add("common", system.Common(c)...)
	add("script", scripts(c)...)
	add("management", container.Group(c), contexts.Group(c), image.Group(c), network.Group(c), volume.Group(c))
	add("management", system.Groups(c)...)
	add("", container.Commands(c)...)
	add("", image.Commands(c)...)
	add("", system.Commands(c)...)
	add("", manual.New())
	return root
}

// addGlobalFlags adds docker's options before the command.
func addGlobalFlags(root *cobra.Command, g *cli.Globals) {
	f := root.Flags()
	f.StringVar(&g.ConfigDir, "config", "", `Location of client config files (default "~/.sampan")`)
	f.StringVarP(&g.Context, "context", "c", "", "Name of the context to use to connect to the daemon (overrides SAMPAN_HOST, DOCKER_HOST and the default context)")
	f.BoolVarP(&g.Debug, "debug", "D", false, "Enable debug mode")
	f.VarP(cli.Texts{Values: &g.Hosts}, "host", "H", "Daemon socket to connect to")
	f.StringVarP(&g.LogLevel, "log-level", "l", "info", `Set the logging level ("debug", "info", "warn", "error", "fatal")`)
	f.BoolVar(&g.TLS, "tls", false, "Use TLS; implied by --tlsverify")
	f.StringVar(&g.TLSCACert, "tlscacert", "", `Trust certs signed only by this CA (default "~/.sampan/ca.pem")`)
	f.StringVar(&g.TLSCert, "tlscert", "", `Path to TLS certificate file (default "~/.sampan/cert.pem")`)
	f.StringVar(&g.TLSKey, "tlskey", "", `Path to TLS key file (default "~/.sampan/key.pem")`)
	f.BoolVar(&g.TLSVerify, "tlsverify", false, "Use TLS and verify the remote")
	f.BoolP("version", "v", false, "Print version information and quit")
}
