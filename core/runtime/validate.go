package runtime

import (
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/runtime/hook"
	"github.com/sampan-project/sampan/core/runtime/initproc"
)

// namespaces are the types of the specification in the order in which they are joined: the user
// namespace gives the right to the others, and the mount namespace changes what paths mean.
var namespaces = []struct {
	name specs.LinuxNamespaceType
	flag uint64
}{
	{specs.UserNamespace, unix.CLONE_NEWUSER}, {specs.IPCNamespace, unix.CLONE_NEWIPC}, {specs.UTSNamespace, unix.CLONE_NEWUTS},
	{specs.NetworkNamespace, unix.CLONE_NEWNET}, {specs.PIDNamespace, unix.CLONE_NEWPID}, {specs.CgroupNamespace, unix.CLONE_NEWCGROUP},
	{specs.TimeNamespace, unix.CLONE_NEWTIME}, {specs.MountNamespace, unix.CLONE_NEWNS},
}

func namespaceFlag(name specs.LinuxNamespaceType) (uint64, bool) {
	for _, n := range namespaces {
		if n.name == name {
			return n.flag, true
		}
	}
	return 0, false
}

// namespaceSet are the CLONE_NEW* flags of the spec.
func namespaceSet(s *specs.Spec) (set uint64) {
	for _, n := range s.Linux.Namespaces {
		flag, _ := namespaceFlag(n.Type)
		set |= flag
	}
	return set
}

// validate reports the first thing that is wrong in a spec, or that is not implemented. What passes
// it is carried out or fails with an error, and is never left out silently.
func validate(s *specs.Spec, rootMounts bool) error {
	if s == nil {
		return fault.New(fault.Invalid, "config.json: expected a specification")
	}
	if major, _, _ := strings.Cut(s.Version, "."); major != "1" {
		return &fault.Field{Field: "ociVersion", Given: s.Version, Expected: "1 with a minor and patch version, such as " + specs.Version}
	}
	if s.Linux == nil {
		return fault.New(fault.Invalid, "linux: expected the section for Linux")
	}
	if (s.Root == nil || s.Root.Path == "") && !rootMounts {
		return &fault.Field{Field: "root.path", Given: "", Expected: "the directory of the root filesystem"}
	}
	if s.Process == nil {
		return fault.New(fault.Invalid, "process: expected the program to run")
	}
	for _, check := range []func(*specs.Spec) error{
		validateNamespaces, validateUser, validateTime, validateIDMapped, validateNames, validateSysctls, validateMounts, validateHooks,
	} {
		if err := check(s); err != nil {
			return err
		}
	}
	if err := validateContainer(s.Linux); err != nil {
		return err
	}
	if err := validateBare(s, rootMounts); err != nil {
		return err
	}
	return validateProcess(s.Process)
}

func validateNamespaces(s *specs.Spec) error {
	var seen uint64
	for i, n := range s.Linux.Namespaces {
		field := fmt.Sprintf("linux.namespaces[%d]", i)
		flag, ok := namespaceFlag(n.Type)
		switch {
		case !ok:
			var names []string
			for _, n := range namespaces {
				names = append(names, string(n.name))
			}
			return &fault.Field{Field: field + ".type", Given: string(n.Type), Expected: "one of " + strings.Join(names, ", "), Nearest: fault.Nearest(string(n.Type), names)}
		case seen&flag != 0:
			return &fault.Field{Field: field + ".type", Given: string(n.Type), Expected: "each type once"}
		case n.Path != "" && !path.IsAbs(n.Path):
			return &fault.Field{Field: field + ".path", Given: n.Path, Expected: "an absolute path"}
		}
		seen |= flag
	}
	return nil
}

// validateBare is about containers without a mount namespace: they get no mounts, so nothing may
// depend on some.
func validateBare(s *specs.Spec, rootMounts bool) error {
	if namespaceSet(s)&unix.CLONE_NEWNS != 0 {
		return nil
	}
	for _, f := range []struct {
		field string
		set   bool
	}{
		{"linux.maskedPaths", len(s.Linux.MaskedPaths) > 0}, {"linux.readonlyPaths", len(s.Linux.ReadonlyPaths) > 0},
		{"linux.devices", len(s.Linux.Devices) > 0}, {"linux.sysctl", len(s.Linux.Sysctl) > 0},
		{"linux.rootfsPropagation", s.Linux.RootfsPropagation != ""}, {"process.terminal", s.Process.Terminal},
		{"hooks.createContainer", s.Hooks != nil && len(s.Hooks.CreateContainer) > 0},
		{"root.readonly", s.Root != nil && s.Root.Readonly}, {"mounts of the root", rootMounts},
	} {
		if f.set {
			return fault.New(fault.Invalid, "%s: expected a container with its own mount namespace", f.field)
		}
	}
	return nil
}

