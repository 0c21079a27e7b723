// Conformance runs the validation programs of opencontainers/runtime-tools with runc and with
// sampan-runtime, one after the other, and compares them: on this machine, and with -vm also in a
// virtual machine that has cgroup v2 alone, there as root and as an ordinary user.
//
//	main.go      the options, and what is run where
//	place.go     all programs in one place, and the verdict on it
//	vm.go        the same program, started in the virtual machine
//	rootless.go  what an ordinary user's container needs, put into the programs' config.json
//	suite.go     builds the programs from the Go module in build/conformance
//	program.go   one run of one program, and what is cleaned up after it
//	tap.go       what a program's output says (https://testanything.org/tap-specification.html)
//	document.go  docs/conformance.md
//	causes.tsv   why a program fails: what people have found out, and -write puts into the document
//
// The exit status is 1 when a program passes with runc and not with ours, when no more pass with ours
// than with runc, or when a failure of ours has no cause in causes.tsv.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

//go:embed causes.tsv
var causesFile string

func main() {
	if len(os.Args) > 2 && os.Args[1] == adaptArg {
		fmt.Fprintln(os.Stderr, "conformance:", adapt(os.Args[2], os.Args[3:]))
		os.Exit(1)
	}
	var o options
	flag.StringVar(&o.runtimes, "runtimes", "runc=/usr/sbin/runc ours=bin/sampan-runtime", "the runtimes by the names of their columns")
	flag.StringVar(&o.dir, "dir", "build/conformance", "where the programs are built, and the outputs are left")
	flag.StringVar(&o.write, "write", "", "document to write")
	flag.StringVar(&o.vm, "vm", "", "the program that boots the virtual machine")
	flag.StringVar(&o.outcome, "outcome", "", "file for the outcome; the programs are built and given as arguments")
	flag.BoolVar(&o.again, "again", false, "run nothing: what came out last is judged and written again")
	flag.DurationVar(&o.timeout, "timeout", 3*time.Minute, "for one run of one program")
	flag.Parse()
	o.only = flag.Args()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	run := compare
	if o.outcome != "" {
		run = guest
	}
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

type options struct {
	runtimes, dir, write, vm, outcome string
	again                             bool
	timeout                           time.Duration
	only                              []string
}

// side is one of the runtimes that are compared.
type side struct{ name, program string }

func (o options) sides() (list []side, err error) {
	for f := range strings.FieldsSeq(o.runtimes) {
		name, program, ok := strings.Cut(f, "=")
		if !ok {
			return nil, fmt.Errorf("-runtimes: %q: expected NAME=PROGRAM", f)
		}
		if program, err = filepath.Abs(program); err != nil {
			return nil, err
		}
		list = append(list, side{name, program})
	}
	return list, nil
}

// compare runs the programs in all places, and writes the document.
func compare(ctx context.Context, o options) (err error) {
	sides, err := o.sides()
	if err != nil {
		return err
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	causes, err := parseCauses(causesFile)
	if err != nil {
		return err
	}
	scenarios, err := parseScenarios(runcScenarios)
	if err != nil {
		return err
	}
	s, err := buildSuite(ctx, o.dir)
	if err != nil {
		return err
	}
	if len(o.only) > 0 {
		s.programs = o.only
	}
	if !o.again {
		if err := s.runEverywhere(ctx, o, sides); err != nil {
			return err
		}
	}
	places, err := s.outcomes(o.vm != "")
	if err != nil {
		return err
	}
	for _, p := range places {
		fmt.Println(p.summary())
	}
	if o.write != "" {
		if err := os.WriteFile(o.write, document(s.module, places, causes, scenarios), 0o644); err != nil { //nolint:gosec // a document
			return err
		}
	}
	var errs []error
	for _, p := range places {
		errs = append(errs, p.verdict(causes, len(o.only) == 0))
	}
	return errors.Join(errs...)
}

// users are those that the programs are run as in the virtual machine.
var users = []string{"root", "test"}

// runEverywhere runs the programs here and, as each user, in a virtual machine of its own, at the same
// time: they mostly wait.
func (s *suite) runEverywhere(ctx context.Context, o options, sides []side) error {
	places := []func() error{func() error {
		here, err := s.runAll(ctx, sides, s.programs, o.timeout)
		if err != nil {
			return err
		}
		return here.save(filepath.Join(s.dir, "here.json"))
	}}
	if o.vm != "" {
		if err := s.ship(sides); err != nil {
			return err
		}
		for _, user := range users {
			places = append(places, func() error {
				if err := s.runInVM(ctx, o.vm, user); err != nil {
					return fmt.Errorf("in the virtual machine as %s: %w", user, err)
				}
				return nil
			})
		}
	}
	ended := make(chan error)
	for _, run := range places {
		go func() { ended <- run() }()
	}
	var errs []error
	for range places {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

// outcomes are what runEverywhere has left.
func (s *suite) outcomes(vm bool) ([]place, error) {
	files := []string{"here.json"}
	if vm {
		for _, user := range users {
			files = append(files, filepath.Join("vm", user+".json"))
		}
	}
	places := make([]place, len(files))
	for i, file := range files {
		text, err := os.ReadFile(filepath.Join(s.dir, file))
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &places[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return places, nil
}
