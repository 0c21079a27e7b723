// Package enginetest is an engine in memory, for tests of plan, apply and task: it has containers,
// images, networks and volumes, refuses what a real one refuses, and writes down what was done.
package enginetest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Engine is one. The zero value is empty.
type Engine struct {
	mu         sync.Mutex
	next       int
	containers map[string]*wire.ContainerInspect // by name
	images     map[string]*wire.ImageInspect     // by ID
	networks   map[string]*wire.NetworkInspect
	volumes    map[string]*wire.Volume

	// Log has every call that changes something: "create shop-db".
	Log []string
	// Fail makes a call fail: "start shop-web".
	Fail map[string]error
	// Remote are the images that can be pulled.
	Remote []string
	// Started is told of a container that starts, and may change its state: end it, make it healthy.
	Started func(*wire.ContainerInspect)
	// Locals are the names of the files that came with builds.
	Locals []string
	// Running and MostRunning count the calls of ContainerStart at the same time.
	Running, MostRunning int
	// OnStart is called in ContainerStart, without the lock.
	OnStart func(name string)
}

func (e *Engine) did(format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	e.Log = append(e.Log, what)
	return e.Fail[what]
}

func (e *Engine) id() string {
	e.next++
	return fmt.Sprintf("id%d", e.next)
}

// Done returns the log and empties it.
func (e *Engine) Done() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	log := e.Log
	e.Log = nil
	return log
}

// AddImage puts an image there.
func (e *Engine) AddImage(tags ...string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.addImage(nil, tags)
}

func (e *Engine) addImage(labels map[string]string, tags []string) string {
	if e.images == nil {
		e.images = map[string]*wire.ImageInspect{}
	}
	id := "sha256:" + e.id()
	for _, i := range e.images {
		i.RepoTags = slices.DeleteFunc(i.RepoTags, func(t string) bool { return slices.Contains(tags, t) })
	}
	e.images[id] = &wire.ImageInspect{ID: id, RepoTags: slices.Clone(tags), Config: &wire.ContainerConfig{Labels: labels}}
	return id
}

// Left counts what there is.
func (e *Engine) Left() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return fmt.Sprintf("%d containers, %d images, %d networks, %d volumes", len(e.containers), len(e.images), len(e.networks), len(e.volumes))
}

// Container returns a container by name, to be looked at or changed.
func (e *Engine) Container(name string) *wire.ContainerInspect {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.containers[name]
}

func (e *Engine) container(ref string) (*wire.ContainerInspect, error) {
	for name, c := range e.containers {
		if name == ref || c.ID == ref {
			return c, nil
		}
	}
	return nil, fault.New(fault.NotFound, "No such container: %s", ref)
}

func (e *Engine) image(ref string) *wire.ImageInspect {
	for id, i := range e.images {
		if id == ref || slices.Contains(i.RepoTags, ref) {
			return i
		}
	}
	return nil
}

// ContainerList lists all.
func (e *Engine) ContainerList(context.Context, client.ListOptions) ([]wire.ContainerSummary, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []wire.ContainerSummary
	for name, c := range e.containers {
		out = append(out, wire.ContainerSummary{ID: c.ID, Names: []string{"/" + name}, Labels: c.Config.Labels, State: c.State.Status, ImageID: c.Image})
	}
	return out, nil
}

// ContainerInspect answers a copy.
func (e *Engine) ContainerInspect(_ context.Context, ref string, _ bool) (wire.ContainerInspect, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.container(ref)
	if err != nil {
		return wire.ContainerInspect{}, err
	}
	data, _ := json.Marshal(c)
	var out wire.ContainerInspect
	return out, json.Unmarshal(data, &out)
}

