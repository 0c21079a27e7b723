package node

import (
	"context"
	"reflect"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/task"
	"github.com/sampan-project/sampan/core/wire"
)

// row is one node as ls shows it, in the order of Docker's JSON.
type row struct {
	Availability  string
	EngineVersion string
	Hostname      string
	ID            string
	ManagerStatus string
	Self          bool
	Status        string
	TLSStatus     string
}

// marked is a node's ID, with a star if it is the daemon's own.
func (r row) marked() string {
	if r.Self {
		return r.ID + " *"
	}
	return r.ID + "  "
}

var listing = cli.Listing[row]{
	Columns: []cli.Column[row]{
		{Head: "ID", Value: row.marked},
		{Head: "HOSTNAME", Value: func(r row) string { return r.Hostname }},
		{Head: "STATUS", Value: func(r row) string { return r.Status }},
		{Head: "AVAILABILITY", Value: func(r row) string { return r.Availability }},
		{Head: "MANAGER STATUS", Value: func(r row) string { return r.ManagerStatus }},
		{Head: "ENGINE VERSION", Value: func(r row) string { return r.EngineVersion }},
	},
	Headers: cli.Headers{
		"Availability": "AVAILABILITY", "EngineVersion": "ENGINE VERSION", "Hostname": "HOSTNAME", "ID": "ID", "ManagerStatus": "MANAGER STATUS",
		"Self": "", "Status": "STATUS", "TLSStatus": "TLS STATUS",
	},
	Key: "ID", RawKey: "node_id",
	Raw: "node_id: {{.ID}}\nhostname: {{.Hostname}}\nstatus: {{.Status}}\navailability: {{.Availability}}\nmanager_status: {{.ManagerStatus}}",
}

func newList(c *cli.CLI) *cobra.Command {
	var quiet bool
	var format string
	filters := cli.Filters{Keys: []string{"id", "label", "membership", "name", "node.label", "role"}}
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Short: "List nodes in the swarm", Aliases: []string{"list"}, Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return list(cmd.Context(), c, filters.Values, quiet, format)
		},
	}
	f := cmd.Flags()
	f.VarP(&filters, "filter", "f", "Filter output based on conditions provided")
	f.StringVar(&format, "format", "", cli.FormatHelp)
	f.BoolVarP(&quiet, "quiet", "q", false, "Only display IDs")
	return cmd
}

func list(ctx context.Context, c *cli.CLI, filters map[string][]string, quiet bool, format string) error {
	if format == "" && !quiet {
		if config, err := c.Config(); err == nil {
			format = config.NodesFormat
		}
	}
	engine, err := c.Client()
	if err != nil {
		return err
	}
	nodes, err := engine.NodeList(ctx, filters)
	if err != nil {
		return err
	}
	var here wire.InfoSwarm
	if len(nodes) > 0 && !quiet {
		info, err := engine.Info(ctx)
		if err != nil {
			return err
		}
		here = info.Swarm
	}
	slices.SortStableFunc(nodes, func(a, b wire.Node) int { return cli.Natural(a.Description.Hostname, b.Description.Hostname) })
	rows := make([]row, len(nodes))
	for i := range nodes {
		rows[i] = newRow(&nodes[i], &here)
	}
	return listing.List(c.Out, format, quiet, rows)
}

func newRow(n *wire.Node, here *wire.InfoSwarm) row {
	r := row{
		Availability: task.State(n.Spec.Availability), EngineVersion: n.Description.Engine.EngineVersion, Hostname: n.Description.Hostname, ID: n.ID,
		Self: n.ID == here.NodeID, Status: task.State(n.Status.State), TLSStatus: tlsStatus(n, here.Cluster),
	}
	if m := n.ManagerStatus; m != nil {
		r.ManagerStatus = task.State(m.Reachability)
		if m.Leader {
			r.ManagerStatus = "Leader"
		}
	}
	return r
}

// tlsStatus says whether a node's certificate is of the root that the swarm has now.
func tlsStatus(n *wire.Node, swarm *wire.SwarmInfo) string {
	its, none := n.Description.TLSInfo, wire.SwarmTLSInfo{}
	switch {
	case swarm == nil || reflect.DeepEqual(swarm.TLSInfo, none) || reflect.DeepEqual(its, none):
		return "Unknown"
	case reflect.DeepEqual(its, swarm.TLSInfo):
		return "Ready"
	}
	return "Needs Rotation"
}
