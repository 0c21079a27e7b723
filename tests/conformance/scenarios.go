package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"
)

// runcScenarios are what runc's own integration tests ask of a runtime, in lines of file, behaviour and
// the test of ours that shows it, or "n/a: " or "gap: " and the reason.
//
//go:embed runc-scenarios.tsv
var runcScenarios string

type scenario struct{ file, behaviour, test string }

func (s scenario) covered() bool {
	return !strings.HasPrefix(s.test, "n/a: ") && !strings.HasPrefix(s.test, "gap: ")
}

func parseScenarios(text string) ([]scenario, error) {
	var list []scenario
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		part := strings.Split(line, "\t")
		if len(part) != 3 {
			return nil, fmt.Errorf("runc-scenarios.tsv:%d: %d columns, expected file, behaviour and test", i+1, len(part))
		}
		if i > 0 {
			list = append(list, scenario{part[0], part[1], part[2]})
		}
	}
	return list, nil
}

// scenarioTable is the page's section about them.
func scenarioTable(b *bytes.Buffer, list []scenario) {
	covered := 0
	for _, s := range list {
		if s.covered() {
			covered++
		}
	}
	fmt.Fprintf(b, "\n## The integration scenarios of runc\n\n"+
		"Read as a specification (runc 1.5.0-rc.1, tests/integration): %d behaviours, %d shown by a test of ours.\n"+
		"`n/a` is what does not concern this runtime, `gap` what no test shows.\n\n"+
		"| File | Behaviour | Test |\n|---|---|---|\n", len(list), covered)
	for _, s := range list {
		test := s.test
		if s.covered() {
			test = "`" + test + "`"
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", s.file, strings.ReplaceAll(s.behaviour, "|", "\\|"), strings.ReplaceAll(test, "|", "\\|"))
	}
}
