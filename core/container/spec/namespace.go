package spec

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func isHost(mode string) bool { return mode == "host" }

// Joined returns the container that a mode such as "container:web" names.
func Joined(mode string) (ref string, ok bool) {
	ref, ok = strings.CutPrefix(mode, "container:")
	return ref, ok && ref != ""
}

// validateModes checks --ipc, --pid, --uts, --cgroupns and --network for words that mean something.
func validateModes(c *wire.ContainerConfig, h *wire.HostConfig) error {
	for _, m := range []struct {
		option, value string
		words         []string
		container     bool
	}{
		{"--ipc", h.IpcMode, []string{"", "private", "host", "none", "shareable"}, true},
		{"--pid", h.PidMode, []string{"", "private", "host"}, true},
		{"--uts", h.UTSMode, []string{"", "private", "host"}, false},
		{"--cgroupns", h.CgroupnsMode, []string{"", "private", "host"}, false},
	} {
		if slices.Contains(m.words, m.value) {
			continue
		}
		if _, ok := Joined(m.value); ok && m.container {
			continue
		}
		expected := strings.Join(m.words[1:], ", ")
		if m.container {
			expected += " or container:NAME"
		}
		return &fault.Field{Field: m.option, Given: m.value, Expected: expected, Nearest: fault.Nearest(m.value, m.words[1:])}
	}
	if isHost(h.UTSMode) && c.Domainname != "" {
		return fault.New(fault.Invalid, "conflicting options: domainname and the UTS mode")
	}
	return nil
}

// PrivateCgroupns reports whether the container sees its own cgroup as the root.
func PrivateCgroupns(h *wire.HostConfig) bool {
	mode := h.CgroupnsMode
	if mode == "" {
		mode = DefaultCgroupns("", h.Privileged, CgroupV2())
	}
	return mode == "private"
}

// DefaultCgroupns is the mode of a container that asks for none: as dockerd has it, private on a host with
// cgroup v2 and the host's on others, or what the daemon is configured to. With v1 a privileged container has the
// host's in any case.
func DefaultCgroupns(configured string, privileged, v2 bool) string {
	switch {
	case privileged && !v2:
		return "host"
	case configured != "":
		return configured
	case v2:
		return "private"
	}
	return "host"
}

func (in Input) namespaces() ([]specs.LinuxNamespace, error) {
	list := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	if path := in.JoinPaths[specs.UserNamespace]; path != "" {
		list = append(list, specs.LinuxNamespace{Type: specs.UserNamespace, Path: path})
	}
	add := func(kind specs.LinuxNamespaceType, mode string) error {
		if isHost(mode) {
			return nil
		}
		ns := specs.LinuxNamespace{Type: kind}
		if ref, ok := Joined(mode); ok {
			if ns.Path = in.JoinPaths[kind]; ns.Path == "" {
				return fmt.Errorf("namespace %s of container %s is not known", kind, ref)
			}
		}
		list = append(list, ns)
		return nil
	}
	if !in.HostNetwork {
		list = append(list, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	}
	if err := add(specs.UTSNamespace, in.Host.UTSMode); err != nil {
		return nil, err
	}
	if err := add(specs.PIDNamespace, in.Host.PidMode); err != nil {
		return nil, err
	}
	if err := add(specs.IPCNamespace, in.Host.IpcMode); err != nil {
		return nil, err
	}
	if PrivateCgroupns(in.Host) {
		list = append(list, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return list, nil
}

// sysctls are the user's and Docker's two for a network namespace of its own: ports below 1024 and
// ping need no privilege there, as nobody else is in it.
func sysctls(in Input) map[string]string {
	all := map[string]string{}
	_, joined := Joined(in.Host.NetworkMode)
	if !in.HostNetwork && !joined {
		all["net.ipv4.ip_unprivileged_port_start"] = "0"
		if in.JoinPaths[specs.UserNamespace] == "" { // there most of these groups have no id, and the range is set already
			all["net.ipv4.ping_group_range"] = "0 2147483647"
		}
	}
	for k, v := range in.Host.Sysctls {
		all[k] = v
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// validateSysctls lets through only what a namespace of the container's own confines.
func validateSysctls(c *wire.ContainerConfig, h *wire.HostConfig) error {
	ipc := []string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"}
	for key := range h.Sysctls {
		switch {
		case strings.ContainsAny(key, "/\x00") && !strings.HasPrefix(key, "net."):
			return &fault.Field{Field: "--sysctl", Given: key, Expected: "a name such as net.core.somaxconn"}
		case strings.HasPrefix(key, "net."):
			if isHost(h.NetworkMode) {
				return fault.New(fault.Invalid, "sysctl %q not allowed in host network namespace", key)
			}
		case slices.Contains(ipc, key), strings.HasPrefix(key, "fs.mqueue."):
			if isHost(h.IpcMode) {
				return fault.New(fault.Invalid, "sysctl %q not allowed in host ipc namespace", key)
			}
		case key == "kernel.domainname" && !isHost(h.UTSMode):
		default:
			return fault.New(fault.Invalid, "sysctl %q is not in a separate kernel namespace", key)
		}
	}
	return nil
}
