package main

import (
	"bytes"
	"context"
	"fmt"
)

type column struct {
	registry registry
	outcome  outcome
}

// document is docs/registry-conformance.md.
func document(s *suite, columns []column) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# The registry's conformance\n\nWritten by `make registry-conformance`: the conformance suite of the OCI distribution specification (`%s`", module)
	if s.commit != "" {
		fmt.Fprintf(&b, ", commit %s", s.commit)
	}
	fmt.Fprintf(&b, "), version %s of the\nspecification with the suite's own settings, one after the other with `sampan registry serve` and with Debian's docker-registry\n", version)
	fmt.Fprintf(&b, "(%s), both with their content in a directory and deletion permitted.\n\n", columns[1].registry.version(context.Background()))
	b.WriteString("\"Disabled\" is what that version does not ask for, \"Skip\" what a registry need not have: ours does not look for a blob in other\nrepositories unless it is told in which, as knowing a digest is no right to the content.\n")
	group := ""
	for _, p := range columns[0].outcome {
		if p.group != group {
			group = p.group
			fmt.Fprintf(&b, "\n## %s\n\n| part |", group)
			for _, c := range columns {
				fmt.Fprintf(&b, " %s |", c.registry.name)
			}
			b.WriteString("\n|---|---|---|\n")
		}
		fmt.Fprintf(&b, "| %s |", p.name)
		for _, c := range columns {
			fmt.Fprintf(&b, " %s |", c.outcome.result(p.group, p.name))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n| sum |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", c.registry.name)
	}
	b.WriteString("\n|---|---|---|\n")
	for _, result := range []string{"Pass", "FAIL", "Skip", "Disabled"} {
		fmt.Fprintf(&b, "| %s |", result)
		for _, c := range columns {
			fmt.Fprintf(&b, " %d |", c.outcome.count(result))
		}
		b.WriteString("\n")
	}
	return b.Bytes()
}
