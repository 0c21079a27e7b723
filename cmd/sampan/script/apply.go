package script

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/apply"
	"github.com/sampan-project/sampan/starlark/graph"
	"github.com/sampan-project/sampan/starlark/plan"
)

// applying are the options of apply and destroy.
type applying struct {
	options
	quiet    bool
	parallel int
	timeout  time.Duration
}

func (o *applying) flags(cmd *cobra.Command) {
	o.options.flags(cmd)
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "Print only errors and outputs")
	cmd.Flags().IntVar(&o.parallel, "parallel", 8, "How many things to do at the same time")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 5*time.Minute, "How long to wait for a container to become healthy, where another needs that: needs = [x.healthy]")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if o.parallel < 1 {
			return &fault.Field{Field: "--parallel", Given: strconv.Itoa(o.parallel), Expected: "at least 1"}
		}
		return nil
	}
}

// run carries out a plan and says what it does.
func (o *applying) run(ctx context.Context, c *cli.CLI, e *client.Client, g *graph.Graph, p *plan.Plan) error {
	say := func(format string, args ...any) {
		if !o.quiet {
			fmt.Fprintf(c.Out, format, args...)
		}
	}
	say("%s: %s\n", p.Env, p.Summary())
	config, err := c.Config()
	if err != nil {
		return err
	}
	result, err := apply.Run(ctx, e, g, p, apply.Options{
		Parallel: o.parallel, Timeout: o.timeout, Auth: c.Auth, Proxies: config.ProxyVariables(e.Host()),
		Event: func(e apply.Event) {
			switch {
			case e.Done && e.Err == nil:
				say("%s: %s in %s\n", e.Address, e.Verb, brief(e.Took))
			case !e.Done && (strings.HasPrefix(e.Verb, "waiting") || e.Verb == "building"):
				say("%s: %s\n", e.Address, e.Verb)
			}
		},
		Message: func(a graph.Address, m wire.Message) {
			if text := messageText(m); text != "" {
				say("%s: %s\n", a, text)
			}
		},
	})
	if err != nil {
		return err
	}
	for _, out := range result.Outputs {
		fmt.Fprintf(c.Out, "%s = %s\n", out.Name, out.Value)
	}
	return nil
}

// messageText is a line of a build or pull; mere advance is left out.
func messageText(m wire.Message) string {
	if d := m.ProgressDetail; d != nil && (d.Current > 0 || d.Total > 0) {
		return ""
	}
	text := strings.TrimRight(m.Stream, "\r\n")
	if text == "" {
		text = m.Status
	}
	if m.ID != "" && text != "" {
		text = m.ID + ": " + text
	}
	return text
}

// NewApply is `sampan apply`.
func NewApply(c *cli.CLI) *cobra.Command {
	var o applying
	cmd := &cobra.Command{
		Use: "apply [OPTIONS] [FILE]", Short: "Make an environment as its script declares it", Args: cli.RangeArgs(0, 1), GroupID: "script",
		Long:    "Make an environment as its script declares it.\n\nFILE is env.star by default. What is as wanted is left alone; an apply that was interrupted goes on\nwhere it stopped. It waits for the health of a container only where another needs that:\nneeds = [x.healthy].",
		Example: "  sampan apply --arg port=8001",
	}
	o.flags(cmd)
	cmd.RunE = o.verb(c, func(ctx context.Context, e *client.Client, g *graph.Graph) error {
		p, err := plan.Make(ctx, e, g)
		if err != nil {
			return err
		}
		return o.run(ctx, c, e, g, p)
	})
	return cmd
}

// NewDestroy is `sampan destroy`.
func NewDestroy(c *cli.CLI) *cobra.Command {
	var o applying
	var keepVolumes bool
	cmd := &cobra.Command{
		Use: "destroy [OPTIONS] [FILE]", Short: "Remove everything that apply made of an environment", Args: cli.RangeArgs(0, 1), GroupID: "script",
		Long: "Remove everything that apply made of an environment: its containers, networks, volumes with their\ndata, and the images that it built.",
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&keepVolumes, "keep-volumes", false, "Leave volumes and their data")
	cmd.RunE = o.verb(c, func(ctx context.Context, e *client.Client, g *graph.Graph) error {
		p, err := plan.Destroy(ctx, e, g, func(a graph.Address) bool { return keepVolumes && a.Kind == graph.KindVolume })
		if err != nil {
			return err
		}
		g.Outputs = nil // of what is gone
		return o.run(ctx, c, e, g, p)
	})
	return cmd
}
