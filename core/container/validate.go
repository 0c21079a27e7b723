package container

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"net/netip"

	"github.com/moby/sys/signal"

	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// validate checks what core/container/spec does not know of. It has no side effect.
func (m *Manager) validate(rec *record) error {
	for _, check := range []func(*record) error{
		validateProcess, validateHealth, validatePolicy, m.validateNetwork, m.validateLinks, validatePorts, validateLog, m.validateOther, m.validateUserns, m.validateStorage,
	} {
		if err := check(rec); err != nil {
			return err
		}
	}
	return nil
}

// hostnamePattern is RFC 1123's, as Docker has it; the kernel takes 64 bytes.
var hostnamePattern = regexp.MustCompile(`^[[:alnum:]]([[:alnum:]_.-]{0,62}[[:alnum:]])?$`)

func validateProcess(rec *record) error {
	c := &rec.Config
	if _, err := spec.Args(c); err != nil {
		return err
	}
	if c.WorkingDir != "" {
		if !path.IsAbs(c.WorkingDir) {
			return fault.New(fault.Invalid, "the working directory '%s' is invalid, it needs to be an absolute path", shortened(c.WorkingDir))
		}
		c.WorkingDir = path.Clean(c.WorkingDir)
	}
	for _, e := range c.Env {
		if e == "" || e[0] == '=' || strings.ContainsRune(e, 0) {
			return fault.New(fault.Invalid, "invalid environment variable: %s", shortened(e))
		}
	}
	if c.Hostname != "" && !hostnamePattern.MatchString(c.Hostname) {
		return fault.New(fault.Invalid, "invalid hostname format: %s", shortened(c.Hostname))
	}
	if len(c.Domainname) > 64 {
		return fault.New(fault.Invalid, "invalid domain name %s: expected at most 64 characters", shortened(c.Domainname))
	}
	if c.StopSignal != "" {
		if _, err := signal.ParseSignal(c.StopSignal); err != nil {
			return fault.New(fault.Invalid, "invalid signal: %s", shortened(c.StopSignal))
		}
	}
	return nil
}

func validateHealth(rec *record) error {
	h := rec.Config.Healthcheck
	if h == nil {
		return nil
	}
	if len(h.Test) > 0 && !slices.Contains([]string{"NONE", "CMD", "CMD-SHELL"}, h.Test[0]) {
		return &fault.Field{Field: "healthcheck test", Given: h.Test[0], Expected: "NONE, CMD or CMD-SHELL"}
	}
	for _, t := range []struct {
		what  string
		value int64
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if t.value != 0 && t.value < int64(time.Millisecond) {
			return fault.New(fault.Invalid, "%s in Healthcheck cannot be less than 1ms", t.what)
		}
	}
	if h.Retries < 0 {
		return fault.New(fault.Invalid, "Retries in Healthcheck cannot be negative")
	}
	if known := []string{"", "none", "restart", "stop", "kill"}; !slices.Contains(known, h.OnFailure) {
		return &fault.Field{Field: "--health-on-failure", Given: shortened(h.OnFailure), Expected: "none, restart, stop or kill", Nearest: fault.Nearest(h.OnFailure, known)}
	}
	if h.OnFailure == "restart" && rec.Host.AutoRemove {
		return fault.New(fault.Invalid, "can't create 'AutoRemove' container that is restarted when it is unhealthy")
	}
	return nil
}

func validatePolicy(rec *record) error {
	return validRestart(rec.Host.RestartPolicy, rec.Host.AutoRemove)
}

func validRestart(p wire.RestartPolicy, autoRemove bool) error {
	switch {
	case !slices.Contains([]string{"", "no", "always", "on-failure", "unless-stopped"}, p.Name):
		return fault.New(fault.Invalid, "invalid restart policy: unknown policy '%s'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'", shortened(p.Name))
	case p.MaximumRetryCount < 0:
		return fault.New(fault.Invalid, "invalid restart policy: maximum retry count cannot be negative")
	case p.MaximumRetryCount > 0 && p.Name != "on-failure":
		return fault.New(fault.Invalid, "invalid restart policy: maximum retry count can only be used with 'on-failure'")
	case autoRemove && p.Name != "" && p.Name != "no":
		return fault.New(fault.Invalid, "can't create 'AutoRemove' container with restart policy")
	}
	return nil
}