// ContainerCreate makes one of an image that is there, on networks and volumes that are there.
func (e *Engine) ContainerCreate(_ context.Context, name, _ string, r wire.ContainerCreateRequest) (wire.ContainerCreateResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	image := e.image(r.Image)
	if image == nil {
		return wire.ContainerCreateResponse{}, fault.New(fault.NotFound, "No such image: %s", r.Image)
	}
	id := e.id()
	if name == "" {
		name = "auto-" + id
	}
	if e.containers[name] != nil {
		return wire.ContainerCreateResponse{}, fault.New(fault.Conflict, "Conflict. The container name %q is already in use", "/"+name)
	}
	settings := &wire.NetworkSettings{Networks: map[string]*wire.EndpointSettings{}}
	if r.NetworkingConfig != nil {
		for n, endpoint := range r.NetworkingConfig.EndpointsConfig {
			if e.networks[n] == nil {
				return wire.ContainerCreateResponse{}, fault.New(fault.NotFound, "network %s not found", n)
			}
			endpoint.IPAddress = "10.0.0." + strings.TrimPrefix(id, "id")
			settings.Networks[n] = endpoint
		}
	} else {
		settings.IPAddress = "172.17.0." + strings.TrimPrefix(id, "id")
	}
	for _, m := range r.HostConfig.Mounts {
		if m.Type == "volume" && e.volumes[m.Source] == nil {
			return wire.ContainerCreateResponse{}, fault.New(fault.NotFound, "no such volume: %s", m.Source)
		}
	}
	if err := e.did("create %s", name); err != nil {
		return wire.ContainerCreateResponse{}, err
	}
	if e.containers == nil {
		e.containers = map[string]*wire.ContainerInspect{}
	}
	config := r.ContainerConfig
	e.containers[name] = &wire.ContainerInspect{ID: id, Name: "/" + name, Config: &config, HostConfig: r.HostConfig, Image: image.ID,
		NetworkSettings: settings, State: &wire.ContainerState{Status: "created"}}
	return wire.ContainerCreateResponse{ID: id}, nil
}

// ContainerStart makes it run.
func (e *Engine) ContainerStart(_ context.Context, ref string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.container(ref)
	if err != nil {
		return err
	}
	name := strings.TrimPrefix(c.Name, "/")
	if e.OnStart != nil {
		e.Running++
		e.MostRunning = max(e.MostRunning, e.Running)
		e.mu.Unlock()
		e.OnStart(name)
		e.mu.Lock()
		e.Running--
	}
	if err := e.did("start %s", name); err != nil {
		return err
	}
	c.State.Status, c.State.Running = "running", true
	if c.Config.Healthcheck != nil {
		c.State.Health = &wire.HealthState{Status: "starting"}
	}
	if e.Started != nil {
		e.Started(c)
	}
	return nil
}

// ContainerStop ends it.
func (e *Engine) ContainerStop(_ context.Context, ref, _ string, _ *int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.container(ref)
	if err != nil {
		return err
	}
	c.State.Status, c.State.Running, c.State.ExitCode = "exited", false, 143
	return nil
}

// ContainerRemove removes it.
func (e *Engine) ContainerRemove(_ context.Context, ref string, _ client.RemoveOptions) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.container(ref)
	if err != nil {
		return err
	}
	name := strings.TrimPrefix(c.Name, "/")
	if err := e.did("remove %s", name); err != nil {
		return err
	}
	delete(e.containers, name)
	return nil
}

// ContainerLogs answers one line.
func (e *Engine) ContainerLogs(_ context.Context, ref string, _ client.LogOptions) (io.ReadCloser, error) {
	text := "last words of " + ref + "\n"
	frame := append([]byte{2, 0, 0, 0, 0, 0, 0, byte(len(text))}, text...)
	return io.NopCloser(bytes.NewReader(frame)), nil
}

// ImageList lists all.
func (e *Engine) ImageList(context.Context, client.ImageListOptions) ([]wire.ImageSummary, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []wire.ImageSummary
	for _, i := range e.images {
		out = append(out, wire.ImageSummary{ID: i.ID, RepoTags: slices.Clone(i.RepoTags), Labels: i.Config.Labels})
	}
	return out, nil
}

// ImageInspect finds an image by tag or ID.
func (e *Engine) ImageInspect(_ context.Context, ref string) (wire.ImageInspect, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := e.image(ref); i != nil {
		return *i, nil
	}
	return wire.ImageInspect{}, fault.New(fault.NotFound, "No such image: %s", ref)
}

// ImagePull gets an image of Remote.
func (e *Engine) ImagePull(_ context.Context, ref, _ string, _ *wire.AuthConfig, _ func(wire.Message) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Contains(e.Remote, ref) {
		return fault.New(fault.NotFound, "manifest for %s not found", ref)
	}
	if err := e.did("pull %s", ref); err != nil {
		return err
	}
	e.addImage(nil, []string{ref})
	return nil
}

