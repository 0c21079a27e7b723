// Package context has the commands about contexts: names for engines, of which one is the current one.
//
//	context.go    the group, use, show, and what the verbs share
//	create.go     create and update, and the endpoint that --docker describes
//	list.go       ls and inspect
//	remove.go     rm
//	archive.go    export and import
//
// The files are in package store, in Docker's format; what is in Docker's own directory can be used, copied
// and exported, and is changed by nobody but docker.
package context

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/context/store"
	"github.com/sampan-project/sampan/core/fault"
)

// Group returns `sampan context`.
func Group(c *cli.CLI) *cobra.Command {
	return cli.Group("context", "Manage contexts", newCreate(c), newExport(c), newImport(c), newInspect(c), newList(c), newRemove(c), newShow(c), newUpdate(c), newUse(c))
}

// defaultDescription is what the default context is.
const defaultDescription = "Current DOCKER_HOST based configuration"

// get returns a context by name; the default one is what the environment says, and is in no store.
func get(c *cli.CLI, name string) (*store.Context, store.Place, error) {
	if name != store.Default {
		return c.Contexts().Get(name)
	}
	host, _ := c.DefaultHost()
	d := &store.Context{Name: store.Default, Metadata: map[string]any{}}
	d.Place(host, false)
	return d, store.Place{}, nil
}

// own is get for a context that is to be changed.
func own(c *cli.CLI, name string) (*store.Context, error) {
	found, place, err := c.Contexts().Get(name)
	if err == nil && !place.Own {
		err = fault.New(fault.Conflict, "context %q is docker's (%s): change it with `docker context`, or copy it with `sampan context create NAME --from %s`", name, place.Meta(), name)
	}
	return found, err
}

func newUse(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use: "use CONTEXT", Short: "Set the current sampan context", Args: cli.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return use(c, args[0]) },
	}
}

func use(c *cli.CLI, name string) error {
	current := name
	if name == store.Default {
		current = ""
	} else if _, _, err := c.Contexts().Get(name); err != nil {
		return err
	}
	if err := c.UseContext(current); err != nil {
		return err
	}
	fmt.Fprintln(c.Out, name)
	fmt.Fprintf(c.Err, "Current context is now %q\n", name)
	if _, variable := c.DefaultHost(); variable != "" && name != store.Default {
		fmt.Fprintf(c.Err, "Warning: %[1]s environment variable overrides the active context. To use %[2]q, either set the global --context flag, or unset %[1]s environment variable.\n", variable, name)
	}
	return nil
}

func newShow(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Print the name of the current context", Args: cli.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(c.Out, c.ContextName())
			return err
		},
	}
}
