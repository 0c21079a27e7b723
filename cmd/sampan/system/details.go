package system

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/container"
	"github.com/sampan-project/sampan/cmd/sampan/image"
	"github.com/sampan-project/sampan/cmd/sampan/volume"
	"github.com/sampan-project/sampan/core/wire"
)

// details are the rows of df -v, and what its template sees.
type details struct {
	Images     []image.Row
	Containers []container.Row
	Volumes    []volume.Row
	BuildCache []cached
}

// cached is a record of the build cache, in the order of Docker's JSON.
type cached struct {
	CacheType     string
	CreatedSince  string
	Description   string
	ID            string
	InUse         string
	LastUsedSince string
	Parent        string
	Shared        string
	Size          string
	UsageCount    string
}

// newDetails makes the rows, with whole ids and texts if full.
func newDetails(u wire.DiskUsage, full bool) details {
	d := details{Images: []image.Row{}, Containers: []container.Row{}, Volumes: []volume.Row{}, BuildCache: []cached{}}
	for _, i := range u.Images {
		row := image.Rows([]wire.ImageSummary{i}, full, false)[0] // one for the image, however many names it has
		row.Digest = ""
		d.Images = append(d.Images, row)
	}
	for _, k := range u.Containers {
		k.SizeRootFs = 0 // it is the image's, which is counted there
		d.Containers = append(d.Containers, container.NewRow(k, full))
	}
	for _, v := range u.Volumes {
		d.Volumes = append(d.Volumes, volume.NewRow(v))
	}
	for _, r := range u.BuildCache {
		d.BuildCache = append(d.BuildCache, newCached(r, full))
	}
	return d
}

func newCached(r wire.BuildCacheRecord, full bool) cached {
	ago := func(given string) string {
		t, err := time.Parse(time.RFC3339Nano, given)
		if err != nil {
			return ""
		}
		return cli.Ago(t)
	}
	c := cached{
		CacheType: r.Type, CreatedSince: ago(r.CreatedAt), Description: r.Description, ID: r.ID, InUse: fmt.Sprint(r.InUse),
		Parent: strings.Join(r.Parents, ", "), Shared: fmt.Sprint(r.Shared), Size: cli.Size(r.Size), UsageCount: fmt.Sprint(r.UsageCount),
	}
	if r.LastUsedAt != nil {
		c.LastUsedSince = ago(*r.LastUsedAt)
	}
	if !full {
		c.ID = cli.Short(r.ID)
	}
	if r.InUse {
		c.ID += "*"
	}
	return c
}

// writeDetails is df -v: a table for each kind, or a template that sees all.
func writeDetails(out io.Writer, format string, u wire.DiskUsage) error {
	if format != "" && format != "table" {
		return writeDetailsAs(out, format, newDetails(u, true))
	}
	d := newDetails(u, false)
	rows := [][]string{{"REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"}}
	for _, r := range d.Images {
		rows = append(rows, []string{r.Repository, r.Tag, r.ID, r.CreatedSince, r.Size, r.SharedSize, r.UniqueSize, r.Containers})
	}
	if err := writeKind(out, "Images space usage:", rows, "\n"); err != nil {
		return err
	}
	rows = [][]string{{"CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"}}
	for _, r := range d.Containers {
		rows = append(rows, []string{r.ID, r.Image, r.Command, r.LocalVolumes, r.Size, r.RunningFor, r.Status, r.Names})
	}
	if err := writeKind(out, "Containers space usage:", rows, "\n"); err != nil {
		return err
	}
	rows = [][]string{{"VOLUME NAME", "LINKS", "SIZE"}}
	for _, r := range d.Volumes {
		rows = append(rows, []string{r.Name, r.Links, r.Size})
	}
	if err := writeKind(out, "Local Volumes space usage:", rows, "\n"); err != nil {
		return err
	}
	var size int64
	rows = [][]string{{"CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"}}
	for i, r := range d.BuildCache {
		rows = append(rows, []string{r.ID, r.CacheType, r.Size, r.CreatedSince, r.LastUsedSince, r.UsageCount, r.Shared})
		if !u.BuildCache[i].Shared {
			size += u.BuildCache[i].Size
		}
	}
	return writeKind(out, "Build cache usage: "+units.HumanSize(float64(size)), rows, "")
}

func writeKind(out io.Writer, title string, rows [][]string, end string) error {
	fmt.Fprintf(out, "%s\n\n", title)
	if err := cli.Table(out, 10, rows); err != nil {
		return err
	}
	_, err := io.WriteString(out, end)
	return err
}

// writeDetailsAs prints by a template. Docker's client ends without a newline here, and so does this.
func writeDetailsAs(out io.Writer, format string, d details) error {
	if format == "json" {
		format = "{{json .}}"
	}
	t, err := cli.RowTemplate(format)
	if err != nil {
		return err
	}
	return t.Execute(out, d)
}
