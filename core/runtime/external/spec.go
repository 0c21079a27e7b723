package external

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/cgroup/systemd"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/runtime"
	"github.com/sampan-project/sampan/core/runtime/initproc"
)

// specVersion is the version of the specification that is asked for.
const specVersion = "1.0.2"

// adapted is the specification as the runtime named gets it.
func adapted(name string, o runtime.CreateOptions) (*specs.Spec, error) {
	if o.Spec == nil || o.Spec.Linux == nil || o.Spec.Root == nil || o.Spec.Process == nil {
		return nil, fault.New(fault.Invalid, "spec: expected process, root and linux")
	}
	s, l := *o.Spec, *o.Spec.Linux
	s.Linux, s.Version = &l, specVersion
	if at := namespaceAt(&l, specs.UserNamespace); at >= 0 {
		return nil, fault.New(fault.NotImplemented, "runtime %s: a user namespace (userns-remap) is not supported: only the runtime sampan has it", name)
	}
	if l.RootfsPropagation == "shared" || l.RootfsPropagation == "rshared" {
		return nil, fault.New(fault.NotImplemented, "runtime %s: mount propagation shared is not supported: only the runtime sampan has it", name)
	}
	root := *s.Root
	switch {
	case len(o.RootMounts) > 0:
		root.Path = rootDir
	case !filepath.IsAbs(root.Path):
		root.Path = filepath.Join(o.Bundle, root.Path)
	}
	s.Root = &root
	if o.NetNS != nil {
		setNetwork(&l, o.NetNS)
	}
	if s.Domainname != "" && namespaceAt(&l, specs.UTSNamespace) >= 0 { // since version 1.1.0
		l.Sysctl = maps.Clone(l.Sysctl)
		if l.Sysctl == nil {
			l.Sysctl = map[string]string{}
		}
		l.Sysctl["kernel.domainname"] = s.Domainname
	}
	s.Domainname = ""
	var err error
	s.Process, err = clamped(s.Process, o.ClampDefaults)
	return &s, err
}

func namespaceAt(l *specs.Linux, t specs.LinuxNamespaceType) int {
	return slices.IndexFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t })
}

// setNetwork has the container join the network namespace. The runtime opens it through this process.
func setNetwork(l *specs.Linux, ns *os.File) {
	joined := specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd())}
	l.Namespaces = slices.Clone(l.Namespaces)
	if at := namespaceAt(l, specs.NetworkNamespace); at >= 0 {
		l.Namespaces[at] = joined
		return
	}
	l.Namespaces = append(l.Namespaces, joined)
}

// clamped is the process with limits that this process may set, where they are not the user's own: raising a hard
// limit needs a right (CAP_SYS_RESOURCE) that the runtime would have from here.
func clamped(p *specs.Process, defaults bool) (*specs.Process, error) {
	if !defaults || len(p.Rlimits) == 0 {
		return p, nil
	}
	lower := *p
	lower.Rlimits = slices.Clone(p.Rlimits)
	for i := range lower.Rlimits {
		l := &lower.Rlimits[i]
		resource, ok := initproc.Rlimit(l.Type)
		if !ok {
			continue // the runtime's to refuse
		}
		var now unix.Rlimit
		if err := unix.Getrlimit(resource, &now); err != nil {
			return nil, fmt.Errorf("getrlimit %s: %w", l.Type, err)
		}
		l.Hard = min(l.Hard, now.Max)
		l.Soft = min(l.Soft, l.Hard)
	}
	return &lower, nil
}

// cgroupOf is where the container's cgroup will be.
func cgroupOf(id, cgroupsPath string, bySystemd bool) (string, error) {
	if !bySystemd {
		if !path.IsAbs(cgroupsPath) {
			return "", &fault.Field{Field: "linux.cgroupsPath", Given: cgroupsPath, Expected: "an absolute path, as what another runtime makes of others is not known"}
		}
		return cgroupsPath, nil
	}
	unit, err := systemd.Parse(cgroupsPath, id, false)
	if err != nil {
		return "", err
	}
	return unit.Path("")
}
