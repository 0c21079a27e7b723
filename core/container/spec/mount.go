package spec

import (
	"cmp"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// mounts are the default mounts, changed by the modes, and the container's own, parents first.
func mounts(in Input, s security) []specs.Mount {
	own := slices.Clone(in.Mounts)
	if in.InitPath != "" {
		own = append(own, specs.Mount{Destination: InitTarget, Type: "bind", Source: in.InitPath, Options: []string{"bind", "ro"}})
	}
	taken := map[string]bool{}
	for _, m := range own {
		taken[path.Clean(m.Destination)] = true
	}
	var all []specs.Mount
	for _, m := range defaultMounts() {
		if taken[m.Destination] || taken["/dev"] && strings.HasPrefix(m.Destination, "/dev/") {
			continue
		}
		if m, ok := in.adjust(m, s); ok {
			all = append(all, m)
		}
	}
	// A mount below another one must come after it. Stable: of two at one place the later hides.
	slices.SortStableFunc(own, func(a, b specs.Mount) int {
		return cmp.Compare(depth(a.Destination), depth(b.Destination))
	})
	return append(all, own...)
}

func depth(destination string) int { return strings.Count(path.Clean(destination), "/") }

// adjust makes a default mount fit the container's modes; ok says whether it has it at all.
func (in Input) adjust(m specs.Mount, s security) (_ specs.Mount, ok bool) {
	h := in.Host
	writable := func() {
		m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "ro" })
	}
	switch m.Destination {
	case "/dev/shm":
		switch {
		case h.IpcMode == "none":
			return m, false
		case isHost(h.IpcMode):
			return bind("/dev/shm", "/dev/shm"), true
		}
		if _, joined := Joined(h.IpcMode); joined {
			// /dev/shm of the other is mounted in the other's mount namespace alone.
			other := strings.TrimSuffix(in.JoinPaths[specs.IPCNamespace], "/ns/ipc")
			m := bind(other+"/root/dev/shm", "/dev/shm")
			m.Options = append(m.Options, "nosuid", "noexec", "nodev")
			return m, true
		}
		size := h.ShmSize
		if size == 0 {
			size = DefaultShmSize
		}
		m.Options = append(m.Options, fmt.Sprintf("size=%d", size))
	case "/dev/mqueue":
		if isHost(h.IpcMode) && in.JoinPaths[specs.UserNamespace] != "" {
			// A mount of its own takes a right over the host's namespace.
			_, err := os.Stat("/dev/mqueue")
			return bind("/dev/mqueue", "/dev/mqueue"), err == nil
		}
	case "/sys":
		if h.Privileged {
			writable()
		}
	case "/sys/fs/cgroup":
		if h.Privileged || s.writableCgroups {
			writable()
		}
	}
	return m, true
}

func bind(source, destination string) specs.Mount {
	return specs.Mount{Destination: destination, Type: "bind", Source: source, Options: []string{"rbind", "rprivate"}}
}

// propagations reports whether a mount wants to pass mounts on, or to receive them.
func propagations(list []specs.Mount) (shared, slave bool) {
	for _, m := range list {
		for _, o := range m.Options {
			switch o {
			case "shared", "rshared":
				shared = true
			case "slave", "rslave":
				slave = true
			}
		}
	}
	return shared, slave
}
