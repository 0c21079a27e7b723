package system

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"

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
	Platform          struct{ Name string } `json:"Platform"`
	Version           string
	APIVersion        string `json:"ApiVersion"`
	DefaultAPIVersion string `json:"DefaultAPIVersion"`
	GitCommit         string
	GoVersion         string
	Os                string
	Arch              string
	Context           string
}

func newClientVersion(c *cli.CLI) clientVersion {
	return clientVersion{
		Version: wire.Release, APIVersion: wire.APIVersion, DefaultAPIVersion: wire.APIVersion, GitCommit: wire.Commit,
		GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH, Context: c.ContextName(),
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

func writeClient(w io.Writer, v clientVersion) {
	api := v.APIVersion
	if api != v.DefaultAPIVersion {
		api += " (downgraded from " + v.DefaultAPIVersion + ")"
	}
	fmt.Fprintf(w, "Client:\n Version:\t%s\n API version:\t%s\n Go version:\t%s\n Git commit:\t%s\n OS/Arch:\t%s/%s\n Context:\t%s\n",
		v.Version, api, v.GoVersion, v.GitCommit, v.Os, v.Arch, v.Context)
}

func writeServer(w io.Writer, v *wire.Version) {
	fmt.Fprintf(w, "\nServer: %s\n", v.Platform.Name)
	fmt.Fprintf(w, " Engine:\n  Version:\t%s\n  API version:\t%s (minimum version %s)\n  Go version:\t%s\n  Git commit:\t%s\n  OS/Arch:\t%s/%s\n",
		v.Version, v.APIVersion, v.MinAPIVersion, v.GoVersion, v.GitCommit, v.Os, v.Arch)
	if v.KernelVersion != "" {
		fmt.Fprintf(w, "  Kernel:\t%s\n", v.KernelVersion)
	}
	for _, part := range v.Components {
		if part.Name == "Engine" {
			continue
		}
		fmt.Fprintf(w, " %s:\n  Version:\t%s\n", part.Name, part.Version)
		if commit := part.Details["GitCommit"]; commit != "" {
			fmt.Fprintf(w, "  GitCommit:\t%s\n", commit)
		}
	}
}
