package container

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func newStart(c *cli.CLI) *cobra.Command {
	var attach, interactive bool
	var detachKeys string
	cmd := &cobra.Command{
		Use: "start [OPTIONS] CONTAINER [CONTAINER...]", Short: "Start one or more stopped containers", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !attach && !interactive {
				return each(cmd, c, args, func(ctx context.Context, engine *client.Client, name string) error {
					return engine.ContainerStart(ctx, name)
				})
			}
			if len(args) > 1 {
				return fault.New(fault.Invalid, "you cannot start and attach multiple containers at once")
			}
			return startAttached(cmd.Context(), c, args[0], attach, interactive, detachKeys)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	f.BoolVarP(&interactive, "interactive", "i", false, "Attach container's STDIN")
	f.StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cli.Also(cmd, "sampan container start, sampan start")
}

func startAttached(ctx context.Context, c *cli.CLI, name string, attach, interactive bool, detachKeys string) error {
	engine, err := c.Client()
	if err != nil {
		return err
	}
	k, err := engine.ContainerInspect(ctx, name, false)
	if err != nil {
		return err
	}
	if k.Config == nil || k.State == nil || k.HostConfig == nil {
		return errIncomplete
	}
	if k.State.Running { // its streams are there, and there is nothing to start
		return attachTo(ctx, c, engine, name, attachOptions{noStdin: !interactive, sigProxy: attach, detachKeys: detachKeys})
	}
	condition := client.WaitNextExit
	if k.HostConfig.AutoRemove {
		condition = client.WaitRemoved
	}
	j := joined{
		cli: c, engine: engine, id: k.ID, tty: k.Config.Tty, condition: condition, start: true, sigProxy: attach && !k.Config.Tty,
		attach: client.AttachOptions{Stream: true, Stdin: interactive && k.Config.OpenStdin, Stdout: true, Stderr: true, DetachKeys: c.DetachKeys(detachKeys)},
	}
	return j.run(ctx)
}

var errIncomplete = fault.New(fault.Internal, "the daemon's description of the container is incomplete")

// attachOptions are attach's.
type attachOptions struct {
	noStdin, sigProxy, tellDetached bool
	detachKeys                      string
}

func newAttach(c *cli.CLI) *cobra.Command {
	var o attachOptions
	cmd := &cobra.Command{
		Use: "attach [OPTIONS] CONTAINER", Short: "Attach local standard input, output, and error streams to a running container", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			o.tellDetached = true
			return attachTo(cmd.Context(), c, engine, args[0], o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.noStdin, "no-stdin", false, "Do not attach STDIN")
	f.BoolVar(&o.sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	f.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cli.Also(cmd, "sampan container attach, sampan attach")
}

// inspectRunning describes a container that can be attached to.
func inspectRunning(ctx context.Context, engine *client.Client, name string) (wire.ContainerInspect, error) {
	k, err := engine.ContainerInspect(ctx, name, false)
	switch {
	case err != nil:
	case k.Config == nil || k.State == nil:
		err = errIncomplete
	case !k.State.Running:
		err = fault.New(fault.Conflict, "cannot attach to a stopped container, start it first")
	case k.State.Paused:
		err = fault.New(fault.Conflict, "cannot attach to a paused container, unpause it first")
	case k.State.Restarting:
		err = fault.New(fault.Conflict, "cannot attach to a restarting container, wait until it is running")
	}
	return k, err
}

func attachTo(ctx context.Context, c *cli.CLI, engine *client.Client, name string, o attachOptions) error {
	k, err := inspectRunning(ctx, engine, name)
	if err != nil {
		return err
	}
	stdin := !o.noStdin && k.Config.OpenStdin
	if err := c.In.CheckTTY(stdin, k.Config.Tty); err != nil {
		return err
	}
	j := joined{
		cli: c, engine: engine, id: k.ID, tty: k.Config.Tty, condition: client.WaitNotRunning, sigProxy: o.sigProxy && !k.Config.Tty,
		tellDetached: o.tellDetached,
		attach:       client.AttachOptions{Stream: true, Stdin: stdin, Stdout: true, Stderr: true, DetachKeys: c.DetachKeys(o.detachKeys)},
	}
	return j.run(ctx)
}

func newPort(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use: "port CONTAINER [PRIVATE_PORT[/PROTO]]", Short: "List port mappings or a specific mapping for the container", Args: cli.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			k, err := engine.ContainerInspect(cmd.Context(), args[0], false)
			if err != nil {
				return err
			}
			if k.NetworkSettings == nil {
				return errIncomplete
			}
			lines, err := portLines(k.NetworkSettings.Ports, args)
			for _, line := range lines {
				fmt.Fprintln(c.Out, line)
			}
			return err
		},
	}
	return cli.Also(cmd, "sampan container port, sampan port")
}
