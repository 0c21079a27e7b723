package container

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/wire"
)

// Row is one container as ps shows it. The order of the fields is that of Docker's JSON.
type Row struct {
	Command      string
	CreatedAt    string
	ID           string
	Image        string
	Labels       string
	LocalVolumes string
	Mounts       string
	Names        string
	Networks     string
	Platform     *wire.Platform // of an image of several platforms; here there is none
	Ports        string
	RunningFor   string
	Size         string
	State        string
	Status       string

	labels map[string]string
}

// Label is {{.Label "name"}}.
func (r Row) Label(name string) string { return r.labels[name] }

var rowHeaders = cli.Headers{
	"Command": "COMMAND", "CreatedAt": "CREATED AT", "ID": "CONTAINER ID", "Image": "IMAGE", "Labels": "LABELS", "LocalVolumes": "LOCAL VOLUMES",
	"Mounts": "MOUNTS", "Names": "NAMES", "Networks": "NETWORKS", "Platform": "PLATFORM", "Ports": "PORTS", "RunningFor": "CREATED", "Size": "SIZE", "State": "STATE", "Status": "STATUS",
}

func listing(size bool) cli.Listing[Row] {
	columns := []cli.Column[Row]{
		{Head: "CONTAINER ID", Value: func(r Row) string { return r.ID }},
		{Head: "IMAGE", Value: func(r Row) string { return r.Image }},
		{Head: "COMMAND", Value: func(r Row) string { return r.Command }},
		{Head: "CREATED", Value: func(r Row) string { return r.RunningFor }},
		{Head: "STATUS", Value: func(r Row) string { return r.Status }},
		{Head: "PORTS", Value: func(r Row) string { return r.Ports }},
		{Head: "NAMES", Value: func(r Row) string { return r.Names }},
	}
	if size {
		columns = append(columns, cli.Column[Row]{Head: "SIZE", Value: func(r Row) string { return r.Size }})
	}
	raw := rawRow
	if size {
		raw += "\nsize:{{pad .Size 1 0}}"
	}
	return cli.Listing[Row]{Columns: columns, Headers: rowHeaders, Key: "ID", RawKey: "container_id", Raw: raw}
}

// rawRow is a container line by line.
const rawRow = `container_id: {{.ID}}
image: {{.Image}}
command: {{.Command}}
created_at: {{.CreatedAt}}
state:{{pad .State 1 0}}
status:{{pad .Status 1 0}}
names: {{.Names}}
labels:{{pad .Labels 1 0}}
ports:{{pad .Ports 1 0}}`

// NewRow returns the row of a container, with whole ids and texts if full.
func NewRow(s wire.ContainerSummary, full bool) Row {
	r := briefRow(&s, full)
	r.CreatedAt, r.labels = time.Unix(s.Created, 0).String(), s.Labels
	var mounts, networks []string
	volumes := 0
	for _, m := range s.Mounts {
		if m.Driver == "local" {
			volumes++
		}
		name := m.Name
		if name == "" {
			name = m.Source
		}
		mounts = append(mounts, shorten(name, 15, full))
	}
	if s.NetworkSettings != nil {
		for name := range s.NetworkSettings.Networks {
			networks = append(networks, name)
		}
	}
	slices.Sort(networks)
	r.Labels, r.Mounts, r.Networks, r.LocalVolumes = cli.Labels(s.Labels), strings.Join(mounts, ","), strings.Join(networks, ","), fmt.Sprint(volumes)
	return r
}

// briefRow is NewRow with what the columns of a table show alone.
func briefRow(s *wire.ContainerSummary, full bool) Row {
	r := Row{
		Command: strconv.Quote(shorten(s.Command, 20, full)), ID: s.ID, Image: shownImage(s, full), Names: shownNames(s.Names, full),
		Ports: portText(s.Ports), RunningFor: cli.Ago(time.Unix(s.Created, 0)), Size: cli.Size(s.SizeRw), State: s.State, Status: s.Status,
	}
	if !full {
		r.ID = cli.Short(s.ID)
	}
	if s.SizeRootFs > 0 {
		r.Size += fmt.Sprintf(" (virtual %s)", cli.Size(s.SizeRootFs))
	}
	return r
}

