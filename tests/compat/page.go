package compat

import (
	"fmt"
	"strings"
)

// page is docs/compatibility.md.
func page(scripts []*script, everywhere *script) string {
	var b strings.Builder
	steps, differing := 0, 0
	for _, s := range scripts {
		steps += len(s.steps)
		for _, step := range s.steps {
			if step.differs != "" {
				differing++
			}
		}
	}
	fmt.Fprintf(&b, `# Compatibility with Docker

Written by `+"`make compat`"+` from the scripts in tests/compat/testdata; `+"`make test`"+` runs the short ones and checks this page.

Every line of these scripts is a command of the stock docker client, or a raw request, that is run against
sampand and against Debian's dockerd beside it. Exit status, output and errors must be the same; ids, times
and pids are taken out before. Of %d commands %d are answered alike and %d in another way, for the
reasons below.
`, steps, steps-differing, differing)
	if len(everywhere.ignores) > 0 {
		b.WriteString("\n## In every answer\n\n| lines that match | why they differ |\n|---|---|\n")
		ignored(&b, everywhere)
	}
	for _, s := range scripts {
		section(&b, s)
	}
	return b.String()
}

func section(b *strings.Builder, s *script) {
	fmt.Fprintf(b, "\n## %s\n\n%d commands (%s.txt)", s.title, len(s.steps), s.name)
	var rows strings.Builder
	ignored(&rows, s)
	for _, step := range s.steps {
		if step.differs != "" {
			fmt.Fprintf(&rows, "| %s | %s |\n", cell(step.command), step.differs)
		}
	}
	if rows.Len() == 0 {
		b.WriteString(", no difference.\n")
		return
	}
	b.WriteString(".\n\n| command | why its answer differs |\n|---|---|\n" + rows.String())
}

func ignored(b *strings.Builder, s *script) {
	for _, i := range s.ignores {
		fmt.Fprintf(b, "| lines: %s | %s |\n", cell(i.pattern.String()), i.reason)
	}
}

// cell is text as code in a table: a bar would end the cell.
func cell(text string) string {
	return "`" + strings.ReplaceAll(text, "|", "\\|") + "`"
}
