package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/build"
	"github.com/sampan-project/sampan/core/container/rootfs"
	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/container/userns"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/network"
	"github.com/sampan-project/sampan/core/wire"
)

// RunStep runs the command of a build to its end, in a container that nobody sees and that has
// Docker's default confinement. When ctx ends the command is killed.
func (m *Manager) RunStep(ctx context.Context, s build.Step) (code int, err error) {
	id := newID()
	rec := record{ID: id, Name: "build-" + id[:12], Config: wire.ContainerConfig{User: s.User, Hostname: s.Hostname}}
	rec.Host.NetworkMode = s.Network
	m.defaults(&rec)
	m.setStep(id, true)
	defer m.setStep(id, false)
	dir := m.stepDirectory(id)
	if err := os.MkdirAll(dir, 0o710); err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	join := network.JoinRequest{ContainerID: id, ContainerName: rec.Name, Hostname: rec.Config.Hostname, Mode: rec.Host.NetworkMode}
	if rec.Host.NetworkMode == "host" {
		rec.Host.UsernsMode = "host" // as dockerd's builder
	}
	l := launch{}
	defer l.close()
	if l.userns, err = m.userNamespace(&rec.Host); err != nil {
		return 0, err
	}
	join.UserNS = l.userns
	sandbox, err := m.o.Network.Join(ctx, join)
	// A step that was cut off is cleaned up all the same.
	whole := context.WithoutCancel(ctx)
	defer m.letGoForever(whole, &rec)
	if err != nil {
		return 0, err
	}
	l.sandbox = sandbox
	config, err := m.stepConfig(&rec, &s, dir, sandbox, l.userns)
	if err != nil {
		return 0, err
	}
	_, streams, err := m.o.Monitor.Run(ctx, config, []monitor.AttachConfig{{Stdout: true, Stderr: true}})
	if err != nil {
		return startExitCode(err), explain(err)
	}
	output := streams[0]
	defer output.Close()
	stop := context.AfterFunc(ctx, func() {
		if err := m.o.Monitor.Kill(whole, id, int(unix.SIGKILL), true); err != nil {
			m.log.Warn("kill a step of a build", "id", id, "error", err)
		}
	})
	defer stop()
	copied := demultiplex(output, orDiscard(s.Stdout), orDiscard(s.Stderr))
	exit, err := m.o.Monitor.Wait(whole, id, "")
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return exit.Code, errors.Join(err, copied)
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

func (m *Manager) stepDirectory(id string) string { return filepath.Join(m.o.ExecRoot, "build", id) }

func (m *Manager) stepConfig(rec *record, s *build.Step, dir string, sandbox *network.Sandbox, user *os.File) (monitor.Config, error) {
	if len(s.Args) == 0 || slices.ContainsFunc(s.Args, hasNUL) {
		return monitor.Config{}, fault.New(fault.Invalid, "step %s: no command", s.ID)
	}
	roots := append(slices.Clone(s.RootMounts), s.Mounts...)
	for i, r := range roots {
		if r.Type == "bind" { // of directories of the engine, with the ids that containers see
			roots[i].Layers = r.Source
		}
	}
	a, err := m.stepUser(rec, s.RootMounts)
	if err != nil {
		return monitor.Config{}, fmt.Errorf("user %s: %w", s.User, err)
	}
	mounts, err := stepFiles(dir, rec.Config.Hostname, sandbox, m.remap(&rec.Host))
	if err != nil {
		return monitor.Config{}, err
	}
	in := spec.Input{
		ID: rec.ID, Config: &rec.Config, Host: &rec.Host, Args: s.Args, Cwd: cwdOr(s.Cwd), User: a.User, Hostname: rec.Config.Hostname,
		Env: environment(s.Env, "", a.Home, false), Mounts: mounts,
		HostNetwork: rec.Host.NetworkMode == "host", CgroupParent: m.o.CgroupParent, SystemdCgroup: m.o.SystemdCgroup, DefaultUlimits: m.o.DefaultUlimits, AppArmor: m.o.AppArmor,
	}
	joinUser(&in, user)
	built, err := spec.Build(in)
	return monitor.Config{ID: rec.ID, Bundle: m.mountPoint(), Spec: built, RootMounts: roots, NetNS: sandbox.NetNS, Hold: sandbox.Hold, Forward: sandbox.Forward, ClampDefaults: true,
		SystemdCgroup: m.o.SystemdCgroup}, err
}

func cwdOr(dir string) string {
	if dir == "" {
		return "/"
	}
	return dir
}

// stepUser looks the user up in the step's root; root needs no looking up.
func (m *Manager) stepUser(rec *record, mounts []mount.Mount) (account, error) {
	if u := rec.Config.User; u == "" || u == "root" || u == "0" {
		return account{Home: "/root", User: specs.User{AdditionalGids: []uint32{0}}}, nil
	}
	root, err := rootfs.Open(m.mountPoint(), mounts, nil)
	if err != nil {
		return account{}, err
	}
	defer root.Close()
	return lookupUser(root, rec.Config.User, nil)
}

// stepFiles writes the files that make names resolve during the step.
func stepFiles(dir, hostname string, sandbox *network.Sandbox, remap *userns.Remap) (mounts []specs.Mount, err error) {
	contents := map[string][]byte{"hostname": []byte(hostname + "\n"), "hosts": sandbox.Hosts, "resolv.conf": sandbox.ResolvConf}
	for _, f := range engineFiles {
		source := filepath.Join(dir, f.name)
		if err := os.WriteFile(source, contents[f.name], 0o644); err != nil {
			return nil, err
		}
		if err := giveToRoot(source, remap); err != nil {
			return nil, err
		}
		mounts = append(mounts, specs.Mount{Destination: f.target, Type: "bind", Source: source, Options: []string{"rbind", "rprivate"}})
	}
	return mounts, nil
}
