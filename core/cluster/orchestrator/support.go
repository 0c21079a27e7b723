package orchestrator

import (
	"fmt"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// notYet refuses a field of a service that stands for something that there is in Docker's swarm mode and not here.
func notYet(field, what string) error {
	return fault.New(fault.NotImplemented, "%s: services cannot have %s here", field, what)
}

// validateSupport refuses what is right and not there for services. What no node can do for a task is its agent's to say.
func validateSupport(spec *wire.ServiceSpec) error {
	t, e := &spec.TaskTemplate, spec.EndpointSpec
	if len(spec.Networks) > 0 {
		return fault.New(fault.NotImplemented, "Networks: expected the networks of a service in TaskTemplate.Networks")
	}
	if given := t.ContainerSpec.Isolation; given != "default" {
		return fault.New(fault.Invalid, "ContainerSpec.Isolation %q: expected default, the one isolation of containers on Linux", given)
	}
	if e == nil {
		return nil
	}
	if e.Mode == modeDNSRR {
		return notYet("EndpointSpec.Mode dnsrr", "names that resolve to their tasks, as they have no networks of their own")
	}
	for i, p := range e.Ports {
		if p.PublishMode == wire.PublishIngress && p.Protocol != "tcp" {
			return notYet(fmt.Sprintf("EndpointSpec.Ports[%d].Protocol %s", i, p.Protocol), "ports of mode ingress but for tcp (mode host has all)")
		}
	}
	for _, n := range t.Networks {
		if (n.Target == "host" || n.Target == "none") && len(e.Ports) > 0 {
			return fault.New(fault.Invalid, "EndpointSpec.Ports: expected none with network %s: only what is in bridge can publish ports", n.Target)
		}
	}
	return nil
}
