// Package volume has the commands about volumes.
package volume

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Group returns `sampan volume`.
func Group(c *cli.CLI) *cobra.Command {
	return cli.Group("volume", "Manage volumes", newCreate(c), newInspect(c), newList(c), newPrune(c), newRemove(c))
}

func newCreate(c *cli.CLI) *cobra.Command {
	var r wire.VolumeCreateRequest
	var labels cli.List
	var options cli.Map
	cmd := &cobra.Command{
		Use: "create [OPTIONS] [VOLUME]", Short: "Create a volume", Args: cli.RangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if r.Name != "" {
					return fault.New(fault.Invalid, "conflicting options: cannot specify a volume-name through both --name and as a positional arg")
				}
				r.Name = args[0]
			}
			r.DriverOpts, r.Labels = options.Values, cli.ToMap(labels.Values)
			engine, err := c.Client()
			if err != nil {
				return err
			}
			made, err := engine.VolumeCreate(cmd.Context(), r)
			if err == nil {
				fmt.Fprintln(c.Out, made.Name)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVarP(&r.Driver, "driver", "d", "local", "Specify volume driver name")
	f.Var(&labels, "label", "Set metadata for a volume")
	f.StringVar(&r.Name, "name", "", "Specify volume name")
	f.MarkHidden("name") //nolint:errcheck // it is a flag of ours
	f.VarP(&options, "opt", "o", "Set driver specific options")
	return cmd
}

// Row is one volume as ls shows it, in the order of Docker's JSON.
type Row struct {
	Availability string
	Driver       string
	Group        string
	Labels       string
	Links        string
	Mountpoint   string
	Name         string
	Scope        string
	Size         string
	Status       string

	labels map[string]string
}

// Label is {{.Label "name"}}.
func (r Row) Label(name string) string { return r.labels[name] }

var listing = cli.Listing[Row]{
	Columns: []cli.Column[Row]{
		{Head: "DRIVER", Value: func(r Row) string { return r.Driver }},
		{Head: "VOLUME NAME", Value: func(r Row) string { return r.Name }},
	},
	Headers: cli.Headers{
		"Availability": "AVAILABILITY", "Driver": "DRIVER", "Group": "GROUP", "Labels": "LABELS", "Links": "LINKS", "Mountpoint": "MOUNTPOINT",
		"Name": "VOLUME NAME", "Scope": "SCOPE", "Size": "SIZE", "Status": "STATUS",
	},
	Key: "Name", RawKey: "name", Raw: "name: {{.Name}}\ndriver: {{.Driver}}",
}

// NewRow returns the row of a volume.
func NewRow(v *wire.Volume) Row {
	const unknown = "N/A"
	r := Row{
		Availability: unknown, Driver: v.Driver, Group: unknown, Labels: cli.Labels(v.Labels), Links: unknown, Mountpoint: v.Mountpoint,
		Name: v.Name, Scope: v.Scope, Size: unknown, Status: unknown, labels: v.Labels,
	}
	if u := v.UsageData; u != nil && u.Size >= 0 {
		r.Links, r.Size = fmt.Sprint(u.RefCount), cli.Size(u.Size)
	}
	return r
}

func newList(c *cli.CLI) *cobra.Command {
	var quiet bool
	var format string
	filters := cli.Filters{Keys: []string{"dangling", "driver", "label", "name"}}
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Short: "List volumes", Aliases: []string{"list"}, Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return list(cmd.Context(), c, filters.Values, quiet, format)
		},
	}
	f := cmd.Flags()
	f.VarP(&filters, "filter", "f", `Provide filter values (e.g. "dangling=true")`)
	f.StringVar(&format, "format", "", cli.FormatHelp)
	f.BoolVarP(&quiet, "quiet", "q", false, "Only display volume names")
	return cmd
}

func list(ctx context.Context, c *cli.CLI, filters map[string][]string, quiet bool, format string) error {
	if format == "" && !quiet {
		if config, err := c.Config(); err == nil {
			format = config.VolumesFormat
		}
	}
	engine, err := c.Client()
	if err != nil {
		return err
	}
	answer, err := engine.VolumeList(ctx, filters)
	if err != nil {
		return err
	}
	for _, w := range answer.Warnings {
		fmt.Fprintf(c.Err, "WARNING: %s\n", w)
	}
	slices.SortFunc(answer.Volumes, func(a, b *wire.Volume) int { return strings.Compare(a.Name, b.Name) })
	rows := make([]Row, len(answer.Volumes))
	for i, v := range answer.Volumes {
		rows[i] = NewRow(v)
	}
	return listing.List(c.Out, format, quiet, rows)
}

func newInspect(c *cli.CLI) *cobra.Command {
	return cli.NewInspect(c, "volume", Typed, func(ctx context.Context, e *client.Client, name string) (json.RawMessage, error) {
		return e.VolumeInspectRaw(ctx, name)
	})
}

// Typed returns what the daemon says of a volume for a template.
var Typed = cli.Typed[wire.Volume]("volume")

func newRemove(c *cli.CLI) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] VOLUME [VOLUME...]", Short: "Remove one or more volumes", Aliases: []string{"remove"}, Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			return cli.Named(c.Out, args, func(name string) error { return engine.VolumeRemove(cmd.Context(), name, force) })
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of one or more volumes")
	return cmd
}

func newPrune(c *cli.CLI) *cobra.Command {
	var force, all bool
	filters := cli.Filters{Keys: []string{"all", "label", "label!"}}
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove unused local volumes", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			warning := "This will remove anonymous local volumes not used by at least one container."
			if all {
				warning = "This will remove all local volumes not used by at least one container."
				if len(filters.Values["all"]) > 0 {
					return fault.New(fault.Invalid, "conflicting options: cannot specify both --all and --filter all=1")
				}
				filters.Add("all", "true")
			}
			if ok, err := c.Sure(force, warning); !ok {
				return err
			}
			report, err := engine.VolumePrune(cmd.Context(), filters.Values)
			if err != nil {
				return err
			}
			c.Pruned("Deleted Volumes:", report.VolumesDeleted)
			c.Reclaimed(report.SpaceReclaimed)
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	f.Var(&filters, "filter", `Provide filter values (e.g. "label=<label>")`)
	f.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	return cmd
}
