package complete

import (
	"context"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
)

// engine answers what there is. One that cannot be asked has nothing: completion says no errors.
type engine struct{ cli *cli.CLI }

func (e engine) client() (*client.Client, bool) {
	e.cli.Passive = true // a key pressed at a prompt starts no daemon
	c, err := e.cli.Client()
	return c, err == nil
}

func (e engine) containers(ctx context.Context, states []string) []string {
	c, ok := e.client()
	if !ok {
		return nil
	}
	list, err := c.ContainerList(ctx, client.ListOptions{All: true})
	if err != nil {
		return nil
	}
	var names []string
	for _, k := range list {
		if len(states) > 0 && !slices.Contains(states, k.State) {
			continue
		}
		for _, name := range k.Names {
			if name = strings.TrimPrefix(name, "/"); !strings.Contains(name, "/") {
				names = append(names, name)
			}
		}
	}
	return names
}

func (e engine) images(ctx context.Context) []string {
	c, ok := e.client()
	if !ok {
		return nil
	}
	list, err := c.ImageList(ctx, client.ImageListOptions{})
	if err != nil {
		return nil
	}
	var names []string
	for _, i := range list {
		for _, name := range i.RepoTags {
			if strings.HasPrefix(name, "<none>") {
				continue
			}
			names = append(names, name)
			if repository, latest := strings.CutSuffix(name, ":latest"); latest {
				names = append(names, repository)
			}
		}
	}
	return names
}

func (e engine) networks(ctx context.Context) []string {
	c, ok := e.client()
	if !ok {
		return nil
	}
	list, err := c.NetworkList(ctx, nil)
	if err != nil {
		return nil
	}
	names := make([]string, len(list))
	for i, n := range list {
		names[i] = n.Name
	}
	return names
}

func (e engine) nodes(ctx context.Context) []string {
	c, ok := e.client()
	if !ok {
		return nil
	}
	list, err := c.NodeList(ctx, nil)
	if err != nil {
		return nil
	}
	names := make([]string, len(list))
	for i, n := range list {
		names[i] = n.Description.Hostname
	}
	return names
}

func (e engine) services(ctx context.Context) []string {
	c, ok := e.client()
	if !ok {
		return nil
	}
	list, err := c.ServiceList(ctx, nil, false)
	if err != nil {
		return nil
	}
	names := make([]string, len(list))
	for i, s := range list {
		names[i] = s.Spec.Name
	}
	return names
}

func (e engine) volumes(ctx context.Context) []string {
	c, ok := e.client()
	if !ok {
		return nil
	}
	list, err := c.VolumeList(ctx, nil)
	if err != nil {
		return nil
	}
	names := make([]string, len(list.Volumes))
	for i, v := range list.Volumes {
		names[i] = v.Name
	}
	return names
}
