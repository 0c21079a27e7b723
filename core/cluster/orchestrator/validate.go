package orchestrator

import (
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"github.com/distribution/reference"

	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

const (
	runtimeContainer = "container"
	modeVIP          = "vip"
	modeDNSRR        = "dnsrr"

	// maxTasks bounds the numbers of tasks that a service may ask for.
	maxTasks = 1 << 20
	// maxSpec bounds a specification as JSON: a service has it, the previous one, and its ports twice more, and that
	// together must be less than an object of the store may be.
	maxSpec = store.MaxObject / 5
)

var serviceName = regexp.MustCompile(`^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$`)

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

// Validate says what is wrong with a specification that Complete has answered with, in Docker's words where Docker
// has some. What this version cannot do is refused too, by name.
func Validate(spec *wire.ServiceSpec) error {
	for _, check := range []func(*wire.ServiceSpec) error{
		validateSize, validateName, validateRuntime, validateResources, validateRestart, validatePlacement, validateContainer, validateMode, validateUpdates,
		validateEndpoint, validateSupport,
	} {
		if err := check(spec); err != nil {
			return err
		}
	}
	return nil
}

func validateSize(spec *wire.ServiceSpec) error {
	text, err := json.Marshal(spec)
	if err != nil {
		return fault.As(fault.Invalid, err)
	}
	if len(text) > maxSpec {
		return &fault.Field{Field: "specification of the service", Given: fmt.Sprintf("%d bytes", len(text)), Expected: fmt.Sprintf("at most %d bytes", maxSpec)}
	}
	return nil
}

func validateName(spec *wire.ServiceSpec) error {
	switch {
	case spec.Name == "":
		return invalid("meta: name must be provided")
	case !serviceName.MatchString(spec.Name):
		return invalid("name must be valid as a DNS name component")
	case len(spec.Name) > 63:
		return invalid("name must be 63 characters or fewer")
	}
	return nil
}

func validateRuntime(spec *wire.ServiceSpec) error {
	switch t := spec.TaskTemplate; {
	case t.Runtime == "plugin" || t.PluginSpec != nil:
		return notYet("TaskTemplate.PluginSpec", "plugins as services")
	case t.Runtime != runtimeContainer || t.NetworkAttachmentSpec != nil:
		return invalid("unsupported runtime: expected TaskTemplate.Runtime %q with a ContainerSpec", runtimeContainer)
	case t.ContainerSpec == nil:
		return invalid("mismatched Runtime and *Spec fields")
	}
	return nil
}

func validateResources(spec *wire.ServiceSpec) error {
	r := spec.TaskTemplate.Resources
	if r == nil {
		return nil
	}
	if l := r.Limits; l != nil {
		if err := validateAmounts(l.NanoCPUs, l.MemoryBytes); err != nil {
			return err
		}
		if l.Pids < -1 {
			return &fault.Field{Field: "TaskTemplate.Resources.Limits.Pids", Given: fmt.Sprint(l.Pids), Expected: "a number of processes, 0 or -1 for no limit"}
		}
	}
	if r.Reservations != nil {
		return validateAmounts(r.Reservations.NanoCPUs, r.Reservations.MemoryBytes)
	}
	return nil
}

func validateAmounts(cpu, memory int64) error {
	if cpu != 0 && cpu < 1e6 {
		return invalid("invalid cpu value %g: Must be at least %g", float64(cpu)/1e9, 1e6/1e9)
	}
	if memory != 0 && memory < 4<<20 {
		return invalid("invalid memory value %d: Must be at least 4MiB", memory)
	}
	return nil
}

func validateRestart(spec *wire.ServiceSpec) error {
	p := spec.TaskTemplate.RestartPolicy
	if p == nil {
		return nil
	}
	switch p.Condition {
	case wire.RestartNone, wire.RestartOnFailure, wire.RestartAny:
	default:
		return invalid("invalid RestartCondition: %q", p.Condition)
	}
	if p.Delay != nil && *p.Delay < 0 {
		return invalid("TaskSpec: restart-delay cannot be negative")
	}
	if p.Window != nil && *p.Window < 0 {
		return invalid("TaskSpec: restart-window cannot be negative")
	}
	return nil
}

func validatePlacement(spec *wire.ServiceSpec) error {
	p := spec.TaskTemplate.Placement
	if p == nil {
		return nil
	}
	if _, err := parseConstraints(p.Constraints); err != nil {
		return err
	}
	for i, preference := range p.Preferences {
		field := fmt.Sprintf("TaskTemplate.Placement.Preferences[%d]", i)
		if preference.Spread == nil {
			return &fault.Field{Field: field, Given: "", Expected: "Spread, the one kind of preference"}
		}
		if _, ok := attribute(&wire.Node{}, preference.Spread.SpreadDescriptor); !ok {
			return &fault.Field{Field: field + ".Spread.SpreadDescriptor", Given: preference.Spread.SpreadDescriptor, Expected: "node.labels.NAME, engine.labels.NAME or another attribute of nodes"}
		}
	}
	return nil
}

func validateContainer(spec *wire.ServiceSpec) error {
	c := spec.TaskTemplate.ContainerSpec
	if c.Image == "" {
		return invalid("ContainerSpec: image reference must be provided")
	}
	if _, err := reference.ParseNormalizedNamed(c.Image); err != nil {
		return invalid("ContainerSpec: %q is not a valid repository/tag", c.Image)
	}
	if c.StopGracePeriod != nil && *c.StopGracePeriod < 0 {
		return &fault.Field{Field: "ContainerSpec.StopGracePeriod", Given: c.StopGracePeriod.String(), Expected: "a time that is not negative"}
	}
	targets := map[string]bool{}
	for i, m := range c.Mounts {
		switch m.Type {
		case "bind", "volume", "tmpfs", "image":
		case "cluster":
			return notYet(fmt.Sprintf("ContainerSpec.Mounts[%d].Type", i), "cluster volumes")
		default:
			return invalid("invalid MountType: %q", m.Type)
		}
		if targets[m.Target] {
			return invalid("ContainerSpec: duplicate mount point: %s", m.Target)
		}
		targets[m.Target] = true
	}
	return validateHealth(c.Healthcheck)
}

func validateHealth(h *wire.Healthcheck) error {
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name string
		time int64
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if d.time != 0 && d.time < int64(time.Millisecond) {
			return invalid("ContainerSpec: %s in HealthConfig cannot be less than %s", d.name, time.Millisecond)
		}
	}
	if h.Retries < 0 {
		return invalid("ContainerSpec: Retries in HealthConfig cannot be negative")
	}
	return nil
}

