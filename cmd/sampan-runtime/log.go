package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	goruntime "runtime"
	"runtime/debug"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/core/fault"
)

// openLog opens the log in the form that runc's callers read: they take level and msg of the last
// line for the error.
func (p *program) openLog(file, format string) error {
	out := io.Writer(os.Stderr)
	o := &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: asRunc}
	if p.debug {
		o.Level = slog.LevelDebug
	}
	p.log = slog.New(slog.NewTextHandler(out, o))
	if file != "" {
		f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return fmt.Errorf("--log: %w", err)
		}
		out, p.toFile = f, true
	}
	switch format {
	case "text", "":
		p.log = slog.New(slog.NewTextHandler(out, o))
	case "json":
		p.log = slog.New(slog.NewJSONHandler(out, o))
	default:
		return &fault.Field{Field: "--log-format", Given: format, Expected: "text or json"}
	}
	return nil
}

func asRunc(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.LevelKey:
		return slog.String(a.Key, strings.ToLower(a.Value.String()))
	case slog.TimeKey:
		return slog.String(a.Key, a.Value.Time().UTC().Format(time.RFC3339)) // the local one is in a file
	}
	return a
}

// build is the version of this program and the commit that it was built from.
func build() (version, commit string) {
	version = "dev"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version, ""
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			commit = s.Value
		}
	}
	return version, commit
}

func printVersion(w io.Writer) error {
	version, commit := build()
	fmt.Fprintf(w, "%s version %s\n", name, version)
	if commit != "" {
		fmt.Fprintf(w, "commit: %s\n", commit)
	}
	_, err := fmt.Fprintf(w, "spec: %s\ngo: %s\n", specs.Version, goruntime.Version())
	return err
}

func printHelp(w io.Writer, global *pflag.FlagSet) error {
	fmt.Fprintf(w, "Usage: %s [OPTION...] COMMAND [OPTION...] [ARG...]\n\nRun containers from OCI bundles.\n\nCommands:\n", name)
	for _, v := range verbs() {
		fmt.Fprintf(w, "  %-9s %s\n", v.name, v.does)
	}
	_, err := fmt.Fprintf(w, "\nOptions:\n%s\n%s COMMAND --help says more.\n", global.FlagUsages(), name)
	return err
}
