// Package runtime runs OCI bundles.
package runtime

import (
	"context"
	"log/slog"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/mount"
)

var errTODO = fault.New(fault.NotImplemented, "not written yet")

// Options say where a Runtime keeps its containers and what runs inside them.
type Options struct {
	Root          string       // directory of the containers' state, such as /run/sampan/runtime
	Init          *os.File     // sealed copy of the program that has the init verb (SealSelf); needed by Create and Exec
	Logger        *slog.Logger // nil: discard
	SystemdCgroup bool         // not implemented
}

// Runtime is the containers below one root directory. It may be used by several goroutines, and
// several processes may use one root.
type Runtime struct {
	options Options
}

// New returns the Runtime of a root directory, which is made when it is needed.
func New(o Options) (*Runtime, error) { return &Runtime{o}, nil }

// CreateOptions describe a container.
type CreateOptions struct {
	Bundle                string // directory; Spec.Root.Path is relative to it
	Spec                  *specs.Spec
	RootMounts            []mount.Mount // performed in order inside the new mount namespace before everything else; Target "/" is the root
	Stdin, Stdout, Stderr *os.File      // nil: /dev/null; ignored with Spec.Process.Terminal
	NetNS                 *os.File      // the network namespace, over the spec's; nil: as the spec says
	ExtraFiles            []*os.File    // fd 3 and on of the process
	// ClampDefaults: a limit that the host does not permit is lowered with a warning, not an error.
	ClampDefaults bool
}

// Create makes a container up to the point where Start lets its program run.
func (r *Runtime) Create(ctx context.Context, id string, o CreateOptions) (*Container, error) {
	return nil, errTODO
}

// Load returns an existing container; fault.NotFound when there is none.
func (r *Runtime) Load(id string) (*Container, error) { return nil, errTODO }

// List returns the containers of the root, sorted by id.
func (r *Runtime) List() ([]*Container, error) { return nil, errTODO }

// Container is a handle on a container.
type Container struct{}

func (c *Container) ID() string                                                { return "" }
func (c *Container) Pid() int                                                  { return 0 }
func (c *Container) PidFD() *os.File                                           { return nil }
func (c *Container) Console() *os.File                                         { return nil }
func (c *Container) Start(ctx context.Context) error                           { return errTODO }
func (c *Container) Kill(sig unix.Signal, all bool) error                      { return errTODO }
func (c *Container) State() (specs.State, error)                               { return specs.State{}, errTODO }
func (c *Container) Delete(ctx context.Context, force bool) error              { return errTODO }
func (c *Container) Exec(ctx context.Context, o ExecOptions) (*Process, error) { return nil, errTODO }
func (c *Container) Pause(ctx context.Context) error                           { return errTODO }
func (c *Container) Resume(ctx context.Context) error                          { return errTODO }
func (c *Container) Update(res *specs.LinuxResources) error                    { return errTODO }
func (c *Container) Stats() (cgroup.Stats, error)                              { return cgroup.Stats{}, errTODO }

// Pids are the processes of the container, in the host's numbers.
func (c *Container) Pids() ([]int, error) { return nil, errTODO }

// OOMKills says how often the kernel killed a process of the container for want of memory.
func (c *Container) OOMKills() (uint64, error) { return 0, errTODO }

// Close closes the files that the handle holds: the pidfd and, unless Console was called, the terminal.
func (c *Container) Close() error { return nil }

// ExecOptions describe a further process in a running container.
type ExecOptions struct {
	Process               *specs.Process
	Stdin, Stdout, Stderr *os.File
	ExtraFiles            []*os.File
	ClampDefaults         bool
}

// Process is a process made by Exec.
type Process struct{}

func (p *Process) Pid() int          { return 0 }
func (p *Process) PidFD() *os.File   { return nil }
func (p *Process) Console() *os.File { return nil }
