package agent

import (
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// refuse says what of a task this engine does not do, before anything is done. What a container cannot
// be is left to its creation.
func refuse(want *session.Task) error {
	s := &want.Spec
	switch {
	case s.Runtime != "" && s.Runtime != "container":
		return missing("TaskTemplate.Runtime", "tasks of runtime "+shortened(s.Runtime, 64))
	case s.PluginSpec != nil:
		return missing("TaskTemplate.PluginSpec", "plugins as services")
	case s.NetworkAttachmentSpec != nil:
		return missing("TaskTemplate.NetworkAttachmentSpec", "attachments of containers to networks of a swarm")
	case s.ContainerSpec == nil:
		return fault.New(fault.Invalid, "TaskTemplate.ContainerSpec: expected the container of the task")
	case s.ContainerSpec.Image == "":
		return fault.New(fault.Invalid, "dockerexec: image required") // Docker's words
	case want.NodeID == "" || nameOf(want) == "":
		return fault.New(fault.Invalid, "task %s: expected its node and the name of its service", want.ID)
	}
	if r := s.Resources; r != nil && r.Reservations != nil && len(r.Reservations.GenericResources) > 0 {
		return missing("TaskTemplate.Resources.Reservations.GenericResources", "generic resources")
	}
	if err := refuseNetworks(s.Networks); err != nil {
		return err
	}
	if err := refusePorts(want.Ports); err != nil {
		return err
	}
	return refuseContainer(s.ContainerSpec)
}

func missing(field, what string) error {
	return fault.New(fault.NotImplemented, "%s: %s are not supported", field, what)
}

// nodeLocal are the networks that each node has for itself.
var nodeLocal = []string{"bridge", "host", "none"}

func refuseNetworks(list []wire.NetworkAttachment) error {
	for _, n := range list {
		switch {
		case !slices.Contains(nodeLocal, n.Target):
			return fault.New(fault.NotImplemented, "TaskTemplate.Networks %q: networks over several nodes are not supported: expected bridge, host or none", shortened(n.Target, 64))
		case len(list) > 1:
			return fault.New(fault.Invalid, "TaskTemplate.Networks %q: expected no other network beside bridge, host or none", n.Target)
		case len(n.Aliases) > 0:
			return missing("TaskTemplate.Networks.Aliases", "names on network "+n.Target)
		case len(n.DriverOpts) > 0:
			return missing("TaskTemplate.Networks.DriverOpts", "options on network "+n.Target)
		}
	}
	return nil
}

func refusePorts(ports []wire.ServicePort) error {
	for _, p := range ports {
		switch {
		case p.TargetPort == 0 || p.TargetPort > math.MaxUint16 || p.PublishedPort > math.MaxUint16:
			return fault.New(fault.Invalid, "EndpointSpec.Ports %d:%d: expected ports from 1 to 65535", p.PublishedPort, p.TargetPort)
		case !slices.Contains([]string{"tcp", "udp", "sctp"}, protocolOf(p)):
			return &fault.Field{Field: "EndpointSpec.Ports.Protocol", Given: shortened(p.Protocol, 64), Expected: "tcp, udp or sctp"}
		}
	}
	return nil
}

func refuseContainer(c *wire.ContainerSpec) error {
	switch {
	case len(c.Secrets) > 0:
		return missing("ContainerSpec.Secrets", "secrets")
	case len(c.Configs) > 0:
		return missing("ContainerSpec.Configs", "configs")
	case c.StopGracePeriod != nil && *c.StopGracePeriod < 0:
		return fault.New(fault.Invalid, "ContainerSpec.StopGracePeriod %s: expected no negative duration", *c.StopGracePeriod)
	case c.OomScoreAdj < -1000 || c.OomScoreAdj > 1000:
		return fault.New(fault.Invalid, "ContainerSpec.OomScoreAdj %d: expected -1000 to 1000", c.OomScoreAdj)
	case c.Healthcheck != nil && c.Healthcheck.OnFailure != "" && c.Healthcheck.OnFailure != "none":
		// An unhealthy task is replaced; a container that is started again below would hide that it is.
		return fault.New(fault.Invalid, "ContainerSpec.Healthcheck.OnFailure %q: expected none: the task is replaced", shortened(c.Healthcheck.OnFailure, 64))
	}
	for _, line := range c.Hosts {
		fields := strings.Fields(line)
		if len(fields) > 1 {
			if _, err := netip.ParseAddr(fields[0]); err == nil {
				continue
			}
		}
		return &fault.Field{Field: "ContainerSpec.Hosts", Given: shortened(line, 64), Expected: "an address and its names, as in hosts(5)"}
	}
	for _, m := range c.Mounts {
		if known := []string{"", "bind", "volume", "tmpfs", "image"}; !slices.Contains(known, m.Type) {
			return missing("ContainerSpec.Mounts.Type", "mounts of type "+shortened(m.Type, 64))
		}
	}
	return refusePrivileges(c.Privileges)
}

func refusePrivileges(p *wire.Privileges) error {
	if p == nil {
		return nil
	}
	if p.CredentialSpec != nil {
		return missing("ContainerSpec.Privileges.CredentialSpec", "credential specifications")
	}
	if s := p.SELinuxContext; s != nil && (s.User != "" || s.Role != "" || s.Type != "" || s.Level != "") {
		return missing("ContainerSpec.Privileges.SELinuxContext", "SELinux labels")
	}
	if s := p.Seccomp; s != nil {
		if !slices.Contains([]string{"", "default", "unconfined", "custom"}, s.Mode) {
			return &fault.Field{Field: "ContainerSpec.Privileges.Seccomp.Mode", Given: shortened(s.Mode, 64), Expected: "default, unconfined or custom"}
		}
		if (s.Mode == "custom") != (len(s.Profile) > 0) {
			return fault.New(fault.Invalid, "ContainerSpec.Privileges.Seccomp.Profile: expected one with mode custom, and none without")
		}
	}
	if a := p.AppArmor; a != nil && !slices.Contains([]string{"", "default", "disabled"}, a.Mode) {
		return &fault.Field{Field: "ContainerSpec.Privileges.AppArmor.Mode", Given: shortened(a.Mode, 64), Expected: "default or disabled"}
	}
	return nil
}