func validateNames(s *specs.Spec) error {
	if namespaceSet(s)&unix.CLONE_NEWUTS != 0 {
		return nil
	}
	for field, name := range map[string]string{"hostname": s.Hostname, "domainname": s.Domainname} {
		if name != "" {
			return fault.New(fault.Invalid, "%s %q: expected a uts namespace, or it would be the host's", field, name)
		}
	}
	return nil
}

// ipcSysctls belong to the IPC namespace (ipc_namespaces(7)).
var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
	"kernel.shm_rmid_forced",
}

// validateSysctls refuses parameters that are the host's.
func validateSysctls(s *specs.Spec) error {
	set := namespaceSet(s)
	for key := range s.Linux.Sysctl {
		name := strings.ReplaceAll(key, "/", ".")
		var needs uint64
		var what string
		switch {
		case slices.Contains(ipcSysctls, name) || strings.HasPrefix(name, "fs.mqueue."):
			needs, what = unix.CLONE_NEWIPC, "ipc"
		case strings.HasPrefix(name, "net."):
			needs, what = unix.CLONE_NEWNET, "network"
		case name == "kernel.domainname" || name == "kernel.hostname":
			needs, what = unix.CLONE_NEWUTS, "uts"
		default:
			return &fault.Field{Field: "linux.sysctl", Given: key, Expected: "a parameter of a namespace: the others are the host's"}
		}
		if strings.Contains(name, "..") || set&needs == 0 {
			return &fault.Field{Field: "linux.sysctl", Given: key, Expected: "a container with its own " + what + " namespace"}
		}
	}
	return nil
}

func validateMounts(s *specs.Spec) error {
	for i, m := range s.Mounts {
		if m.Destination == "" {
			return &fault.Field{Field: fmt.Sprintf("mounts[%d].destination", i), Given: "", Expected: "a path in the container"}
		}
	}
	for _, list := range []struct {
		field string
		paths []string
	}{{"linux.maskedPaths", s.Linux.MaskedPaths}, {"linux.readonlyPaths", s.Linux.ReadonlyPaths}} {
		for i, p := range list.paths {
			if !path.IsAbs(p) {
				return &fault.Field{Field: fmt.Sprintf("%s[%d]", list.field, i), Given: p, Expected: "an absolute path"}
			}
		}
	}
	for i, d := range s.Linux.Devices {
		if !path.IsAbs(d.Path) {
			return &fault.Field{Field: fmt.Sprintf("linux.devices[%d].path", i), Given: d.Path, Expected: "an absolute path"}
		}
	}
	return nil
}

func validateHooks(s *specs.Spec) error {
	h := s.Hooks
	if h == nil {
		return nil
	}
	for _, k := range []struct {
		kind  string
		hooks []specs.Hook
	}{
		{"prestart", h.Prestart}, {"createRuntime", h.CreateRuntime}, {"createContainer", h.CreateContainer}, //nolint:staticcheck // deprecated and still used
		{"startContainer", h.StartContainer}, {"poststart", h.Poststart}, {"poststop", h.Poststop},
	} {
		if err := hook.Validate(k.kind, k.hooks); err != nil {
			return err
		}
	}
	return nil
}

func validateProcess(p *specs.Process) error {
	switch {
	case len(p.Args) == 0 || p.Args[0] == "":
		return fault.New(fault.Invalid, "process.args: expected a program")
	case !path.IsAbs(p.Cwd):
		return &fault.Field{Field: "process.cwd", Given: p.Cwd, Expected: "an absolute path"}
	}
	for _, text := range slices.Concat(p.Args, p.Env) {
		if strings.ContainsRune(text, 0) {
			return fault.New(fault.Invalid, "process: arguments and environment cannot have NUL bytes")
		}
	}
	known := initproc.Rlimits()
	seen := map[string]bool{}
	for i, l := range p.Rlimits {
		field := fmt.Sprintf("process.rlimits[%d]", i)
		switch {
		case !slices.Contains(known, l.Type):
			return &fault.Field{Field: field + ".type", Given: l.Type, Expected: "a limit of getrlimit(2)", Nearest: fault.Nearest(l.Type, known)}
		case seen[l.Type]:
			return &fault.Field{Field: field + ".type", Given: l.Type, Expected: "each limit once"}
		case l.Soft > l.Hard:
			return &fault.Field{Field: field + ".soft", Given: fmt.Sprint(l.Soft), Expected: fmt.Sprintf("at most the hard limit, %d", l.Hard)}
		}
		seen[l.Type] = true
	}
	return validateAttributes(p)
}
