package cli

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/core/fault"
)

// Prepare gives a command tree's root Sampan's help, usage and errors; its children inherit them.
func Prepare(root *cobra.Command, out, err *Out) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetOut(out)
	root.SetErr(err)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { help(out, cmd) })
	root.SetUsageFunc(func(cmd *cobra.Command) error { help(err, cmd); return nil })
	root.SetHelpCommand(newHelp())
	root.PersistentFlags().Bool("help", false, "Print usage")
	root.PersistentFlags().Lookup("help").Hidden = true
}

// Verb is a command that is made when it is wanted: the client's whole tree has 130 commands with 900 flags,
// and whoever calls one need not wait for the others. Name is what New's command is called.
type Verb struct {
	Name string
	New  func(*CLI) *cobra.Command
}

// newHelp is `help COMMAND...`, which is `COMMAND... --help`.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Help about the command", Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || about == nil || len(rest) > 0 {
				return fault.New(fault.Invalid, "unknown help topic: %s", strings.Join(args, " "))
			}
			return about.Help()
		},
	}
}

// Group returns a command that only has commands below it: without one it prints its help, and an
// unknown one is an error that names the nearest.
func Group(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: Unknown, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(children...)
	return cmd
}

// missing are docker's commands that are not there yet.
var missing = []string{"buildx", "checkpoint", "compose", "config", "secret", "stack"}

// Unknown refuses every argument of a group as an unknown command.
func Unknown(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if slices.Contains(missing, args[0]) && !cmd.HasParent() {
		return usage(cmd, "%s %s is not there yet", cmd.CommandPath(), args[0])
	}
	var names []string
	for _, child := range cmd.Commands() {
		if child.IsAvailableCommand() {
			names = append(append(names, child.Name()), child.Aliases...)
		}
	}
	return usage(cmd, "unknown command: %s %s%s", cmd.CommandPath(), args[0], didYouMean(fault.Nearest(args[0], names)))
}

func didYouMean(word string) string {
	if word == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", word)
}

func usage(cmd *cobra.Command, format string, args ...any) error {
	return &Usage{Command: cmd.CommandPath(), Err: fault.New(fault.Invalid, format, args...)}
}

// NoArgs, MinArgs, ExactArgs and RangeArgs check the number of arguments.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(cmd, "'%s' accepts no arguments", cmd.CommandPath())
	}
	return nil
}

// MinArgs wants n arguments or more.
func MinArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return usage(cmd, "'%s' requires at least %s", cmd.CommandPath(), arguments(n))
		}
		return nil
	}
}

// ExactArgs wants n arguments.
func ExactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage(cmd, "'%s' requires %s", cmd.CommandPath(), arguments(n))
		}
		return nil
	}
}

// RangeArgs wants low to high arguments.
func RangeArgs(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case low == 0 && len(args) > high:
			return usage(cmd, "'%s' requires at most %s", cmd.CommandPath(), arguments(high))
		case len(args) < low || len(args) > high:
			return usage(cmd, "'%s' requires at least %d and at most %s", cmd.CommandPath(), low, arguments(high))
		}
		return nil
	}
}

func arguments(n int) string {
	if n == 1 {
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", n)
}

// flagError turns pflag's errors into ours: a value that is wrong is a Field error under the
// flag's name, an unknown flag names the nearest. The exit code is Docker's 125.
func flagError(cmd *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	var unknown *pflag.NotExistError
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return err
	case errors.As(err, &invalid):
		err = valueError(invalid.GetFlag(), invalid.GetValue(), errors.Unwrap(invalid))
	case errors.As(err, &unknown):
		err = fault.New(fault.Invalid, "%w%s", err, didYouMean(nearestFlag(cmd, unknown)))
	}
	return &Exit{Code: CodeEngine, Err: &Usage{Command: cmd.CommandPath(), Err: err}}
}