func validateMode(spec *wire.ServiceSpec) error {
	m := spec.Mode
	modes := 0
	for _, given := range []bool{m.Replicated != nil, m.Global != nil, m.ReplicatedJob != nil, m.GlobalJob != nil} {
		if given {
			modes++
		}
	}
	switch {
	case modes > 1:
		return invalid("must specify only one service mode")
	case modes == 0:
		return invalid("Unrecognized service mode")
	}
	var counts []*uint64
	if m.Replicated != nil {
		counts = append(counts, m.Replicated.Replicas)
	}
	if m.ReplicatedJob != nil {
		counts = append(counts, m.ReplicatedJob.MaxConcurrent, m.ReplicatedJob.TotalCompletions)
	}
	for _, n := range counts {
		if n != nil && *n > maxTasks {
			return &fault.Field{Field: "number of tasks", Given: fmt.Sprint(*n), Expected: fmt.Sprintf("at most %d", maxTasks)}
		}
	}
	return nil
}

func validateUpdates(spec *wire.ServiceSpec) error {
	if isJob(spec) && spec.UpdateConfig != nil {
		return invalid("Jobs may not have an update config")
	}
	if isJob(spec) && spec.RollbackConfig != nil {
		return invalid("Jobs may not have a rollback config")
	}
	for _, c := range []*wire.UpdateConfig{spec.UpdateConfig, spec.RollbackConfig} {
		if err := validateUpdate(c); err != nil {
			return err
		}
	}
	return nil
}

func validateUpdate(c *wire.UpdateConfig) error {
	if c == nil {
		return nil
	}
	switch c.FailureAction {
	case onFailurePause, onFailureContinue, onFailureRollback:
	default:
		return invalid("unrecognized update failure action %s", c.FailureAction)
	}
	switch {
	case c.Order != stopFirst && c.Order != startFirst:
		return invalid("unrecognized update order %s", c.Order)
	case c.Delay < 0:
		return invalid("TaskSpec: update-delay cannot be negative")
	case c.Monitor < 0:
		return invalid("TaskSpec: update-monitor cannot be negative")
	case c.MaxFailureRatio < 0 || c.MaxFailureRatio > 1:
		return invalid("TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1")
	}
	return nil
}

func validateEndpoint(spec *wire.ServiceSpec) error {
	e := spec.EndpointSpec
	if e == nil {
		return nil
	}
	if e.Mode != modeVIP && e.Mode != modeDNSRR {
		return invalid("invalid resolution mode: %q", e.Mode)
	}
	used := map[hostPort]bool{}
	for i, p := range e.Ports {
		if err := validatePort(fmt.Sprintf("EndpointSpec.Ports[%d]", i), p); err != nil {
			return err
		}
		if e.Mode == modeDNSRR && p.PublishMode == wire.PublishIngress {
			return invalid("EndpointSpec: port published with ingress mode can't be used with dnsrr mode")
		}
		if p.PublishedPort == 0 {
			continue
		}
		k := hostPort{p.Protocol, p.PublishedPort}
		if used[k] {
			return invalid("EndpointSpec: duplicate published ports provided")
		}
		used[k] = true
	}
	return nil
}

func validatePort(field string, p wire.ServicePort) error {
	switch p.Protocol {
	case "tcp", "udp", "sctp":
	default:
		return &fault.Field{Field: field + ".Protocol", Given: p.Protocol, Expected: "tcp, udp or sctp"}
	}
	switch {
	case p.PublishMode != wire.PublishIngress && p.PublishMode != wire.PublishHost:
		return &fault.Field{Field: field + ".PublishMode", Given: p.PublishMode, Expected: "ingress or host"}
	case p.TargetPort < 1 || p.TargetPort > 65535:
		return &fault.Field{Field: field + ".TargetPort", Given: fmt.Sprint(p.TargetPort), Expected: "a port, 1 to 65535"}
	case p.PublishedPort > 65535:
		return &fault.Field{Field: field + ".PublishedPort", Given: fmt.Sprint(p.PublishedPort), Expected: "a port, 1 to 65535, or 0 for any"}
	}
	return nil
}
