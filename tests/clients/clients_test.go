// Package clients holds the scenarios of programs that drive Docker through a library: Docker's Python client
// as Debian has it (python3-docker), and testcontainers-go. Both are unchanged, and know nothing but
// the socket in DOCKER_HOST.
//
// The Go program is a module of its own, in testcontainers: it is built for its scenario alone, so that its
// forty dependencies are neither in our programs nor in our go.mod.
package clients

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sampan-project/sampan/tests/scenario"
)

func TestScenarios(t *testing.T) {
	dir := program(t)
	operations := 300
	if os.Getenv("SAMPAN_SOAK") != "" {
		operations = 10_000
	}
	// A scenario sees no variable of ours, but PATH.
	if err := os.WriteFile(filepath.Join(dir, "operations"), fmt.Appendf(nil, "#!/bin/sh\necho %d\n", operations), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	scenario.Run(t, "testdata")
}

// program builds the tests that use testcontainers-go and returns the directory they are in.
func program(t *testing.T) string {
	dir := t.TempDir()
	build := exec.Command("go", "test", "-c", "-o", filepath.Join(dir, "with-testcontainers"), ".")
	build.Dir = "testcontainers"
	build.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build testcontainers: %v\n%s", err, out)
	}
	return dir
}
