package runtime

import (
	"context"
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/cgroup/systemd"
	"github.com/sampan-project/sampan/core/fault"
)

// prepareUnit finds out the unit of the container and its properties, so that what cannot be is told
// before anything is made. The unit is started when there is a first process for it (placing).
func (c *Container) prepareUnit(ctx context.Context, o cgroup.Options) error {
	if err := systemd.Running(); err != nil {
		return err
	}
	unified, err := cgroup.Unified()
	if err != nil {
		return err
	}
	uid, ordinary := systemd.Ordinary()
	if ordinary && !unified {
		return fault.New(fault.NotImplemented, "systemd makes cgroups for user %d on cgroup v2 alone, and this host has v1", uid)
	}
	unit, err := systemd.Parse(c.record.Spec.Linux.CgroupsPath, c.record.ID, ordinary)
	if err != nil {
		return err
	}
	limits, err := systemd.Round(c.record.Spec.Linux.Resources)
	if err != nil {
		return err
	}
	if c.bus, err = systemd.Dial(ctx, ordinary); err != nil {
		return err
	}
	path, err := unit.Path(c.bus.Root())
	if err != nil {
		return err
	}
	m, err := cgroup.Open(path, o)
	if err != nil {
		return err
	}
	limits = limitsFor(limits, ordinary)
	if err := m.Check(limits); err != nil {
		return err
	}
	dialect := systemd.Dialect{Unified: unified, Version: c.bus.Version(), Devices: !ordinary}
	properties, err := dialect.Properties(limits, c.record.Spec.Annotations)
	if err != nil {
		return err
	}
	c.placing = func(pid int) error {
		if err := c.bus.Start(ctx, unit, pid, properties); err != nil {
			if !fault.Is(err, fault.Conflict) { // else it is another container's, and stays
				c.bus.Stop(context.WithoutCancel(ctx), unit) //nolint:errcheck // the first error tells more
			}
			return err
		}
		// From here on unit and cgroup are ours to remove. Should we die before the record says so: the
		// process ends with us, and the unit with it.
		c.cgroup, c.record.Cgroup, c.record.Unit = m, path, &unit
		if !unit.Delegated() {
			if err := m.Add(pid); err != nil {
				return fault.New(fault.Forbidden, "unit %s: systemd moves no process into a slice, expected a scope or the right to do it: %w", unit.Name, err)
			}
		}
		if err := m.Adopt(pid, limits); err != nil {
			return err
		}
		return c.delegate()
	}
	return nil
}

// limitsFor are the limits with device rules, which every container of root has, and which an
// ordinary user can make none of.
func limitsFor(r *specs.LinuxResources, ordinary bool) *specs.LinuxResources {
	out := specs.LinuxResources{}
	if r != nil {
		out = *r
	}
	switch {
	case ordinary:
		out.Devices = nil
	case out.Devices == nil:
		out.Devices = []specs.LinuxDeviceCgroup{}
	}
	return &out
}

// hangUp ends what was needed while the container was made.
func (c *Container) hangUp() {
	if c.bus != nil {
		c.bus.Close() //nolint:errcheck // nothing is under way
	}
	c.bus, c.placing = nil, nil
}

// dial connects with the systemd that has the container's unit.
func (c *Container) dial(ctx context.Context) (*systemd.Bus, error) {
	return systemd.Dial(ctx, c.record.Unit.User)
}

// updateUnit changes limits: first systemd is told, then the files are written.
func (c *Container) updateUnit(m *cgroup.Manager, r *specs.LinuxResources) error {
	if err := m.CheckUsage(r); err != nil {
		return err
	}
	whole := *r
	if err := m.Current(&whole); err != nil {
		return err
	}
	limits, err := systemd.Round(&whole)
	if err != nil {
		return err
	}
	if err := m.Check(limits); err != nil {
		return err
	}
	ctx := context.Background()
	b, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer b.Close() //nolint:errcheck // nothing is under way
	dialect := systemd.Dialect{Unified: m.Unified(), Version: b.Version(), Devices: len(r.Devices) > 0 && !c.record.Unit.User}
	properties, err := dialect.Limits(limits)
	if err != nil {
		return err
	}
	if err := c.tell(ctx, b, m, properties, dialect.Devices && !m.Unified()); err != nil {
		return err
	}
	return m.Set(limits)
}

// tell sets properties. On v1 systemd takes all devices away before it gives some back, which a container
// is not to see: it is frozen meanwhile.
func (c *Container) tell(ctx context.Context, b *systemd.Bus, m *cgroup.Manager, properties []systemd.Property, still bool) error {
	if still {
		frozen, err := m.Frozen()
		if err != nil {
			return err
		}
		if still = !frozen; still {
			if err := m.Freeze(); err != nil {
				return err
			}
		}
	}
	err := b.Set(ctx, *c.record.Unit, properties)
	if still {
		err = errors.Join(err, m.Thaw())
	}
	return err
}

// leaveUnit lets systemd forget the unit. When that cannot be, the cgroup is removed all the same, which
// systemd sees: a container can be deleted when its user's session is over.
func (c *Container) leaveUnit(ctx context.Context) {
	if c.record.Unit == nil {
		return
	}
	ctx = context.WithoutCancel(ctx)
	b, err := c.dial(ctx)
	if err == nil {
		err = errors.Join(b.Stop(ctx, *c.record.Unit), b.Close())
	}
	if err != nil {
		c.warn(fmt.Sprintf("unit %s could not be stopped: %v", c.record.Unit.Name, err))
	}
}

// throughSystemd reports whether a further process must be moved into the cgroup by systemd: an
// ordinary user has no right over the cgroup that is above both it and the container.
func (c *Container) throughSystemd() bool {
	return c.record.Unit != nil && c.record.Unit.User && c.record.Unit.Delegated()
}

// attach lets systemd move a process to the container's cgroup or below.
func (c *Container) attach(ctx context.Context, sub cgroup.Sub, pid int) error {
	below := ""
	for controller, path := range sub {
		if controller != "" {
			return &fault.Field{Field: "cgroup", Given: controller + ":" + path, Expected: "a path without controllers: this host has cgroup v2 alone"}
		}
		below = path
	}
	b, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer b.Close() //nolint:errcheck // nothing is under way
	return b.Attach(ctx, *c.record.Unit, below, pid)
}
