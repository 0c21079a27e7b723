package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// causes say why a program fails, by program or, where there is another reason in some place, by
// PROGRAM@v2 for cgroup v2 and PROGRAM@user for an ordinary user.
type causes map[string]string

func (c causes) of(p place, program string) string {
	if own := c[program+"@user"]; p.Rootless && own != "" {
		return own
	}
	if own := c[program+"@v2"]; p.Unified && own != "" {
		return own
	}
	return c[program]
}

// parseCauses reads lines of program, tab, cause.
func parseCauses(text string) (causes, error) {
	list := causes{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		program, cause, ok := strings.Cut(line, "\t")
		if !ok || list[program] != "" {
			return nil, fmt.Errorf("causes.tsv: %q: expected a program, a tab and its cause, each program once", line)
		}
		list[program] = cause
	}
	return list, nil
}

const preface = `# Conformance

` + "`make conformance`" + ` builds the validation programs of the Go module
` + "`%s`" + ` and runs each with runc and with ` + "`sampan-runtime`" + `, one after the other: on this
machine and, where ` + "`VM_RUN`" + ` names a program that boots one, in a virtual machine with cgroup v2 alone.
It writes this page, and fails when a program passes with runc and not with ours, and when no more pass with ours.

A program passes when it ends with status 0 and its output is a complete TAP stream without
` + "`not ok`" + ` and without an error that belongs to no check. The numbers are checks that held of
checks that were made; the programs about hooks make none, and report only an error. Some programs are races:
one that fails with one runtime and passes with the other is run up to three times.

`

const aboutUser = `
The programs know no ordinary user: they ask for containers without a user namespace. Before it is created, the
container is given the namespace, the user's subordinate ids and a cgroup where they are delegated, in its
` + "`config.json`" + `, the same for each runtime.
`

// document is the page that -write writes. It depends on nothing that differs between two runs with
// the same outcome.
func document(module string, places []place, causes causes, scenarios []scenario) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, preface, module)
	b.WriteString("| Where | Programs |")
	for _, name := range places[len(places)-1].Sides {
		fmt.Fprintf(&b, " pass with %s |", name)
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(places[len(places)-1].Sides)) + "\n")
	for _, p := range places {
		fmt.Fprintf(&b, "| %s | %d |", p.title(), len(p.Rows))
		for _, name := range places[len(places)-1].Sides {
			if slices.Contains(p.Sides, name) {
				fmt.Fprintf(&b, " %d |", p.count(name))
			} else {
				b.WriteString(" |")
			}
		}
		b.WriteString("\n")
	}
	for _, p := range places {
		p.table(&b, causes)
	}
	scenarioTable(&b, scenarios)
	return b.Bytes()
}

func (p place) table(b *bytes.Buffer, causes causes) {
	fmt.Fprintf(b, "\n## %s\n", p.title())
	if p.Rootless {
		b.WriteString(aboutUser)
	}
	var versions []string
	for i, name := range p.Sides {
		if name != ours {
			versions = append(versions, p.Versions[i])
		}
	}
	fmt.Fprintf(b, "\nCompared with: %s.\n\n| Program | %s | Cause of the failure |\n|---%s|---|\n",
		strings.Join(versions, ", "), strings.Join(p.Sides, " | "), strings.Repeat("|---", len(p.Sides)))
	for _, r := range slices.SortedFunc(slices.Values(p.Rows), func(a, b row) int { return strings.Compare(a.Program, b.Program) }) {
		cause := ""
		var cells []string
		for _, result := range r.Results {
			cells = append(cells, result.String())
			if !result.passed() {
				cause = causes.of(p, r.Program)
			}
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", r.Program, strings.Join(cells, " | "), cause)
	}
}
