package image

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func newMount(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use: "mount [IMAGE [PATH]]", Short: "Show the files of an image at a path, read-only, or list what is mounted", Args: cli.RangeArgs(0, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				list, err := engine.ImageMounts(cmd.Context())
				for _, m := range list {
					fmt.Fprintln(c.Out, cli.Short(m.ID), m.Image, m.Path)
				}
				return err
			}
			path := ""
			if len(args) == 2 {
				if path, err = filepath.Abs(args[1]); err != nil { // the daemon is in another directory
					return err
				}
			}
			at, err := engine.ImageMount(cmd.Context(), args[0], path)
			if err == nil {
				fmt.Fprintln(c.Out, at)
			}
			return err
		},
	}
}

func newUnmount(c *cli.CLI) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "unmount [OPTIONS] [IMAGE|PATH...]", Aliases: []string{"umount"}, Short: "Take the files of images away that were mounted", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return fault.New(fault.Invalid, "expected an image or a path, or --all")
			}
			engine, err := c.Client()
			if err != nil {
				return err
			}
			if all {
				args = []string{""}
			} else if args, err = mounted(cmd.Context(), engine, args); err != nil {
				return err
			}
			var errs []error
			for _, name := range args {
				gone, err := engine.ImageUnmount(cmd.Context(), name, all)
				for _, path := range gone {
					fmt.Fprintln(c.Out, path)
				}
				if err != nil {
					errs = append(errs, err)
				}
			}
			return cli.Join(errs)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Unmount all images")
	return cmd
}

// mounted puts for each name that is the path of a mount, from here, its whole path; the others are images.
func mounted(ctx context.Context, engine *client.Client, names []string) ([]string, error) {
	list, err := engine.ImageMounts(ctx)
	if err != nil {
		return nil, err
	}
	whole := slices.Clone(names)
	for i, name := range names {
		path, err := filepath.Abs(name)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(list, func(m wire.ImageMount) bool { return m.Path == path }) {
			whole[i] = path
		}
	}
	return whole, nil
}

// newDiff is `image diff`, in the words of `diff` of a container.
func newDiff(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use: "diff IMAGE IMAGE", Short: "Show what files the second image has otherwise than the first", Args: cli.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			changes, err := engine.ImageDiff(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			letters := map[int]string{wire.ChangeModified: "C", wire.ChangeAdded: "A", wire.ChangeDeleted: "D"}
			for _, change := range changes {
				fmt.Fprintln(c.Out, letters[change.Kind], change.Path)
			}
			return nil
		},
	}
}
