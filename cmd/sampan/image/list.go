package image

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Row is one name of an image as images shows it, in the order of Docker's JSON.
type Row struct {
	Containers   string
	CreatedAt    string
	CreatedSince string
	Digest       string
	ID           string
	Repository   string
	SharedSize   string
	Size         string
	Tag          string
	UniqueSize   string
	VirtualSize  string
}

var headers = cli.Headers{
	"Containers": "CONTAINERS", "CreatedAt": "CREATED AT", "CreatedSince": "CREATED", "Digest": "DIGEST", "ID": "IMAGE ID",
	"Repository": "REPOSITORY", "SharedSize": "SHARED SIZE", "Size": "SIZE", "Tag": "TAG", "UniqueSize": "UNIQUE SIZE", "VirtualSize": "SIZE",
}

func listing(digests bool) cli.Listing[Row] {
	columns := []cli.Column[Row]{
		{Head: "REPOSITORY", Value: func(r Row) string { return r.Repository }},
		{Head: "TAG", Value: func(r Row) string { return r.Tag }},
	}
	if digests {
		columns = append(columns, cli.Column[Row]{Head: "DIGEST", Value: func(r Row) string { return r.Digest }})
	}
	columns = append(columns,
		cli.Column[Row]{Head: "IMAGE ID", Value: func(r Row) string { return r.ID }},
		cli.Column[Row]{Head: "CREATED", Value: func(r Row) string { return r.CreatedSince }},
		cli.Column[Row]{Head: "SIZE", Value: func(r Row) string { return r.Size }})
	return cli.Listing[Row]{Columns: columns, Headers: headers, Key: "ID", RawKey: "image_id", Raw: raw(digests)}
}

// raw is the template of an image line by line.
func raw(digests bool) string {
	text := "repository: {{.Repository}}\n{{if .Tag}}tag: {{.Tag}}\n{{end}}"
	if digests {
		text += "digest: {{.Digest}}\n"
	}
	return text + "image_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}"
}

const none = "<none>"

// name is one name of an image.
type name struct{ repository, tag, digest string }

// names are the rows of an image as Docker has them: one for each tag, and for each repository that it has digests
// of and no tag. withDigests makes of it a row for each digest of the repository.
func names(i wire.ImageSummary, withDigests bool) []name {
	digests := map[string][]string{}
	var order []string
	for _, d := range i.RepoDigests {
		if repository, digest, ok := strings.Cut(d, "@"); ok && repository != none {
			if _, twice := digests[repository]; !twice {
				order = append(order, repository)
			}
			digests[repository] = append(digests[repository], digest)
		}
	}
	var list []name
	tagged := map[string]bool{}
	for _, t := range i.RepoTags {
		colon := strings.LastIndexByte(t, ':')
		if colon < 0 || strings.HasPrefix(t, none) {
			continue
		}
		repository, tag := t[:colon], t[colon+1:]
		tagged[repository] = true
		beside := digests[repository]
		if !withDigests || len(beside) == 0 {
			beside = []string{none}
		}
		for _, d := range beside {
			list = append(list, name{repository, tag, d})
		}
	}
	for _, repository := range order {
		if tagged[repository] {
			continue
		}
		beside := digests[repository]
		if !withDigests {
			beside = []string{""}
		}
		for _, d := range beside {
			list = append(list, name{repository, none, d})
		}
	}
	if len(list) == 0 {
		list = append(list, name{none, none, none})
	}
	return list
}

// Rows returns the rows of images, with whole ids if full.
func Rows(images []wire.ImageSummary, full, digests bool) []Row {
	var list []Row
	for _, i := range images {
		created := time.Unix(i.Created, 0)
		r := Row{
			Containers: counted(i.Containers), CreatedAt: created.String(), CreatedSince: cli.Ago(created), ID: i.ID, SharedSize: sized(i.SharedSize),
			Size: cli.Size(i.Size), UniqueSize: "N/A", VirtualSize: units.HumanSize(float64(i.Size)),
		}
		if i.Created <= 0 {
			r.CreatedSince = "N/A"
		}
		if i.SharedSize >= 0 {
			r.UniqueSize = units.HumanSize(float64(i.Size - i.SharedSize))
		}
		if !full {
			r.ID = cli.Short(i.ID)
		}
		for _, n := range names(i, digests) {
			r.Repository, r.Tag, r.Digest = n.repository, n.tag, n.digest
			list = append(list, r)
		}
	}
	return list
}

func counted(n int64) string {
	if n < 0 {
		return "N/A"
	}
	return fmt.Sprint(n)
}

func sized(n int64) string {
	if n < 0 {
		return "N/A"
	}
	return units.HumanSize(float64(n))
}

