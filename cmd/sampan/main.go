// Sampan is the client: docker's commands, and those of environments and build scripts.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/complete"
	"github.com/sampan-project/sampan/cmd/sampan/container"
	contexts "github.com/sampan-project/sampan/cmd/sampan/context"
	"github.com/sampan-project/sampan/cmd/sampan/image"
	"github.com/sampan-project/sampan/cmd/sampan/manifest"
	"github.com/sampan-project/sampan/cmd/sampan/manual"
	"github.com/sampan-project/sampan/cmd/sampan/network"
	"github.com/sampan-project/sampan/cmd/sampan/node"
	"github.com/sampan-project/sampan/cmd/sampan/registry"
	"github.com/sampan-project/sampan/cmd/sampan/service"
	"github.com/sampan-project/sampan/cmd/sampan/swarm"
	"github.com/sampan-project/sampan/cmd/sampan/system"
	"github.com/sampan-project/sampan/cmd/sampan/trust"
	"github.com/sampan-project/sampan/cmd/sampan/volume"
	"github.com/sampan-project/sampan/core/wire"
)

func main() {
	c := cli.New(os.Stdin, os.Stdout, os.Stderr)
	ctx, stop := c.Interruptible(context.Background())
	root := newRootFor(c, os.Args[1:])
	if slices.Contains(os.Args, cobra.ShellCompRequestCmd) || slices.Contains(os.Args, cobra.ShellCompNoDescRequestCmd) {
		complete.Tree(root, c)
	}
	err := root.ExecuteContext(ctx)
	stop()
	if err == nil {
		err = c.Out.Failed() // a page of help, or a table, that did not arrive
	}
	if text := cli.Message(err); text != "" {
		fmt.Fprintln(c.Err, text)
	}
	os.Exit(c.Code(err))
}

// tree is what stands at the root, by the heading under which help shows it.
var tree = []struct {
	group string
	verbs []cli.Verb
}{
	{"common", container.Common},
	{"common", image.Common},
	{"common", system.Common},
	{"script", scripts},
	{"management", []cli.Verb{
		{Name: "container", New: container.Group}, {Name: "context", New: contexts.Group}, {Name: "image", New: image.Group}, {Name: "manifest", New: manifest.Group},
		{Name: "network", New: network.Group}, {Name: "registry", New: registry.Group}, {Name: "trust", New: trust.Group}, {Name: "volume", New: volume.Group},
	}},
	{"management", system.Groups},
	{"swarm", []cli.Verb{{Name: "node", New: node.Group}, {Name: "service", New: service.Group}, {Name: "swarm", New: swarm.Group}}},
	{"", container.Commands},
	{"", image.Commands},
	{"", system.Commands},
}

// newRoot returns the whole tree.
func newRoot(c *cli.CLI) *cobra.Command {
	root := bareRoot(c)
	for _, section := range tree {
		for _, v := range section.verbs {
			addVerb(root, c, v, section.group)
		}
	}
	root.AddCommand(manual.New())
	root.AddCommand(manual.Topics()...)
	return root
}

// newRootFor returns the tree that a command line needs: the one command that it calls, and otherwise, as help,
// completion and mistakes are about all of them, the whole.
func newRootFor(c *cli.CLI, args []string) *cobra.Command {
	root := bareRoot(c)
	if word := firstWord(root.Flags(), args); word != "" {
		for _, section := range tree {
			if i := slices.IndexFunc(section.verbs, func(v cli.Verb) bool { return v.Name == word }); i >= 0 {
				addVerb(root, c, section.verbs[i], section.group)
				root.CompletionOptions.DisableDefaultCmd = true
				return root
			}
		}
	}
	return newRoot(c)
}

func addVerb(root *cobra.Command, c *cli.CLI, v cli.Verb, group string) {
	cmd := v.New(c)
	cmd.GroupID = group
	root.AddCommand(cmd)
}

// firstWord is the command among the arguments, behind the options that may stand before it; "" is when that takes
// cobra to tell.
func firstWord(flags *pflag.FlagSet, args []string) string {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if !strings.HasPrefix(arg, "-") {
			return arg
		}
		name, long := strings.CutPrefix(arg, "--")
		name, _, whole := strings.Cut(name, "=")
		var f *pflag.Flag
		switch {
		case long && name != "":
			f = flags.Lookup(name)
		case len(arg) == 2 && !long:
			f = flags.ShorthandLookup(arg[1:])
		}
		if f == nil {
			return ""
		}
		if !whole && f.NoOptDefVal == "" {
			i++
		}
	}
	return ""
}

// bareRoot returns the root, without a command.
func bareRoot(c *cli.CLI) *cobra.Command {
	root := &cobra.Command{
		Use: "sampan [OPTIONS] COMMAND", Short: "A container engine", Args: cli.Unknown, TraverseChildren: true,
		Version: fmt.Sprintf("%s, build %s", wire.Release, wire.Commit),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("Sampan version {{.Version}}\n")
	cli.Prepare(root, c.Out, c.Err)
	cli.Groups(root)
	addGlobalFlags(root, &c.Globals)
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
