package system

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/wire"
)

func newInfo(c *cli.CLI) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "info [OPTIONS]", Short: "Display system-wide information", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return info(cmd.Context(), c, format) },
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", cli.InspectFormatHelp)
	return cli.Also(cmd, "sampan system info, sampan info")
}

// shownInfo is what info's template sees: the server's part, and this program's.
type shownInfo struct {
	*wire.Info
	ClientInfo clientInfo
}

// clientInfo is this program's part, in the order of Docker's.
type clientInfo struct {
	Debug bool
	clientPart
	Plugins  []string // of the client: there are none
	Warnings []string
}

// clientPart is what version tells of the client and info too.
type clientPart struct {
	Version           string
	DefaultAPIVersion string
	GitCommit         string
	GoVersion         string
	Os                string
	Arch              string
	BuildTime         string `json:"BuildTime,omitempty"`
	Context           string
}

func newClientInfo(c *cli.CLI) clientInfo {
	v := newClientVersion(c)
	return clientInfo{Debug: c.Globals.Debug, Plugins: []string{}, clientPart: clientPart{
		Version: v.Version, DefaultAPIVersion: v.DefaultAPIVersion, GitCommit: v.GitCommit, GoVersion: v.GoVersion,
		Os: v.Os, Arch: v.Arch, BuildTime: v.BuildTime, Context: v.Context,
	}}
}

func info(ctx context.Context, c *cli.CLI, format string) error {
	engine, err := c.Client()
	if err != nil {
		return err
	}
	v, err := engine.Info(ctx)
	if format != "" {
		if err != nil {
			return err
		}
		return cli.One(c.Out, format, shownInfo{Info: &v, ClientInfo: newClientInfo(c)})
	}
	fmt.Fprintf(c.Out, "Client:\n Version:    %s\n Context:    %s\n Debug Mode: %t\n\nServer:\n", wire.Release, c.ContextName(), c.Globals.Debug)
	if err != nil {
		return err
	}
	writeInfo(c.Out, v)
	for _, w := range v.Warnings {
		fmt.Fprintln(c.Err, w)
	}
	return nil
}

func writeInfo(out io.Writer, v wire.Info) {
	line := func(format string, args ...any) { fmt.Fprintf(out, " "+format+"\n", args...) }
	line("Containers: %d", v.Containers)
	line(" Running: %d", v.ContainersRunning)
	line(" Paused: %d", v.ContainersPaused)
	line(" Stopped: %d", v.ContainersStopped)
	line("Images: %d", v.Images)
	line("Server Version: %s", v.ServerVersion)
	line("Storage Driver: %s", v.Driver)
	for _, pair := range v.DriverStatus {
		line(" %s: %s", pair[0], pair[1])
	}
	line("Logging Driver: %s", v.LoggingDriver)
	line("Cgroup Driver: %s", v.CgroupDriver)
	line("Cgroup Version: %s", v.CgroupVersion)
	line("Plugins:")
	line(" Volume: %s", strings.Join(v.Plugins.Volume, " "))
	line(" Network: %s", strings.Join(v.Plugins.Network, " "))
	line(" Log: %s", strings.Join(v.Plugins.Log, " "))
	writeSwarm(line, &v.Swarm)
	var runtimes []string
	for name := range v.Runtimes {
		runtimes = append(runtimes, name)
	}
	slices.Sort(runtimes)
	line("Runtimes: %s", strings.Join(runtimes, " "))
	line("Default Runtime: %s", v.DefaultRuntime)
	line("Init Binary: %s", v.InitBinary)
	line("containerd version: %s", v.ContainerdCommit.ID)
	line("runc version: %s", v.RuncCommit.ID)
	line("init version: %s", v.InitCommit.ID)
	if len(v.SecurityOptions) > 0 {
		line("Security Options:")
		for _, option := range v.SecurityOptions {
			writeSecurity(line, option)
		}
	}
	line("Kernel Version: %s", v.KernelVersion)
	line("Operating System: %s", v.OperatingSystem)
	line("OSType: %s", v.OSType)
	line("Architecture: %s", v.Architecture)
	line("CPUs: %d", v.NCPU)
	line("Total Memory: %s", units.BytesSize(float64(v.MemTotal)))
	line("Name: %s", v.Name)
	line("ID: %s", v.ID)
	line("Docker Root Dir: %s", v.DockerRootDir)
	line("Debug Mode: %t", v.Debug)
	if v.Debug {
		line(" File Descriptors: %d", v.NFd)
		line(" Goroutines: %d", v.NGoroutines)
		line(" System Time: %s", v.SystemTime)
		line(" EventsListeners: %d", v.NEventsListener)
	}
	for _, proxy := range [][2]string{{"HTTP Proxy", v.HTTPProxy}, {"HTTPS Proxy", v.HTTPSProxy}, {"No Proxy", v.NoProxy}} {
		if proxy[1] != "" {
			line("%s: %s", proxy[0], proxy[1])
		}
	}
	if len(v.Labels) > 0 {
		line("Labels:")
		for _, label := range v.Labels {
			line(" %s", label)
		}
	}
	line("Experimental: %t", v.ExperimentalBuild)
	if r := v.RegistryConfig; r != nil {
		writeRegistries(line, r)
	}
	line("Live Restore Enabled: %t", v.LiveRestoreEnabled)
	fmt.Fprintln(out)
}

// writeSecurity prints "name=seccomp,profile=builtin" as two lines.
func writeSecurity(line func(string, ...any), option string) {
	for i, part := range strings.Split(option, ",") {
		key, value, ok := strings.Cut(part, "=")
		switch {
		case !ok:
			line(" %s", part)
		case i == 0 || key == "name":
			line(" %s", value)
		default:
			line("  %s: %s", strings.ToUpper(key[:1])+key[1:], value)
		}
	}
}

func writeRegistries(line func(string, ...any), r *wire.RegistryConfig) {
	var insecure []string
	for name, index := range r.IndexConfigs {
		if !index.Secure {
			insecure = append(insecure, name)
		}
	}
	slices.Sort(insecure)
	insecure = append(insecure, r.InsecureRegistryCIDRs...)
	if len(insecure) > 0 {
		line("Insecure Registries:")
		for _, name := range insecure {
			line(" %s", name)
		}
	}
	if len(r.Mirrors) > 0 {
		line("Registry Mirrors:")
		for _, mirror := range r.Mirrors {
			line(" %s", mirror)
		}
	}
}
