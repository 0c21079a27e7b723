package context

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/context/store"
	"github.com/sampan-project/sampan/core/fault"
)

func newExport(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use: "export [OPTIONS] CONTEXT [FILE|-]", Short: "Export a context to a tar archive FILE or a tar stream on STDOUT.", Args: cli.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			path := archiveOf(args[0])
			if len(args) == 2 {
				path = args[1]
			}
			return export(c, args[0], path)
		},
	}
}

// export writes a context with its keys, so the file is its owner's alone, and never takes the place of
// another.
func export(c *cli.CLI, name, path string) error {
	if name != store.Default {
		if err := store.CheckName(name); err != nil {
			return err
		}
	}
	found, place, err := get(c, name)
	if err != nil {
		return err
	}
	tls := store.Material{}
	if name != store.Default {
		if tls, err = place.Material(); err != nil {
			return err
		}
	}
	if err := expectNoTerminal(c, path); err != nil {
		return err
	}
	if path == "-" {
		return store.Export(c.Out, found, tls)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fault.As(fault.Invalid, err)
	}
	if err := errors.Join(store.Export(f, found, tls), f.Close()); err != nil {
		os.Remove(path)
		return err
	}
	fmt.Fprintf(c.Err, "Written file %q\n", path)
	return nil
}

func newImport(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use: "import CONTEXT FILE|-", Short: "Import a context from a tar or zip file", Args: cli.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error { return load(c, args[0], args[1]) },
	}
}

func load(c *cli.CLI, name, path string) error {
	if err := store.CheckName(name); err != nil {
		return err
	}
	if c.Contexts().Exists(name) {
		return fault.New(fault.Exists, "context %q already exists", name)
	}
	var from io.Reader = c.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return fault.As(fault.Invalid, err)
		}
		defer f.Close()
		from = f
	}
	made, tls, err := store.Import(from, name)
	if err != nil {
		return err
	}
	if err := c.Contexts().Put(made, tls); err != nil {
		return err
	}
	fmt.Fprintln(c.Out, name)
	fmt.Fprintf(c.Err, "Successfully imported context %q\n", name)
	return nil
}
