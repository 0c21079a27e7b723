// Package spec turns a container's configuration, in Docker's words, into the OCI runtime
// specification that the runtime executes.
//
// Everything here is a function of its input and of facts about the host that do not change while
// the daemon runs; nothing is made or changed on the host. Validate says before a container is
// created whether Build will succeed later. What Docker gives a container that asks for nothing
// (capabilities, masked paths, mounts, device rules, seccomp profile) is in defaults.go and
// capability.go.
//
// Source of the defaults: `docker run` of release 28 and the runtime specification, config-linux.md.
package spec

import (
	"fmt"
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/cgroup/systemd"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Input is what a specification is made from. Config is merged with the image's already.
type Input struct {
	ID     string
	Config *wire.ContainerConfig
	Host   *wire.HostConfig

	Args     []string // entrypoint and command
	Env      []string
	Cwd      string
	User     specs.User
	Hostname string

	// Mounts are binds, volumes, tmpfs and the engine's files, in any order. One that has the
	// destination of a default mount takes its place.
	Mounts []specs.Mount
	// JoinPaths are the namespaces to be joined: of another container, /proc/PID/ns/ipc, and the user
	// namespace, without which the container is in the host's.
	JoinPaths map[specs.LinuxNamespaceType]string
	// HostNetwork leaves the container in the host's network namespace; otherwise the network
	// namespace is handed to the runtime as a descriptor.
	HostNetwork bool
	// InitPath is the program that becomes process 1 with `--init`: it is bound at InitTarget.
	InitPath string

	CgroupParent   string // without a leading or trailing slash it is below /; with SystemdCgroup it is a slice
	SystemdCgroup  bool   // systemd makes the cgroup
	DefaultUlimits map[string]wire.Ulimit
	AppArmor       string // profile of containers that ask for none; "" without AppArmor
	Annotations    map[string]string
}

// InitTarget is where the program of `--init` is inside the container, as with Docker.
const InitTarget = "/sbin/docker-init"

// Validate reports what in the configuration is wrong or not supported, naming it.
func Validate(config *wire.ContainerConfig, host *wire.HostConfig) error {
	for _, check := range []func(*wire.ContainerConfig, *wire.HostConfig) error{
		validateModes, validateSecurity, validateResources, validateDevices, validateUnsupported, validateSysctls,
	} {
		if err := check(config, host); err != nil {
			return err
		}
	}
	_, err := rlimits(host.Ulimits, nil)
	return err
}

// validateUnsupported names every option that is set and that nothing here acts upon. An option is
// never silently ignored: what a user asked for is done, or refused.
func validateUnsupported(c *wire.ContainerConfig, h *wire.HostConfig) error {
	for _, o := range []struct {
		set    bool
		option string
		why    string
	}{
		{len(h.DeviceRequests) > 0, "--gpus", "no driver for device requests is installed"},
		{h.Isolation != "" && h.Isolation != "default", "--isolation " + h.Isolation, "Linux has only \"default\""},
		{h.CPUCount != 0, "--cpu-count", "it is for Windows"},
		{h.CPUPercent != 0, "--cpu-percent", "it is for Windows"},
		{h.IOMaximumIOps != 0, "--io-maxiops", "it is for Windows"},
		{h.IOMaximumBandwidth != 0, "--io-maxbandwidth", "it is for Windows"},
		{h.Cgroup != "", "Cgroup " + h.Cgroup, "it was never implemented by Docker either"},
	} {
		if o.set {
			return fault.New(fault.NotImplemented, "%s is not supported: %s", o.option, o.why)
		}
	}
	return nil
}

// OwnRuntime is the name of the engine's own runtime.
const OwnRuntime = "sampan"

// IsOwnRuntime reports whether the name is one of the engine's runtime: its own, or what Docker calls
// the one that is meant by default.
func IsOwnRuntime(name string) bool {
	return name == OwnRuntime || name == "runc" || name == "io.containerd.runc.v2"
}

// Build makes the specification. Root.Path is a name only: the root filesystem is handed to the
// runtime as mounts.
func Build(in Input) (*specs.Spec, error) {
	caps, err := Capabilities(in.Host)
	if err != nil {
		return nil, err
	}
	security, err := parseSecurity(in.Host.SecurityOpt)
	if err != nil {
		return nil, err
	}
	process, err := in.process(caps, security)
	if err != nil {
		return nil, err
	}
	linux, err := in.linux()
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:     specs.Version,
		Process:     process,
		Root:        &specs.Root{Path: "rootfs", Readonly: in.Host.ReadonlyRootfs},
		Hostname:    in.Hostname,
		Domainname:  in.Config.Domainname,
		Mounts:      mounts(in, security),
		Annotations: in.annotations(),
		Linux:       linux,
	}
	if isHost(in.Host.UTSMode) {
		// sethostname in the host's namespace would rename the host.
		s.Hostname, s.Domainname = "", ""
	}
	if linux.Seccomp, err = security.seccomp(in.Host.Privileged, caps); err != nil {
		return nil, err
	}
	return s, nil
}

