// Package script is the verbs that evaluate Starlark: plan, apply, destroy and graph of an env.star,
// build of a build.star, and script, which runs one with effects.
//
// This file has what they share: the options, the session, and the report of a mistake, which shows
// the line of the script instead of a line of ours.
package script

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/env"
	"github.com/sampan-project/sampan/starlark/graph"
	"github.com/sampan-project/sampan/starlark/script"

	"go.starlark.net/starlark"
)

// options are those that every verb has.
type options struct {
	args  cli.Map
	trace bool
	json  bool
}

func (o *options) flags(cmd *cobra.Command) {
	o.args.Strict = true
	cmd.Flags().Var(&o.args, "arg", "Give a value to an arg of the script: `NAME=VALUE`")
	cmd.Flags().BoolVar(&o.trace, "trace", false, "Show frames of libraries in the stack of a mistake")
}

func (o *options) jsonFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.json, "json", false, "Print JSON")
}

// session begins an evaluation. What the script prints goes to out, with its place if placed.
func (o *options) session(c *cli.CLI, out io.Writer, placed bool, limits script.Limits) (*script.Session, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	return script.New(script.Options{
		Dir: dir, Args: o.args.Values, Limits: limits,
		Environ: func(name string) (string, bool) { v := c.Env(name); return v, v != "" },
		Print: func(at diag.Span, message string) {
			if placed && !at.IsZero() {
				fmt.Fprintf(out, "%s: ", at)
			}
			fmt.Fprintln(out, message)
		},
	}), nil
}

// report prints a mistake with its line, and what a person needs to mend it. Errors that no line is
// to blame for are main's to print.
func (o *options) report(ctx context.Context, c *cli.CLI, s *script.Session, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var exit *cli.Exit
	if errors.As(err, &exit) {
		return err
	}
	err = s.Files.Explain(err)
	if _, ok := diag.Of(err); !ok {
		return err
	}
	s.Files.Print(c.Err, err, diag.PrintOptions{Prefix: "sampan: ", Trace: o.trace})
	return &cli.Exit{Code: cli.CodeFailed}
}

// environment evaluates an env.star. The daemon is asked for the schemas of its drivers when the
// script names options, unless offline.
func (o *options) environment(ctx context.Context, s *script.Session, c *cli.CLI, name string, offline bool) (*graph.Graph, starlark.StringDict, error) {
	file, err := s.Entry(name)
	if err != nil {
		return nil, nil, err
	}
	e := env.Options{Schemas: func(ctx context.Context) ([]wire.Schema, error) {
		engine, err := c.Client()
		if err != nil {
			return nil, err
		}
		return engine.Schemas(ctx)
	}}
	if offline {
		e.Schemas = nil
	}
	g, globals, err := env.Evaluate(ctx, s, file, e)
	if err != nil {
		return nil, nil, err
	}
	return g, globals, s.Inputs.Unused()
}

// verb is one that evaluates an environment and then does something with it on the daemon.
func (o *options) verb(c *cli.CLI, do func(ctx context.Context, e *client.Client, g *graph.Graph) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		s, err := o.session(c, c.Err, true, script.Limits{})
		if err != nil {
			return err
		}
		g, _, err := o.environment(ctx, s, c, fileArg(args), false)
		if err == nil {
			var e *client.Client
			if e, err = c.Client(); err == nil {
				err = do(ctx, e, g)
			}
		}
		return o.report(ctx, c, s, err)
	}
}

// fileArg is the script that is meant: env.star of the working directory, if none is named.
func fileArg(args []string) string {
	if len(args) == 0 {
		return "env.star"
	}
	return args[0]
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// brief is a duration as people read it.
func brief(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
