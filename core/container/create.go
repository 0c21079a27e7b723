package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

// Create makes a container that Start can start. Everything that can be known to be wrong is found
// before anything is written.
func (m *Manager) Create(ctx context.Context, name, platform string, req wire.ContainerCreateRequest) (wire.ContainerCreateResponse, error) {
	op := m.o.Operations.Begin("container", "create", name)
	c, warnings, err := m.create(ctx, name, platform, req)
	op.End(err)
	if err != nil {
		return wire.ContainerCreateResponse{}, err
	}
	if warnings == nil {
		warnings = []string{}
	}
	m.emit(&c.rec, "create")
	return wire.ContainerCreateResponse{ID: c.rec.ID, Warnings: warnings}, nil
}

func (m *Manager) create(ctx context.Context, name, platform string, req wire.ContainerCreateRequest) (_ *Container, warnings []string, err error) {
	if name != "" {
		if err := validName(cmp.Or(trimSlash(name), name)); err != nil {
			return nil, nil, err
		}
		name = trimSlash(name)
	}
	img, err := m.imageFor(ctx, req.Image, platform)
	if err != nil {
		return nil, nil, err
	}
	rec := record{ID: newID(), Name: name, Created: time.Now().UTC(), ImageID: img.ID, Chain: img.ChainID,
		Config: req.ContainerConfig, Wanted: map[string]*wire.EndpointSettings{}}
	if req.HostConfig != nil {
		rec.Host = *req.HostConfig
	}
	if req.NetworkingConfig != nil {
		maps.Copy(rec.Wanted, req.NetworkingConfig.EndpointsConfig)
	}
	merge(&rec.Config, &img.ContainerConfig)
	warnings, err = m.complete(&rec)
	if err != nil {
		return nil, nil, err
	}
	if rec.Mounts, err = m.mountPoints(ctx, &rec); err != nil {
		return nil, nil, err
	}
	rec.Transient = rec.Host.AutoRemove && !slices.ContainsFunc(rec.Mounts, func(p mountPoint) bool { return p.Anonymous })

	c := newContainer(rec, runState{Phase: created})
	if err := m.reserve(c); err != nil {
		return nil, nil, err
	}
	if err := m.build(ctx, c); err != nil {
		m.release(c)
		return nil, nil, err
	}
	c.mu.Lock()
	c.reserved = false
	c.mu.Unlock()
	return c, warnings, nil
}

// imageFor finds the image. Another platform than the one asked for is fault.NotFound, upon which
// clients pull.
func (m *Manager) imageFor(ctx context.Context, ref, platform string) (*image.Image, error) {
	if ref == "" {
		return nil, fault.New(fault.Invalid, "no image specified")
	}
	img, err := m.o.Images.Use(ctx, ref)
	if err != nil {
		return nil, err
	}
	if have := img.Config.Platform; platform != "" && !samePlatform(platform, have.OS, have.Architecture, have.Variant) {
		return nil, fault.New(fault.NotFound, "image with reference %s was found but its platform (%s/%s) does not match the specified platform (%s)", ref, have.OS, have.Architecture, platform)
	}
	return img, nil
}

// createKind is the kind of the intent that build writes.
const createKind = "container.create"

