package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// module is the suite's.
const module = "github.com/opencontainers/distribution-spec/conformance"

// version is that of the specification which is tested.
const version = "1.1"

// patience bounds one run of the suite.
const patience = 5 * time.Minute

// suite is the built program.
type suite struct {
	dir     string
	program string
	commit  string // what the suite says it is, when that is known
}

// buildSuite builds the suite in a module of its own: the project's has none of its dependencies.
func buildSuite(ctx context.Context, dir, spec string) (*suite, error) {
	s := &suite{dir: dir, program: filepath.Join(dir, "conformance")}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module suite\n\ngo 1.26\n"), 0o644); err != nil { //nolint:gosec // source
		return nil, err
	}
	if spec != "" {
		spec, err := filepath.Abs(spec)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(filepath.Join(spec, "conformance", "main.go")); err != nil {
			return nil, fmt.Errorf("-spec: expected a checkout of opencontainers/distribution-spec: %w", err)
		}
		edit := []string{"mod", "edit"}
		for _, part := range []string{"conformance", "specs-go"} {
			path := "github.com/opencontainers/distribution-spec/" + part
			edit = append(edit, "-require="+path+"@v0.0.0", "-replace="+path+"="+filepath.Join(spec, part))
		}
		if err := s.command(ctx, edit...); err != nil {
			return nil, err
		}
		if out, err := exec.CommandContext(ctx, "git", "-C", spec, "rev-parse", "--short=12", "HEAD").Output(); err == nil {
			s.commit = strings.TrimSpace(string(out))
		}
	}
	if spec == "" {
		if err := s.command(ctx, "get", module); err != nil {
			return nil, err
		}
	}
	return s, s.command(ctx, "build", "-o", s.program, module)
}

func (s *suite) command(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=mod")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w: %s", args[0], err, bytes.TrimSpace(out))
	}
	return nil
}

// outcome is what came out of each part of the suite, in its order.
type outcome []part

type part struct{ group, name, result string }

func (o outcome) count(result string) (n int) {
	for _, p := range o {
		if p.result == result {
			n++
		}
	}
	return n
}

func (o outcome) result(group, name string) string {
	for _, p := range o {
		if p.group == group && p.name == name {
			return p.result
		}
	}
	return ""
}

// run starts a registry and runs the suite with it.
func (s *suite) run(ctx context.Context, r registry) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	results := filepath.Join(s.dir, r.name)
	if err := os.RemoveAll(results); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(results, 0o755); err != nil {
		return nil, err
	}
	address, stop, err := r.start(ctx, filepath.Join(results, "content"))
	if err != nil {
		return nil, err
	}
	defer stop()
	cmd := exec.CommandContext(ctx, s.program)
	cmd.Dir = results
	cmd.Env = append(os.Environ(), "OCI_REGISTRY="+address, "OCI_TLS=disabled", "OCI_VERSION="+version, "OCI_RESULTS_DIR="+results)
	out, err := cmd.CombinedOutput()
	if werr := os.WriteFile(filepath.Join(results, "output"), out, 0o644); werr != nil { //nolint:gosec // a log
		return nil, werr
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	o := readOutcome(string(out))
	if len(o) == 0 {
		return nil, fmt.Errorf("the suite told nothing: %s", bytes.TrimSpace(out))
	}
	return o, nil
}

// readOutcome reads the suite's last lines: "API conformance:" and "Data conformance:", and below each
// "  Blob mount....................:       Pass".
func readOutcome(out string) (o outcome) {
	group := ""
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		if name, ok := strings.CutSuffix(line, " conformance:"); ok && !strings.HasPrefix(line, " ") {
			group = name
			continue
		}
		name, result, ok := strings.Cut(line, ".:")
		if group == "" || !ok || !strings.HasPrefix(line, "  ") {
			continue
		}
		o = append(o, part{group, strings.TrimRight(strings.TrimSpace(name), "."), strings.TrimSpace(result)})
	}
	return o
}
