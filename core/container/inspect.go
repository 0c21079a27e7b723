package container

import (
	"context"
	"fmt"
	"time"

	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/wire"
)

// Inspect describes the container; with size also what it takes on the disk.
func (m *Manager) Inspect(ctx context.Context, ref string, size bool) (wire.ContainerInspect, error) {
	c, err := m.find(ref)
	if err != nil {
		return wire.ContainerInspect{}, err
	}
	rec, st := c.snapshot()
	execs := m.runningExecs(c)
	config, host := rec.Config, rec.Host
	host.Links = shownLinks(&rec)
	answer := wire.ContainerInspect{
		ID: rec.ID, Created: rec.Created.Format(time.RFC3339Nano), Image: rec.ImageID.String(), Name: "/" + rec.Name,
		State: stateOf(&st), RestartCount: st.Restarts, Driver: "overlay2", Platform: "linux", ExecIDs: execs,
		HostConfig: &host, Config: &config, Mounts: m.mountsForInspect(ctx, &rec),
		GraphDriver:     wire.GraphDriver{Name: "overlay2", Data: m.o.Layers.Paths(rec.ID)},
		AppArmorProfile: spec.AppArmorProfile(&host, m.o.AppArmor),
		NetworkSettings: m.networkSettings(&rec, &st), Args: []string{},
	}
	if args, err := spec.Args(&config); err == nil {
		answer.Path, answer.Args = args[0], args[1:]
	}
	if !st.StartedAt.IsZero() {
		answer.LogPath = m.logPath(&rec)
		answer.HostnamePath, answer.HostsPath, answer.ResolvConfPath = m.filePath(&rec, "hostname"), m.filePath(&rec, "hosts"), m.filePath(&rec, "resolv.conf")
	}
	if size {
		rw, root := m.sizes(ctx, &rec)
		answer.SizeRw, answer.SizeRootFs = &rw, &root
	}
	return answer, nil
}

func stateOf(st *runState) *wire.ContainerState {
	return &wire.ContainerState{
		Status: string(st.Phase), Running: st.live() || st.Phase == restarting, Paused: st.Phase == paused,
		Restarting: st.Phase == restarting, Dead: st.Phase == dead, OOMKilled: st.OOMKilled,
		Pid: st.Pid, ExitCode: st.ExitCode, Error: st.Error,
		StartedAt: st.StartedAt.Format(time.RFC3339Nano), FinishedAt: st.FinishedAt.Format(time.RFC3339Nano), Health: st.Health,
	}
}

// networkSettings are those of now, or for a container that does not run the networks it will join.
func (m *Manager) networkSettings(rec *record, st *runState) *wire.NetworkSettings {
	return m.networksOf(rec, st)
}

// networksOf is what is, for a container that lives, as tell tells it, and otherwise what is wanted.
func (m *Manager) networksOf(rec *record, st *runState) *wire.NetworkSettings {
	s := m.o.Network.Settings(rec.ID)
	if st.live() && s.Networks != nil {
		s.SandboxKey = fmt.Sprintf("/proc/%d/ns/net", st.Pid)
		return &s
	}
	s = wire.NetworkSettings{Ports: map[string][]wire.PortBinding{}, Networks: map[string]*wire.EndpointSettings{}}
	for name, e := range rec.Wanted {
		var wanted wire.EndpointSettings
		if e != nil {
			wanted = *e
		}
		if n, err := m.o.Network.Resolve(name); err == nil && !st.StartedAt.IsZero() {
			wanted.NetworkID = n.ID
		}
		s.Networks[name] = &wanted
	}
	if mode := rec.Host.NetworkMode; mode == "host" || mode == "none" {
		s.Networks[mode] = &wire.EndpointSettings{}
	}
	return &s
}

// sizes are the bytes that the container wrote, and those of its whole root filesystem.
func (m *Manager) sizes(ctx context.Context, rec *record) (rw, root int64) {
	rw, err := m.o.Layers.Usage(ctx, rec.ID)
	if err != nil {
		m.log.Warn("measure a container", "container", rec.ID, "error", err)
	}
	root = rw
	if img, err := m.o.Images.Get(ctx, rec.ImageID.String()); err == nil {
		root += img.Size
	}
	return rw, root
}
