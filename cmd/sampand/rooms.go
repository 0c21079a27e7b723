package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"

	"github.com/sampan-project/sampan/core/api"
	"github.com/sampan-project/sampan/core/api/docker"
	"github.com/sampan-project/sampan/core/api/sampan"
	"github.com/sampan-project/sampan/core/build"
	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/cluster"
	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/container/apparmor"
	"github.com/sampan-project/sampan/core/container/userns"
	"github.com/sampan-project/sampan/core/content"
	"github.com/sampan-project/sampan/core/event"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/layer"
	"github.com/sampan-project/sampan/core/lazy"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/network"
	"github.com/sampan-project/sampan/core/plugin"
	"github.com/sampan-project/sampan/core/plugin/driver"
	"github.com/sampan-project/sampan/core/registry"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/trust"
	"github.com/sampan-project/sampan/core/volume"
	"github.com/sampan-project/sampan/core/wire"
)

// engine is the rooms of a running daemon.
type engine struct {
	o   *options
	log *slog.Logger
	id  string

	db, runDB  *state.DB
	events     *event.Log
	layers     *layer.Store
	images     *image.Store
	lazy       *lazy.Client
	volumes    *volume.Manager
	plugins    *plugin.Host
	drivers    *driver.Set
	profile    string        // of AppArmor, "" without
	remap      *userns.Remap // nil: containers are in the host's user namespace
	networks   *network.Manager
	monitor    *monitor.Client
	containers *container.Manager
	solver     *build.Solver
	cluster    *cluster.Manager

	// closers undo what was made, the latest first.
	closers []func() error

	certificates *api.Certificates // of TCP listeners; nil without TLS

	registry *registry.Client
	trust    trust.Gate
	metrics  *metrics
	// now is o with what SIGHUP has changed since.
	now atomic.Pointer[options]
}

