package container

import (
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/container/rootfs"
	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/container/userns"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/wire"
)

// A container of a daemon with userns-remap is in a user namespace, unless --userns host. Its snapshot
// and the layers keep the ids that it sees itself, so that commit, diff and builds know nothing of the
// mapping, and a daemon with another mapping starts it as well. Volumes and binds are as they are on the
// host, as with dockerd.

// remap is the mapping that the container gets, nil for the host's user namespace.
func (m *Manager) remap(h *wire.HostConfig) *userns.Remap {
	if h.UsernsMode == "host" {
		return nil
	}
	return m.o.Remap
}

// validateUserns refuses what would need a right over the host's namespaces, in dockerd's words.
func (m *Manager) validateUserns(rec *record) error {
	h := &rec.Host
	if h.UsernsMode != "" && h.UsernsMode != "host" {
		return &fault.Field{Field: "--userns", Given: h.UsernsMode, Expected: "host, or nothing for what the daemon is set to"}
	}
	switch {
	case m.remap(h) == nil:
		return nil
	case h.Privileged:
		return fault.New(fault.Invalid, "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode")
	case h.NetworkMode == "host":
		return fault.New(fault.Invalid, "cannot share the host's network namespace when user namespaces are enabled")
	case h.PidMode == "host":
		return fault.New(fault.Invalid, "cannot share the host PID namespace when user namespaces are enabled")
	}
	return nil
}

// userNamespace opens the user namespace of a container that is about to start: a new one, or that of the
// container with which it shares another namespace. nil is the host's.
func (m *Manager) userNamespace(h *wire.HostConfig) (*os.File, error) {
	remap := m.remap(h)
	if remap == nil {
		return nil, nil
	}
	for _, mode := range []string{h.PidMode, h.IpcMode, h.NetworkMode} {
		ref, ok := spec.Joined(mode)
		if !ok {
			continue
		}
		other, err := m.find(ref)
		if err != nil {
			return nil, fault.As(fault.Conflict, err)
		}
		rec, st := other.snapshot()
		if !st.live() {
			return nil, fault.New(fault.Conflict, "cannot join a namespace of a non running container: %s", rec.ID)
		}
		if of, err := userns.OfProcess(st.Pid); err != nil || of == nil {
			return nil, fault.New(fault.Conflict, "cannot join a namespace of container %s, which is not in a user namespace: expected --userns host", rec.Name)
		}
		return linux.OpenAt(nil, fmt.Sprintf("/proc/%d/ns/user", st.Pid), os.O_RDONLY, 0)
	}
	return linux.UserNamespace(remap.UIDs, remap.GIDs)
}

// joinUser puts a file's user namespace into the input of a specification.
func joinUser(in *spec.Input, ns *os.File) {
	if ns == nil {
		return
	}
	if in.JoinPaths == nil {
		in.JoinPaths = map[specs.LinuxNamespaceType]string{}
	}
	in.JoinPaths[specs.UserNamespace] = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd())
}

// giveToRoot gives a file of the engine to the container's root.
func giveToRoot(path string, remap *userns.Remap) error {
	if remap == nil {
		return nil
	}
	uid, gid := remap.Root()
	return os.Chown(path, uid, gid)
}

// openMapped opens the mounts of a container that does not run, as they show to the host while it does.
func (m *Manager) openMapped(h *wire.HostConfig, mounts []mount.Mount) (root *linux.Root, err error) {
	err = m.remap(h).With(func(ids *mount.IDMap) error {
		root, err = rootfs.Open(m.mountPoint(), mounts, ids)
		return err
	})
	return root, err
}

// mappingNow is the mapping through which the host sees the container's files: of its processes, which
// may be older than this daemon, or the one that it would get.
func (m *Manager) mappingNow(c *Container) *userns.Remap {
	rec, st := c.snapshot()
	if st.live() {
		if remap, err := userns.OfProcess(st.Pid); err == nil {
			return remap
		}
	}
	return m.remap(&rec.Host)
}
