package runtime

import (
	"context"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/fault"
)

// ownCgroups is cgroups for what has no meaning in a container that is where its creator was.
func (c *Container) ownCgroups() (*cgroup.Manager, error) {
	if c.record.NoCgroup {
		return nil, fault.New(fault.Unavailable, "container %s has no cgroup of its own, as none was delegated to the user who made it", c.ID())
	}
	return c.cgroups()
}

// Pause freezes every process of the container.
func (c *Container) Pause(_ context.Context) error {
	if status := c.status(); status != specs.StateRunning && status != specs.StateCreated {
		return fault.New(fault.Conflict, "container %s is %s, expected running or created", c.ID(), status)
	}
	m, err := c.ownCgroups()
	if err != nil {
		return err
	}
	return m.Freeze()
}

// Resume lets a paused container go on.
func (c *Container) Resume(_ context.Context) error {
	m, err := c.ownCgroups()
	if err != nil {
		return err
	}
	if frozen, err := m.Frozen(); err == nil && !frozen {
		return fault.New(fault.Conflict, "container %s is not paused", c.ID())
	}
	return m.Thaw()
}

// Update changes the limits that r names.
func (c *Container) Update(r *specs.LinuxResources) error {
	if status := c.status(); status == specs.StateStopped {
		return fault.New(fault.Conflict, "container %s has stopped", c.ID())
	}
	m, err := c.ownCgroups()
	if err != nil {
		return err
	}
	if c.record.Unit != nil && r != nil {
		return c.updateUnit(m, r)
	}
	if err := m.Set(r); err != nil || c.record.FewPids == nil || r == nil || r.Pids == nil {
		return err
	}
	c.record.FewPids = nil // it is set to something else
	return c.save()
}

// Stats reads the counters of the container's cgroups.
func (c *Container) Stats() (cgroup.Stats, error) {
	m, err := c.ownCgroups()
	if err != nil {
		return cgroup.Stats{}, err
	}
	return m.Stats()
}

// Pids are the processes of the container, in the caller's numbers.
func (c *Container) Pids() ([]int, error) {
	m, err := c.ownCgroups()
	if err != nil {
		return nil, err
	}
	return m.Pids()
}

// OOMKills says how often the kernel killed a process of the container for want of memory.
func (c *Container) OOMKills() (uint64, error) {
	m, err := c.cgroups()
	if err != nil {
		return 0, err
	}
	return m.OOMKills()
}
