// Package manifest has the commands about lists of images for several platforms. The daemon keeps the lists and
// speaks with registries; a list exists there under a name until it is removed, or purged when it is pushed.
package manifest

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/wire"
)

// Group returns `sampan manifest`.
func Group(c *cli.CLI) *cobra.Command {
	return cli.Group("manifest", "Manage Docker image manifests and manifest lists", newAnnotate(c), newCreate(c), newInspect(c), newPush(c), newRemove(c))
}

func newCreate(c *cli.CLI) *cobra.Command {
	var r wire.ManifestCreate
	cmd := &cobra.Command{
		Use: "create MANIFEST_LIST MANIFEST [MANIFEST...]", Short: "Create a local manifest list for annotating and pushing to a registry", Args: cli.MinArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Name, r.Manifests = args[0], args[1:]
			engine, err := c.Client()
			if err != nil {
				return err
			}
			auth, err := c.Auth(args[1])
			if err != nil {
				return err
			}
			name, err := engine.ManifestCreate(cmd.Context(), r, auth)
			if err == nil {
				fmt.Fprintln(c.Out, "Created manifest list", name)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&r.Amend, "amend", "a", false, "Amend an existing manifest list")
	f.BoolVar(&r.Insecure, "insecure", false, "Allow communication with an insecure registry")
	return cmd
}

func newAnnotate(c *cli.CLI) *cobra.Command {
	var r wire.ManifestAnnotate
	features := cli.List{Commas: true}
	cmd := &cobra.Command{
		Use: "annotate [OPTIONS] MANIFEST_LIST MANIFEST", Short: "Add additional information to a local image manifest", Args: cli.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Name, r.Manifest, r.Platform.OSFeatures = args[0], args[1], features.Values
			engine, err := c.Client()
			if err != nil {
				return err
			}
			return engine.ManifestAnnotate(cmd.Context(), r)
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.Platform.Architecture, "arch", "", "Set architecture")
	f.StringVar(&r.Platform.OS, "os", "", "Set operating system")
	f.Var(&features, "os-features", "Set operating system feature")
	f.StringVar(&r.Platform.OSVersion, "os-version", "", "Set operating system version")
	f.StringVar(&r.Platform.Variant, "variant", "", "Set architecture variant")
	return cmd
}

func newInspect(c *cli.CLI) *cobra.Command {
	var r wire.ManifestInspect
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] [MANIFEST_LIST] MANIFEST", Short: "Display an image manifest, or manifest list", Args: cli.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.Manifest = args[len(args)-1]; len(args) == 2 {
				r.List = args[0]
			}
			engine, err := c.Client()
			if err != nil {
				return err
			}
			auth, err := c.Auth(r.Manifest)
			if err != nil {
				return err
			}
			raw, err := engine.ManifestInspect(cmd.Context(), r, auth)
			if err == nil {
				fmt.Fprintf(c.Out, "%s\n", raw)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&r.Insecure, "insecure", false, "Allow communication with an insecure registry")
	f.BoolVarP(&r.Verbose, "verbose", "v", false, "Output additional info including layers and platform")
	return cmd
}

func newPush(c *cli.CLI) *cobra.Command {
	var r wire.ManifestPush
	cmd := &cobra.Command{
		Use: "push [OPTIONS] MANIFEST_LIST", Short: "Push a manifest list to a repository", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Name = args[0]
			engine, err := c.Client()
			if err != nil {
				return err
			}
			auth, err := c.Auth(r.Name)
			if err != nil {
				return err
			}
			digest, err := engine.ManifestPush(cmd.Context(), r, auth)
			if err == nil {
				fmt.Fprintln(c.Out, digest)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&r.Insecure, "insecure", false, "Allow push to an insecure registry")
	f.BoolVarP(&r.Purge, "purge", "p", false, "Remove the local manifest list after push")
	return cmd
}

func newRemove(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use: "rm MANIFEST_LIST [MANIFEST_LIST...]", Short: "Delete one or more manifest lists from local storage", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range args {
				if err := engine.ManifestRemove(cmd.Context(), name); err != nil {
					errs = append(errs, err)
				}
			}
			return cli.Join(errs)
		},
	}
}
