package plan

import (
	"context"
	"slices"
	"sort"
	"strings"

	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/graph"
)

// Engine is what planning asks; *client.Client is one. Nothing here changes anything.
type Engine interface {
	ContainerList(ctx context.Context, o client.ListOptions) ([]wire.ContainerSummary, error)
	ContainerInspect(ctx context.Context, id string, size bool) (wire.ContainerInspect, error)
	ImageList(ctx context.Context, o client.ImageListOptions) ([]wire.ImageSummary, error)
	ImageInspect(ctx context.Context, ref string) (wire.ImageInspect, error)
	NetworkList(ctx context.Context, f client.Filters) ([]wire.NetworkInspect, error)
	VolumeList(ctx context.Context, f client.Filters) (wire.VolumeList, error)
}

// Existing is a resource that the engine has.
type Existing struct {
	Address  graph.Address
	ID, Name string
	Wanted   map[string]any // nil when the label is unreadable
	State    string         // of a container: running, exited, created, ...
	ExitCode int            // of one that exited
	ImageID  string         // of a container
	Tags     []string       // of an image

	extra bool // a second one of the same address
}

// fulfilled reports whether the container does what it should: runs, or has done its work.
func (x *Existing) fulfilled(spec *graph.Container) bool {
	switch x.State {
	case "running", "restarting", "paused":
		return true
	case "exited":
		return spec.Once && x.ExitCode == 0
	}
	return false
}

func (x *Existing) missingTags(wanted []string) []string {
	var out []string
	for _, t := range wanted {
		if !slices.Contains(x.Tags, t) {
			out = append(out, t)
		}
	}
	return out
}

// Have is what the engine has of an environment, and the names that others took.
type Have struct {
	mine      []*Existing
	taken     map[graph.Kind]map[string]bool
	images    map[string]string // reference -> ID, as asked for
	leftovers []string
}

// Read asks the engine.
func Read(ctx context.Context, e Engine, env string) (*Have, error) {
	h := &Have{taken: map[graph.Kind]map[string]bool{}, images: map[string]string{}}
	for _, read := range []func(context.Context, Engine, string) error{h.readContainers, h.readNetworks, h.readVolumes, h.readImages} {
		if err := read(ctx, e, env); err != nil {
			return nil, err
		}
	}
	sort.SliceStable(h.mine, func(i, j int) bool { return h.mine[i].Address.String() < h.mine[j].Address.String() })
	seen := map[graph.Address]bool{}
	for _, x := range h.mine {
		x.extra = seen[x.Address]
		seen[x.Address] = true
	}
	return h, nil
}

func (h *Have) all() []*Existing { return h.mine }

func (h *Have) find(a graph.Address) *Existing {
	for _, x := range h.mine {
		if x.Address == a && !x.extra {
			return x
		}
	}
	return nil
}

// add takes a thing as the environment's if its labels say so.
func (h *Have) add(env string, kind graph.Kind, name string, labels map[string]string, x *Existing) bool {
	a, ok := graph.ParseAddress(labels[graph.LabelAddress])
	if labels[graph.LabelEnv] != env || !ok || a.Kind != kind {
		if h.taken[kind] == nil {
			h.taken[kind] = map[string]bool{}
		}
		h.taken[kind][name] = true
		return false
	}
	x.Address, x.Name, x.Wanted = a, name, graph.ParseCanonical(labels[graph.LabelWanted])
	h.mine = append(h.mine, x)
	return true
}

// foreign says which thing of another owner has the resource's name, or "".
func (h *Have) foreign(r *graph.Resource) string {
	if r.Address.Kind == graph.KindImage || !h.taken[r.Address.Kind][r.Name] {
		return "" // a tag is moved, as by every build
	}
	return "a " + string(r.Address.Kind) + " named " + r.Name
}

func (h *Have) readContainers(ctx context.Context, e Engine, env string) error {
	list, err := e.ContainerList(ctx, client.ListOptions{All: true})
	if err != nil {
		return err
	}
	for _, c := range list {
		name := c.ID
		if len(c.Names) > 0 {
			name = strings.TrimPrefix(c.Names[0], "/")
		}
		x := &Existing{ID: c.ID, State: c.State, ImageID: c.ImageID}
		if !h.add(env, graph.KindContainer, name, c.Labels, x) || x.State != "exited" {
			continue
		}
		inspect, err := e.ContainerInspect(ctx, c.ID, false)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if err == nil && inspect.State != nil {
			x.ExitCode = inspect.State.ExitCode
		}
	}
	return nil
}

func (h *Have) readNetworks(ctx context.Context, e Engine, env string) error {
	list, err := e.NetworkList(ctx, nil)
	if err != nil {
		return err
	}
	for _, n := range list {
		h.add(env, graph.KindNetwork, n.Name, n.Labels, &Existing{ID: n.ID})
	}
	return nil
}

func (h *Have) readVolumes(ctx context.Context, e Engine, env string) error {
	list, err := e.VolumeList(ctx, nil)
	if err != nil {
		return err
	}
	for _, v := range list.Volumes {
		h.add(env, graph.KindVolume, v.Name, v.Labels, &Existing{ID: v.Name})
	}
	return nil
}

// readImages finds the environment's images. One without a name was made by an earlier apply and
// left behind when its tags moved on.
func (h *Have) readImages(ctx context.Context, e Engine, env string) error {
	list, err := e.ImageList(ctx, client.ImageListOptions{Filters: client.Filters{"label": {graph.LabelImageEnv + "=" + env}}})
	if err != nil {
		return err
	}
	for _, i := range list {
		a, ok := graph.ParseAddress(i.Labels[graph.LabelImageAddress])
		if i.Labels[graph.LabelImageEnv] != env || !ok {
			continue
		}
		var tags []string
		for _, t := range i.RepoTags {
			if t != "<none>:<none>" {
				tags = append(tags, t)
			}
		}
		if len(tags) == 0 {
			h.leftovers = append(h.leftovers, i.ID)
			continue
		}
		sort.Strings(tags)
		h.mine = append(h.mine, &Existing{Address: a, ID: i.ID, Name: tags[0], Tags: tags, Wanted: graph.ParseCanonical(i.Labels[graph.LabelImageWanted])})
	}
	return nil
}

// imageID asks what a reference means now; "" when the engine does not have it.
func (h *Have) imageID(ctx context.Context, e Engine, ref string) (string, error) {
	if id, ok := h.images[ref]; ok {
		return id, nil
	}
	inspect, err := e.ImageInspect(ctx, ref)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return "", err
	}
	if err != nil {
		inspect.ID = ""
	}
	h.images[ref] = inspect.ID
	return inspect.ID, nil
}
