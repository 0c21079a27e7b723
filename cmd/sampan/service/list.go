package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/node"
	"github.com/sampan-project/sampan/cmd/sampan/task"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// row is one service as ls shows it, in the order of Docker's JSON.
type row struct {
	ID       string
	Image    string
	Mode     string
	Name     string
	Ports    string
	Replicas string
}

var listing = cli.Listing[row]{
	Columns: []cli.Column[row]{
		{Head: "ID", Value: func(r row) string { return r.ID }},
		{Head: "NAME", Value: func(r row) string { return r.Name }},
		{Head: "MODE", Value: func(r row) string { return r.Mode }},
		{Head: "REPLICAS", Value: func(r row) string { return r.Replicas }},
		{Head: "IMAGE", Value: func(r row) string { return r.Image }},
		{Head: "PORTS", Value: func(r row) string { return r.Ports }},
	},
	Headers: cli.Headers{"ID": "ID", "Image": "IMAGE", "Mode": "MODE", "Name": "NAME", "Ports": "PORTS", "Replicas": "REPLICAS"},
	Key:     "ID", RawKey: "id",
	Raw: "id: {{.ID}}\nname: {{.Name}}\nmode: {{.Mode}}\nreplicas: {{.Replicas}}\nimage: {{.Image}}\nports: {{.Ports}}",
}

func newList(c *cli.CLI) *cobra.Command {
	var quiet bool
	var format string
	filters := cli.Filters{Keys: []string{"id", "label", "mode", "name"}}
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Short: "List services", Aliases: []string{"list"}, Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format == "" && !quiet {
				if config, err := c.Config(); err == nil {
					format = config.ServicesFormat
				}
			}
			engine, err := c.Client()
			if err != nil {
				return err
			}
			services, err := engine.ServiceList(cmd.Context(), filters.Values, !quiet)
			if err != nil {
				return err
			}
			slices.SortStableFunc(services, func(a, b wire.Service) int { return cli.Natural(a.Spec.Name, b.Spec.Name) })
			rows := make([]row, len(services))
			for i := range services {
				rows[i] = newRow(&services[i])
			}
			return listing.List(c.Out, format, quiet, rows)
		},
	}
	f := cmd.Flags()
	f.VarP(&filters, "filter", "f", "Filter output based on conditions provided")
	f.StringVar(&format, "format", "", cli.FormatHelp)
	f.BoolVarP(&quiet, "quiet", "q", false, "Only display IDs")
	return cmd
}

func newRow(s *wire.Service) row {
	r := row{ID: cli.Short(s.ID), Name: s.Spec.Name, Ports: portText(s.Endpoint.Ports)}
	if k := s.Spec.TaskTemplate.ContainerSpec; k != nil {
		r.Image = task.Image(k.Image)
	}
	var n wire.ServiceStatus
	if s.ServiceStatus != nil {
		n = *s.ServiceStatus
	}
	r.Replicas = fmt.Sprintf("%d/%d", n.RunningTasks, n.DesiredTasks)
	switch mode := s.Spec.Mode; {
	case mode.Global != nil:
		r.Mode = "global"
	case mode.Replicated != nil:
		r.Mode = "replicated"
		if p := s.Spec.TaskTemplate.Placement; p != nil && p.MaxReplicas > 0 {
			r.Replicas += fmt.Sprintf(" (max %d per node)", p.MaxReplicas)
		}
	case mode.ReplicatedJob != nil:
		r.Mode = "replicated job"
		total := uint64(0)
		if mode.ReplicatedJob.TotalCompletions != nil {
			total = *mode.ReplicatedJob.TotalCompletions
		}
		r.Replicas += fmt.Sprintf(" (%d/%d completed)", n.CompletedTasks, total)
	case mode.GlobalJob != nil: // those that are desired are those that have not completed
		r.Mode = "global job"
		r.Replicas += fmt.Sprintf(" (%d/%d completed)", n.CompletedTasks, n.DesiredTasks+n.CompletedTasks)
	}
	return r
}

func newPs(c *cli.CLI) *cobra.Command {
	list := task.Listing{WholeIDs: true}
	cmd := &cobra.Command{
		Use: "ps [OPTIONS] SERVICE [SERVICE...]", Short: "List the tasks of one or more services", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			engine, err := c.Client()
			if err != nil {
				return err
			}
			ids, missing, err := find(ctx, engine, args)
			if err != nil || len(ids) == 0 {
				return errors.Join(err, cli.Join(missing))
			}
			for _, id := range ids {
				list.Filters.Add("service", id)
			}
			for i, ref := range list.Filters.Values["node"] {
				if list.Filters.Values["node"][i], err = node.Reference(ctx, engine, ref); err != nil {
					return err
				}
			}
			tasks, err := engine.TaskList(ctx, list.Filters.Values)
			if err != nil {
				return err
			}
			if err := list.Print(ctx, c, engine, tasks); err != nil {
				return err
			}
			return cli.Join(missing)
		},
	}
	list.AddFlags(cmd.Flags())
	return cmd
}

// find returns the IDs of services by ID, name, or the beginning of an ID if it is of one alone, and an error for
// each that is not there.
func find(ctx context.Context, engine *client.Client, refs []string) (ids []string, missing []error, err error) {
	byID, err := engine.ServiceList(ctx, client.Filters{"id": refs}, false)
	if err != nil {
		return nil, nil, err
	}
	byName, err := engine.ServiceList(ctx, client.Filters{"name": refs}, false)
	if err != nil {
		return nil, nil, err
	}
	for _, ref := range refs {
		if i := slices.IndexFunc(byID, func(s wire.Service) bool { return s.ID == ref }); i >= 0 {
			ids = append(ids, ref)
			continue
		}
		if i := slices.IndexFunc(byName, func(s wire.Service) bool { return s.Spec.Name == ref }); i >= 0 {
			ids = append(ids, byName[i].ID)
			continue
		}
		same := slices.DeleteFunc(slices.Clone(byID), func(s wire.Service) bool { return !strings.HasPrefix(s.ID, ref) })
		switch len(same) {
		case 0:
			missing = append(missing, fault.New(fault.NotFound, "no such service: %s", ref))
		case 1:
			ids = append(ids, same[0].ID)
		default:
			return nil, nil, fault.New(fault.Invalid, "multiple services found with provided prefix: %s", ref)
		}
	}
	return ids, missing, nil
}
