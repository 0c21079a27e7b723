package spec

import (
	"encoding/json"
	"strings"
	"sync"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/container/apparmor"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// security is what --security-opt says.
type security struct {
	noNewPrivileges bool
	profile         string // seccomp: "" or "builtin" is the default, "unconfined", or a profile in JSON
	apparmor        string
	writableCgroups bool
}

// maxProfile bounds a seccomp profile sent with a request.
const maxProfile = 1 << 20

// parseSecurity reads the options, with "=" or, as in the days before, ":" after the key.
func parseSecurity(options []string) (s security, err error) {
	for _, o := range options {
		key, value, found := strings.Cut(o, "=")
		if !found {
			key, value, found = strings.Cut(o, ":")
		}
		switch key {
		case "no-new-privileges":
			switch {
			case !found, value == "true":
				s.noNewPrivileges = true
			case value == "false":
				s.noNewPrivileges = false
			default:
				return s, &fault.Field{Field: "--security-opt no-new-privileges", Given: value, Expected: "true or false"}
			}
		case "seccomp":
			if len(value) > maxProfile {
				return s, fault.New(fault.Invalid, "--security-opt seccomp: the profile has %d bytes, expected at most %d", len(value), maxProfile)
			}
			s.profile = value
		case "apparmor":
			if value != apparmor.Unconfined && !apparmor.Enabled() {
				return s, fault.New(fault.Invalid, "--security-opt apparmor=%s: AppArmor is not enabled on this host", value)
			}
			s.apparmor = value
		case "label":
			if value != "disable" {
				return s, fault.New(fault.NotImplemented, "--security-opt label=%s is not supported: SELinux labels are not handled, expected label=disable", value)
			}
		case "writable-cgroups":
			if value != "true" && value != "false" {
				return s, &fault.Field{Field: "--security-opt writable-cgroups", Given: value, Expected: "true or false"}
			}
			s.writableCgroups = value == "true"
		default:
			known := []string{"apparmor", "label", "no-new-privileges", "seccomp", "systempaths", "writable-cgroups"}
			return s, &fault.Field{Field: "invalid --security-opt", Given: o, Expected: "one of " + strings.Join(known, ", "), Nearest: fault.Nearest(key, known)}
		}
	}
	return s, nil
}

// AppArmorProfile is the profile of a container, "" where there is no AppArmor; byDefault is that of
// containers that ask for none and are not privileged.
func AppArmorProfile(h *wire.HostConfig, byDefault string) string {
	s, err := parseSecurity(h.SecurityOpt)
	if err != nil || !apparmor.Enabled() {
		return ""
	}
	switch {
	case s.apparmor != "":
		return s.apparmor
	case h.Privileged:
		return apparmor.Unconfined
	}
	return byDefault
}

func validateSecurity(c *wire.ContainerConfig, h *wire.HostConfig) error {
	s, err := parseSecurity(h.SecurityOpt)
	if err != nil {
		return err
	}
	caps, err := Capabilities(h)
	if err != nil {
		return err
	}
	_, err = s.seccomp(h.Privileged, caps)
	return err
}

// defaultProfiles has the default profile resolved for each set of capabilities: resolving it takes
// as long as the rest of Build.
var defaultProfiles sync.Map // capabilities, joined -> *specs.LinuxSeccomp

// seccomp returns the filter for a container with these capabilities; nil is none. The result is
// shared and must not be changed.
func (s security) seccomp(privileged bool, caps []string) (*specs.LinuxSeccomp, error) {
	// The package looks only at the bounding set.
	with := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}}
	switch s.profile {
	case "unconfined":
		return nil, nil
	case "", "builtin":
		if privileged {
			return nil, nil
		}
		key := strings.Join(caps, " ")
		if p, ok := defaultProfiles.Load(key); ok {
			return p.(*specs.LinuxSeccomp), nil
		}
		p, err := seccomp.GetDefaultProfile(with)
		if err != nil {
			return nil, err
		}
		defaultProfiles.Store(key, p)
		return p, nil
	}
	if !json.Valid([]byte(s.profile)) {
		return nil, fault.New(fault.Invalid, "--security-opt seccomp: expected a profile in JSON, builtin or unconfined")
	}
	p, err := seccomp.LoadProfile(s.profile, with)
	if err != nil {
		return nil, fault.New(fault.Invalid, "--security-opt seccomp: %w", err)
	}
	return p, nil
}
