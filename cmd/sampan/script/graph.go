package script

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/starlark/graph"
	"github.com/sampan-project/sampan/starlark/script"
)

// NewGraph is `sampan graph`.
func NewGraph(c *cli.CLI) *cobra.Command {
	var o options
	var dot bool
	cmd := &cobra.Command{
		Use: "graph [OPTIONS] [FILE]", Short: "Show the resources of an environment and what they need", Args: cli.RangeArgs(0, 1), GroupID: "script",
		Long: "Show the resources of an environment and what they need. No daemon is asked.",
	}
	o.flags(cmd)
	o.jsonFlag(cmd)
	cmd.Flags().BoolVar(&dot, "dot", false, "Print the graph for Graphviz")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := o.session(c, c.Err, true, script.Limits{})
		if err != nil {
			return err
		}
		g, _, err := o.environment(cmd.Context(), s, c, fileArg(args), true)
		switch {
		case err != nil:
		case o.json:
			err = printJSON(c.Out, g.Document())
		case dot:
			printDot(c.Out, g)
		default:
			printGraph(c.Out, g, s.Inputs.Declared())
		}
		return o.report(cmd.Context(), c, s, err)
	}
	return cmd
}

func printGraph(w io.Writer, g *graph.Graph, args []script.Declared) {
	fmt.Fprintln(w, g.Env)
	for _, a := range args {
		value := ""
		switch {
		case a.Required:
		case a.Type == "string":
			value = fmt.Sprintf(" = %q", a.Default)
		default:
			value = " = " + a.Default
		}
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("  arg %s%s  %s", a.Name, value, a.Doc), " "))
	}
	for _, r := range g.Ordered() {
		fmt.Fprintf(w, "  %s  (%s)\n", r.Address, r.Site)
		for _, n := range r.Needs {
			condition := ""
			if n.Condition != graph.Exists {
				condition = " " + string(n.Condition)
			}
			fmt.Fprintf(w, "    needs %s%s\n", n.On, condition)
		}
	}
	for _, t := range g.Tasks {
		doc, _, _ := strings.Cut(strings.TrimSpace(t.Doc), "\n")
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("  task %s  %s", t.Name, doc), " "))
	}
}

func printDot(w io.Writer, g *graph.Graph) {
	fmt.Fprintf(w, "digraph %q {\n  rankdir = LR;\n", g.Env)
	for _, r := range g.Ordered() {
		fmt.Fprintf(w, "  %q;\n", r.Address)
		for _, n := range r.Needs {
			fmt.Fprintf(w, "  %q -> %q [label=%q];\n", r.Address, n.On, n.Condition)
		}
	}
	fmt.Fprintln(w, "}")
}
