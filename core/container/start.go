package container

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/network"
	"github.com/sampan-project/sampan/core/operation"
	"github.com/sampan-project/sampan/core/wire"
)

// Start runs the container's command. A container that runs already is fault.NotModified. That the
// command cannot be run is fault.Invalid, in the words by which clients choose their exit status.
func (m *Manager) Start(ctx context.Context, ref string) error {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	defer c.op.unlock()
	if err := c.startable(); err != nil {
		return err
	}
	c.cancelRestart()
	return m.start(ctx, c)
}

// startable says what keeps the container from being started.
func (c *Container) startable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.removed || c.state.Phase == removing || c.state.Phase == dead:
		return fault.New(fault.Conflict, "container is marked for removal and cannot be started")
	case c.state.Phase == paused:
		return fault.New(fault.Conflict, "cannot start a paused container, try unpause instead")
	case c.state.Phase == running:
		return fault.New(fault.NotModified, "container %s is already running", c.rec.Name)
	}
	return nil
}

// start starts a container that is startable. The op lock is held.
func (m *Manager) start(ctx context.Context, c *Container) error {
	if m.closing.Load() {
		return fault.New(fault.Unavailable, "the daemon is stopping")
	}
	rec, st := c.snapshot()
	l := &launch{m: m, c: c, rec: &rec, pristine: st.StartedAt.IsZero(), op: m.o.Operations.Begin("container", "start", rec.ID)}
	defer l.close()
	defer c.settleStreams()
	err := l.run(ctx)
	l.op.End(err)
	if err != nil {
		err = explain(err)
		m.startFailed(context.WithoutCancel(ctx), c, err)
		return err
	}
	m.emit(&rec, "start")
	m.startProbes(c)
	m.relink(&rec)
	return nil
}

// launch is one start of a container, with what it has to let go of.
type launch struct {
	m        *Manager
	c        *Container
	rec      *record
	pristine bool // it has never run
	op       *operation.Op

	sandbox *network.Sandbox
	userns  *os.File // nil: the host's
	mounts  []mount.Mount
	account account
	input   spec.Input
}

func (l *launch) run(ctx context.Context) (err error) {
	if l.userns, err = l.m.userNamespace(&l.rec.Host); err != nil {
		return err
	}
	// The network takes longest, and needs nothing of the rest.
	joined := make(chan error, 1)
	go func() { joined <- l.join(ctx) }()
	err = l.prepare(ctx)
	l.op.Phase("prepare")
	if joinErr := <-joined; err == nil {
		err = joinErr
	}
	l.op.Phase("network")
	if err != nil {
		return err
	}
	written := make(chan error, 1)
	go func() { written <- l.m.writeFiles(l.rec, l.sandbox) }()
	joinUser(&l.input, l.userns)
	config, err := l.config()
	if writeErr := <-written; err == nil {
		err = writeErr
	}
	if err != nil {
		return err
	}
	l.op.Phase("specification")
	waiting := l.c.waitingStreams()
	attach := make([]monitor.AttachConfig, len(waiting))
	for i, s := range waiting {
		attach[i] = s.config
	}
	if err := l.m.o.Layers.Ease(ctx, l.rec.ID, true); err != nil {
		return err
	}
	status, streams, err := l.m.o.Monitor.Run(ctx, config, attach)
	if fault.Is(err, fault.Exists) { // of a run whose end could not be cleaned up
		if err = l.m.o.Monitor.Delete(ctx, l.rec.ID, true); err == nil || fault.Is(err, fault.NotFound) {
			status, streams, err = l.m.o.Monitor.Run(ctx, config, attach)
		}
	}
	if easeErr := l.m.o.Layers.Ease(context.WithoutCancel(ctx), l.rec.ID, false); easeErr != nil {
		l.m.log.Warn("the limit of a container's layer is eased still", "container", l.rec.ID, "error", easeErr)
	}
	if err != nil {
		return err
	}
	l.op.Phase("process")
	l.c.bindStreams(waiting, streams)
	l.m.started(l.c, status.Pid, status.StartedAt.UTC(), &l.account)
	return nil
}

