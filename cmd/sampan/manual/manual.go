// Package manual writes the man pages: one for every command, from what --help is made of.
package manual

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// section is that of programs (man-pages(7)).
const section = "1"

// New returns the command that writes the pages of the tree that it is in.
func New() *cobra.Command {
	return &cobra.Command{
		Use: "man DIRECTORY", Short: "Write the manual pages", Hidden: true, Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return Write(cmd.Root(), args[0]) },
	}
}

// Write puts the pages of root and of all commands below it into a directory, which may be new.
func Write(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fault.New(fault.Invalid, "DIRECTORY: %w", err)
	}
	root.InitDefaultHelpCmd()
	return write(root, dir)
}

func write(cmd *cobra.Command, dir string) error {
	if err := os.WriteFile(filepath.Join(dir, name(cmd)+"."+section), []byte(Page(cmd)), 0o644); err != nil {
		return fault.New(fault.Invalid, "DIRECTORY: %w", err)
	}
	for _, child := range cmd.Commands() {
		switch {
		case child.IsAvailableCommand():
			if err := write(child, dir); err != nil {
				return err
			}
		case child.IsAdditionalHelpTopicCommand():
			if err := os.WriteFile(filepath.Join(dir, name(child)+"."+topicSection), []byte(topicPage(child)), 0o644); err != nil {
				return fault.New(fault.Invalid, "DIRECTORY: %w", err)
			}
		}
	}
	return nil
}

// name is a page's: "sampan-container-run".
func name(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// Page is a command's page in the macros of man(7).
func Page(cmd *cobra.Command) string {
	p := &page{}
	p.line(`.TH %s %s %s %s %s`, quoted(strings.ToUpper(name(cmd))), section, quoted(date()), quoted("Sampan "+wire.Release), quoted("Sampan Manual"))
	p.heading("NAME")
	p.text(name(cmd) + " - " + cmd.Short)
	p.heading("SYNOPSIS")
	p.synopsis(cmd)
	p.heading("DESCRIPTION")
	p.text(long(cmd))
	p.commands(cmd)
	p.flags("OPTIONS", cmd.NonInheritedFlags())
	if also := cmd.Annotations["aliases"]; also != "" {
		p.heading("ALIASES")
		p.text(also)
	}
	if cmd.Example != "" {
		p.heading("EXAMPLES")
		p.line(".nf")
		p.text(cmd.Example)
		p.line(".fi")
	}
	if cmd.HasParent() {
		p.heading("SEE ALSO")
		p.line(".BR %s (%s)", escape(name(cmd.Parent())), section)
	}
	return p.b.String()
}

// date is that of the commit which the program was built from; where it is not known, today.
func date() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
				return t.Format(time.DateOnly)
			}
		}
	}
	return time.Now().Format(time.DateOnly)
}

func long(cmd *cobra.Command) string {
	if cmd.Long != "" {
		return cmd.Long
	}
	return cmd.Short
}

// page is a text in the macros of man(7), as far as it is written.
type page struct{ b strings.Builder }

func (p *page) line(format string, args ...any) { fmt.Fprintf(&p.b, format+"\n", args...) }

func (p *page) heading(title string) { p.line(".SH %s", title) }

// text writes lines as they are; empty ones begin a paragraph.
func (p *page) text(s string) {
	for line := range strings.Lines(strings.TrimRight(s, "\n")) {
		if line = strings.TrimSpace(line); line == "" {
			p.line(".PP")
			continue
		}
		p.line("%s", protect(escape(line)))
	}
}

func (p *page) synopsis(cmd *cobra.Command) {
	use := cmd.Use
	if cmd.HasAvailableSubCommands() && cmd.HasParent() {
		use = cmd.Name() + " COMMAND"
	}
	for i, line := range strings.Split(use, "\n") {
		if i == 0 && cmd.HasParent() {
			line = cmd.Parent().CommandPath() + " " + line
		} else if i > 0 {
			p.line(".br")
		}
		p.line(`\fB%s\fR`, escape(strings.TrimSpace(line)))
	}
}

func (p *page) commands(cmd *cobra.Command) {
	if !cmd.HasAvailableSubCommands() {
		return
	}
	p.heading("COMMANDS")
	for _, child := range cmd.Commands() {
		if child.IsAvailableCommand() {
			p.line(".TP")
			p.line(".BR %s (%s)", escape(name(child)), section)
			p.text(child.Short)
		}
	}
}

func (p *page) flags(title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	p.heading(title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		p.line(".TP")
		names := `\fB\-\-` + escape(f.Name) + `\fR`
		if f.Shorthand != "" {
			names = `\fB\-` + escape(f.Shorthand) + `\fR, ` + names
		}
		kind, about := pflag.UnquoteUsage(f)
		if kind != "" {
			names += ` \fI` + escape(kind) + `\fR`
		}
		p.line("%s", names)
		p.text(about)
	})
}

// escape keeps troff from reading what is meant to be shown: a backslash begins its commands, and a bare
// minus becomes a hyphen, which cannot be copied into a shell.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...").Replace(s)
}

// protect keeps a line that begins with a dot or an apostrophe from being a request.
func protect(s string) string {
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		return `\&` + s
	}
	return s
}

func quoted(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