func newList(c *cli.CLI, verb, arguments string) *cobra.Command {
	var o client.ImageListOptions
	var quiet, full, digests, tree bool
	var format string
	filters := cli.Filters{Keys: []string{"before", "dangling", "label", "reference", "since", "until"}}
	cmd := &cobra.Command{
		Use: verb + " [OPTIONS] " + arguments, Short: "List images", Args: cli.RangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				filters.Add("reference", args[0])
			}
			o.Filters = filters.Values
			if tree {
				return listTree(cmd.Context(), c, o, quiet, full, digests, format)
			}
			return list(cmd.Context(), c, o, quiet, full, digests, format)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.All, "all", "a", false, "Show all images (default hides intermediate images)")
	f.BoolVar(&digests, "digests", false, "Show digests")
	f.VarP(&filters, "filter", "f", "Filter output based on conditions provided")
	f.StringVar(&format, "format", "", cli.FormatHelp)
	f.BoolVar(&full, "no-trunc", false, "Don't truncate output")
	f.BoolVarP(&quiet, "quiet", "q", false, "Only show image IDs")
	f.BoolVar(&tree, "tree", false, "List multi-platform images as a tree (EXPERIMENTAL)")
	return cli.Also(cmd, "sampan image ls, sampan image list, sampan images")
}

// listTree is list with --tree, which is of no other form.
func listTree(ctx context.Context, c *cli.CLI, o client.ImageListOptions, quiet, full, digests bool, format string) error {
	for _, other := range []struct {
		name string
		set  bool
	}{{"--quiet", quiet}, {"--no-trunc", full}, {"--digests", digests}, {"--format", format != ""}} {
		if other.set {
			return fault.New(fault.Invalid, "%s is not yet supported with --tree", other.name)
		}
	}
	o.Manifests = true
	engine, err := c.Client()
	if err != nil {
		return err
	}
	images, err := engine.ImageList(ctx, o)
	if err == nil {
		platforms(c.Out, images)
	}
	return err
}

func list(ctx context.Context, c *cli.CLI, o client.ImageListOptions, quiet, full, digests bool, format string) error {
	if format == "" && !quiet {
		if config, err := c.Config(); err == nil {
			format = config.ImagesFormat
		}
	}
	engine, err := c.Client()
	if err != nil {
		return err
	}
	images, err := engine.ImageList(ctx, o)
	if err != nil {
		return err
	}
	list := Rows(images, full, digests || cli.Uses(format, ".Digest"))
	return listing(digests).List(c.Out, format, quiet, list)
}

// step is one row of history, in the order of Docker's JSON.
type step struct {
	Comment      string
	CreatedAt    string
	CreatedBy    string
	CreatedSince string
	ID           string
	Size         string
}

var history = cli.Listing[step]{
	Columns: []cli.Column[step]{
		{Head: "IMAGE", Value: func(s step) string { return s.ID }},
		{Head: "CREATED", Value: func(s step) string { return s.CreatedSince }},
		{Head: "CREATED BY", Value: func(s step) string { return s.CreatedBy }},
		{Head: "SIZE", Value: func(s step) string { return s.Size }},
		{Head: "COMMENT", Value: func(s step) string { return s.Comment }},
	},
	Headers: cli.Headers{"Comment": "COMMENT", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "CreatedSince": "CREATED", "ID": "IMAGE", "Size": "SIZE"},
}

func newHistory(c *cli.CLI) *cobra.Command {
	var human, full, quiet bool
	var format, platform string
	cmd := &cobra.Command{
		Use: "history [OPTIONS] IMAGE", Short: "Show the history of an image", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			list, err := engine.ImageHistory(cmd.Context(), args[0], platform)
			if err != nil {
				return err
			}
			steps := make([]step, len(list))
			for i, h := range list {
				steps[i] = newStep(h, human, full)
			}
			if quiet {
				for _, s := range steps {
					fmt.Fprintln(c.Out, s.ID)
				}
				return nil
			}
			listing := history
			if !human {
				listing.Columns = slices.Clone(history.Columns)
				listing.Columns[1] = cli.Column[step]{Head: "CREATED AT", Value: func(s step) string { return s.CreatedAt }}
			}
			return listing.Write(c.Out, format, steps)
		},
	}
	f := cmd.Flags()
	f.StringVar(&format, "format", "", cli.FormatHelp)
	f.BoolVarP(&human, "human", "H", true, "Print sizes and dates in human readable format")
	f.BoolVar(&full, "no-trunc", false, "Don't truncate output")
	f.StringVar(&platform, "platform", "", "Show the history of this platform, such as linux/amd64")
	f.BoolVarP(&quiet, "quiet", "q", false, "Only show image IDs")
	return cli.Also(cmd, "sampan image history, sampan history")
}

func newStep(h wire.ImageHistory, human, full bool) step {
	created := time.Unix(h.Created, 0)
	s := step{Comment: h.Comment, CreatedAt: created.Format(time.RFC3339), CreatedBy: strings.ReplaceAll(h.CreatedBy, "\t", " "), ID: h.ID, Size: fmt.Sprint(h.Size)}
	s.CreatedSince = s.CreatedAt
	if human {
		s.CreatedSince, s.Size = cli.Ago(created), cli.Size(h.Size)
	}
	if !full {
		s.CreatedBy, s.ID = cli.Ellipsis(s.CreatedBy, 45), cli.Short(s.ID)
	}
	return s
}
