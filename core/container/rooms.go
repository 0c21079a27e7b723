package container

import (
	"context"
	"net/netip"
	"os"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/layer"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/network"
	"github.com/sampan-project/sampan/core/wire"
)

// The rooms below, as much of them as containers need.

// Images finds the image a container is made from, and makes one of a container.
type Images interface {
	Get(ctx context.Context, ref string) (*image.Image, error)
	// Use is Get, if the trust policy permits the image.
	Use(ctx context.Context, ref string) (*image.Image, error)
	Commit(ctx context.Context, r image.CommitRequest) (*image.Image, error)
}

// Layers keeps the snapshots that containers write on. A key is a container's id.
type Layers interface {
	Prepare(ctx context.Context, key string, chain digest.Digest) ([]mount.Mount, error)
	Mounts(ctx context.Context, key string) ([]mount.Mount, error)
	Whole(ctx context.Context, key string) error
	Volatile(ctx context.Context, key string) ([]mount.Mount, error) // Mounts of what goes with a crash of the machine
	Remove(ctx context.Context, key string) error
	CanLimit() error
	Limit(ctx context.Context, key string, bytes uint64) error
	Ease(ctx context.Context, key string, more bool) error
	ViewAt(chain digest.Digest, path string) (mount.Mount, error)
	Usage(ctx context.Context, key string) (int64, error)
	Changes(ctx context.Context, key string) ([]layer.Change, error)
	Paths(key string) map[string]string
}

// Volumes are directories that outlive containers.
type Volumes interface {
	Create(ctx context.Context, req wire.VolumeCreateRequest) (wire.Volume, error)
	Inspect(ctx context.Context, name string) (wire.Volume, error)
	Mount(ctx context.Context, name, user string) (string, error)
	Unmount(ctx context.Context, user string) error
	Adopt(ctx context.Context, users map[string][]string) error
	Populate(ctx context.Context, name string, fill func(dir string) error) error
	Remove(ctx context.Context, name string, force bool) error
}

// Network gives a container its place in networks.
type Network interface {
	Join(ctx context.Context, r network.JoinRequest) (*network.Sandbox, error)
	Leave(ctx context.Context, containerID string) error
	ConnectRunning(ctx context.Context, ref, containerID string, pid int, e *wire.EndpointSettings) (*network.Sandbox, error)
	DisconnectRunning(ctx context.Context, ref, containerID string, pid int) (*network.Sandbox, error)
	Rename(ctx context.Context, containerID, name string) error
	Settings(containerID string) wire.NetworkSettings
	Ports(containerID string) map[string][]wire.PortBinding // those of the Settings
	Resolve(ref string) (network.Network, error)
	Reconcile(ctx context.Context, running map[string]int) error
}

// Monitor is the parent of the processes.
type Monitor interface {
	Run(ctx context.Context, c monitor.Config, attach []monitor.AttachConfig) (monitor.Status, []*os.File, error)
	Kill(ctx context.Context, id string, sig int, all bool) error
	KillExec(ctx context.Context, id, execID string, sig int) error
	Delete(ctx context.Context, id string, force bool) error
	Discard(ctx context.Context, id string) error
	Exec(ctx context.Context, id string, c monitor.ExecConfig) (monitor.Status, error)
	ExecAttach(ctx context.Context, id string, c monitor.ExecConfig, a monitor.AttachConfig) (monitor.Status, *os.File, error)
	DeleteExec(ctx context.Context, id, execID string) error
	Attach(ctx context.Context, id, execID string, c monitor.AttachConfig) (*os.File, error)
	Resize(ctx context.Context, id, execID string, height, width uint16) error
	Wait(ctx context.Context, id, execID string) (monitor.Exit, error)
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	Update(ctx context.Context, id string, r *specs.LinuxResources) error
	Forward(ctx context.Context, id string, targets []netip.AddrPort) error
	Stats(ctx context.Context, id string) (cgroup.Stats, error)
	Pids(ctx context.Context, id string) ([]int, error)
	List(ctx context.Context) ([]monitor.Status, error)
	Watch(ctx context.Context) (<-chan monitor.Event, error)
}