// join gives the container its place in the networks.
func (l *launch) join(ctx context.Context) (err error) {
	r := joinRequest(l.rec)
	r.UserNS = l.userns
	l.sandbox, err = l.m.o.Network.Join(ctx, r)
	return err
}

func joinRequest(rec *record) network.JoinRequest {
	c, h := &rec.Config, &rec.Host
	r := network.JoinRequest{
		ContainerID: rec.ID, ContainerName: rec.Name, Hostname: c.Hostname, Domainname: c.Domainname,
		Mode: h.NetworkMode, Endpoints: rec.Wanted, Ports: h.PortBindings, ExposedPorts: c.ExposedPorts, PublishAll: h.PublishAllPorts,
		DNS: h.DNS, DNSSearch: h.DNSSearch, DNSOptions: h.DNSOptions, ExtraHosts: h.ExtraHosts,
	}
	if own := ownNetworks(h.NetworkMode); own && len(rec.Wanted) == 0 {
		r.Mode = "none" // it was disconnected from every network
	} else if own {
		if _, ok := rec.Wanted[h.NetworkMode]; !ok {
			for name := range rec.Wanted { // disconnected from the network of its mode
				r.Mode = name
			}
		}
	}
	return r
}

// ownNetworks reports whether the mode puts the container into networks of which there may be many.
func ownNetworks(mode string) bool {
	_, joined := spec.Joined(mode)
	return mode != "host" && mode != "none" && !joined
}

// prepare finds out what the process is: its mounts, its user, its environment.
func (l *launch) prepare(ctx context.Context) (err error) {
	rec, c := l.rec, &l.rec.Config
	if rec.Host.AutoRemove {
		l.mounts, err = l.m.o.Layers.Volatile(ctx, rec.ID)
	} else {
		l.mounts, err = l.m.o.Layers.Mounts(ctx, rec.ID)
	}
	if fault.Is(err, fault.NotFound) && l.pristine { // lost in a power failure, and it was empty
		l.mounts, err = l.m.prepareRoot(ctx, rec)
	}
	if err != nil {
		return err
	}
	if err := l.m.makeDirectory(rec.ID); err != nil {
		return err
	}
	if l.account, err = l.m.user(ctx, rec, l.pristine); err != nil {
		return err
	}
	mounts, err := l.m.specMounts(ctx, rec, rec.ID)
	if err != nil {
		return err
	}
	images, err := l.m.imageMounts(ctx, rec)
	if err != nil {
		return err
	}
	if l.userns == nil {
		mounts = append(mounts, inSpec(images)...)
	} else { // who mounts the root may map the ids of layers, see uncovered
		l.mounts = append(l.mounts, images...)
	}
	args, err := spec.Args(c)
	if err != nil {
		return err
	}
	hostname := c.Hostname
	if ref, ok := spec.Joined(rec.Host.NetworkMode); ok {
		if other, err := l.m.find(ref); err == nil {
			otherRec, _ := other.snapshot()
			hostname = otherRec.Config.Hostname
		}
	}
	links, err := l.m.links(rec, true)
	if err != nil {
		return err
	}
	l.input = spec.Input{
		ID: rec.ID, Config: c, Host: l.m.hardened(&rec.Host), Args: args, Cwd: "/", User: l.account.User, Hostname: hostname,
		Env:         environment(slices.Concat(linkEnvironment(rec, links), c.Env), hostname, l.account.Home, c.Tty),
		Mounts:      append(mounts, l.m.fileMounts(rec)...),
		HostNetwork: rec.Host.NetworkMode == "host", CgroupParent: rec.Host.CgroupParent, SystemdCgroup: l.m.o.SystemdCgroup, DefaultUlimits: l.m.o.DefaultUlimits, AppArmor: l.m.o.AppArmor,
	}
	if l.input.CgroupParent == "" {
		l.input.CgroupParent = l.m.o.CgroupParent
	}
	if c.WorkingDir != "" {
		l.input.Cwd = c.WorkingDir
	}
	if rec.Host.Init != nil && *rec.Host.Init {
		l.input.InitPath = l.m.o.InitPath
	}
	l.input.JoinPaths, err = l.m.joinPaths(&rec.Host)
	return err
}

