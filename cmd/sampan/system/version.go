package system

import (
	"context"
	"fmt"
	"io"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/wire"
)

// versions is what version prints and its template sees.
type versions struct {
	Client clientVersion
	Server *wire.Version
}

// clientVersion is this program's part.
type clientVersion struct {
	Version           string
	APIVersion        string `json:"ApiVersion"`
	DefaultAPIVersion string `json:"DefaultAPIVersion"`
	GitCommit         string
	GoVersion         string
	Os                string
	Arch              string
	BuildTime         string `json:"BuildTime,omitempty"`
	Context           string
}

func newClientVersion(c *cli.CLI) clientVersion {
	return clientVersion{
		Version: wire.Release, APIVersion: wire.APIVersion, DefaultAPIVersion: wire.APIVersion, GitCommit: wire.Commit,
		GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH, BuildTime: buildTime(),
		Context: c.ContextName(),
	}
}

func newVersion(c *cli.CLI) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "version [OPTIONS]", Short: "Show the Sampan version information", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return version(cmd.Context(), c, format) },
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", cli.InspectFormatHelp)
	return cmd
}

// version prints what can be told of the client also when there is no server.
func version(ctx context.Context, c *cli.CLI, format string) error {
	v := versions{Client: newClientVersion(c)}
	engine, err := c.Client()
	if err == nil {
		var server wire.Version
		if server, err = engine.ServerVersion(ctx); err == nil {
			v.Server = &server
			v.Client.APIVersion = engine.Version()
		}
	}
	if format != "" {
		if printErr := cli.One(c.Out, format, v); printErr != nil {
			return printErr
		}
		return err
	}
	w := tabwriter.NewWriter(c.Out, 20, 1, 1, ' ', 0)
	writeClient(w, v.Client)
	if v.Server != nil {
		writeServer(w, v.Server)
	}
	if flushErr := w.Flush(); flushErr != nil {
		return flushErr
	}
	return err
}

// buildTime is that of the commit which the program was built from, if it is known.
func buildTime() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			return s.Value
		}
	}
	return ""
}

// shownTime is a build's time as version shows it.
func shownTime(given string) string {
	if t, err := time.Parse(time.RFC3339Nano, given); err == nil {
		return t.Format(time.ANSIC)
	}
	return given
}

func writeClient(w io.Writer, v clientVersion) {
	api := v.APIVersion
	if api != v.DefaultAPIVersion {
		api += " (downgraded from " + v.DefaultAPIVersion + ")"
	}
	fmt.Fprintf(w, "Client:\n Version:\t%s\n API version:\t%s\n Go version:\t%s\n Git commit:\t%s\n Built:\t%s\n OS/Arch:\t%s/%s\n Context:\t%s\n",
		v.Version, api, v.GoVersion, v.GitCommit, shownTime(v.BuildTime), v.Os, v.Arch, v.Context)
}

func writeServer(w io.Writer, v *wire.Version) {
	title := "\nServer:"
	if v.Platform.Name != "" {
		title += " " + v.Platform.Name
	}
	fmt.Fprintln(w, title)
	for _, part := range v.Components {
		d := part.Details
		if part.Name == "Engine" {
			fmt.Fprintf(w, " Engine:\n  Version:\t%s\n  API version:\t%s (minimum version %s)\n  Go version:\t%s\n  Git commit:\t%s\n  Built:\t%s\n  OS/Arch:\t%s/%s\n  Experimental:\t%s\n",
				part.Version, d["ApiVersion"], d["MinAPIVersion"], d["GoVersion"], d["GitCommit"], shownTime(d["BuildTime"]), d["Os"], d["Arch"], d["Experimental"])
			continue
		}
		fmt.Fprintf(w, " %s:\n  Version:\t%s\n", part.Name, part.Version)
		for _, name := range slices.Sorted(maps.Keys(d)) {
			fmt.Fprintf(w, "  %s:\t%s\n", name, d[name])
		}
	}
}
