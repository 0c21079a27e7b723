package system

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/wire"
)

// found is one repository of a registry as search shows it, in the order of Docker's JSON.
type found struct {
	Description string
	IsAutomated string
	IsOfficial  string
	Name        string
	StarCount   string
}

var foundListing = cli.Listing[found]{
	Columns: []cli.Column[found]{
		{Head: "NAME", Value: func(f found) string { return f.Name }},
		{Head: "DESCRIPTION", Value: func(f found) string { return f.Description }},
		{Head: "STARS", Value: func(f found) string { return f.StarCount }},
		{Head: "OFFICIAL", Value: func(f found) string { return mark(f.IsOfficial) }},
	},
	Headers: cli.Headers{"Description": "DESCRIPTION", "IsAutomated": "AUTOMATED", "IsOfficial": "OFFICIAL", "Name": "NAME", "StarCount": "STARS"},
}

// mark is how a table shows what is true.
func mark(s string) string {
	if s == "true" {
		return "[OK]"
	}
	return ""
}

// shownDescription is the width of a description in the short form, which is Docker's.
const shownDescription = 45

func newFound(r wire.SearchResult, full bool) found {
	text := strings.NewReplacer("\n", " ", "\r", " ").Replace(r.Description)
	if !full {
		text = cli.Ellipsis(text, shownDescription)
	}
	return found{Description: text, IsAutomated: fmt.Sprint(r.IsAutomated), IsOfficial: fmt.Sprint(r.IsOfficial), Name: r.Name, StarCount: fmt.Sprint(r.StarCount)}
}

// searchOptions are search's.
type searchOptions struct {
	filters cli.Filters
	format  string
	limit   int
	full    bool

	stars     int // flags of before Docker 1.12, which filters have replaced
	automated bool
}

func newSearch(c *cli.CLI) *cobra.Command {
	o := searchOptions{filters: cli.Filters{Keys: []string{"is-automated", "is-official", "stars"}}}
	cmd := &cobra.Command{
		Use: "search [OPTIONS] TERM", Short: "Search Docker Hub for images", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), c, args[0]) },
	}
	f := cmd.Flags()
	f.VarP(&o.filters, "filter", "f", "Filter output based on conditions provided")
	f.StringVar(&o.format, "format", "", "Pretty-print search using a Go template")
	f.IntVar(&o.limit, "limit", 0, "Max number of search results")
	f.BoolVar(&o.full, "no-trunc", false, "Don't truncate output")
	f.IntVarP(&o.stars, "stars", "s", 0, "Only displays with at least x stars")
	f.BoolVar(&o.automated, "automated", false, "Only show automated builds")
	for _, name := range []string{"stars", "automated"} {
		f.Lookup(name).Hidden = true
	}
	return cmd
}

// replace makes filters of the old flags, and says which.
func (o *searchOptions) replace(c *cli.CLI) {
	if o.stars > 0 {
		fmt.Fprintf(c.Err, "Flag --stars has been deprecated, use --filter=stars=%d instead\n", o.stars)
		o.filters.Add("stars", fmt.Sprint(o.stars))
	}
	if o.automated {
		fmt.Fprintln(c.Err, "Flag --automated has been deprecated, use --filter=is-automated=true instead")
		o.filters.Add("is-automated", "true")
	}
}

func (o *searchOptions) run(ctx context.Context, c *cli.CLI, term string) error {
	o.replace(c)
	auth, err := c.Auth(term)
	if err != nil {
		return err
	}
	engine, err := c.Client()
	if err != nil {
		return err
	}
	results, err := engine.ImageSearch(ctx, term, o.limit, auth, o.filters.Values)
	if err != nil {
		return err
	}
	rows := make([]found, len(results))
	for i, r := range results {
		rows[i] = newFound(r, o.full)
	}
	return foundListing.Write(c.Out, o.format, rows)
}

// newBuildPrune is `builder prune`.
func newBuildPrune(c *cli.CLI) *cobra.Command {
	var all, force bool
	var keep cli.Bytes
	filters := cli.Filters{}
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove build cache", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			warning := "This will remove all dangling build cache."
			if all {
				warning = "This will remove all build cache."
			}
			if ok, err := c.Sure(force, warning); !ok {
				return err
			}
			report, err := engine.BuildPrune(cmd.Context(), all, keep.Value, filters.Values)
			if err != nil {
				return err
			}
			c.Pruned("Deleted build cache objects:", report.CachesDeleted)
			c.Reclaimed(report.SpaceReclaimed)
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all", "a", false, "Remove all unused build cache, not just dangling ones")
	f.Var(&filters, "filter", `Provide filter values (e.g. "until=24h")`)
	f.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	f.Var(&keep, "keep-storage", "Amount of disk space to keep for cache")
	return cmd
}
