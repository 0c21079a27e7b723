package runtime

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Without a cgroup and a pid namespace nothing holds the processes of a container together, which is worth a
// warning; with either it is not.
func TestRootlessWithoutHold(t *testing.T) {
	if asOrdinary(t) {
		return
	}
	const words = "no more than its first process"
	for _, shared := range []bool{false, true} {
		b := newBench(t)
		var log bytes.Buffer
		r, err := New(Options{Root: filepath.Join(t.TempDir(), "state"), Init: b.options.Init, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		b.Runtime = r
		spec := shellSpec("echo here")
		if shared {
			spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
			for i, m := range spec.Mounts {
				if m.Type == "proc" { // its own takes a pid namespace
					spec.Mounts[i] = specs.Mount{Destination: "/proc", Type: "none", Source: "/proc", Options: []string{"rbind", "nosuid", "nodev", "noexec"}}
				}
			}
			spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths, spec.Linux.Sysctl = nil, nil, nil
		}
		out, status := b.run(spec)
		if out != "here" || status != 0 || strings.Contains(log.String(), words) != (shared && !delegates(t)) {
			t.Errorf("shared %v: %q, status %d, log %q", shared, out, status, log.String())
		}
	}
}
