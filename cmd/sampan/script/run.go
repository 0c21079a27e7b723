package script

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/starlark/graph"
	"github.com/sampan-project/sampan/starlark/script"
	"github.com/sampan-project/sampan/starlark/task"
)

// scriptSteps bound a script with effects: it may loop for long, waiting for the world.
const scriptSteps = 1_000_000_000

// NewScript is `sampan script`.
func NewScript(c *cli.CLI) *cobra.Command {
	var o options
	var reference bool
	cmd := &cobra.Command{
		Use: "script [OPTIONS] FILE [ARG...]", Short: "Run a script with effects, or a task of an environment", GroupID: "script",
		Args: func(cmd *cobra.Command, args []string) error {
			if reference {
				return cli.NoArgs(cmd, args)
			}
			return cli.MinArgs(1)(cmd, args)
		},
		Long: "Run a script with effects: its function main(ctx), with the ARGs as ctx.args. Of a script that\ndeclares tasks, the first ARG names the task and the others are NAME=VALUE.\n\n" +
			"What a script starts is removed when it ends. Of a script that was killed it is removed by the next\none on the same machine.",
		Example: "  sampan script test.star\n  sampan script env.star migrate version=12",
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&reference, "reference", false, "Print the reference of all kinds of scripts, as Markdown")
	cmd.Flags().SetInterspersed(false) // what follows FILE is the script's
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if reference {
			printReference(c.Out)
			return nil
		}
		s, err := o.session(c, c.Out, false, script.Limits{Steps: scriptSteps, Time: -1})
		if err != nil {
			return err
		}
		return o.report(cmd.Context(), c, s, o.script(cmd.Context(), c, s, args[0], args[1:]))
	}
	return cmd
}

func (o *options) script(ctx context.Context, c *cli.CLI, s *script.Session, file string, args []string) error {
	g, globals, err := o.environment(ctx, s, c, file, false)
	if err != nil {
		return err
	}
	fn, values, err := choose(g, globals, file, args)
	if err != nil {
		return err
	}
	e, err := c.Client()
	if err != nil {
		return err
	}
	return task.Run(ctx, e, s, fn, task.Options{Name: file, Args: values, Stdout: c.Out, Stderr: c.Err, Auth: c.Auth})
}

// choose finds the function to be run, and what it gets as ctx.args.
func choose(g *graph.Graph, globals starlark.StringDict, file string, args []string) (starlark.Value, starlark.Value, error) {
	main, isScript := globals["main"].(*starlark.Function)
	var names []string
	for _, t := range g.Tasks {
		if names = append(names, t.Name); len(args) > 0 && args[0] == t.Name {
			values, err := task.Arguments(t, args[1:])
			return t.Run, values, err
		}
	}
	switch {
	case isScript:
		list := make([]starlark.Value, len(args))
		for i, a := range args {
			list[i] = starlark.String(a)
		}
		return main, starlark.NewList(list), nil
	case len(names) == 0:
		return nil, nil, fault.New(fault.NotFound, "%s: expected a function main(ctx), or tasks: it has neither", file)
	case len(args) == 0:
		return nil, nil, fault.New(fault.Invalid, "%s: expected the name of a task: %s", file, strings.Join(names, ", "))
	}
	return nil, nil, fault.As(fault.NotFound, &fault.Field{Field: "task", Given: args[0], Expected: "one of " + strings.Join(names, ", "), Nearest: fault.Nearest(args[0], names)})
}
