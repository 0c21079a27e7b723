package script

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/recipe"
	"github.com/sampan-project/sampan/starlark/reference"
	"github.com/sampan-project/sampan/starlark/script"
)

// building are the options of build.
type building struct {
	options
	file                 string
	tags                 cli.List
	noCache, quiet, list bool
	watch                bool
}

// defaultScript is what build evaluates where --file names nothing.
const defaultScript = "build.star"

// NewBuild is `sampan build`.
func NewBuild(c *cli.CLI) *cobra.Command {
	var o building
	cmd := &cobra.Command{
		Use: "build [OPTIONS] [TARGET]", Short: "Build an image from a build script", Args: cli.RangeArgs(0, 1), GroupID: "common",
		Long:    "Build an image from a build script.\n\nTARGET is a function of the script: main by default, or the only one.",
		Example: "  sampan build -t shop/app:dev\n  sampan build -f web/build.star --arg version=1.2 server",
	}
	o.flags(cmd)
	o.jsonFlag(cmd)
	o.tags.Check = func(s string) (string, error) {
		ref, ok := reference.Normalise(s)
		if !ok || strings.Contains(ref, "@") {
			return "", &fault.Field{Given: s, Expected: "a name such as shop/app or shop/app:1.2"}
		}
		return ref, nil
	}
	cmd.Flags().StringVarP(&o.file, "file", "f", defaultScript, "The build script")
	cmd.Flags().VarP(&o.tags, "tag", "t", "Name of the image, NAME or NAME:TAG")
	cmd.Flags().BoolVar(&o.noCache, "no-cache", false, "Run every step again")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "Print only the image's ID")
	cmd.Flags().BoolVar(&o.list, "list", false, "List the script's targets")
	cmd.Flags().BoolVar(&o.watch, "watch", false, "Build again when the script, or a file that it uses, has changed, until interrupted")
	cmd.Flags().Lookup("json").Usage = "Print the build graph as JSON, and build nothing"
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		target := ""
		if len(args) > 0 {
			target = args[0]
		}
		if o.watch {
			return o.follow(cmd.Context(), c, target)
		}
		return o.once(cmd.Context(), c, target, c.Err, o.build)
	}
	return cmd
}

// once evaluates the script, whose prints go to out, and does with the build what is to be done.
func (o *building) once(ctx context.Context, c *cli.CLI, target string, out io.Writer, do func(context.Context, *cli.CLI, *recipe.Build) error) error {
	s, err := o.session(c, out, true, script.Limits{})
	if err != nil {
		return err
	}
	err = o.evaluate(ctx, c, s, target, do)
	if err != nil {
		if placed, ok := s.Files.Placed(err); ok && ctx.Err() == nil {
			err = placed
		}
	}
	return o.report(ctx, c, s, err)
}

// lookEvery is how often build --watch looks for changes: a look reads what the script uses.
const lookEvery = time.Second

// follow builds whenever the digest of the graph and of all local files is another one. A build
// that fails, and a mistake in the script, is told once; the next change is waited for.
func (o *building) follow(ctx context.Context, c *cli.CLI, target string) error {
	if o.list || o.json {
		return fault.New(fault.Invalid, "--watch: expected neither --list nor --json")
	}
	last := ""
	for {
		var prints bytes.Buffer
		var build *recipe.Build
		now := ""
		err := o.once(ctx, c, target, &prints, func(_ context.Context, _ *cli.CLI, b *recipe.Build) error {
			build, now = b, b.Digest
			return nil
		})
		if err != nil {
			now = err.Error()
		}
		if now != last && ctx.Err() == nil {
			last = now
			c.Err.Write(prints.Bytes()) //nolint:errcheck // as with every print of a script
			if err == nil {
				err = o.build(ctx, c, build)
			}
			if err != nil && ctx.Err() == nil {
				fmt.Fprintln(c.Err, cli.Message(err))
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

func (o *building) evaluate(ctx context.Context, c *cli.CLI, s *script.Session, target string, do func(context.Context, *cli.CLI, *recipe.Build) error) error {
	if target == "." || strings.ContainsRune(target, '/') || strings.Contains(strings.ToLower(o.file), "dockerfile") {
		return fault.New(fault.NotImplemented, "Dockerfiles cannot be built yet: `sampan build [TARGET]` builds a target of a build script (see `sampan build --help`)")
	}
	file, err := s.Entry(o.file)
	if fault.Is(err, fault.NotFound) && o.file == defaultScript {
		return fault.New(fault.NotFound, "%w: expected a build script of that name here, or another's with --file", err)
	}
	if err != nil {
		return err
	}
	loaded, err := recipe.Load(ctx, s, file)
	if err != nil {
		return err
	}
	if o.list {
		listTargets(c.Out, loaded)
		return nil
	}
	b, err := loaded.Build(ctx, target)
	if err != nil {
		return err
	}
	if err := s.Inputs.Unused(); err != nil {
		return err
	}
	b.Graph.Tags, b.Graph.NoCache = o.tags.Values, o.noCache
	return do(ctx, c, b)
}

func (o *building) build(ctx context.Context, c *cli.CLI, b *recipe.Build) error {
	if o.json {
		return printJSON(c.Out, b.Graph)
	}
	e, err := c.Client()
	if err != nil {
		return err
	}
	config, err := c.Config()
	if err != nil {
		return err
	}
	b.Graph.Proxies = config.ProxyVariables(e.Host())
	each := cli.Progress(c.Out)
	if o.quiet {
		each = func(wire.Message) error { return nil }
	}
	id, err := e.Build(ctx, b.Graph, b.WriteLocals, each)
	if err != nil {
		return err
	}
	if o.quiet {
		fmt.Fprintln(c.Out, id)
		return nil
	}
	fmt.Fprintln(c.Out, strings.TrimSpace("built "+id+" "+strings.Join(o.tags.Values, " ")))
	return nil
}

func listTargets(w io.Writer, loaded *recipe.Script) {
	for _, name := range loaded.Targets() {
		doc, _, _ := strings.Cut(strings.TrimSpace(loaded.Doc(name)), "\n")
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%-20s %s", name, doc), " "))
	}
}