// validateNetwork finds the networks that the container is to join, and the options that cannot go
// with them.
func (m *Manager) validateNetwork(rec *record) error {
	c, h := &rec.Config, &rec.Host
	if h.NetworkMode == "container:" {
		return fault.New(fault.Invalid, "Invalid network mode: invalid container format container:<name|id>")
	}
	if ref, ok := spec.Joined(h.NetworkMode); ok {
		return m.validateJoined(rec, ref)
	}
	if h.NetworkMode == "host" && len(h.PortBindings) == 0 && h.PublishAllPorts {
		h.PublishAllPorts = false
	}
	if h.UTSMode == "host" && c.Hostname != "" {
		return fault.New(fault.Invalid, "conflicting options: hostname and the UTS mode")
	}
	if c.MacAddress != "" {
		if h.NetworkMode == "host" || h.NetworkMode == "none" {
			return fault.New(fault.Invalid, "conflicting options: mac-address and the network mode")
		}
		if rec.Wanted[h.NetworkMode] == nil {
			rec.Wanted[h.NetworkMode] = &wire.EndpointSettings{}
		}
		if rec.Wanted[h.NetworkMode].MacAddress == "" {
			rec.Wanted[h.NetworkMode].MacAddress = c.MacAddress
		}
	}
	if err := m.canonicalNetworks(rec); err != nil {
		return err
	}
	if h.NetworkMode == "host" && len(rec.Wanted) > 1 || h.NetworkMode == "none" && len(rec.Wanted) > 1 {
		return fault.New(fault.Invalid, "conflicting options: cannot attach both user-defined and non-user-defined network-modes")
	}
	return nil
}

// canonicalNetworks finds the networks and calls each by its name, whether the user gave that or an id.
func (m *Manager) canonicalNetworks(rec *record) error {
	h := &rec.Host
	wanted := map[string]*wire.EndpointSettings{}
	for given, e := range rec.Wanted {
		name, err := m.networkName(given)
		if err != nil {
			return err
		}
		wanted[name] = e
	}
	rec.Wanted = wanted
	if !ownNetworks(h.NetworkMode) {
		return nil
	}
	name, err := m.networkName(h.NetworkMode)
	if err != nil {
		return err
	}
	h.NetworkMode = name
	if wanted[name] == nil {
		wanted[name] = &wire.EndpointSettings{}
	}
	return nil
}

func (m *Manager) networkName(ref string) (string, error) {
	if ref == "host" || ref == "none" {
		return ref, nil
	}
	n, err := m.o.Network.Resolve(ref)
	if fault.Is(err, fault.NotFound) {
		// Not 404: a client takes that of a create for a missing image, and pulls.
		return "", fault.New(fault.Invalid, "network %s not found", shortened(ref))
	}
	return n.Name, err
}

// validateJoined checks `--network container:NAME`: what belongs to a network namespace is the other's.
func (m *Manager) validateJoined(rec *record, ref string) error {
	c, h := &rec.Config, &rec.Host
	other, err := m.find(ref)
	if err != nil {
		return fault.As(fault.Invalid, err) // not 404, as above
	}
	for _, o := range []struct {
		set  bool
		what string
	}{
		{c.Hostname != "", "hostname and the network mode"},
		{len(h.DNS) > 0 || len(h.DNSSearch) > 0 || len(h.DNSOptions) > 0, "dns and the network mode"},
		{len(h.ExtraHosts) > 0, "custom host-to-IP mapping and the network mode"},
		{c.MacAddress != "", "mac-address and the network mode"},
		{len(h.PortBindings) > 0 || h.PublishAllPorts, "port publishing and the container type network mode"},
		{len(c.ExposedPorts) > 0 && h.PublishAllPorts, "port exposing and the container type network mode"},
	} {
		if o.set {
			return fault.New(fault.Invalid, "conflicting options: %s", o.what)
		}
	}
	// By id, as the other may be renamed.
	h.NetworkMode = "container:" + other.id
	return nil
}

