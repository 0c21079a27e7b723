package agent

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/distribution/reference"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/wire"
)

// Docker's labels of the container of a task.
const (
	labelTask        = "com.docker.swarm.task" // without a value: it is one
	labelTaskID      = "com.docker.swarm.task.id"
	labelTaskName    = "com.docker.swarm.task.name"
	labelNodeID      = "com.docker.swarm.node.id"
	labelServiceID   = "com.docker.swarm.service.id"
	labelServiceName = "com.docker.swarm.service.name"
)

// nameOf is the name of a task and of its container: service.slot.id, and for global services service.node.id.
func nameOf(want *session.Task) string {
	if want.Name != "" || want.Service.Name == "" {
		return want.Name
	}
	return want.Service.Name + "." + slotOf(want) + "." + want.ID
}

func slotOf(want *session.Task) string {
	if want.Slot == 0 || want.Service.Global {
		return want.NodeID
	}
	return strconv.Itoa(want.Slot)
}

// request is what the task's container is created from.
func (t *task) request(ctx context.Context, want *session.Task) (req wire.ContainerCreateRequest, err error) {
	if err := refuse(want); err != nil {
		return req, err
	}
	info, err := t.a.o.Info(ctx)
	if err != nil {
		return req, err
	}
	spec, err := expand(want, &info)
	if err != nil {
		return req, err
	}
	req.ContainerConfig = wire.ContainerConfig{
		Image: imageOf(spec), Labels: labelsOf(want, spec), Entrypoint: spec.Command, Cmd: spec.Args, Hostname: spec.Hostname,
		Env: spec.Env, WorkingDir: spec.Dir, User: spec.User, Tty: spec.TTY, OpenStdin: spec.OpenStdin, StopSignal: spec.StopSignal,
		// For stops by others than the agent: at the end of the daemon, and of tasks whose service is not known any more.
		StopTimeout: grace(want), Healthcheck: spec.Healthcheck,
	}
	host := &wire.HostConfig{
		RestartPolicy: wire.RestartPolicy{Name: "no"}, // the swarm replaces it
		GroupAdd:      spec.Groups, Init: spec.Init, ReadonlyRootfs: spec.ReadOnly, Mounts: spec.Mounts, Isolation: spec.Isolation,
		Sysctls: spec.Sysctls, CapAdd: spec.CapabilityAdd, CapDrop: spec.CapabilityDrop, OomScoreAdj: int(spec.OomScoreAdj),
		SecurityOpt: securityOf(spec.Privileges), ExtraHosts: hostsOf(spec.Hosts),
	}
	if dns := spec.DNSConfig; dns != nil {
		host.DNS, host.DNSSearch, host.DNSOptions = dns.Nameservers, dns.Search, dns.Options
	}
	if len(want.Spec.Networks) > 0 {
		host.NetworkMode = want.Spec.Networks[0].Target
	}
	host.Resources = limitsOf(want.Spec.Resources)
	host.Ulimits = spec.Ulimits
	host.LogConfig = logOf(want)
	publish(want.Ports, &req.ContainerConfig, host)
	req.HostConfig = host
	return req, nil
}

// imageOf is the image's name as the engine's users write it, with its tag.
func imageOf(spec *wire.ContainerSpec) string {
	named, err := reference.ParseNormalizedNamed(spec.Image)
	if err != nil {
		return spec.Image
	}
	return reference.FamiliarString(reference.TagNameOnly(named))
}

// labelsOf are those of the service's containers, of the task, and the swarm's own, which win.
func labelsOf(want *session.Task, spec *wire.ContainerSpec) map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, spec.Labels)
	maps.Copy(labels, want.Labels)
	maps.Copy(labels, map[string]string{labelTask: "", labelTaskID: want.ID, labelTaskName: nameOf(want), labelNodeID: want.NodeID,
		labelServiceID: want.ServiceID, labelServiceName: want.Service.Name})
	return labels
}

// securityOf are privileges as --security-opt has them. refuse has let through what is known.
func securityOf(p *wire.Privileges) (options []string) {
	if p == nil {
		return nil
	}
	if p.SELinuxContext != nil && p.SELinuxContext.Disable {
		options = append(options, "label=disable")
	}
	if p.Seccomp != nil {
		switch p.Seccomp.Mode {
		case "unconfined":
			options = append(options, "seccomp=unconfined")
		case "custom":
			options = append(options, "seccomp="+string(p.Seccomp.Profile))
		}
	}
	if p.AppArmor != nil && p.AppArmor.Mode == "disabled" {
		options = append(options, "apparmor=unconfined")
	}
	if p.NoNewPrivileges {
		options = append(options, "no-new-privileges=true")
	}
	return options
}

// hostsOf turns lines of hosts(5), an address and its names, into the engine's name:address.
func hostsOf(lines []string) (extra []string) {
	for _, line := range lines {
		fields := strings.Fields(line)
		for _, name := range fields[1:] {
			extra = append(extra, name+":"+fields[0])
		}
	}
	return extra
}

// limitsOf are a task's limits. What it reserves is for the choice of a node alone.
func limitsOf(r *wire.TaskResources) (limits wire.Resources) {
	if r == nil || r.Limits == nil {
		return limits
	}
	limits.Memory, limits.NanoCPUs = r.Limits.MemoryBytes, r.Limits.NanoCPUs
	if r.Limits.Pids > 0 {
		pids := r.Limits.Pids
		limits.PidsLimit = &pids
	}
	return limits
}

// logOf is the service's log driver, or the swarm's, or this daemon's.
func logOf(want *session.Task) wire.LogConfig {
	driver := want.Spec.LogDriver
	if driver == nil {
		driver = want.LogDriver
	}
	if driver == nil {
		return wire.LogConfig{}
	}
	return wire.LogConfig{Type: driver.Name, Config: maps.Clone(driver.Options)}
}

// publish has the container publish the ports of mode host; the mesh has those of mode ingress.
func publish(ports []wire.ServicePort, c *wire.ContainerConfig, h *wire.HostConfig) {
	for _, p := range ports {
		if p.PublishMode != wire.PublishHost {
			continue
		}
		if c.ExposedPorts == nil {
			c.ExposedPorts, h.PortBindings = map[string]struct{}{}, map[string][]wire.PortBinding{}
		}
		port := fmt.Sprintf("%d/%s", p.TargetPort, protocolOf(p))
		binding := wire.PortBinding{}
		if p.PublishedPort != 0 {
			binding.HostPort = strconv.FormatUint(uint64(p.PublishedPort), 10)
		}
		c.ExposedPorts[port] = struct{}{}
		h.PortBindings[port] = append(h.PortBindings[port], binding)
	}
}

func protocolOf(p wire.ServicePort) string {
	if p.Protocol == "" {
		return "tcp"
	}
	return strings.ToLower(p.Protocol)
}