// build does the side effects of Create, and writes the record last: before that nobody can see the
// container, and what a crash leaves is found at the next start. A snapshot and a directory without a
// record are known to be rubbish; volumes are not, and so they have an intent, where there are any.
func (m *Manager) build(ctx context.Context, c *Container) (err error) {
	rec := &c.rec
	defer func() {
		if err != nil {
			err = fmt.Errorf("create container %s: %w", rec.Name, err)
		}
	}()
	var undo []func() error
	defer func() {
		if err == nil {
			return
		}
		for _, fn := range slices.Backward(undo) {
			err = errors.Join(err, fn())
		}
	}()
	// The undo must happen also when the client has gone away.
	whole := context.WithoutCancel(ctx)
	undo = append(undo, func() error { return m.o.Layers.Remove(whole, rec.ID) })
	if _, err := m.prepareRoot(ctx, rec); err != nil {
		return err
	}
	for key := range holds(rec) {
		undo = append(undo, func() error { return m.o.Layers.Remove(whole, key) })
	}
	if err := m.hold(ctx, rec); err != nil {
		return err
	}
	undo = append(undo, func() error { return os.RemoveAll(m.directory(rec.ID)) })
	if err := m.makeDirectory(rec.ID); err != nil {
		return err
	}
	missing, err := m.missingVolumes(ctx, rec)
	if err != nil {
		return err
	}
	if len(missing) == 0 {
		if err := m.fillVolumes(ctx, rec); err != nil {
			return err
		}
		return m.store.put(*rec)
	}
	op, err := m.o.DB.Begin(createKind, rec.ID, garbage{ID: rec.ID, Volumes: missing})
	if err != nil {
		return err
	}
	defer op.End(&err)
	op.Undo(func() error {
		c.mu.Lock()
		c.removed = true // so that it does not count as a user of the volumes
		c.mu.Unlock()
		return m.removeVolumes(whole, missing)
	})
	if err := m.makeVolumes(ctx, rec, missing); err != nil {
		return err
	}
	if err := m.fillVolumes(ctx, rec); err != nil {
		return err
	}
	return m.store.putNew(*rec, op)
}

// Undo takes back creations that were cut off: functions for state.DB.Recover.
func (m *Manager) Undo() map[string]func(context.Context, state.Intent) error {
	return map[string]func(context.Context, state.Intent) error{
		createKind: func(ctx context.Context, i state.Intent) error {
			var g garbage
			if err := i.Decode(&g); err != nil {
				return err
			}
			m.mu.RLock()
			_, there := m.byID[g.ID]
			m.mu.RUnlock()
			if there {
				return nil
			}
			return m.removeVolumes(ctx, g.Volumes)
		},
	}
}

// makeDirectory makes the container's directory. 0710: what is in it is for root, and for the daemon's
// group to pass.
func (m *Manager) makeDirectory(id string) error {
	if err := os.Mkdir(m.directory(id), 0o710); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	crash.Point("container directory", "made")
	return nil
}

// missingVolumes returns the names of the volumes that the container will bring along: anonymous ones,
// and those that no one has made before.
func (m *Manager) missingVolumes(ctx context.Context, rec *record) (missing []string, err error) {
	for _, p := range rec.Mounts {
		if p.Type != "volume" || slices.Contains(missing, p.Name) {
			continue
		}
		switch _, err := m.o.Volumes.Inspect(ctx, p.Name); {
		case fault.Is(err, fault.NotFound):
			missing = append(missing, p.Name)
		case err != nil:
			return nil, err
		}
	}
	return missing, nil
}

func (m *Manager) makeVolumes(ctx context.Context, rec *record, missing []string) error {
	for _, p := range rec.Mounts {
		if p.Type != "volume" || !slices.Contains(missing, p.Name) {
			continue
		}
		if _, err := m.o.Volumes.Create(ctx, p.request()); err != nil {
			return err
		}
	}
	return nil
}

// fillVolumes copies the image's files into volumes that are empty.
func (m *Manager) fillVolumes(ctx context.Context, rec *record) error {
	for _, p := range rec.Mounts {
		if p.Type != "volume" || p.NoCopy || p.Subpath != "" {
			continue
		}
		if err := m.copyUp(ctx, rec, p); err != nil {
			return fmt.Errorf("copy the image's %s into volume %s: %w", p.Destination, p.Name, err)
		}
	}
	return nil
}