// parsePort reads "80/tcp" or "80".
func parsePort(s string) (port uint16, protocol string, err error) {
	number, protocol, has := strings.Cut(s, "/")
	if !has {
		protocol = "tcp"
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 || !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
		return 0, "", fault.New(fault.Invalid, "invalid port specification: %q", shortened(s))
	}
	return uint16(n), protocol, nil
}

func validatePorts(rec *record) error {
	for p := range rec.Config.ExposedPorts {
		if _, _, err := parsePort(p); err != nil {
			return err
		}
	}
	for p, bindings := range rec.Host.PortBindings {
		if _, _, err := parsePort(p); err != nil {
			return err
		}
		for _, b := range bindings {
			if b.HostIP != "" {
				if _, err := netip.ParseAddr(b.HostIP); err != nil {
					return &fault.Field{Field: "published port " + p + ": host address", Given: shortened(b.HostIP), Expected: "an IP address"}
				}
			}
			low, high, isRange := strings.Cut(b.HostPort, "-")
			for _, n := range []string{low, high} {
				if n == "" && (!isRange || b.HostPort == "") {
					continue
				}
				if _, err := strconv.ParseUint(n, 10, 16); err != nil {
					return fault.New(fault.Invalid, "invalid port specification: %q", shortened(b.HostPort))
				}
			}
		}
	}
	return nil
}

// validateOther checks what is left: options that need another container, a program, or that the
// engine does not have.
func (m *Manager) validateOther(rec *record) error {
	h := &rec.Host
	if _, err := m.runtime(h.Runtime); err != nil {
		return err
	}
	if err := spec.ValidateCgroupParent(h.CgroupParent, m.o.SystemdCgroup); err != nil {
		return err
	}
	if h.MemorySwappiness != nil && *h.MemorySwappiness == -1 {
		h.MemorySwappiness = nil // what a client says that was told nothing
	}
	if ref, ok := spec.Joined(h.PidMode); ok {
		other, err := m.find(ref)
		if err != nil {
			return fault.As(fault.Invalid, err)
		}
		h.PidMode = "container:" + other.id
	}
	if ref, ok := spec.Joined(h.IpcMode); ok {
		other, err := m.find(ref)
		if err != nil {
			return fault.As(fault.Invalid, err)
		}
		h.IpcMode = "container:" + other.id
	}
	if h.Init != nil && *h.Init && m.o.InitPath == "" {
		return fault.New(fault.NotImplemented, "--init: no init program is installed on this host; name one with sampand --init-path")
	}
	if h.VolumeDriver != "" && h.VolumeDriver != "local" {
		return &fault.Field{Field: "--volume-driver", Given: h.VolumeDriver, Expected: `"local", the driver that is there`}
	}
	return nil
}

// samePlatform compares os[/arch[/variant]]; an empty part of the wanted one fits all.
func samePlatform(want, os, arch, variant string) bool {
	parts := strings.Split(strings.ToLower(want), "/")
	aliases := map[string]string{"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm", "i386": "386"}
	have := []string{os, arch, variant}
	if len(parts) == 1 && parts[0] != os { // an architecture alone
		parts = []string{os, parts[0]}
	}
	for i, p := range parts {
		if a, ok := aliases[p]; ok {
			p = a
		}
		if i >= len(have) {
			return false
		}
		if i == 2 && (have[i] == "" || p == "") {
			continue
		}
		if p != have[i] {
			return false
		}
	}
	return true
}

func trimSlash(name string) string { return strings.TrimPrefix(name, "/") }
