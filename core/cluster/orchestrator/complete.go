package orchestrator

import (
	"slices"
	"time"

	"github.com/sampan-project/sampan/core/wire"
)

// defaultStopGrace is how long a container may take to stop.
const defaultStopGrace = 10 * time.Second

// Complete answers with the specification as it is kept: where it says nothing about a choice, it has the usual one, as
// Docker shows it. Nothing that spec points to is changed.
func Complete(spec wire.ServiceSpec) wire.ServiceSpec {
	if spec.Labels == nil {
		spec.Labels = map[string]string{}
	}
	spec.Mode = completeMode(spec.Mode)
	spec.UpdateConfig = completeUpdate(spec.UpdateConfig)
	spec.RollbackConfig = completeUpdate(spec.RollbackConfig)
	spec.EndpointSpec = completeEndpoint(spec.EndpointSpec)
	t := &spec.TaskTemplate
	if t.Runtime == "" {
		t.Runtime = runtimeContainer
	}
	if t.RestartPolicy != nil {
		policy := *t.RestartPolicy
		if policy.Condition == "" {
			policy.Condition = wire.RestartAny
		}
		if policy.MaxAttempts == nil {
			policy.MaxAttempts = new(uint64)
		}
		t.RestartPolicy = &policy
	}
	if t.ContainerSpec != nil {
		c := *t.ContainerSpec
		if c.Isolation == "" {
			c.Isolation = "default"
		}
		c.Mounts = slices.Clone(c.Mounts)
		for i := range c.Mounts {
			if c.Mounts[i].Type == "" {
				c.Mounts[i].Type = "bind"
			}
		}
		t.ContainerSpec = &c
	}
	return spec
}

func completeMode(m wire.ServiceMode) wire.ServiceMode {
	count := func(n *uint64, or uint64) *uint64 {
		if n != nil {
			or = *n
		}
		return &or
	}
	switch {
	case m.Replicated != nil:
		m.Replicated = &wire.Replicated{Replicas: count(m.Replicated.Replicas, 1)}
	case m.ReplicatedJob != nil:
		concurrent := count(m.ReplicatedJob.MaxConcurrent, 1)
		m.ReplicatedJob = &wire.ReplicatedJob{MaxConcurrent: concurrent, TotalCompletions: count(m.ReplicatedJob.TotalCompletions, *concurrent)}
	case m.Global == nil && m.GlobalJob == nil:
		m.Replicated = &wire.Replicated{Replicas: count(nil, 1)}
	}
	return m
}

func completeUpdate(given *wire.UpdateConfig) *wire.UpdateConfig {
	if given == nil {
		return nil
	}
	c := *given
	if c.FailureAction == "" {
		c.FailureAction = onFailurePause
	}
	if c.Order == "" {
		c.Order = stopFirst
	}
	return &c
}

func completeEndpoint(given *wire.EndpointSpec) *wire.EndpointSpec {
	if given == nil {
		return nil
	}
	e := *given
	if e.Mode == "" {
		e.Mode = modeVIP
	}
	e.Ports = slices.Clone(e.Ports)
	for i := range e.Ports {
		e.Ports[i].Protocol, e.Ports[i].PublishMode = protocolOf(e.Ports[i]), modeOf(e.Ports[i])
	}
	return &e
}

// Defaults answers with the specification with all that holds for it though it does not say so: what GET
// /services/{id}?insertDefaults=true shows. Nothing that spec points to is changed.
func Defaults(spec wire.ServiceSpec) wire.ServiceSpec {
	t := &spec.TaskTemplate
	if t.ContainerSpec != nil {
		c := *t.ContainerSpec
		if c.StopGracePeriod == nil {
			grace := defaultStopGrace
			c.StopGracePeriod = &grace
		}
		if c.DNSConfig == nil {
			c.DNSConfig = &wire.TaskDNS{}
		}
		t.ContainerSpec = &c
	}
	if t.Resources == nil {
		t.Resources = &wire.TaskResources{}
	}
	policy := wire.TaskRestart{Condition: wire.RestartAny, MaxAttempts: new(uint64)}
	if t.RestartPolicy != nil {
		policy = *t.RestartPolicy
	}
	if policy.Delay == nil {
		delay := defaultDelay
		policy.Delay = &delay
	}
	t.RestartPolicy = &policy
	if t.Placement == nil {
		t.Placement = &wire.Placement{}
	}
	spec.UpdateConfig = defaultUpdate(spec.UpdateConfig)
	spec.RollbackConfig = defaultUpdate(spec.RollbackConfig)
	return spec
}

func defaultUpdate(given *wire.UpdateConfig) *wire.UpdateConfig {
	c := wire.UpdateConfig{Parallelism: defaultParallelism}
	if given != nil {
		c = *given
	}
	if c.Monitor == 0 {
		c.Monitor = defaultMonitor
	}
	return completeUpdate(&c)
}
