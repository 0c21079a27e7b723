package server

import (
	"context"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/runtime"
	"github.com/sampan-project/sampan/core/runtime/external"
)

// oci is what the monitor needs of core/runtime. Its tests put a fake in its place that starts
// plain processes.
type oci interface {
	Create(ctx context.Context, id string, o runtime.CreateOptions) (ociContainer, error)
	Load(id string) (ociContainer, error)
	List() ([]ociContainer, error)
}

// ociContainer is a *runtime.Container.
type ociContainer interface {
	ociProcess
	ID() string
	Start(ctx context.Context) error
	Kill(sig unix.Signal, all bool) error
	State() (specs.State, error)
	Delete(ctx context.Context, force bool) error
	Exec(ctx context.Context, o runtime.ExecOptions) (ociExec, error)
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	Update(r *specs.LinuxResources) error
	Stats() (cgroup.Stats, error)
	Pids() ([]int, error)
	OOMKills() (uint64, error)
	Close() error
}

// ociProcess is the init of a container, or an ociExec.
type ociProcess interface {
	Pid() int
	Console() *os.File
}

// ociExec is a *runtime.Process. Its pidfd is the caller's to close.
type ociExec interface {
	ociProcess
	PidFD() *os.File
}

// realOCI makes a *runtime.Runtime fit: its methods return its own types.
type realOCI struct{ *runtime.Runtime }

func (r realOCI) Create(ctx context.Context, id string, o runtime.CreateOptions) (ociContainer, error) {
	c, err := r.Runtime.Create(ctx, id, o)
	if err != nil {
		return nil, err
	}
	return realContainer{c}, nil
}

func (r realOCI) Load(id string) (ociContainer, error) {
	c, err := r.Runtime.Load(id)
	if err != nil {
		return nil, err
	}
	return realContainer{c}, nil
}

func (r realOCI) List() ([]ociContainer, error) {
	list, err := r.Runtime.List()
	if err != nil {
		return nil, err
	}
	all := make([]ociContainer, len(list))
	for i, c := range list {
		all[i] = realContainer{c}
	}
	return all, nil
}

type realContainer struct{ *runtime.Container }

func (c realContainer) Exec(ctx context.Context, o runtime.ExecOptions) (ociExec, error) {
	p, err := c.Container.Exec(ctx, o)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// externalOCI makes *external.Runtimes fit, with the one that is to make containers.
type externalOCI struct {
	*external.Runtimes
	command external.Command
}

func (r externalOCI) Create(ctx context.Context, id string, o runtime.CreateOptions) (ociContainer, error) {
	c, err := r.Runtimes.Create(ctx, id, r.command, o)
	if err != nil {
		return nil, err
	}
	return externalContainer{c}, nil
}

func (r externalOCI) Load(id string) (ociContainer, error) {
	c, err := r.Runtimes.Load(id)
	if err != nil {
		return nil, err
	}
	return externalContainer{c}, nil
}

func (r externalOCI) List() ([]ociContainer, error) {
	list, err := r.Runtimes.List()
	if err != nil {
		return nil, err
	}
	all := make([]ociContainer, len(list))
	for i, c := range list {
		all[i] = externalContainer{c}
	}
	return all, nil
}

type externalContainer struct{ *external.Container }

func (c externalContainer) Exec(ctx context.Context, o runtime.ExecOptions) (ociExec, error) {
	p, err := c.Container.Exec(ctx, o)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// runtimeOf is who makes a container: ours, or the one that its configuration names.
func (s *Server) runtimeOf(o *monitor.Runtime) oci {
	if o == nil {
		return s.rt
	}
	return externalOCI{s.external, external.Command{Name: o.Name, Path: o.Path, Args: o.Args}}
}

// made are the containers of all runtimes that an earlier monitor has left.
func (s *Server) made() ([]ociContainer, error) {
	list, err := s.rt.List()
	if err != nil {
		return nil, err
	}
	more, err := externalOCI{Runtimes: s.external}.List()
	return append(list, more...), err
}
