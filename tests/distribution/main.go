// Distribution runs the conformance suite of the OCI distribution specification with sampan-registry and, to
// compare, with Debian's docker-registry, and writes docs/registry-conformance.md.
//
//	main.go      the options, and what is run
//	suite.go     builds the suite, and reads what came out
//	registry.go  the registries: how each is started
//	document.go  docs/registry-conformance.md
//
// The suite is the Go module github.com/opencontainers/distribution-spec/conformance; -spec names a checkout of the
// specification instead, where the module cannot be had. The exit status is 1 when anything fails with ours.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
)

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of our programs")
	flag.StringVar(&o.dir, "dir", "build/distribution", "where the suite is built, and its outputs are left")
	flag.StringVar(&o.spec, "spec", os.Getenv("DISTRIBUTION_SPEC"), "a checkout of opencontainers/distribution-spec")
	flag.StringVar(&o.write, "write", "", "document to write")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := compare(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "distribution:", err)
		os.Exit(1)
	}
}

type options struct{ bin, dir, spec, write string }

// compare runs the suite with each registry.
func compare(ctx context.Context, o options) error {
	for _, path := range []*string{&o.bin, &o.dir} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	s, err := buildSuite(ctx, o.dir, o.spec)
	if err != nil {
		return err
	}
	var columns []column
	for _, r := range registries(o.bin) {
		outcome, err := s.run(ctx, r)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		columns = append(columns, column{r, outcome})
		fmt.Printf("%-16s %d pass, %d fail\n", r.name, outcome.count("Pass"), outcome.count("FAIL"))
	}
	if o.write != "" {
		if err := os.WriteFile(o.write, document(s, columns), 0o644); err != nil { //nolint:gosec // a document
			return err
		}
	}
	if n := columns[0].outcome.count("FAIL"); n > 0 {
		return fmt.Errorf("%d of the suite's parts fail with ours: see %s", n, filepath.Join(o.dir, columns[0].registry.name))
	}
	return nil
}
