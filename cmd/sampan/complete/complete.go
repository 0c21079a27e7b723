// Package complete finishes what is typed: it gives every command and flag of the tree the function that
// names what may stand there. cobra writes the shell's part (`sampan completion SHELL`), which calls the
// program with what was typed so far; here is the part that knows the engine.
//
// What an argument is says the command's own usage line: CONTAINER, IMAGE, NETWORK, VOLUME, CONTEXT. So a
// new command completes without a word here. The engine is asked only if it runs, and not for long.
package complete

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
)

// patience bounds the wait for the engine: somebody has pressed a key and looks at the screen.
const patience = 2 * time.Second

// completion is cobra's: what may stand there, and what the shell does beside.
type completion = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective)

// Tree gives all commands below root their completions.
func Tree(root *cobra.Command, c *cli.CLI) {
	e := engine{cli: c}
	visit(root, func(cmd *cobra.Command) {
		if cmd.HasSubCommands() {
			return
		}
		if cmd.ValidArgsFunction == nil && cmd.HasParent() {
			cmd.ValidArgsFunction = e.arguments(cmd)
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if do := e.flag(cmd, f); do != nil {
				cmd.RegisterFlagCompletionFunc(f.Name, do) //nolint:errcheck // it is a flag of the command, and has none yet
			}
		})
	})
}

func visit(cmd *cobra.Command, do func(*cobra.Command)) {
	do(cmd)
	for _, child := range cmd.Commands() {
		visit(child, do)
	}
}

// places reads a usage line: which kind stands at each place, and whether the last one may come again.
// The kinds are words of the line, such as CONTAINER; "" is a place where anything may stand.
func places(use string) (kinds []string, again bool) {
	use, _, _ = strings.Cut(use, "\n")
	for _, word := range strings.Fields(use)[1:] {
		word = strings.Trim(word, "[]")
		if word == "OPTIONS" {
			continue
		}
		repeated, ok := strings.CutSuffix(word, "...")
		kind := kindOf(strings.TrimRight(repeated, "]"))
		if ok && kind == "" {
			return kinds, false // what is the container's own
		}
		if !ok || len(kinds) == 0 {
			kinds = append(kinds, kind)
		}
		if ok {
			return kinds, true
		}
	}
	return kinds, false
}

// kindOf is the kind that a word of a usage line means.
func kindOf(word string) string {
	switch {
	case strings.HasPrefix(word, "CONTAINER:"):
		return "place"
	case word == "NAME|ID":
		return "anything"
	case word == "SERVICE=REPLICAS":
		return "replicas"
	case word == "SERVICE|TASK":
		return "service"
	case word == "self|NODE":
		return "node"
	case word == "(worker|manager)":
		return "role"
	case strings.Contains(word, "IMAGE"), strings.HasPrefix(word, "REPOSITORY"), word == "NAME[:TAG":
		return "image"
	}
	if known := strings.ToLower(word); slices.Contains([]string{"container", "network", "volume", "context", "command", "node", "service"}, known) {
		return known
	}
	if slices.Contains([]string{"FILE", "FILE|-", "file|URL|-", "KEYFILE", "PATH", "DIRECTORY"}, word) {
		return "file"
	}
	return ""
}

// arguments completes what stands behind a command.
func (e engine) arguments(cmd *cobra.Command) completion {
	kinds, again := places(cmd.Use)
	states := wanted[cmd.Name()]
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		at := len(args)
		if again {
			at = min(at, len(kinds)-1)
		}
		if at >= len(kinds) {
			if slices.Contains(kinds, "command") || strings.Contains(cmd.Use, "[COMMAND]") {
				return nil, cobra.ShellCompDirectiveDefault // of the container: the shell's guess is as good
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names, directive := e.names(cmd.Context(), kinds[at], states, typed)
		return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(args, name) }), directive
	}
}

// wanted are the states that containers must have for a command to make sense, by its name.
var wanted = map[string][]string{
	"attach": {"running"}, "exec": {"running", "paused"}, "kill": {"running", "paused", "restarting"}, "pause": {"running"},
	"stop": {"running", "paused", "restarting"}, "top": {"running", "paused"}, "unpause": {"paused"}, "stats": {"running", "paused"},
	"start": {"created", "exited"}, "wait": {"running", "paused", "restarting"}, "port": {"running", "paused"},
}

// names are the things of a kind that begin with what was typed.
func (e engine) names(ctx context.Context, kind string, states []string, typed string) ([]string, cobra.ShellCompDirective) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	directive := cobra.ShellCompDirectiveNoFileComp
	var names []string
	switch kind {
	case "container":
		names = e.containers(limited, states)
	case "image":
		names = e.images(limited)
	case "network":
		names = e.networks(limited)
	case "volume":
		names = e.volumes(limited)
	case "context":
		names = e.cli.ContextNames()
	case "node":
		names = append(e.nodes(limited), "self")
	case "service":
		names = e.services(limited)
	case "replicas":
		for _, name := range e.services(limited) {
			names = append(names, name+"=")
		}
		directive |= cobra.ShellCompDirectiveNoSpace
	case "role":
		names = []string{"manager", "worker"}
	case "anything":
		names = slices.Concat(e.containers(limited, nil), e.images(limited), e.networks(limited), e.volumes(limited))
	case "place":
		for _, name := range e.containers(limited, nil) {
			names = append(names, name+":")
		}
		directive = cobra.ShellCompDirectiveNoSpace
		if strings.ContainsAny(typed, "/.") || len(matching(names, typed)) == 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
	case "file", "command":
		return nil, cobra.ShellCompDirectiveDefault
	}
	return matching(names, typed), directive
}

func matching(names []string, typed string) []string {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !strings.HasPrefix(name, typed) })
	slices.Sort(names)
	return slices.Compact(names)
}
