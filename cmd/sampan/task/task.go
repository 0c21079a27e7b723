// Package task shows the tasks of a swarm, which have no commands of their own: service ps and node ps list them.
//
// names.go asks what the nodes and services of tasks are called.
package task

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/wire"
)

// Typed returns what the daemon says of a task for a template.
var Typed = cli.Typed[wire.Task]("task")

// Listing is how tasks are to be listed.
type Listing struct {
	Filters   cli.Filters
	WholeIDs  bool // with --quiet
	format    string
	quiet     bool
	full      bool
	noResolve bool
}

// AddFlags adds the flags of service ps and node ps.
func (l *Listing) AddFlags(f *pflag.FlagSet) {
	l.Filters.Keys = []string{"desired-state", "id", "label", "name", "node", "runtime", "service"}
	f.VarP(&l.Filters, "filter", "f", "Filter output based on conditions provided")
	f.StringVar(&l.format, "format", "", "Pretty-print tasks using a Go template")
	f.BoolVar(&l.noResolve, "no-resolve", false, "Do not map IDs to Names")
	f.BoolVar(&l.full, "no-trunc", false, "Do not truncate output")
	f.BoolVarP(&l.quiet, "quiet", "q", false, "Only display task IDs")
}

// row is one task as lists show it, in the order of Docker's JSON.
type row struct {
	CurrentState string
	DesiredState string
	Error        string
	ID           string
	Image        string
	Name         string
	Node         string
	Ports        string
}

var listing = cli.Listing[row]{
	Columns: []cli.Column[row]{
		{Head: "ID", Value: func(r row) string { return r.ID }},
		{Head: "NAME", Value: func(r row) string { return r.Name }},
		{Head: "IMAGE", Value: func(r row) string { return r.Image }},
		{Head: "NODE", Value: func(r row) string { return r.Node }},
		{Head: "DESIRED STATE", Value: func(r row) string { return r.DesiredState }},
		{Head: "CURRENT STATE", Value: func(r row) string { return r.CurrentState }},
		{Head: "ERROR", Value: func(r row) string { return r.Error }},
		{Head: "PORTS", Value: func(r row) string { return r.Ports }},
	},
	Headers: cli.Headers{
		"CurrentState": "CURRENT STATE", "DesiredState": "DESIRED STATE", "Error": "ERROR", "ID": "ID", "Image": "IMAGE", "Name": "NAME",
		"Node": "NODE", "Ports": "PORTS",
	},
	Key: "ID", RawKey: "id",
	Raw: "id: {{.ID}}\nname: {{.Name}}\nimage: {{.Image}}\nnode: {{.Node}}\ndesired_state: {{.DesiredState}}\ncurrent_state: {{.CurrentState}}\nerror: {{.Error}}\nports: {{.Ports}}",
}

// Print lists tasks: those of a slot together, the newest first and the earlier ones below it.
func (l *Listing) Print(ctx context.Context, c *cli.CLI, engine *client.Client, tasks []wire.Task) error {
	format := l.format
	if format == "" && !l.quiet {
		if config, err := c.Config(); err == nil {
			format = config.TasksFormat
		}
	}
	names := NewNames(engine, l.noResolve)
	tasks = slices.Clone(tasks)
	for i := range tasks {
		tasks[i].Name = names.task(ctx, &tasks[i])
	}
	slices.SortStableFunc(tasks, func(a, b wire.Task) int {
		if order := cli.Natural(a.Name, b.Name); order != 0 {
			return order
		}
		return b.CreatedAt.Compare(a.CreatedAt)
	})
	indent := ""
	if format == "" || strings.HasPrefix(format, "table") {
		indent = ` \_ `
	}
	full := l.full || l.quiet && l.WholeIDs
	rows := make([]row, len(tasks))
	for i := range tasks {
		rows[i] = newRow(&tasks[i], full)
		rows[i].Node = names.Node(ctx, tasks[i].NodeID)
		if i > 0 && tasks[i].Name == tasks[i-1].Name {
			rows[i].Name = indent + rows[i].Name
		}
	}
	return listing.List(c.Out, format, l.quiet, rows)
}

// maxError is how many characters of what went wrong a list shows.
const maxError = 30

func newRow(t *wire.Task, full bool) row {
	r := row{
		CurrentState: State(t.Status.State) + " " + strings.ToLower(units.HumanDuration(time.Since(t.Status.Timestamp))) + " ago",
		DesiredState: State(t.DesiredState), ID: t.ID, Name: t.Name, Ports: ports(t.Status.PortStatus.Ports),
	}
	if t.Spec.ContainerSpec != nil {
		r.Image = t.Spec.ContainerSpec.Image
	}
	reason := t.Status.Err
	if !full {
		r.ID, r.Image, reason = cli.Short(t.ID), Image(r.Image), cli.Ellipsis(reason, maxError)
	}
	if reason != "" {
		r.Error = `"` + reason + `"`
	}
	return r
}

// ports are those that a task's node publishes for it alone.
func ports(published []wire.ServicePort) string {
	list := make([]string, len(published))
	for i, p := range published {
		list[i] = fmt.Sprintf("*:%d->%d/%s", p.PublishedPort, p.TargetPort, p.Protocol)
	}
	return strings.Join(list, ",")
}

// State is a word of the API, such as running, as lists show it.
func State(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + strings.ToLower(s[1:])
}

// Image is the name of an image as lists show it: one with a tag without its digest, and short if it is Docker Hub's.
func Image(ref string) string {
	name, _, _ := strings.Cut(ref, "@")
	if strings.LastIndexByte(name, ':') <= strings.LastIndexByte(name, '/') {
		return ref // it has no tag: the digest is all there is
	}
	for _, hub := range []string{"docker.io/", "index.docker.io/"} {
		if short, ok := strings.CutPrefix(name, hub); ok {
			name = short
			if official, ok := strings.CutPrefix(short, "library/"); ok && !strings.Contains(official, "/") {
				name = official
			}
		}
	}
	return name
}