// hardened is the configuration with the daemon's security options before the container's own.
func (m *Manager) hardened(h *wire.HostConfig) *wire.HostConfig {
	if len(m.o.SecurityOptions) == 0 || h.Privileged {
		return h
	}
	with := *h
	with.SecurityOpt = slices.Concat(m.o.SecurityOptions, h.SecurityOpt)
	return &with
}

// config is what the monitor is told.
func (l *launch) config() (monitor.Config, error) {
	s, err := spec.Build(l.input)
	if err != nil {
		return monitor.Config{}, err
	}
	c, h := &l.rec.Config, &l.rec.Host
	program, err := l.m.runtimeProgram(h.Runtime)
	if err != nil {
		return monitor.Config{}, err
	}
	return monitor.Config{
		ID: l.rec.ID, Bundle: l.m.mountPoint(), Spec: s, RootMounts: l.mounts,
		NetNS: l.sandbox.NetNS, Hold: l.sandbox.Hold, Forward: l.sandbox.Forward, Log: l.m.logConfig(l.rec),
		OpenStdin: c.OpenStdin, StdinOnce: c.StdinOnce,
		ConsoleHeight: uint16(h.ConsoleSize[0]), ConsoleWidth: uint16(h.ConsoleSize[1]),
		Runtime: program, ClampDefaults: !asksForLimits(h), SystemdCgroup: l.m.o.SystemdCgroup,
	}, nil
}

// asksForLimits reports whether the user set a limit, which must then hold: only our own defaults may
// be lowered to what the host permits.
func asksForLimits(h *wire.HostConfig) bool {
	r := &h.Resources
	return len(r.Ulimits) > 0 || r.Memory != 0 || r.MemoryReservation != 0 || r.MemorySwap != 0 || r.MemorySwappiness != nil ||
		r.NanoCPUs != 0 || r.CPUQuota != 0 || r.CPUPeriod != 0 || r.CPUShares != 0 || r.CPURealtimePeriod != 0 || r.CPURealtimeRuntime != 0 ||
		r.CpusetCpus != "" || r.CpusetMems != "" || r.PidsLimit != nil || r.OomKillDisable != nil || r.BlkioWeight != 0 ||
		len(r.BlkioWeightDevice)+len(r.BlkioDeviceReadBps)+len(r.BlkioDeviceWriteBps)+len(r.BlkioDeviceReadIOps)+len(r.BlkioDeviceWriteIOps) > 0 ||
		h.OomScoreAdj != 0
}

// close lets go of the files that the monitor has duplicates of.
func (l *launch) close() {
	if l.userns != nil {
		l.userns.Close()
	}
	if l.sandbox == nil {
		return
	}
	for _, f := range append([]*os.File{l.sandbox.NetNS}, l.sandbox.Hold...) {
		if f != nil {
			f.Close()
		}
	}
}

// started notes that the container runs.
func (m *Manager) started(c *Container, pid int, at time.Time, a *account) {
	c.mu.Lock()
	c.state.begin(pid, at)
	c.ended, c.account = make(chan struct{}), a
	c.mu.Unlock()
	m.keep(c)
}

