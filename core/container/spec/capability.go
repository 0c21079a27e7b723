package spec

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// allCapabilities are the kernel's, by number (capabilities(7)).
var allCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// defaultCapabilities are what Docker leaves a container that asks for nothing.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// hostCapabilities are those that the daemon itself may hand out: its bounding set. A capability
// that is not in it cannot be given to anybody, so "all" means all of these.
var hostCapabilities = sync.OnceValue(func() []string {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return allCapabilities
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		value, ok := strings.CutPrefix(line, "CapBnd:")
		if !ok {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			break
		}
		var have []string
		for i, name := range allCapabilities {
			if set&(1<<i) != 0 {
				have = append(have, name)
			}
		}
		return have
	}
	return allCapabilities
})

// Capabilities returns the set of a container: Docker's default, changed by --cap-add and --cap-drop,
// or everything with --privileged.
func Capabilities(h *wire.HostConfig) ([]string, error) {
	add, err := capabilityNames("--cap-add", h.CapAdd)
	if err != nil {
		return nil, err
	}
	drop, err := capabilityNames("--cap-drop", h.CapDrop)
	if err != nil {
		return nil, err
	}
	if h.Privileged {
		return hostCapabilities(), nil
	}
	set := defaultCapabilities
	// ALL on one side is the base that the other side changes.
	switch {
	case slices.Contains(add, "ALL"):
		set = hostCapabilities()
	case slices.Contains(drop, "ALL"):
		set, drop = nil, nil
	}
	set = slices.DeleteFunc(slices.Clone(set), func(c string) bool { return slices.Contains(drop, c) })
	for _, c := range add {
		if c == "ALL" || slices.Contains(set, c) {
			continue
		}
		if !slices.Contains(hostCapabilities(), c) {
			return nil, fault.New(fault.Invalid, "--cap-add %s: this host does not grant that capability", c)
		}
		set = append(set, c)
	}
	// A default that the host does not grant is left out, as the container did not ask for it.
	return slices.DeleteFunc(set, func(c string) bool { return !slices.Contains(hostCapabilities(), c) }), nil
}

// capabilityNames gives the names their one spelling; "net_admin" is "CAP_NET_ADMIN".
func capabilityNames(option string, given []string) ([]string, error) {
	var names []string
	for _, g := range given {
		name := strings.ToUpper(g)
		if name != "ALL" && !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		if name != "ALL" && !slices.Contains(allCapabilities, name) {
			return nil, &fault.Field{Field: option, Given: g, Expected: "a capability such as NET_ADMIN, or ALL",
				Nearest: strings.TrimPrefix(fault.Nearest(name, allCapabilities), "CAP_")}
		}
		names = append(names, name)
	}
	return names, nil
}

// ProcessCapabilities are the sets of a process of the user. A user who is not root gets the bounding
// set alone, which is what execve(2) would leave them.
func ProcessCapabilities(caps []string, uid uint32) *specs.LinuxCapabilities {
	if uid != 0 {
		return &specs.LinuxCapabilities{Bounding: caps}
	}
	return &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
}
