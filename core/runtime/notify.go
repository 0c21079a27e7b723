package runtime

import (
	"encoding/json"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/runtime/initproc"
)

// agent is who answers the system calls that a seccomp program hands over (config-linux.md, "seccomp":
// listenerPath and listenerMetadata).
type agent struct {
	Path     string `json:"path"`
	Metadata string `json:"metadata,omitempty"`
}

// agentOf is the agent of a profile that has calls for one.
func agentOf(profile *specs.LinuxSeccomp, filter *initproc.Filter) *agent {
	if filter == nil || !filter.Notify {
		return nil
	}
	return &agent{profile.ListenerPath, profile.ListenerMetadata}
}

// listener returns what sends the file of the notifications of a process to the agent, with the container
// process state of the specification.
func (c *Container) listener(pid int, status specs.ContainerState) func(*os.File) error {
	return func(file *os.File) error {
		to := c.record.Agent
		if to == nil {
			return fmt.Errorf("container %s has no linux.seccomp.listenerPath", c.record.ID)
		}
		state, err := json.Marshal(specs.ContainerProcessState{
			Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: pid, Metadata: to.Metadata, State: c.state(status),
		})
		if err != nil {
			return fmt.Errorf("container process state: %w", err)
		}
		socket, err := linux.ConnectPath(to.Path)
		if err != nil {
			return fmt.Errorf("linux.seccomp.listenerPath %q: %w", to.Path, err)
		}
		defer socket.Close()
		if err := linux.SendFile(socket, state, file); err != nil {
			return fmt.Errorf("linux.seccomp.listenerPath %q: %w", to.Path, err)
		}
		return nil
	}
}