// startFailed takes back what a start made, and notes why it failed.
func (m *Manager) startFailed(ctx context.Context, c *Container, err error) {
	rec, _ := c.snapshot()
	m.letGo(ctx, &rec)
	c.mu.Lock()
	c.state.Phase, c.state.Pid, c.state.Error = exitedUnlessNew(c.state), 0, err.Error()
	c.state.ExitCode, c.state.FinishedAt = startExitCode(err), time.Now().UTC()
	c.state.Health = nil
	c.bound = false
	st, streams := c.state, c.streams
	c.streams = nil
	c.wake(wire.WaitResponse{StatusCode: int64(st.ExitCode)}, notRunning, nextExit)
	stays := c.leaving > 0 || c.removed
	c.mu.Unlock()
	for _, s := range streams {
		s.bind(nil, nil)
	}
	m.keep(c)
	if rec.Host.AutoRemove && !stays {
		if err := m.remove(ctx, c, true); err != nil {
			m.log.Error("remove a container that could not be started", "container", rec.ID, "error", err)
		}
	}
}

// exitedUnlessNew: a container that has never run is still only created when its start fails, as with
// Docker, so that nobody takes it for one that did its work.
func exitedUnlessNew(st runState) phase {
	if st.StartedAt.IsZero() {
		return created
	}
	return exited
}

// letGo releases what a run of the container has of the kernel: its cgroup and namespaces, its place
// in networks, its ports. It may be called for a container that has nothing of it.
func (m *Manager) letGo(ctx context.Context, rec *record) {
	m.letGoBy(ctx, rec, func() error { return m.o.Monitor.Delete(ctx, rec.ID, true) })
}

// letGoForever is letGo for a container that is not started again: who waits for its end need not wait for what
// cannot be in the way of anybody.
func (m *Manager) letGoForever(ctx context.Context, rec *record) {
	m.letGoBy(ctx, rec, func() error { return m.o.Monitor.Discard(ctx, rec.ID) })
}

func (m *Manager) letGoBy(ctx context.Context, rec *record, remove func() error) {
	left := make(chan error, 1)
	go func() { left <- m.o.Network.Leave(ctx, rec.ID) }()
	if err := remove(); err != nil && !fault.Is(err, fault.NotFound) {
		m.log.Error("remove the process of a container", "container", rec.ID, "error", err)
	}
	if err := m.o.Volumes.Unmount(ctx, rec.ID); err != nil {
		m.log.Error("unmount the volumes of a container", "container", rec.ID, "error", err)
	}
	if err := <-left; err != nil {
		m.log.Error("take a container off its networks", "container", rec.ID, "error", err)
	}
}

// joinPaths are the namespaces of other containers that this one shares.
func (m *Manager) joinPaths(h *wire.HostConfig) (map[specs.LinuxNamespaceType]string, error) {
	paths := map[specs.LinuxNamespaceType]string{}
	for _, k := range []struct {
		kind specs.LinuxNamespaceType
		mode string
	}{{specs.PIDNamespace, h.PidMode}, {specs.IPCNamespace, h.IpcMode}} {
		ref, ok := spec.Joined(k.mode)
		if !ok {
			continue
		}
		other, err := m.find(ref)
		if err != nil {
			return nil, fault.As(fault.Conflict, err)
		}
		rec, st := other.snapshot()
		if !st.live() {
			return nil, notRunningError(&rec)
		}
		if k.kind == specs.IPCNamespace && rec.Host.IpcMode != "shareable" {
			return nil, fault.New(fault.Invalid, "can't join IPC of container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", rec.ID)
		}
		paths[k.kind] = fmt.Sprintf("/proc/%d/ns/%s", st.Pid, k.kind)
	}
	return paths, nil
}

// explain gives the error of a start the class of a user's mistake when it is one.
func explain(err error) error {
	if startExitCode(err) != unknownExit || strings.HasPrefix(err.Error(), "process.cwd") {
		return fault.As(fault.Invalid, err)
	}
	return err
}

// unknownExit is the status of a container that the engine, not its command, kept from starting.
const unknownExit = 128

// startExitCode is the status that a shell would give the command.
func startExitCode(err error) int {
	text := err.Error()
	switch {
	case !strings.Contains(text, "exec"):
		return unknownExit
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory"):
		return 127
	case strings.Contains(text, "permission denied"), strings.Contains(text, "exec format error"), strings.Contains(text, "is a directory"):
		return 126
	}
	return unknownExit
}
