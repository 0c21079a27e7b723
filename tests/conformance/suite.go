package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// tools is the module of the suite. It has no go.mod: the versions beside it are the newest that it
// compiles with (later ones of the specification have limits as pointers, and later ones of selinux
// have no label.FileLabel).
const tools = "github.com/opencontainers/runtime-tools"

var modules = []string{
	tools + "@v0.9.0", "github.com/opencontainers/runtime-spec@v1.0.2", "github.com/opencontainers/selinux@v1.2.2",
}

// rootfs is the root filesystem that the programs unpack from their working directory.
const rootfs = "rootfs-" + runtime.GOARCH + ".tar.gz"

// suite is the built programs.
type suite struct {
	dir      string // of everything of ours
	outputs  string // where the programs' outputs are left
	module   string // with its version
	programs []string
}

// buildSuite builds the programs in a module of its own, so that the project's has none of their
// dependencies.
func buildSuite(ctx context.Context, dir string) (*suite, error) {
	s := &suite{dir: dir, outputs: dir}
	if err := os.MkdirAll(s.bin(), 0o755); err != nil {
		return nil, err
	}
	mod := filepath.Join(dir, "go.mod")
	if _, err := os.Stat(mod); err != nil {
		if err := os.WriteFile(mod, []byte("module conformance\n\ngo 1.26\n"), 0o644); err != nil { //nolint:gosec // source
			return nil, err
		}
	}
	if _, err := s.command(ctx, append([]string{"get"}, modules...)...); err != nil {
		return nil, err
	}
	out, err := s.command(ctx, "list", "-m", "-json", tools)
	if err != nil {
		return nil, err
	}
	var m struct{ Path, Version, Dir string }
	if err := json.Unmarshal(out, &m); err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	s.module = m.Path + " " + m.Version
	if err := copyProgram(filepath.Join(dir, rootfs), filepath.Join(m.Dir, rootfs)); err != nil {
		return nil, err
	}
	mains, err := filepath.Glob(filepath.Join(m.Dir, "validation", "*", "*.go"))
	if err != nil {
		return nil, err
	}
	build := []string{"build", "-mod=mod", "-o", s.bin() + "/", tools + "/cmd/runtimetest"}
	for _, main := range mains {
		if name := filepath.Base(filepath.Dir(main)); name != "util" && (len(s.programs) == 0 || s.programs[len(s.programs)-1] != name) {
			s.programs = append(s.programs, name)
			build = append(build, tools+"/validation/"+name)
		}
	}
	_, err = s.command(ctx, build...)
	return s, err
}

func (s *suite) bin() string { return filepath.Join(s.dir, "programs") }

func (s *suite) command(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
