// Command features runs the scenarios and prints, by area, how many items of the checklist passed,
// failed and have no scenario, computed from the results of the run.
//
// A scenario (tests/*/testdata/*.txtar) names the items it proves in comment lines: "# S123 S124".
// An item has passed when every scenario that names it passed, and at least one did. What this machine cannot
// run (skip) proves nothing.
package main

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

//go:embed checklist.tsv
var checklist string

type item struct{ id, area, areaName, text string }

type result struct{ passed, failed []string } // scenarios

var identifier = regexp.MustCompile(`\bS\d{3}\b`)

func main() {
	write := flag.String("write", "", "also write the table as Markdown to this `file`")
	flag.Parse()
	if err := run(*write); err != nil {
		fmt.Fprintln(os.Stderr, "features:", err)
		os.Exit(1)
	}
}

func run(write string) error {
	items := parse(checklist)
	named, err := scenarios("tests")
	if err != nil {
		return err
	}
	if err := known(items, named); err != nil {
		return err
	}
	outcome, err := runScenarios()
	if err != nil {
		return err
	}
	results := map[string]*result{}
	for scenario, ids := range named {
		if outcome[scenario] == "skip" {
			continue // it proves nothing on this machine
		}
		for _, id := range ids {
			r := results[id]
			if r == nil {
				r = &result{}
				results[id] = r
			}
			switch outcome[scenario] {
			case "pass":
				r.passed = append(r.passed, scenario)
			default:
				r.failed = append(r.failed, scenario)
			}
		}
	}
	table, failed := report(items, results, outcome)
	fmt.Print(table)
	if write != "" {
		if err := os.WriteFile(write, []byte("# The checklist\n\nPrinted by `make features`: it runs the scenarios and counts.\n\n"+table), 0o644); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d items failed", failed)
	}
	return nil
}

func parse(tsv string) []item {
	var items []item
	for line := range strings.Lines(tsv) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) == 4 && !strings.HasPrefix(line, "#") {
			items = append(items, item{f[0], f[1], f[2], f[3]})
		}
	}
	return items
}

// scenarios maps "package/file" of every scenario to the items that it names.
func scenarios(root string) (map[string][]string, error) {
	files, err := filepath.Glob(filepath.Join(root, "*", "testdata", "*.txtar"))
	if err != nil {
		return nil, err
	}
	named := map[string][]string{}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		key := filepath.Base(filepath.Dir(filepath.Dir(file))) + "/" + strings.TrimSuffix(filepath.Base(file), ".txtar")
		for s := bufio.NewScanner(f); s.Scan(); {
			if comment, ok := strings.CutPrefix(s.Text(), "#"); ok {
				named[key] = append(named[key], identifier.FindAllString(comment, -1)...)
			}
		}
		f.Close()
	}
	return named, nil
}

func known(items []item, named map[string][]string) error {
	for scenario, ids := range named {
		for _, id := range ids {
			if !slices.ContainsFunc(items, func(i item) bool { return i.id == id }) {
				return fmt.Errorf("scenario %s names %s, which is not in the checklist", scenario, id)
			}
		}
	}
	return nil
}

// runScenarios runs the tests of the packages that have scenarios, and maps each scenario to
// "pass", "fail" or "skip".
func runScenarios() (map[string]string, error) {
	dirs, err := filepath.Glob("tests/*/testdata")
	if err != nil {
		return nil, err
	}
	args := []string{"test", "-json", "-count=1", "-p", "1", "-timeout", "60m"}
	for _, d := range dirs {
		args = append(args, "./"+filepath.Dir(d))
	}
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	outcome, said := map[string]string{}, map[string]*strings.Builder{}
	for d := json.NewDecoder(out); ; {
		var e struct{ Action, Package, Test, Output string }
		if err := d.Decode(&e); err != nil {
			if err != io.EOF {
				return nil, fmt.Errorf("go test -json: %w", err)
			}
			break
		}
		_, name, sub := strings.Cut(e.Test, "/")
		switch e.Action {
		case "output":
			if said[e.Test] == nil {
				said[e.Test] = &strings.Builder{}
			}
			said[e.Test].WriteString(e.Output)
		case "pass", "fail", "skip":
			if text := said[e.Test]; e.Action == "fail" && text != nil {
				fmt.Fprint(os.Stderr, text) // it may not fail again
			}
			delete(said, e.Test)
			if sub {
				key := e.Package[strings.LastIndex(e.Package, "/")+1:] + "/" + name
				outcome[key] = e.Action
				fmt.Fprintf(os.Stderr, "%s %s\n", e.Action, key)
			}
		}
	}
	_ = cmd.Wait() // a failed test is in the outcome
	return outcome, nil
}

func report(items []item, results map[string]*result, outcome map[string]string) (table string, failures int) {
	var b strings.Builder
	var failedItems []string
	b.WriteString("| area | items | passed | failed | no scenario |\n|---|---:|---:|---:|---:|\n")
	var total [4]int
	for start := 0; start < len(items); {
		end := start
		var n [4]int
		for ; end < len(items) && items[end].area == items[start].area; end++ {
			n[0]++
			switch r := results[items[end].id]; {
			case r == nil:
				n[3]++
			case len(r.failed) > 0:
				n[2]++
				failedItems = append(failedItems, fmt.Sprintf("- %s %s: %s", items[end].id, items[end].text, strings.Join(r.failed, ", ")))
			default:
				n[1]++
			}
		}
		fmt.Fprintf(&b, "| %s %s | %d | %d | %d | %d |\n", items[start].area, items[start].areaName, n[0], n[1], n[2], n[3])
		for i := range n {
			total[i] += n[i]
		}
		start = end
	}
	fmt.Fprintf(&b, "| all | %d | %d | %d | %d |\n", total[0], total[1], total[2], total[3])
	passed := 0
	for _, action := range outcome {
		if action == "pass" {
			passed++
		}
	}
	fmt.Fprintf(&b, "\n%d scenarios ran, %d passed.\n", len(outcome), passed)
	if failedItems != nil {
		b.WriteString("\nFailed:\n\n" + strings.Join(failedItems, "\n") + "\n")
	}
	return b.String(), total[2]
}
