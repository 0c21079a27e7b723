// Package registry has the commands about sampan's own registry. They are a program of its own, sampan-registry,
// which this client only executes: here are the options, which the program reads with the same code.
package registry

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
)

// Serve are the options of `registry serve`.
type Serve struct {
	Root, Listen, Metrics, LogLevel string
	TLSCert, TLSKey                 string
	SelfSigned                      bool
	Users                           string
	ReadOnly, Delete                bool
	CollectEvery                    time.Duration

	Proxy, ProxyUser, ProxyPasswordFile string
	ProxyTTL                            time.Duration
}

// Collect are the options of `registry gc`.
type Collect struct {
	Root             string
	Untagged, DryRun bool
}

// AddUser are the options of `registry user add`.
type AddUser struct {
	File, Name string
	Stdin      bool // the password comes from standard input without a question
}

// RemoveUser are the arguments of `registry user rm`.
type RemoveUser struct{ File, Name string }

// ListUsers are the arguments of `registry user ls`.
type ListUsers struct{ File string }

// Runner does what a command says: order is one of this package's pointers.
type Runner func(cmd *cobra.Command, args []string, order any) error

// defaultRoot is where a registry keeps its content.
const defaultRoot = "/var/lib/sampan-registry"

// Group returns `sampan registry`.
func Group(*cli.CLI) *cobra.Command {
	return cli.Group("registry", "Serve a registry", Commands(execute)...)
}

// Commands are the commands about the registry.
func Commands(run Runner) []*cobra.Command {
	user := cli.Group("user", "Manage who may speak to a registry", newAddUser(run), newListUsers(run), newRemoveUser(run))
	return []*cobra.Command{newCollect(run), newServe(run), user}
}

func newServe(run Runner) *cobra.Command {
	var o Serve
	cmd := &cobra.Command{
		Use: "serve [OPTIONS]", Short: "Serve images from a directory, or as a cache of another registry", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return run(cmd, args, &o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.Delete, "delete", true, "Permit clients to delete tags, manifests and blobs")
	f.DurationVar(&o.CollectEvery, "gc-interval", 0, "Collect garbage while serving, this often (0: never)")
	f.StringVarP(&o.Listen, "listen", "l", "127.0.0.1:5000", "Address to listen on")
	f.StringVar(&o.LogLevel, "log-level", "warn", `Set the logging level ("debug", "info", "warn", "error"); info has every request`)
	f.StringVar(&o.Metrics, "metrics", "", "Address on which to answer /metrics for Prometheus")
	f.StringVar(&o.Proxy, "proxy", "", "Be the cache of the registry at this URL")
	f.StringVar(&o.ProxyPasswordFile, "proxy-password-file", "", "File with the password for the registry that is cached")
	f.DurationVar(&o.ProxyTTL, "proxy-ttl", 7*24*time.Hour, "Forget what was cached and not asked for so long (0: never)")
	f.StringVar(&o.ProxyUser, "proxy-username", "", "User name for the registry that is cached")
	f.BoolVar(&o.ReadOnly, "read-only", false, "Refuse pushes and deletions")
	f.StringVar(&o.Root, "root", defaultRoot, "Directory of the registry's content")
	f.StringVar(&o.TLSCert, "tls-cert", "", "Path to the TLS certificate file")
	f.StringVar(&o.TLSKey, "tls-key", "", "Path to the TLS key file")
	f.BoolVar(&o.SelfSigned, "tls-self-signed", false, "Make a certificate in the directory of the content, and use it")
	f.StringVar(&o.Users, "users", "", "File of users and bcrypt hashes (htpasswd) who may speak to the registry")
	return cmd
}

func newCollect(run Runner) *cobra.Command {
	var o Collect
	cmd := &cobra.Command{
		Use: "gc [OPTIONS]", Short: "Remove the blobs of a stopped registry that no manifest needs", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return run(cmd, args, &o) },
	}
	f := cmd.Flags()
	f.BoolVarP(&o.DryRun, "dry-run", "n", false, "Only tell what would be removed")
	f.StringVar(&o.Root, "root", defaultRoot, "Directory of the registry's content")
	f.BoolVar(&o.Untagged, "untagged", false, "Also remove manifests that no tag leads to")
	return cmd
}

func newAddUser(run Runner) *cobra.Command {
	var o AddUser
	cmd := &cobra.Command{
		Use: "add [OPTIONS] FILE NAME", Short: "Add a user, or change the password of one", Args: cli.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.File, o.Name = args[0], args[1]
			return run(cmd, args, &o)
		},
	}
	cmd.Flags().BoolVar(&o.Stdin, "password-stdin", false, "Take the password from stdin")
	return cmd
}

func newRemoveUser(run Runner) *cobra.Command {
	return &cobra.Command{
		Use: "rm FILE NAME", Short: "Remove a user", Args: cli.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return run(cmd, args, &RemoveUser{File: args[0], Name: args[1]})
		},
	}
}

func newListUsers(run Runner) *cobra.Command {
	return &cobra.Command{
		Use: "ls FILE", Short: "List the users", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return run(cmd, args, &ListUsers{File: args[0]}) },
	}
}