func shorten(s string, n int, full bool) string {
	if full {
		return s
	}
	return cli.Ellipsis(s, n)
}

// shownImage is the name that the container was made with; an ID in its short form.
func shownImage(s *wire.ContainerSummary, full bool) string {
	switch {
	case s.Image == "":
		return "<no image>"
	case !full && (s.Image == s.ImageID || strings.HasPrefix(s.ImageID, s.Image) || strings.HasPrefix(s.Image, "sha256:")):
		return cli.Short(s.Image)
	case !full:
		name, _, _ := strings.Cut(s.Image, "@")
		return name
	}
	return s.Image
}

// shownNames leaves out the slash in front and, in the short form, names that are links of others.
func shownNames(names []string, full bool) string {
	var shown []string
	for _, name := range names {
		name = strings.TrimPrefix(name, "/")
		if full || !strings.Contains(name, "/") {
			shown = append(shown, name)
		}
	}
	return strings.Join(shown, ",")
}

var containerFilters = []string{
	"ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network", "publish", "since", "status", "volume",
}

func newList(c *cli.CLI) *cobra.Command {
	var o client.ListOptions
	var quiet, full, latest bool
	var format string
	filters := cli.Filters{Keys: containerFilters}
	cmd := &cobra.Command{
		Use: "ps [OPTIONS]", Short: "List containers", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Filters = filters.Values; latest && o.Limit == 0 {
				o.Limit = 1
			}
			return list(cmd.Context(), c, o, quiet, full, format)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.All, "all", "a", false, "Show all containers (default shows just running)")
	f.VarP(&filters, "filter", "f", "Filter output based on conditions provided")
	f.StringVar(&format, "format", "", cli.FormatHelp)
	f.IntVarP(&o.Limit, "last", "n", -1, "Show n last created containers (includes all states)")
	f.BoolVarP(&latest, "latest", "l", false, "Show the latest created container (includes all states)")
	f.BoolVar(&full, "no-trunc", false, "Don't truncate output")
	f.BoolVarP(&quiet, "quiet", "q", false, "Only display container IDs")
	f.BoolVarP(&o.Size, "size", "s", false, "Display total file sizes")
	cmd.PreRun = func(*cobra.Command, []string) { o.Limit = max(o.Limit, 0) }
	return cli.Also(cmd, "sampan container ls, sampan container list, sampan container ps, sampan ps")
}

func list(ctx context.Context, c *cli.CLI, o client.ListOptions, quiet, full bool, format string) error {
	if format == "" && !quiet {
		if config, err := c.Config(); err == nil {
			format = config.PsFormat
		}
	}
	if quiet && format != "" {
		fmt.Fprintln(c.Err, "WARNING: Ignoring custom format, because both --format and --quiet are set.")
		if format != "raw" {
			format = ""
		}
	}
	if err := checkFormat(format); err != nil {
		return err
	}
	o.Size = o.Size || strings.Contains(format, ".Size") || strings.Contains(format, "json .}")
	engine, err := c.Client()
	if err != nil {
		return err
	}
	o.Brief = quiet || format == "" || format == "table" // a template may show anything
	containers, err := engine.ContainerList(ctx, o)
	if err != nil {
		return err
	}
	rows := make([]Row, len(containers))
	for i := range containers {
		if o.Brief {
			rows[i] = briefRow(&containers[i], full)
		} else {
			rows[i] = NewRow(containers[i], full)
		}
	}
	return listing(o.Size).List(c.Out, format, quiet, rows)
}

// checkFormat tries a template on a row, so that a mistake in it shows also where nothing is listed.
func checkFormat(format string) error { return listing(false).Write(io.Discard, format, []Row{{}}) }
