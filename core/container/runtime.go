package container

import (
	"errors"
	"io/fs"
	"os/exec"

	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
)

// defaultRuntime is the runtime of containers that ask for none.
func (m *Manager) defaultRuntime() string {
	if name := m.live.Load().DefaultRuntime; name != "" {
		return name
	}
	return spec.OwnRuntime
}

// runtime is the program that makes the containers of the runtime of that name; nil for the engine's own. One that
// the daemon is told of comes before the other names of its own.
func (m *Manager) runtime(name string) (*monitor.Runtime, error) {
	if r, ok := m.live.Load().Runtimes[name]; ok {
		r.Name = name
		return &r, nil
	}
	if name == "" || spec.IsOwnRuntime(name) {
		return nil, nil
	}
	return nil, fault.New(fault.Invalid, "unknown or invalid runtime name: %.128s", name) // Docker's words
}

// runtimeProgram is runtime with the program's whole path, as the monitor looks for none.
func (m *Manager) runtimeProgram(name string) (*monitor.Runtime, error) {
	r, err := m.runtime(name)
	if r == nil || err != nil {
		return nil, err
	}
	r.Path, err = exec.LookPath(r.Path)
	if err == nil {
		return r, nil
	}
	// Not in the words of a container's own program that is missing, by which clients choose 127.
	what, reason := m.live.Load().Runtimes[name].Path, "not found"
	if errors.Is(err, fs.ErrPermission) {
		reason = "permission denied"
	}
	return nil, fault.New(fault.Internal, "error while looking up the specified runtime path: runtime %s: %s: %s", name, what, reason)
}
