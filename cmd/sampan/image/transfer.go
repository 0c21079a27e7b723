package image

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/trust"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/reference"
)

// tagged reports a reference with a tag or a digest.
func tagged(ref string) bool {
	return strings.Contains(ref, "@") || strings.LastIndexByte(ref, ':') > strings.LastIndexByte(ref, '/')
}

// tellDefault says which tag a name without one means. Of what is no name the daemon says what is wrong, and there is
// no tag to speak of.
func tellDefault(c *cli.CLI, ref string, quiet bool) {
	if _, ok := reference.Normalise(ref); ok && !quiet {
		fmt.Fprintln(c.Out, "Using default tag: latest")
	}
}

func newPull(c *cli.CLI) *cobra.Command {
	var all, quiet bool
	var platform string
	var content *cli.ContentTrust
	cmd := &cobra.Command{
		Use: "pull [OPTIONS] NAME[:TAG|@DIGEST]", Short: "Download an image from a registry", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			on, err := content.On(c)
			if err != nil {
				return err
			}
			if on && !trust.IsPinned(args[0]) {
				return pullTrusted(cmd.Context(), c, args[0], platform, all, quiet)
			}
			return pull(cmd.Context(), c, args[0], platform, all, quiet)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all-tags", "a", false, "Download all tagged images in the repository")
	f.StringVar(&platform, "platform", "", "Set platform if server is multi-platform capable")
	f.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	content = cli.AddTrust(f)
	return cli.Also(cmd, "sampan image pull, sampan pull")
}

func pull(ctx context.Context, c *cli.CLI, ref, platform string, all, quiet bool) error {
	if all && tagged(ref) {
		return fault.New(fault.Invalid, "tag can't be used with --all-tags/-a")
	}
	engine, err := c.Client()
	if err != nil {
		return err
	}
	auth, err := c.Auth(ref)
	if err != nil {
		return err
	}
	show := cli.Progress(c.Out)
	if quiet {
		show = nil
	}
	full := ref
	if all {
		err = engine.ImagePullAll(ctx, ref, platform, auth, show)
	} else {
		if !tagged(ref) {
			full = ref + ":latest"
			tellDefault(c, ref, quiet)
		}
		err = engine.ImagePull(ctx, full, platform, auth, show)
	}
	if err == nil {
		fmt.Fprintln(c.Out, canonical(full))
	}
	return err
}

// pullTrusted pulls what was signed: of a name, or with all of each signed tag.
func pullTrusted(ctx context.Context, c *cli.CLI, ref, platform string, all, quiet bool) error {
	if all && tagged(ref) {
		return fault.New(fault.Invalid, "tag can't be used with --all-tags/-a")
	}
	engine, err := c.Client()
	if err != nil {
		return err
	}
	if !all && !tagged(ref) {
		tellDefault(c, ref, quiet)
	}
	list, err := trust.Targets(ctx, c, engine, ref, all)
	if err != nil {
		return err
	}
	show := cli.Progress(c.Out)
	if quiet {
		show = nil
	}
	for i, t := range list {
		fmt.Fprintf(c.Out, "Pull (%d of %d): %s@%s\n", i+1, len(list), t.Tagged, t.Digest)
		if err := t.Pull(ctx, c, engine, platform, show); err != nil {
			return err
		}
		fmt.Fprintln(c.Out, t.Tagged)
	}
	return nil
}

// canonical is a reference with its registry, as Docker completes it.
func canonical(ref string) string {
	first, _, slash := strings.Cut(ref, "/")
	switch {
	case !slash:
		return "docker.io/library/" + ref
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		return "docker.io/" + ref
	}
	return ref
}

func newPush(c *cli.CLI) *cobra.Command {
	var all, quiet bool
	var platform string
	var content *cli.ContentTrust
	cmd := &cobra.Command{
		Use: "push [OPTIONS] NAME[:TAG]", Short: "Upload an image to a registry", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref := args[0]
			switch {
			case all && tagged(ref):
				return fault.New(fault.Invalid, "tag can't be used with --all-tags/-a")
			case !all && !tagged(ref):
				tellDefault(c, ref, quiet)
				ref += ":latest"
			}
			engine, err := c.Client()
			if err != nil {
				return err
			}
			auth, err := c.Auth(ref)
			if err != nil {
				return err
			}
			show := cli.Progress(c.Out)
			if quiet {
				show = nil
			}
			if on, err := content.On(c); on || err != nil {
				if err != nil {
					return err
				}
				return pushTrusted(cmd.Context(), c, ref, platform, all, show)
			}
			if err = engine.ImagePush(cmd.Context(), ref, platform, auth, show); err == nil && quiet {
				fmt.Fprintln(c.Out, canonical(ref))
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all-tags", "a", false, "Push all tags of an image to the repository")
	f.StringVar(&platform, "platform", "", "Push a platform-specific manifest as a single-platform image to the registry")
	f.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	content = cli.AddTrust(f)
	return cli.Also(cmd, "sampan image push, sampan push")
}

// pushTrusted pushes and signs.
func pushTrusted(ctx context.Context, c *cli.CLI, ref, platform string, all bool, show func(wire.Message) error) error {
	if all {
		return fault.New(fault.Invalid, "--all-tags with content trust: expected one tag, as each is signed by itself")
	}
	p, err := trust.NewPush(ctx, c, ref)
	if err != nil {
		return err
	}
	engine, err := c.Client()
	if err != nil {
		return err
	}
	auth, err := c.Auth(ref)
	if err != nil {
		return err
	}
	err = engine.ImagePush(ctx, ref, platform, auth, func(m wire.Message) error {
		p.Seen(m)
		if show == nil {
			return nil
		}
		return show(m)
	})
	if err != nil {
		return err
	}
	return p.Sign(ctx)
}

func newLoad(c *cli.CLI) *cobra.Command {
	var input, platform string
	var quiet bool
	cmd := &cobra.Command{
		Use: "load [OPTIONS]", Short: "Load an image from a tar archive or STDIN", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var from io.Reader = c.In
			switch {
			case input != "":
				f, err := os.Open(input)
				if err != nil {
					return fault.New(fault.Invalid, "--input: %w", err)
				}
				defer f.Close()
				from = f
			case c.In.IsTerminal():
				return fault.New(fault.Invalid, "requested load from stdin, but stdin is empty")
			}
			engine, err := c.Client()
			if err != nil {
				return err
			}
			return engine.ImageLoad(cmd.Context(), from, platform, quiet || !c.Out.IsTerminal(), cli.Progress(c.Out))
		},
	}
	f := cmd.Flags()
	f.StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	f.StringVar(&platform, "platform", "", "Load only this platform, such as linux/amd64")
	f.BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	return cli.Also(cmd, "sampan image load, sampan load")
}

func newSave(c *cli.CLI) *cobra.Command {
	var output, platform string
	var oci bool
	cmd := &cobra.Command{
		Use: "save [OPTIONS] IMAGE [IMAGE...]", Short: "Save one or more images to a tar archive (streamed to STDOUT by default)", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			format := ""
			if oci {
				format = "oci"
			}
			return c.ToFile(output, func() (io.ReadCloser, error) {
				return engine.ImageSaveAs(cmd.Context(), format, platform, args...)
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	cmd.Flags().StringVar(&platform, "platform", "", "Save only this platform, such as linux/amd64")
	cmd.Flags().BoolVar(&oci, "oci", false, "Write an OCI image layout, and nothing of Docker's archive beside it")
	return cli.Also(cmd, "sampan image save, sampan save")
}

func newImport(c *cli.CLI) *cobra.Command {
	var o client.ImageImportOptions
	var changes cli.List
	cmd := &cobra.Command{
		Use: "import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]", Short: "Import the contents from a tarball to create a filesystem image", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Changes = changes.Values; len(args) > 1 { // docker looks at no more either
				o.Ref = args[1]
			}
			return importRoot(cmd.Context(), c, args[0], o)
		},
	}
	f := cmd.Flags()
	f.VarP(&changes, "change", "c", "Apply Dockerfile instruction to the created image")
	f.StringVarP(&o.Message, "message", "m", "", "Set commit message for imported image")
	f.StringVar(&o.Platform, "platform", "", "Set platform if server is multi-platform capable")
	return cli.Also(cmd, "sampan image import, sampan import")
}

func importRoot(ctx context.Context, c *cli.CLI, source string, o client.ImageImportOptions) error {
	var from io.Reader
	switch {
	case source == "-":
		from = c.In
	case strings.HasPrefix(source, "http://"), strings.HasPrefix(source, "https://"):
		o.URL = source
	default:
		f, err := os.Open(source)
		if err != nil {
			return fault.New(fault.Invalid, "import: %w", err)
		}
		defer f.Close()
		from = f
	}
	engine, err := c.Client()
	if err != nil {
		return err
	}
	show := cli.Progress(c.Out)
	return engine.ImageImport(ctx, from, o, show)
}
