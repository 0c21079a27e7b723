package system

import (
	"context"
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// share is one row of df, in the order of Docker's JSON.
type share struct {
	Active      string
	Reclaimable string
	Size        string
	TotalCount  string
	Type        string
}

var shares = cli.Listing[share]{
	Columns: []cli.Column[share]{
		{Head: "TYPE", Value: func(s share) string { return s.Type }},
		{Head: "TOTAL", Value: func(s share) string { return s.TotalCount }},
		{Head: "ACTIVE", Value: func(s share) string { return s.Active }},
		{Head: "SIZE", Value: func(s share) string { return s.Size }},
		{Head: "RECLAIMABLE", Value: func(s share) string { return s.Reclaimable }},
	},
	Headers: cli.Headers{"Active": "ACTIVE", "Reclaimable": "RECLAIMABLE", "Size": "SIZE", "TotalCount": "TOTAL", "Type": "TYPE"},
	Raw:     "type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\nreclaimable: {{.Reclaimable}}",
}

func newDiskUsage(c *cli.CLI) *cobra.Command {
	var verbose bool
	var format string
	cmd := &cobra.Command{
		Use: "df [OPTIONS]", Short: "Show disk usage", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			u, err := engine.DiskUsage(cmd.Context())
			if err != nil {
				return err
			}
			if verbose {
				return writeDetails(c.Out, format, u)
			}
			return shares.Write(c.Out, format, summary(u))
		},
	}
	cmd.Flags().StringVar(&format, "format", "", cli.FormatHelp)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	return cmd
}

func newShare(kind string, total, active int, size, free int64) share {
	s := share{Type: kind, TotalCount: fmt.Sprint(total), Active: fmt.Sprint(active), Size: units.HumanSize(float64(size)), Reclaimable: units.HumanSize(float64(free))}
	if size > 0 {
		s.Reclaimable += fmt.Sprintf(" (%d%%)", free*100/size)
	}
	return s
}

func summary(u wire.DiskUsage) []share {
	var active int
	free := u.LayersSize
	for _, i := range u.Images {
		if i.Containers > 0 {
			active++
			free -= max(i.Size-max(i.SharedSize, 0), 0)
		}
	}
	rows := []share{newShare("Images", len(u.Images), active, u.LayersSize, max(free, 0))}
	var size, used int64
	running := 0
	for _, k := range u.Containers {
		size += k.SizeRw
		if k.State == "running" || k.State == "paused" || k.State == "restarting" {
			running++
			used += k.SizeRw
		}
	}
	rows = append(rows, newShare("Containers", len(u.Containers), running, size, size-used))
	size, used, active = 0, 0, 0
	for _, v := range u.Volumes {
		if v.UsageData == nil || v.UsageData.Size < 0 {
			continue
		}
		size += v.UsageData.Size
		if v.UsageData.RefCount > 0 {
			active++
			used += v.UsageData.Size
		}
	}
	rows = append(rows, newShare("Local Volumes", len(u.Volumes), active, size, size-used))
	size, used, active = 0, 0, 0
	for _, r := range u.BuildCache {
		if size += r.Size; r.InUse {
			active++
			used += r.Size
		}
	}
	cache := newShare("Build Cache", len(u.BuildCache), active, size, size-used)
	cache.Reclaimable = units.HumanSize(float64(size - used)) // no share of it, as docker's client has it
	return append(rows, cache)
}

// pruneOptions are system prune's.
type pruneOptions struct {
	force, all, volumes bool
	filters             cli.Filters
}

func newPrune(c *cli.CLI) *cobra.Command {
	o := pruneOptions{filters: cli.Filters{Keys: []string{"until", "label", "label!"}}}
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove unused data", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), c) },
	}
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "Remove all unused images not just dangling ones")
	f.Var(&o.filters, "filter", `Provide filter values (e.g. "label=<key>=<value>")`)
	f.BoolVarP(&o.force, "force", "f", false, "Do not prompt for confirmation")
	f.BoolVar(&o.volumes, "volumes", false, "Prune anonymous volumes")
	return cmd
}

func (o *pruneOptions) warning() string {
	parts := []string{"all stopped containers", "all networks not used by at least one container"}
	if o.volumes {
		parts = append(parts, "all anonymous volumes not used by at least one container")
	}
	if o.all {
		parts = append(parts, "all images without at least one container associated to them", "all build cache")
	} else {
		parts = append(parts, "all dangling images", "unused build cache")
	}
	return "This will remove:\n  - " + strings.Join(parts, "\n  - ") + "\n"
}

func (o *pruneOptions) run(ctx context.Context, c *cli.CLI) error {
	if o.volumes && len(o.filters.Values["until"]) > 0 {
		return fault.New(fault.Invalid, `the "until" filter is not supported with "--volumes"`)
	}
	engine, err := c.Client()
	if err != nil {
		return err
	}
	if ok, err := c.Sure(o.force, o.warning()); !ok {
		return err
	}
	var reclaimed uint64
	// Containers first: what they used can go after them.
	k, err := engine.ContainerPrune(ctx, o.filters.Values)
	if err != nil {
		return err
	}
	reclaimed += k.SpaceReclaimed
	c.Pruned("Deleted Containers:", k.ContainersDeleted)
	n, err := engine.NetworkPrune(ctx, o.filters.Values)
	if err != nil {
		return err
	}
	c.Pruned("Deleted Networks:", n.NetworksDeleted)
	if o.volumes {
		v, err := engine.VolumePrune(ctx, o.filters.Values)
		if err != nil {
			return err
		}
		reclaimed += v.SpaceReclaimed
		c.Pruned("Deleted Volumes:", v.VolumesDeleted)
	}
	if err := o.images(ctx, c, engine, &reclaimed); err != nil {
		return err
	}
	c.Reclaimed(reclaimed)
	return nil
}

func (o *pruneOptions) images(ctx context.Context, c *cli.CLI, engine *client.Client, reclaimed *uint64) error {
	filters := map[string][]string{"dangling": {fmt.Sprint(!o.all)}}
	for key, values := range o.filters.Values {
		filters[key] = values
	}
	i, err := engine.ImagePrune(ctx, filters)
	if err != nil {
		return err
	}
	var lines []string
	for _, r := range i.ImagesDeleted {
		if r.Deleted != "" {
			lines = append(lines, "deleted: "+r.Deleted)
		} else {
			lines = append(lines, "untagged: "+r.Untagged)
		}
	}
	c.Pruned("Deleted Images:", lines)
	*reclaimed += i.SpaceReclaimed
	b, err := engine.BuildPrune(ctx, o.all, 0, o.filters.Values)
	if err != nil {
		return err
	}
	c.Pruned("Deleted build cache objects:", b.CachesDeleted)
	*reclaimed += b.SpaceReclaimed
	return nil
}
