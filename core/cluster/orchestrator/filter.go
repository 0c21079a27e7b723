package orchestrator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/wire"
)

// filter is one reason for which a node cannot take a task.
type filter struct {
	takes   func(s *step, t *wire.Task, r *room) bool
	one     string // what is said of a single node
	several string // what is said of %d nodes
}

// filters are asked in this order; the first that refuses is the reason.
var filters = []filter{
	{isReady, "1 node not available for new tasks", "%d nodes not available for new tasks"},
	{hasResources, "insufficient resources on 1 node", "insufficient resources on %d nodes"},
	{hasPlugins, "missing plugin on 1 node", "missing plugin on %d nodes"},
	{satisfies, "scheduling constraints not satisfied on 1 node", "scheduling constraints not satisfied on %d nodes"},
	{hasPlatform, "unsupported platform on 1 node", "unsupported platform on %d nodes"},
	{hasPorts, "host-mode port already in use on 1 node", "host-mode port already in use on %d nodes"},
	{underMaximum, "max replicas per node limit exceed", "max replicas per node limit exceed"},
}

// refusals count by filter the nodes that cannot take a task.
type refusals [7]int

// fits says that a node can take the task, or notes why not.
func (s *step) fits(t *wire.Task, r *room, why *refusals) bool {
	for i, f := range filters {
		if !f.takes(s, t, r) {
			why[i]++
			return false
		}
	}
	return true
}

// String tells the reasons, the most frequent first.
func (why refusals) String() string {
	order := make([]int, 0, len(why))
	for i, n := range why {
		if n > 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(why[b], why[a]) })
	var said []string
	for _, i := range order {
		switch f := filters[i]; {
		case why[i] == 1 || !strings.Contains(f.several, "%d"):
			said = append(said, f.one)
		default:
			said = append(said, fmt.Sprintf(f.several, why[i]))
		}
	}
	return strings.Join(said, "; ")
}

func isReady(_ *step, _ *wire.Task, r *room) bool {
	return r.node.Status.State == wire.NodeReady && r.node.Spec.Availability == wire.AvailabilityActive
}

func hasResources(_ *step, t *wire.Task, r *room) bool {
	need := reservations(t)
	return (need.NanoCPUs == 0 || need.NanoCPUs <= r.cpu) && (need.MemoryBytes == 0 || need.MemoryBytes <= r.memory)
}

// hasPlugins asks for the drivers of volumes and of the log. A node that tells no log drivers has not been asked.
func hasPlugins(_ *step, t *wire.Task, r *room) bool {
	has := func(kind, name string) (found, told bool) {
		for _, p := range r.node.Description.Engine.Plugins {
			if p.Type == kind {
				told = true
				found = found || p.Name == name || p.Name == name+":latest"
			}
		}
		return found, told
	}
	if d := t.Spec.LogDriver; d != nil && d.Name != "" && d.Name != "none" {
		if found, told := has("Log", d.Name); told && !found {
			return false
		}
	}
	if t.Spec.ContainerSpec == nil {
		return true
	}
	for _, m := range t.Spec.ContainerSpec.Mounts {
		if m.Type != "volume" || m.VolumeOptions == nil || m.VolumeOptions.DriverConfig == nil {
			continue
		}
		if name := m.VolumeOptions.DriverConfig.Name; name != "" && name != "local" {
			if found, _ := has("Volume", name); !found {
				return false
			}
		}
	}
	return true
}

func satisfies(s *step, t *wire.Task, r *room) bool {
	return matches(s.constraintsOf(t.Spec.Placement), r.node)
}

func hasPlatform(_ *step, t *wire.Task, r *room) bool {
	if t.Spec.Placement == nil || len(t.Spec.Placement.Platforms) == 0 {
		return true
	}
	is := r.node.Description.Platform
	return slices.ContainsFunc(t.Spec.Placement.Platforms, func(p wire.NodePlatform) bool {
		return (p.OS == "" || p.OS == is.OS) &&
			(p.Architecture == "" || architecture(p.Architecture) == architecture(is.Architecture))
	})
}

// architecture is a machine's by Go's name, which images have; nodes may tell it by the kernel's.
func architecture(name string) string {
	switch name {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	}
	return name
}

func hasPorts(_ *step, t *wire.Task, r *room) bool {
	return !slices.ContainsFunc(hostPorts(t), func(p hostPort) bool { return r.ports[p] })
}

func underMaximum(_ *step, t *wire.Task, r *room) bool {
	p := t.Spec.Placement
	return p == nil || p.MaxReplicas == 0 || uint64(r.of[t.ServiceID]) < p.MaxReplicas
}