// removeVolumes removes the volumes that no container uses.
func (m *Manager) removeVolumes(ctx context.Context, names []string) error {
	var errs []error
	for _, name := range names {
		if err := m.o.Volumes.Remove(ctx, name, true); !fault.Is(err, fault.Conflict) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// complete fills in the defaults and validates what has no side effect to be found out by.
func (m *Manager) complete(rec *record) (warnings []string, err error) {
	c, h := &rec.Config, &rec.Host
	m.defaults(rec)
	warnings = spec.Adjust(h)
	if err := m.validate(rec); err != nil {
		return nil, err
	}
	defaultHostname(rec)
	if err := spec.Validate(c, h); err != nil {
		return nil, err
	}
	if h.IpcMode == "host" && h.ShmSize != m.shmSize() {
		warnings = append(warnings, "--shm-size has no effect with --ipc host.")
	}
	if len(h.PortBindings) > 0 && h.NetworkMode == "host" {
		warnings = append(warnings, "Published ports are discarded when using host network mode")
	}
	return warnings, nil
}

func (m *Manager) shmSize() int64 {
	if size := m.live.Load().ShmSize; size > 0 {
		return size
	}
	return spec.DefaultShmSize
}

// defaults writes into the record what the request left open, so that inspect shows what is meant.
func (m *Manager) defaults(rec *record) {
	c, h := &rec.Config, &rec.Host
	if h.NetworkMode == "" || h.NetworkMode == "default" {
		h.NetworkMode = "bridge"
		moveKey(rec.Wanted, "default", "bridge")
	}
	if c.NetworkDisabled {
		h.NetworkMode = "none"
	}
	if h.LogConfig.Type == "" || h.LogConfig.Type == m.o.DefaultLog.Type && h.LogConfig.Config == nil {
		options := maps.Clone(m.o.DefaultLog.Config)
		if options == nil {
			options = map[string]string{}
		}
		maps.Copy(options, h.LogConfig.Config)
		h.LogConfig = wire.LogConfig{Type: m.o.DefaultLog.Type, Config: options}
	}
	if h.LogConfig.Config == nil {
		h.LogConfig.Config = map[string]string{}
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = "no"
	}
	if h.ShmSize == 0 {
		h.ShmSize = m.shmSize()
	}
	if h.IpcMode == "" {
		h.IpcMode = cmp.Or(m.o.DefaultIpcMode, "private")
	}
	if h.CgroupnsMode == "" {
		h.CgroupnsMode = spec.DefaultCgroupns(m.o.DefaultCgroupnsMode, h.Privileged, spec.CgroupV2())
	}
	if h.Runtime == "" {
		h.Runtime = m.defaultRuntime()
	}
	// An empty list, `--security-opt systempaths=unconfined`, is not the same as none given.
	if h.MaskedPaths == nil {
		h.MaskedPaths = spec.DefaultMaskedPaths()
	}
	if h.ReadonlyPaths == nil {
		h.ReadonlyPaths = spec.DefaultReadonlyPaths
	}
	if h.Privileged {
		h.MaskedPaths, h.ReadonlyPaths = nil, nil
	}
	if h.Init == nil && m.o.DefaultInit {
		h.Init = &m.o.DefaultInit
	}
	if h.PortBindings == nil {
		h.PortBindings = map[string][]wire.PortBinding{}
	}
	for port := range h.PortBindings {
		if c.ExposedPorts == nil {
			c.ExposedPorts = map[string]struct{}{}
		}
		c.ExposedPorts[port] = struct{}{}
	}
}

// defaultHostname is given when it is known that none was asked for where none can be.
func defaultHostname(rec *record) {
	c, h := &rec.Config, &rec.Host
	_, joined := spec.Joined(h.NetworkMode)
	switch {
	case c.Hostname != "" || joined && h.UTSMode != "host":
	case h.UTSMode == "host" || h.NetworkMode == "host":
		c.Hostname = hostName()
	default:
		c.Hostname = rec.ID[:12]
	}
}

// moveKey renames a key of the map, unless the new one is there.
func moveKey(m map[string]*wire.EndpointSettings, from, to string) {
	v, ok := m[from]
	if !ok {
		return
	}
	delete(m, from)
	if _, taken := m[to]; !taken {
		m[to] = v
	}
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}
