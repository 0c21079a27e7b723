package container

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/wire"
)

// List returns the containers that match all filters, the youngest first.
func (m *Manager) List(ctx context.Context, o ListOptions) ([]wire.ContainerSummary, error) {
	match, err := m.newFilter(ctx, o.Filters)
	if err != nil {
		return nil, err
	}
	images := map[string]digest.Digest{} // what the names mean now
	list := []wire.ContainerSummary{}
	for _, c := range m.sorted() {
		v := m.view(c)
		if !o.All && !v.state.live() && v.state.Phase != restarting || !match(v) {
			continue
		}
		list = append(list, m.summary(ctx, v, images, o))
		if o.Limit > 0 && len(list) == o.Limit {
			break
		}
	}
	return list, nil
}

// view is a container at one moment.
type view struct {
	rec   record
	state runState
}

func (m *Manager) view(c *Container) view {
	rec, st := c.snapshot()
	return view{rec, st}
}

// sorted returns the containers that can be seen, the youngest first.
func (m *Manager) sorted() []*Container {
	m.mu.RLock()
	defer m.mu.RUnlock()
	type dated struct {
		c  *Container
		at time.Time
	}
	var all []dated
	for _, c := range m.byID {
		c.mu.Lock()
		if !c.reserved && !c.removed {
			all = append(all, dated{c, c.rec.Created})
		}
		c.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b dated) int {
		if order := b.at.Compare(a.at); order != 0 {
			return order
		}
		return strings.Compare(a.c.id, b.c.id)
	})
	list := make([]*Container, len(all))
	for i, d := range all {
		list[i] = d.c
	}
	return list
}

func (m *Manager) summary(ctx context.Context, v view, images map[string]digest.Digest, o ListOptions) wire.ContainerSummary {
	rec, st := &v.rec, &v.state
	s := wire.ContainerSummary{
		ID: rec.ID, Names: []string{"/" + rec.Name}, Image: m.imageName(ctx, rec, images), ImageID: rec.ImageID.String(),
		Command: command(&rec.Config), Created: rec.Created.Unix(), State: string(st.Phase), Status: status(st, time.Now()),
	}
	if o.Size {
		s.SizeRw, s.SizeRootFs = m.sizes(ctx, rec)
	}
	if o.Brief {
		s.Ports = ports(rec, st, m.o.Network.Ports(rec.ID))
		return s
	}
	settings := m.networksOf(rec, st)
	s.Ports = ports(rec, st, settings.Ports)
	s.NetworkSettings = &wire.SummaryNetworkSettings{Networks: settings.Networks}
	s.Labels, s.Mounts = rec.Config.Labels, m.mountsForInspect(ctx, rec)
	s.HostConfig.NetworkMode, s.HostConfig.Annotations = rec.Host.NetworkMode, rec.Host.Annotations
	return s
}

// imageName is the name the container was made with, or the image's id when that name has come to
// mean another.
func (m *Manager) imageName(ctx context.Context, rec *record, images map[string]digest.Digest) string {
	name := rec.Config.Image
	id, known := images[name]
	if !known {
		if img, err := m.o.Images.Get(ctx, name); err == nil {
			id = img.ID
		}
		images[name] = id
	}
	if id != rec.ImageID {
		return rec.ImageID.String()
	}
	return name
}

func command(c *wire.ContainerConfig) string {
	args, err := spec.Args(c)
	if err != nil {
		return ""
	}
	words := make([]string, len(args))
	for i, a := range args {
		if words[i] = a; i > 0 && strings.Contains(a, " ") {
			words[i] = "'" + a + "'"
		}
	}
	return strings.Join(words, " ")
}

// status is the state in the words of `ps`.
func status(st *runState, now time.Time) string {
	ago := func(t time.Time) string { return units.HumanDuration(now.Sub(t)) }
	switch st.Phase {
	case running, paused:
		up := "Up " + ago(st.StartedAt)
		switch {
		case st.Phase == paused:
			return up + " (Paused)"
		case st.Health == nil:
			return up
		case st.Health.Status == starting:
			return up + " (health: starting)"
		}
		return up + " (" + st.Health.Status + ")"
	case restarting:
		return "Restarting (" + strconv.Itoa(st.ExitCode) + ") " + ago(st.FinishedAt) + " ago"
	case removing:
		return "Removal In Progress"
	case dead:
		return "Dead"
	}
	if st.StartedAt.IsZero() || st.FinishedAt.IsZero() {
		return "Created"
	}
	return "Exited (" + strconv.Itoa(st.ExitCode) + ") " + ago(st.FinishedAt) + " ago"
}

// ports are the published ports of a container that runs, and its exposed ones.
func ports(rec *record, st *runState, published map[string][]wire.PortBinding) []wire.Port {
	list := []wire.Port{}
	if !st.live() || len(published)+len(rec.Config.ExposedPorts) == 0 {
		return list
	}
	all := map[string][]wire.PortBinding{}
	for p := range rec.Config.ExposedPorts {
		all[p] = nil
	}
	for p, bindings := range published {
		all[p] = bindings
	}
	for p, bindings := range all {
		number, protocol, err := parsePort(p)
		if err != nil {
			continue
		}
		if len(bindings) == 0 {
			list = append(list, wire.Port{PrivatePort: number, Type: protocol})
		}
		for _, b := range bindings {
			public, _ := strconv.ParseUint(b.HostPort, 10, 16) //nolint:errcheck // 0 says that it is not known
			list = append(list, wire.Port{IP: b.HostIP, PrivatePort: number, PublicPort: uint16(public), Type: protocol})
		}
	}
	slices.SortFunc(list, func(a, b wire.Port) int {
		for _, n := range []int{int(a.PrivatePort) - int(b.PrivatePort), strings.Compare(a.Type, b.Type), strings.Compare(a.IP, b.IP), int(a.PublicPort) - int(b.PublicPort)} {
			if n != 0 {
				return n
			}
		}
		return 0
	})
	return list
}
