package image

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/wire"
)

// newTree is `image tree`: which images share which layers.
func newTree(c *cli.CLI) *cobra.Command {
	return &cobra.Command{
		Use: "tree [IMAGE...]", Short: "Show the layers of images, and which they share", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			nodes, err := engine.ImageTree(cmd.Context())
			if err != nil {
				return err
			}
			for _, name := range args { // of an ID, a name
				image, err := engine.ImageInspect(cmd.Context(), name)
				if err != nil {
					return err
				}
				names := image.RepoTags
				if len(names) == 0 {
					names = []string{image.ID}
				}
				args = append(args, names...)
			}
			if len(args) > 0 {
				nodes = only(nodes, args)
			}
			for _, n := range nodes {
				printNode(c.Out, n, "", "")
			}
			return nil
		},
	}
}

// only returns the layers that lead to the named images.
func only(nodes []wire.ImageNode, names []string) []wire.ImageNode {
	var list []wire.ImageNode
	for _, n := range nodes {
		n.Children = only(n.Children, names)
		if len(n.Children) > 0 || slices.ContainsFunc(n.Images, func(i string) bool { return slices.Contains(names, i) }) {
			list = append(list, n)
		}
	}
	return list
}

// printNode draws a layer and those on it. first is what stands before its line, rest before those below.
func printNode(out io.Writer, n wire.ImageNode, first, rest string) {
	names := slices.Clone(n.Images)
	for i, name := range names {
		if strings.HasPrefix(name, "sha256:") {
			names[i] = cli.Short(name)
		}
	}
	shared := ""
	if n.Users > 1 {
		shared = fmt.Sprintf("  shared by %d", n.Users)
	}
	line := fmt.Sprintf("%s%s  %s%s  %s", first, cmp.Or(cli.Short(n.Chain), "(no layers)"), cli.Size(n.Size), shared, strings.Join(names, ", "))
	fmt.Fprintln(out, strings.TrimRight(line, " "))
	for i, child := range n.Children {
		if i == len(n.Children)-1 {
			printNode(out, child, rest+"└─ ", rest+"   ")
		} else {
			printNode(out, child, rest+"├─ ", rest+"│  ")
		}
	}
}

// platforms prints `image ls --tree`: each name with the platforms that it stands for.
func platforms(out io.Writer, images []wire.ImageSummary) {
	type line struct{ name, id, disk, content, used string }
	lines := []line{{"IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "IN USE"}}
	for _, i := range images {
		lines = append(lines, treeHead(i))
		for n, m := range i.Manifests {
			mark := "├─ "
			if n == len(i.Manifests)-1 {
				mark = "└─ "
			}
			l := line{name: mark + platformName(m), id: cli.Short(m.ID), disk: cli.Size(m.Size.Total), content: cli.Size(m.Size.Content)}
			if m.ImageData != nil && len(m.ImageData.Containers) > 0 {
				l.used = "U"
			}
			lines = append(lines, l)
		}
	}
	var width [4]int
	for _, l := range lines {
		for i, field := range []string{l.name, l.id, l.disk, l.content} {
			width[i] = max(width[i], len([]rune(field)))
		}
	}
	for _, l := range lines {
		text := fmt.Sprintf("%-*s   %-*s   %*s   %*s   %s", width[0], l.name, width[1], l.id, width[2], l.disk, width[3], l.content, l.used)
		fmt.Fprintln(out, strings.TrimRight(text, " "))
	}
}

func treeHead(i wire.ImageSummary) (l struct{ name, id, disk, content, used string }) {
	l.name, l.id = strings.Join(i.RepoTags, ", "), cli.Short(i.ID)
	if l.name == "" {
		l.name = "<untagged>"
	}
	var disk, content int64
	for _, m := range i.Manifests {
		disk, content = disk+m.Size.Total, content+m.Size.Content
		if m.ImageData != nil && len(m.ImageData.Containers) > 0 {
			l.used = "U"
		}
	}
	l.disk, l.content = cli.Size(disk), cli.Size(content)
	return l
}

func platformName(m wire.ImageManifest) string {
	if m.ImageData == nil {
		return cmp.Or(m.Kind, "unknown")
	}
	p := m.ImageData.Platform
	name := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	return name
}