// open makes the rooms, from the ground up, and sets right what a crash has left. When it fails
// nothing stays open.
func open(ctx context.Context, o *options, log *slog.Logger) (_ *engine, err error) {
	e := &engine{o: o, log: log, events: event.NewLog(), metrics: newMetrics()}
	e.now.Store(o)
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	for _, make := range []func(context.Context) error{
		e.openState, e.openRemap, e.openImages, e.openVolumes, e.openNetworks, e.openMonitor, e.openContainers, e.reconcile, e.openCluster, e.openMetrics,
	} {
		err := make(ctx)
		if ctx.Err() != nil {
			return nil, fault.New(fault.Canceled, "told to end while starting")
		}
		if err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *engine) later(fn func() error) { e.closers = append(e.closers, fn) }

// close ends what open made.
func (e *engine) close() error {
	var errs []error
	for i := len(e.closers) - 1; i >= 0; i-- {
		errs = append(errs, e.closers[i]())
	}
	e.closers = nil
	return errors.Join(errs...)
}

func (e *engine) openState(context.Context) (err error) {
	if e.db, err = state.Open(filepath.Join(e.o.DataRoot, "state.db"), state.Options{}); err != nil {
		return err
	}
	e.later(e.db.Close)
	// The data root is this daemon's alone from here on. What was uploaded for builds that an earlier one did
	// not finish is nobody's.
	uploads, err := filepath.Glob(filepath.Join(e.o.DataRoot, "tmp", "build-*"))
	for _, dir := range uploads {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		return err
	}
	if e.runDB, err = state.Open(filepath.Join(e.o.ExecRoot, "run.db"), state.Options{NoSync: true}); err != nil {
		return err
	}
	e.later(e.runDB.Close)
	e.id, err = engineID(filepath.Join(e.o.DataRoot, "engine-id"))
	return err
}

func (e *engine) openImages(context.Context) error {
	if err := tryOverlay(e.o.DataRoot); err != nil {
		return err
	}
	for _, w := range append(otherImages(e.o.DataRoot), unlabelled(selinuxEnforce, e.o.DataRoot)...) {
		e.log.Warn(w)
	}
	blobs, err := content.Open(filepath.Join(e.o.DataRoot, "images"))
	if err != nil {
		return err
	}
	if e.layers, err = layer.Open(filepath.Join(e.o.DataRoot, "overlay2"), e.log); err != nil {
		return err
	}
	e.later(e.layers.Close)
	if err := e.layers.CanLimit(); err != nil && e.o.storageSize() > 0 {
		return fault.New(fault.NotImplemented, "--storage-opt overlay2.size: %w", err)
	}
	registries := e.o.registries()
	registries.Logger = e.log
	e.registry = registry.New(registries)
	policy, err := e.o.trusted()
	if err != nil {
		return err
	}
	e.trust.Set(policy)
	e.images, err = image.Open(image.Options{
		Content: blobs, Layers: e.layers, DB: e.db, Logger: e.log,
		RunDB: e.runDB, MountRoot: filepath.Join(e.o.ExecRoot, "images"),
		Registry: e.registry, Trust: &e.trust, Lazy: e.openLazy(),
		// Containers stand on images and are made later.
		InUse: func(id string) []image.User { return e.containers.ImageUsers(id) },
		Events: func(action, id string, attributes map[string]string) {
			e.events.Emit(event.Image, action, id, attributes)
		},
	})
	if err != nil {
		return err
	}
	e.later(e.closeLazy)
	e.later(e.images.Close)
	e.later(e.images.CloseMounts)
	e.images.SetDownloads(e.o.Downloads)
	return nil
}

// openRemap finds the ids of userns-remap, and whether this host can show layers through them.
func (e *engine) openRemap(context.Context) (err error) {
	if e.o.UsernsRemap == "" {
		return nil
	}
	if e.remap, err = userns.Parse(e.o.UsernsRemap, e.o.SubIDs); err != nil {
		return err
	}
	err = e.remap.With(func(ids *mount.IDMap) error { return mount.Probe(filepath.Join(e.o.DataRoot, "tmp"), ids) })
	if err != nil {
		return fault.New(fault.NotImplemented, "userns-remap: the layers of images in %s cannot be shown with mapped ids, which takes Linux 5.19 and a filesystem such as ext4, xfs or btrfs: %w", e.o.DataRoot, err)
	}
	return nil
}

func (e *engine) openVolumes(context.Context) (err error) {
	uid, gid := e.remap.Root()
	e.volumes, err = volume.NewManager(volume.Options{
		DB: e.db, Root: filepath.Join(e.o.DataRoot, "volumes"), Logger: e.log, UID: uid, GID: gid,
		InUse: func(name string) []string { return e.containers.VolumeUsers(name) },
		Events: func(action, name string, attributes map[string]string) {
			e.events.Emit(event.Volume, action, name, attributes)
		},
	})
	return err
}

func (e *engine) openNetworks(context.Context) (err error) {
	e.plugins, err = plugin.NewHost(plugin.Options{Dirs: e.o.plugins(), RunDir: filepath.Join(e.o.ExecRoot, "plugins"), Logger: e.log})
	if err != nil {
		return err
	}
	e.later(e.plugins.Close)
	e.drivers = driver.New(e.plugins)
	options := network.Options{
		DB: e.db, RunDB: e.runDB, Drivers: e.drivers, Logger: e.log,
		DefaultBridge: e.o.Bridge, BIP: e.o.BIP, DNS: e.o.DNS, DNSSearch: e.o.DNSSearch, DNSOptions: e.o.DNSOptions,
		DefaultOption: e.o.defaultNetwork(), FixedCIDR: e.o.FixedCIDR, Pools: e.o.Pools, NetworkOption: e.o.NetworkOpts,
		Events: func(action, id string, attributes map[string]string) {
			e.events.Emit(event.Network, action, id, attributes)
		},
	}
	if e.o.HostGateway != "" {
		if options.HostGateway, err = netip.ParseAddr(e.o.HostGateway); err != nil {
			return err
		}
	}
	if e.networks, err = network.NewManager(options); err != nil {
		return err
	}
	e.later(e.networks.Close)
	return nil
}

func (e *engine) openMonitor(ctx context.Context) error {
	program, err := runtimeProgram(e.o.Runtime)
	if err != nil {
		return err
	}
	e.monitor, err = monitor.Ensure(ctx, monitor.EnsureOptions{
		Socket: filepath.Join(e.o.ExecRoot, "monitor.sock"), Root: filepath.Join(e.o.ExecRoot, "monitor"), Program: program,
		Log: filepath.Join(e.o.ExecRoot, "monitor.log"), Logger: e.log,
	})
	if err != nil {
		return err
	}
	e.later(func() error {
		if e.containers == nil || e.containers.Running() == 0 {
			// With containers it is their parent and stays, for the next daemon to find.
			err := e.monitor.Shutdown(context.Background())
			if err == nil && !e.o.systemdCgroup() { // else it is systemd's
				// Not before: until then the monitor may be removing the cgroup of a container that is gone.
				err = cgroup.RemoveEmpty(e.o.CgroupParent)
			}
			if err != nil && !fault.Is(err, fault.Conflict) {
				e.log.Warn("end the monitor", "error", err)
			}
		}
		return e.monitor.Close()
	})
	return nil
}

// runtimeProgram finds sampan-runtime: as told, beside this program, in PATH.
func runtimeProgram(given string) (string, error) {
	if given != "" {
		path, err := exec.LookPath(given)
		if err != nil {
			return "", fmt.Errorf("--runtime-path: %w", err)
		}
		return filepath.Abs(path)
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "sampan-runtime")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath("sampan-runtime")
	if err != nil {
		return "", fault.New(fault.NotFound, "sampan-runtime: expected it beside sampand or in PATH, or --runtime-path")
	}
	return path, nil
}

func (e *engine) openContainers(context.Context) (err error) {
	if e.profile, err = apparmor.Load(); err != nil {
		e.log.Warn("containers run without an AppArmor profile", "error", err)
	}
	security, err := e.o.securityOptions()
	if err != nil {
		return err
	}
	e.containers, err = container.New(container.Options{
		DB: e.db, RunDB: e.runDB, Images: e.images, Layers: e.layers, Network: e.networks, Volumes: e.volumes,
		Monitor: e.monitor, Events: e.events, Logger: e.log, Root: e.o.DataRoot, ExecRoot: e.o.ExecRoot,
		CgroupParent: e.o.CgroupParent, SystemdCgroup: e.o.systemdCgroup(), DefaultLog: wire.LogConfig{Type: e.o.LogDriver, Config: e.o.LogOptions},
		DefaultUlimits: e.o.Ulimits, DefaultShmSize: e.o.ShmSize, LiveRestore: e.o.LiveRestore,
		Runtimes: e.o.Runtimes.programs(), DefaultRuntime: e.o.defaultRuntime(),
		DefaultInit: e.o.DefaultInit, DefaultIpcMode: e.o.IpcMode, DefaultCgroupnsMode: e.o.CgroupnsMode,
		SecurityOptions: security, Operations: e.recorder(), InitPath: initProgram(e.o.Init), Remap: e.remap, StorageSize: e.o.storageSize(), AppArmor: e.profile,
	})
	if err != nil {
		return err
	}
	e.later(e.containers.Close) // before the monitor is left, of which it would complain
	e.solver = build.New(build.Options{
		Images: e.images, Layers: e.layers, Executor: e.containers, DB: e.db, Root: filepath.Join(e.o.DataRoot, "build"), Logger: e.log,
		Events: func(action, id string, attributes map[string]string) {
			e.events.Emit(event.Builder, action, id, attributes)
		},
	})
	return nil
}

// reconcile sets right what a crash has left. What cannot be is told and does not keep the others from
// their engine.
func (e *engine) reconcile(ctx context.Context) error {
	if err := e.db.Recover(ctx, e.containers.Undo()); err != nil && ctx.Err() == nil {
		e.log.Error("take back what was cut off", "error", err)
	}
	if err := e.images.Reconcile(ctx, e.containers.Snapshots()); err != nil && ctx.Err() == nil {
		e.log.Error("reconcile images", "error", err)
	}
	e.reshow(ctx)
	if err := e.containers.Reconcile(ctx); err != nil {
		return err
	}
	e.endOrphans(ctx)
	return nil
}

func (e *engine) docker() docker.Backends {
	return docker.Backends{
		Containers: e.containers, Images: e.images, Networks: e.networks, Volumes: e.volumes, Events: e.events,
		System: system{e}, Builder: e.solver, Swarm: e.cluster,
	}
}

func (e *engine) sampan() sampan.Backends {
	return sampan.Backends{Build: e.solver, Plugins: e.drivers, Checker: e, Trust: e.images, Images: e.images}
}

// initProgram finds the program of --init; without one --init is refused.
func initProgram(given string) string {
	names := []string{given}
	if given == "" {
		names = []string{"docker-init", "tini-static", "catatonit"}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			if path, err = filepath.EvalSymlinks(path); err == nil {
				return path
			}
		}
	}
	return ""
}
