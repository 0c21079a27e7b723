package system

import (
	"context"
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/container"
	"github.com/sampan-project/sampan/cmd/sampan/image"
	"github.com/sampan-project/sampan/cmd/sampan/network"
	"github.com/sampan-project/sampan/cmd/sampan/node"
	"github.com/sampan-project/sampan/cmd/sampan/service"
	"github.com/sampan-project/sampan/cmd/sampan/task"
	"github.com/sampan-project/sampan/cmd/sampan/volume"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
)

// kind is one kind of thing that inspect knows.
type kind struct {
	name  string
	get   func(ctx context.Context, engine *client.Client, name string, size bool) (json.RawMessage, error)
	typed func(json.RawMessage) (any, error)
	swarm bool // there are such only where there is a swarm
}

// kinds are asked in this order.
var kinds = []kind{
	{"container", func(ctx context.Context, e *client.Client, name string, size bool) (json.RawMessage, error) {
		return e.ContainerInspectRaw(ctx, name, size)
	}, container.Typed, false},
	{"image", func(ctx context.Context, e *client.Client, name string, _ bool) (json.RawMessage, error) {
		return e.ImageInspectRaw(ctx, name, "")
	}, image.Typed, false},
	{"network", func(ctx context.Context, e *client.Client, name string, _ bool) (json.RawMessage, error) {
		return e.NetworkInspectRaw(ctx, name, false)
	}, network.Typed, false},
	{"volume", func(ctx context.Context, e *client.Client, name string, _ bool) (json.RawMessage, error) {
		return e.VolumeInspectRaw(ctx, name)
	}, volume.Typed, false},
	{"service", func(ctx context.Context, e *client.Client, name string, _ bool) (json.RawMessage, error) {
		return e.ServiceInspectRaw(ctx, name, true)
	}, service.Typed, true},
	{"task", func(ctx context.Context, e *client.Client, name string, _ bool) (json.RawMessage, error) {
		return e.TaskInspectRaw(ctx, name)
	}, task.Typed, true},
	{"node", func(ctx context.Context, e *client.Client, name string, _ bool) (json.RawMessage, error) {
		return e.NodeInspectRaw(ctx, name)
	}, node.Typed, true},
}

func newInspect(c *cli.CLI) *cobra.Command {
	var format, only string
	var size bool
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] NAME|ID [NAME|ID...]", Short: "Return low-level information on Sampan objects", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if only != "" {
				if err := cli.OneOf("--type", only, "container", "image", "network", "node", "service", "task", "volume"); err != nil {
					return err
				}
			}
			engine, err := c.Client()
			if err != nil {
				return err
			}
			return cli.Inspect(c.Out, args, format, func(name string) (any, json.RawMessage, error) {
				return find(cmd.Context(), engine, name, only, size)
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&format, "format", "f", "", cli.InspectFormatHelp)
	f.BoolVarP(&size, "size", "s", false, "Display total file sizes if the type is container")
	f.StringVar(&only, "type", "", "Only inspect objects of the given type")
	return cmd
}

// find asks for a thing of that name, of one kind or of each in turn.
func find(ctx context.Context, engine *client.Client, name, only string, size bool) (any, json.RawMessage, error) {
	for _, k := range kinds {
		if only != "" && only != k.name {
			continue
		}
		raw, err := k.get(ctx, engine, name, size && k.name == "container")
		if err == nil {
			typed, err := k.typed(raw)
			return typed, raw, err
		}
		if only == "" && k.swarm && fault.Is(err, fault.Unavailable) {
			break // the daemon is no manager
		}
		// A name that one kind cannot have (an upper-case image) may be another's.
		if only != "" || !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Invalid) {
			return nil, nil, err
		}
	}
	return nil, nil, fault.New(fault.NotFound, "No such object: %s", name)
}