func nearestFlag(cmd *cobra.Command, unknown *pflag.NotExistError) string {
	if unknown.GetSpecifiedShortnames() != "" {
		return ""
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	if name := fault.Nearest(unknown.GetSpecifiedName(), names); name != "" {
		return "--" + name
	}
	return ""
}

// expectations are what a flag of a type wants, for types that do not say it themselves.
var expectations = map[string]string{
	"bool":     "true or false",
	"int":      "a whole number",
	"int64":    "a whole number",
	"uint":     "a whole number from 0 up",
	"uint16":   "a whole number from 0 to 65535",
	"uint32":   "a whole number from 0 up",
	"uint64":   "a whole number from 0 up",
	"duration": "a duration such as 500ms, 30s or 1m30s",
	"ip":       "an address such as 172.30.100.104",
}

func valueError(f *pflag.Flag, given string, cause error) error {
	name := "--" + f.Name
	var field *fault.Field
	if errors.As(cause, &field) {
		if field.Field == "" {
			field.Field = name
		}
		return cause
	}
	if want, ok := expectations[f.Value.Type()]; ok {
		return &fault.Field{Field: name, Given: given, Expected: want}
	}
	return fault.New(fault.Invalid, "%s %q: %w", name, given, cause)
}

// help prints a command's page in Docker's form.
func help(out *Out, cmd *cobra.Command) {
	if cmd.IsAdditionalHelpTopicCommand() {
		fmt.Fprint(out, cmd.Long)
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:  %s\n\n%s\n", useLine(cmd), long(cmd))
	if names := aliases(cmd); names != "" {
		fmt.Fprintf(&b, "\nAliases:\n  %s\n", names)
	}
	if cmd.Example != "" {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", cmd.Example)
	}
	writeCommands(&b, cmd)
	if cmd.HasAvailableLocalFlags() {
		title := "Options"
		if !cmd.HasParent() {
			title = "Global Options"
		}
		_, width := out.Size()
		if width == 0 {
			width = 80
		}
		fmt.Fprintf(&b, "\n%s:\n%s", title, cmd.LocalFlags().FlagUsagesWrapped(int(width)-1))
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\nRun '%s COMMAND --help' for more information on a command.\n", cmd.CommandPath())
	}
	fmt.Fprint(out, b.String())
}

func useLine(cmd *cobra.Command) string {
	if cmd.HasParent() && cmd.HasAvailableSubCommands() {
		return cmd.CommandPath() + " COMMAND"
	}
	if cmd.HasParent() {
		return cmd.Parent().CommandPath() + " " + cmd.Use
	}
	return cmd.Use
}

func long(cmd *cobra.Command) string {
	if cmd.Long != "" {
		return cmd.Long
	}
	return cmd.Short
}

// aliases lists the ways to call a command: its own aliases and, by the annotation that Docker's
// client uses too, those elsewhere in the tree.
func aliases(cmd *cobra.Command) string {
	if text := cmd.Annotations["aliases"]; text != "" {
		return text
	}
	if len(cmd.Aliases) == 0 || !cmd.HasParent() {
		return ""
	}
	parts := []string{cmd.CommandPath()}
	for _, a := range cmd.Aliases {
		parts = append(parts, cmd.Parent().CommandPath()+" "+a)
	}
	return strings.Join(parts, ", ")
}

// Also notes the ways to call a command that is at two places of the tree, and returns it.
func Also(cmd *cobra.Command, names string) *cobra.Command {
	cmd.Annotations = map[string]string{"aliases": names}
	return cmd
}

// groups are the headings of a command list, in order; a command is in the group of its GroupID.
var groups = []struct{ id, title string }{
	{"common", "Common Commands"}, {"script", "Script Commands"}, {"management", "Management Commands"}, {"swarm", "Swarm Commands"},
	{"", "Commands"},
}

// Groups registers the headings at the root.
func Groups(root *cobra.Command) {
	for _, g := range groups {
		if g.id != "" {
			root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		}
	}
}

// common are the commands that most people need, in the order in which they need them.
var common = []string{"run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "search", "version", "info"}

// inOrder returns the commands below one, the common ones in their order and the others by name.
func inOrder(cmd *cobra.Command) []*cobra.Command {
	list := slices.Clone(cmd.Commands())
	slices.SortStableFunc(list, func(a, b *cobra.Command) int {
		return cmp.Or(place(a)-place(b), strings.Compare(a.Name(), b.Name()))
	})
	return list
}

// place is where a common command stands, and behind them the others.
func place(cmd *cobra.Command) int {
	if i := slices.Index(common, cmd.Name()); cmd.GroupID == "common" && i >= 0 {
		return i
	}
	return len(common)
}

func writeCommands(b *strings.Builder, cmd *cobra.Command) {
	children := inOrder(cmd)
	for _, g := range groups {
		first := true
		for _, child := range children {
			if !child.IsAvailableCommand() || child.GroupID != g.id {
				continue
			}
			if first {
				fmt.Fprintf(b, "\n%s:\n", g.title)
				first = false
			}
			fmt.Fprintf(b, "  %-11s %s\n", child.Name(), child.Short)
		}
	}
	title := "\nHelp Topics:\n"
	for _, child := range children {
		if child.IsAdditionalHelpTopicCommand() {
			fmt.Fprintf(b, "%s  %-11s %s\n", title, child.Name(), child.Short)
			title = ""
		}
	}
}
