package context

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/context/store"
)

// row is one context of the list.
type row struct {
	Current        bool
	Description    string
	DockerEndpoint string
	Error          string
	Name           string
}

var listing = cli.Listing[row]{
	Columns: []cli.Column[row]{
		{Head: "NAME", Value: func(r row) string {
			if r.Current {
				return r.Name + " *"
			}
			return r.Name
		}},
		{Head: "DESCRIPTION", Value: func(r row) string { return shorten(r.Description, 60) }},
		{Head: "DOCKER ENDPOINT", Value: func(r row) string { return r.DockerEndpoint }},
		{Head: "ERROR", Value: func(r row) string { return shorten(r.Error, 45) }},
	},
	Headers: cli.Headers{"Name": "NAME", "Description": "DESCRIPTION", "DockerEndpoint": "DOCKER ENDPOINT", "Error": "ERROR"},
}

func newList(c *cli.CLI) *cobra.Command {
	var format string
	var quiet bool
	cmd := cli.Also(&cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List contexts", Args: cli.NoArgs,
		RunE: func(*cobra.Command, []string) error { return list(c, format, quiet) },
	}, "sampan context ls, sampan context list")
	cmd.Flags().StringVar(&format, "format", "", cli.FormatHelp)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only show context names")
	return cmd
}

func list(c *cli.CLI, format string, quiet bool) error {
	rows, err := rows(c)
	if err != nil {
		return err
	}
	if quiet {
		for _, r := range rows {
			fmt.Fprintln(c.Out, r.Name)
		}
		return nil
	}
	if err := listing.Write(c.Out, format, rows); err != nil {
		return err
	}
	if _, variable := c.DefaultHost(); variable != "" && c.ContextName() == store.Default {
		fmt.Fprintf(c.Err, "Warning: %[1]s environment variable overrides the active context. To use a context, either set the global --context flag, or unset %[1]s environment variable.\n", variable)
	}
	return nil
}

// rows are all contexts, and the current one also when it is not there.
func rows(c *cli.CLI) ([]row, error) {
	found, err := c.Contexts().List()
	if err != nil {
		return nil, err
	}
	current := c.ContextName()
	host, _ := c.DefaultHost()
	all := []row{{Name: store.Default, Description: defaultDescription, DockerEndpoint: host}}
	for _, f := range found {
		if f.Name != store.Default {
			all = append(all, row{Name: f.Name, Description: f.Description(), DockerEndpoint: f.Host()})
		}
	}
	if !slices.ContainsFunc(all, func(r row) bool { return r.Name == current }) {
		_, _, err := c.Contexts().Get(current)
		lost := row{Name: current}
		if err != nil {
			lost.Error = err.Error()
		}
		all = append(all, lost)
	}
	for i := range all {
		all[i].Current = all[i].Name == current
	}
	slices.SortFunc(all, func(a, b row) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// shorten cuts a text for a table, as Docker does.
func shorten(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	return string(r[:width-1]) + "…"
}

// view is what inspect shows.
type view struct {
	Name        string
	Metadata    map[string]any
	Endpoints   map[string]map[string]any
	TLSMaterial map[string][]string
	Storage     struct{ MetadataPath, TLSPath string }
}

func newInspect(c *cli.CLI) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] [CONTEXT] [CONTEXT...]", Short: "Display detailed information on one or more contexts",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{c.ContextName()}
			}
			return cli.Inspect(c.Out, args, format, func(name string) (any, json.RawMessage, error) { return inspect(c, name) })
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", cli.InspectFormatHelp)
	return cmd
}

func inspect(c *cli.CLI, name string) (any, json.RawMessage, error) {
	found, place, err := get(c, name)
	if err != nil {
		return nil, nil, err
	}
	v := view{Name: found.Name, Metadata: found.Metadata, Endpoints: found.Endpoints, TLSMaterial: map[string][]string{}}
	v.Storage.MetadataPath, v.Storage.TLSPath = "<IN MEMORY>", "<IN MEMORY>"
	if name != store.Default {
		v.Storage.MetadataPath, v.Storage.TLSPath = place.Meta(), place.TLS()
		if v.TLSMaterial, err = place.Files(); err != nil {
			return nil, nil, err
		}
	}
	raw, err := json.Marshal(v)
	return v, raw, err
}
