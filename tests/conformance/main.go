// Conformance runs the validation programs of opencontainers/runtime-tools with runc and with
// sampan-runtime, one after the other, and compares them.
//
//	main.go      the run: which programs, the table, the verdict
//	suite.go     builds the programs from the Go module in build/conformance
//	program.go   one run of one program, and what is cleaned up after it
//	tap.go       what a program's output says (https://testanything.org/tap-specification.html)
//	causes.tsv   why a program fails: what people have found out, and -write puts into the document
//
// The exit status is 1 when a program passes with runc and not with ours, or when a failure of ours
// has no cause in causes.tsv.
package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

//go:embed causes.tsv
var causesFile string

// row is what became of one program.
type row struct {
	program    string
	runc, ours result
}

func main() {
	var o options
	flag.StringVar(&o.runc, "runc", "/usr/sbin/runc", "the runtime to compare with")
	flag.StringVar(&o.ours, "ours", "bin/sampan-runtime", "the runtime under test")
	flag.StringVar(&o.dir, "dir", "build/conformance", "where the programs are built, and the outputs are left")
	flag.StringVar(&o.write, "write", "", "document to write")
	flag.DurationVar(&o.timeout, "timeout", time.Minute, "for one run of one program")
	flag.Parse()
	o.only = flag.Args()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

type options struct {
	runc, ours, dir, write string
	timeout                time.Duration
	only                   []string
}

func run(ctx context.Context, o options) error {
	for _, p := range []*string{&o.runc, &o.ours, &o.dir} {
		var err error
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	causes, err := parseCauses(causesFile)
	if err != nil {
		return err
	}
	s, err := buildSuite(ctx, o.dir)
	if err != nil {
		return err
	}
	programs := s.programs
	if len(o.only) > 0 {
		programs = o.only
	}
	var rows []row
	for _, program := range programs {
		r := row{program: program}
		for _, side := range []struct {
			name, runtime string
			to            *result
		}{{"runc", o.runc, &r.runc}, {"ours", o.ours, &r.ours}} {
			if *side.to, err = s.run(ctx, program, side.name, side.runtime, o.timeout); err != nil {
				return fmt.Errorf("%s with %s: %w", program, side.name, err)
			}
		}
		fmt.Printf("%-32s runc %-28s ours %s\n", program, r.runc, r.ours)
		rows = append(rows, r)
	}
	fmt.Println(summary(rows))
	if o.write != "" {
		if err := os.WriteFile(o.write, document(s, rows, causes, versionOf(ctx, o.runc)), 0o644); err != nil { //nolint:gosec // a document
			return err
		}
	}
	return verdict(rows, causes)
}

func count(rows []row, which func(row) bool) (n int) {
	for _, r := range rows {
		if which(r) {
			n++
		}
	}
	return n
}

func summary(rows []row) string {
	return fmt.Sprintf("Of %d programs %d pass with runc and %d with ours.", len(rows),
		count(rows, func(r row) bool { return r.runc.passed() }), count(rows, func(r row) bool { return r.ours.passed() }))
}

// verdict is an error that names what is not as it must be.
func verdict(rows []row, causes map[string]string) error {
	var behind, unexplained []string
	for _, r := range rows {
		switch {
		case r.ours.passed():
		case r.runc.passed():
			behind = append(behind, r.program)
		case causes[r.program] == "":
			unexplained = append(unexplained, r.program)
		}
	}
	switch {
	case len(behind) > 0:
		return fmt.Errorf("passed with runc and not with ours: %s", strings.Join(behind, " "))
	case len(unexplained) > 0:
		return fmt.Errorf("causes.tsv does not explain why ours fails: %s", strings.Join(unexplained, " "))
	}
	return nil
}

// parseCauses reads lines of program, tab, cause.
func parseCauses(text string) (map[string]string, error) {
	causes := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		program, cause, ok := strings.Cut(line, "\t")
		if !ok || causes[program] != "" {
			return nil, fmt.Errorf("causes.tsv: %q: expected a program, a tab and its cause, each program once", line)
		}
		causes[program] = cause
	}
	return causes, nil
}

const preface = `# Conformance

` + "`make conformance`" + ` builds the validation programs of the Go module
` + "`%s`" + ` and runs each with %s and with ` + "`sampan-runtime`" + ` on the same machine in
the same run. It writes this page, and fails when a program passes with runc and not with ours.

%s

A program passes when it ends with status 0 and its output is a complete TAP stream without
` + "`not ok`" + ` and without an error that belongs to no check. The numbers are checks that held of
checks that were made; the programs about hooks make none, and report only an error.

| Program | runc | ours | Cause of the failure |
|---|---|---|---|
`

// document is the page that -write writes. It depends on nothing that differs between two runs with
// the same outcome.
func document(s *suite, rows []row, causes map[string]string, runc string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, preface, s.module, runc, summary(rows))
	for _, r := range slices.SortedFunc(slices.Values(rows), func(a, b row) int { return strings.Compare(a.program, b.program) }) {
		cause := ""
		if !r.ours.passed() || !r.runc.passed() {
			cause = causes[r.program]
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.program, r.runc, r.ours, cause)
	}
	return b.Bytes()
}

// firstLine of a program's output.
func firstLine(text []byte) string {
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Scan()
	return strings.TrimSpace(lines.Text())
}