func (in Input) annotations() map[string]string {
	if len(in.Annotations) == 0 && len(in.Host.Annotations) == 0 {
		return nil
	}
	all := map[string]string{}
	for _, m := range []map[string]string{in.Annotations, in.Host.Annotations} {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

func (in Input) process(caps []string, security security) (*specs.Process, error) {
	limits, err := rlimits(in.Host.Ulimits, in.DefaultUlimits)
	if err != nil {
		return nil, err
	}
	args := in.Args
	if in.InitPath != "" {
		args = append([]string{InitTarget, "--"}, args...)
	}
	p := &specs.Process{
		Terminal:        in.Config.Tty,
		User:            in.User,
		Args:            args,
		Env:             in.Env,
		Cwd:             in.Cwd,
		Rlimits:         limits,
		NoNewPrivileges: security.noNewPrivileges,
		ApparmorProfile: AppArmorProfile(in.Host, in.AppArmor),
		Capabilities:    ProcessCapabilities(caps, in.User.UID),
	}
	if h, w := in.Host.ConsoleSize[0], in.Host.ConsoleSize[1]; in.Config.Tty && h > 0 && w > 0 {
		p.ConsoleSize = &specs.Box{Height: h, Width: w}
	}
	p.OOMScoreAdj = oomScore(in.Host)
	return p, nil
}

func (in Input) linux() (*specs.Linux, error) {
	resources, err := Resources(in.Host)
	if err != nil {
		return nil, err
	}
	devices, rules, err := deviceNodes(in.Host)
	if err != nil {
		return nil, err
	}
	resources.Devices = rules
	namespaces, err := in.namespaces()
	if err != nil {
		return nil, err
	}
	l := &specs.Linux{
		Sysctl:            sysctls(in),
		Resources:         resources,
		CgroupsPath:       in.cgroupsPath(),
		Namespaces:        namespaces,
		Devices:           devices,
		MaskedPaths:       in.Host.MaskedPaths,
		ReadonlyPaths:     in.Host.ReadonlyPaths,
		RootfsPropagation: "private",
	}
	if in.Host.Privileged {
		l.MaskedPaths, l.ReadonlyPaths = nil, nil
	}
	if shared, slave := propagations(in.Mounts); shared {
		// A mount can be passed on only when the root it is on passes mounts on.
		l.RootfsPropagation = "shared"
	} else if slave {
		l.RootfsPropagation = "rslave"
	}
	return l, nil
}

// ScopePrefix begins the names of the scopes that systemd makes for containers.
const ScopePrefix = "sampan"

// cgroupsPath is where the container's cgroup is below each hierarchy's root, or by which names systemd makes it.
func (in Input) cgroupsPath() string {
	if in.SystemdCgroup {
		return in.CgroupParent + ":" + ScopePrefix + ":" + in.ID
	}
	return path.Join("/", in.CgroupParent, in.ID)
}

// DefaultCgroupParent is where containers are that ask for no other: with systemd's driver it is Docker's.
func DefaultCgroupParent(bySystemd bool) string {
	if bySystemd {
		return "system.slice"
	}
	return "/sampan"
}

// ValidateCgroupParent checks --cgroup-parent: a path, which is joined to the roots of the hierarchies, or
// with systemd's driver the name of a slice.
func ValidateCgroupParent(parent string, bySystemd bool) error {
	if parent == "" {
		return nil
	}
	if bySystemd {
		_, err := systemd.SlicePath(parent)
		if err != nil || strings.Contains(parent, ":") { // which separates the parts of cgroupsPath
			return fault.New(fault.Invalid, "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\", given %.128q", parent) // Docker's words
		}
		return nil
	}
	if strings.HasSuffix(parent, ".slice") {
		return fault.New(fault.Invalid, "--cgroup-parent %.128q: a slice needs systemd's driver, --exec-opt native.cgroupdriver=systemd of the daemon; expected a path such as /batch", parent)
	}
	for part := range strings.SplitSeq(strings.Trim(parent, "/"), "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsRune(part, 0) {
			return &fault.Field{Field: "--cgroup-parent", Given: parent, Expected: "a path such as /batch, without . and .."}
		}
	}
	return nil
}

// Args joins entrypoint and command.
func Args(c *wire.ContainerConfig) ([]string, error) {
	args := append(append([]string{}, c.Entrypoint...), c.Cmd...)
	if len(args) == 0 || args[0] == "" {
		return nil, fault.New(fault.Invalid, "no command specified")
	}
	for i, a := range args {
		if strings.ContainsRune(a, 0) {
			return nil, fault.As(fault.Invalid, fmt.Errorf("argument %d of the command holds a NUL byte", i))
		}
	}
	return args, nil
}
