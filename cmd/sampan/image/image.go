// Package image has the commands about images: images, pull, rmi, load, import and their like.
package image

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Common are the commands that most people need, for the root of the tree.
var Common = []cli.Verb{
	{Name: "pull", New: newPull}, {Name: "push", New: newPush},
	{Name: "images", New: func(c *cli.CLI) *cobra.Command { return newList(c, "images", "[REPOSITORY[:TAG]]") }},
}

// Commands are the others that stand at the root of the tree.
var Commands = []cli.Verb{
	{Name: "history", New: newHistory}, {Name: "import", New: newImport}, {Name: "load", New: newLoad},
	{Name: "rmi", New: func(c *cli.CLI) *cobra.Command { return newRemove(c, "rmi") }},
	{Name: "save", New: newSave}, {Name: "tag", New: newTag},
}

// Group returns `sampan image`.
func Group(c *cli.CLI) *cobra.Command {
	list := newList(c, "ls", "[REPOSITORY[:TAG]]")
	list.Aliases = []string{"list"}
	remove := newRemove(c, "rm")
	remove.Aliases = []string{"remove"}
	return cli.Group("image", "Manage images", newDiff(c), newHistory(c), newImport(c), newInspect(c), newLoad(c), list, newMount(c),
		newPrune(c), newPull(c), newPush(c), remove, newSave(c), newTag(c), newTree(c), newUnmount(c))
}

func newInspect(c *cli.CLI) *cobra.Command {
	var platform string
	cmd := cli.NewInspect(c, "image", Typed, func(ctx context.Context, e *client.Client, name string) (json.RawMessage, error) {
		return e.ImageInspectRaw(ctx, name, platform)
	})
	cmd.Flags().StringVar(&platform, "platform", "", "Inspect the image of this platform, such as linux/amd64")
	return cmd
}

// Typed returns what the daemon says of an image for a template.
var Typed = cli.Typed[wire.ImageInspect]("image")

func newTag(c *cli.CLI) *cobra.Command {
	cmd := &cobra.Command{
		Use: "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", Short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", Args: cli.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			return engine.ImageTag(cmd.Context(), args[0], args[1])
		},
	}
	return cli.Also(cmd, "sampan image tag, sampan tag")
}

func newRemove(c *cli.CLI, verb string) *cobra.Command {
	var force, noPrune bool
	platforms := cli.List{Commas: true}
	cmd := &cobra.Command{
		Use: verb + " [OPTIONS] IMAGE [IMAGE...]", Short: "Remove one or more images", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			var errs []error
			// One after the other: an image may have several of the names.
			for _, name := range args {
				removed, err := engine.ImageRemovePlatforms(cmd.Context(), name, platforms.Values, force, noPrune)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				for _, line := range removal(removed) {
					fmt.Fprintln(c.Out, line)
				}
			}
			// Docker's --force: that an image is not there is told, and is no failure.
			if len(errs) > 0 && force && !slices.ContainsFunc(errs, func(err error) bool { return !fault.Is(err, fault.NotFound) }) {
				fmt.Fprintln(c.Err, cli.Message(cli.Join(errs)))
				return nil
			}
			return cli.Join(errs)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&force, "force", "f", false, "Force removal of the image")
	f.BoolVar(&noPrune, "no-prune", false, "Do not delete untagged parents")
	f.Var(&platforms, "platform", "Remove only this platform, such as linux/amd64")
	return cli.Also(cmd, "sampan image rm, sampan image remove, sampan rmi")
}

func removal(removed []wire.ImageDelete) []string {
	var lines []string
	for _, r := range removed {
		if r.Deleted != "" {
			lines = append(lines, "Deleted: "+r.Deleted)
		} else {
			lines = append(lines, "Untagged: "+r.Untagged)
		}
	}
	return lines
}

func newPrune(c *cli.CLI) *cobra.Command {
	var force, all bool
	filters := cli.Filters{Keys: []string{"until", "label", "label!", "dangling"}}
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove unused images", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			warning := "This will remove all dangling images."
			if all {
				warning = "This will remove all images without at least one container associated to them."
			}
			if ok, err := c.Sure(force, warning); !ok {
				return err
			}
			if len(filters.Values["dangling"]) == 0 {
				filters.Add("dangling", fmt.Sprint(!all))
			}
			report, err := engine.ImagePrune(cmd.Context(), filters.Values)
			if err != nil {
				return err
			}
			lower := removal(report.ImagesDeleted)
			for i, line := range lower {
				lower[i] = strings.ToLower(line[:1]) + line[1:]
			}
			c.Pruned("Deleted Images:", lower)
			c.Reclaimed(report.SpaceReclaimed)
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all", "a", false, "Remove all unused images, not just dangling ones")
	f.Var(&filters, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	f.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	return cmd
}