// ImageRemove takes a tag away, and with the last one the image.
func (e *Engine) ImageRemove(_ context.Context, ref string, _, _ bool) ([]wire.ImageDelete, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := e.image(ref)
	if i == nil {
		return nil, fault.New(fault.NotFound, "No such image: %s", ref)
	}
	for _, c := range e.containers {
		if c.Image == i.ID && len(i.RepoTags) <= 1 {
			return nil, fault.New(fault.Conflict, "conflict: unable to remove %s: image is being used", ref)
		}
	}
	if err := e.did("rmi %s", ref); err != nil {
		return nil, err
	}
	i.RepoTags = slices.DeleteFunc(i.RepoTags, func(t string) bool { return t == ref })
	if len(i.RepoTags) == 0 {
		delete(e.images, i.ID)
	}
	return nil, nil
}

// NetworkList lists all.
func (e *Engine) NetworkList(context.Context, client.Filters) ([]wire.NetworkInspect, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []wire.NetworkInspect{{Name: "bridge", ID: "bridge"}}
	for _, n := range e.networks {
		out = append(out, *n)
	}
	return out, nil
}

// NetworkInspect finds one.
func (e *Engine) NetworkInspect(_ context.Context, ref string) (wire.NetworkInspect, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := e.networks[ref]; n != nil {
		return *n, nil
	}
	return wire.NetworkInspect{}, fault.New(fault.NotFound, "network %s not found", ref)
}

// NetworkCreate makes one.
func (e *Engine) NetworkCreate(_ context.Context, r wire.NetworkCreateRequest) (wire.NetworkCreateResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.did("network %s", r.Name); err != nil {
		return wire.NetworkCreateResponse{}, err
	}
	if e.networks == nil {
		e.networks = map[string]*wire.NetworkInspect{}
	}
	n := &wire.NetworkInspect{Name: r.Name, ID: e.id(), Labels: r.Labels, Driver: r.Driver, Options: r.Options}
	if r.IPAM != nil {
		n.IPAM = *r.IPAM
	}
	e.networks[r.Name] = n
	return wire.NetworkCreateResponse{ID: n.ID}, nil
}

// NetworkRemove removes one that no container is in.
func (e *Engine) NetworkRemove(_ context.Context, ref string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, n := range e.networks {
		if n.ID != ref && name != ref {
			continue
		}
		for _, c := range e.containers {
			if c.NetworkSettings.Networks[name] != nil {
				return fault.New(fault.Conflict, "network %s has active endpoints", name)
			}
		}
		delete(e.networks, name)
		return e.did("network rm %s", name)
	}
	return fault.New(fault.NotFound, "network %s not found", ref)
}

// VolumeList lists all.
func (e *Engine) VolumeList(context.Context, client.Filters) (wire.VolumeList, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out wire.VolumeList
	for _, v := range e.volumes {
		out.Volumes = append(out.Volumes, v)
	}
	return out, nil
}

// VolumeCreate makes one.
func (e *Engine) VolumeCreate(_ context.Context, r wire.VolumeCreateRequest) (wire.Volume, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.did("volume %s", r.Name); err != nil {
		return wire.Volume{}, err
	}
	if e.volumes == nil {
		e.volumes = map[string]*wire.Volume{}
	}
	e.volumes[r.Name] = &wire.Volume{Name: r.Name, Driver: r.Driver, Labels: r.Labels, Options: r.DriverOpts}
	return *e.volumes[r.Name], nil
}

// VolumeRemove removes one that no container uses.
func (e *Engine) VolumeRemove(_ context.Context, name string, _ bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.containers {
		for _, m := range c.HostConfig.Mounts {
			if m.Source == name {
				return fault.New(fault.Conflict, "volume %s is in use", name)
			}
		}
	}
	if e.volumes[name] == nil {
		return fault.New(fault.NotFound, "no such volume: %s", name)
	}
	delete(e.volumes, name)
	return e.did("volume rm %s", name)
}

// Build makes an image whose labels are those of the graph's last step.
func (e *Engine) Build(_ context.Context, g wire.BuildGraph, locals func(*tar.Writer) error, _ func(wire.Message) error) (string, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := locals(w); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		e.Locals = append(e.Locals, h.Name)
	}
	sort.Strings(e.Locals)
	if err := e.did("build %s", strings.Join(g.Tags, " ")); err != nil {
		return "", err
	}
	var labels map[string]string
	if c := g.Nodes[g.Target].Config; c != nil {
		labels = c.Labels
	}
	return e.addImage(labels, g.Tags), nil
}
