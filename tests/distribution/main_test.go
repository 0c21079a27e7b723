package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/tests/scenario"
)

func TestReadOutcome(t *testing.T) {
	got := readOutcome("  Total.........................:        848\n\nAPI conformance:\n  Tag listing...................:       Pass\n  Blob mount....................:       FAIL\n\nData conformance:\n  Index.........................:   Disabled\n\n*** Conformance test detected a failure. ***\n")
	want := outcome{{"API", "Tag listing", "Pass"}, {"API", "Blob mount", "FAIL"}, {"Data", "Index", "Disabled"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(part{})); diff != "" {
		t.Error(diff)
	}
}

// TestConformance runs the suite with our registry where the suite can be had.
func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite is built and run")
	}
	s, err := buildSuite(t.Context(), t.TempDir(), os.Getenv("DISTRIBUTION_SPEC"))
	if err != nil {
		if os.Getenv("DISTRIBUTION_SPEC") == "" && strings.Contains(err.Error(), "go get") {
			t.Skipf("the suite cannot be had here: %v", err)
		}
		t.Fatal(err)
	}
	o, err := s.run(t.Context(), registries(scenario.Programs(t))[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range o {
		if p.result == "FAIL" || p.result == "Error" {
			t.Errorf("%s: %s: %s", p.group, p.name, p.result)
		}
	}
	if n := o.count("Pass"); n < 40 {
		t.Errorf("%d parts of the suite pass: expected at least 40", n)
	}
}
