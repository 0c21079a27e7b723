package container

import (
	"context"
	"fmt"

	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Update changes limits and the restart policy; what the request leaves at zero stays as it is.
func (m *Manager) Update(ctx context.Context, ref string, u wire.UpdateRequest) (wire.Warnings, error) {
	answer := wire.Warnings{Warnings: []string{}}
	c, err := m.find(ref)
	if err != nil {
		return answer, err
	}
	if err := c.op.lock(ctx); err != nil {
		return answer, err
	}
	defer c.op.unlock()
	rec, st := c.snapshot()
	h := rec.Host
	overResources(&h.Resources, &u.Resources)
	if u.RestartPolicy.Name != "" {
		if err := validRestart(u.RestartPolicy, h.AutoRemove); err != nil {
			return answer, err
		}
		h.RestartPolicy = u.RestartPolicy
	}
	answer.Warnings = append(answer.Warnings, spec.Adjust(&h)...)
	if err := spec.ValidateResources(&h.Resources); err != nil {
		return answer, err
	}
	resources, err := spec.Resources(&h)
	if err != nil {
		return answer, err
	}
	if st.live() {
		resources.Devices = nil // they are not the request's to change
		if err := m.o.Monitor.Update(ctx, rec.ID, resources); err != nil {
			return answer, fmt.Errorf("Cannot update container %s: %w", rec.ID, err)
		}
	}
	rec.Host = h
	if err := m.putRecord(c, rec); err != nil {
		return answer, fault.As(fault.ClassOf(err), fmt.Errorf("Cannot update container %s: %w", rec.ID, err))
	}
	m.emit(&rec, "update")
	return answer, nil
}

// overResources puts what is set over what was.
func overResources(to, from *wire.Resources) {
	over(&to.CPUShares, from.CPUShares)
	over(&to.NanoCPUs, from.NanoCPUs)
	over(&to.CPUPeriod, from.CPUPeriod)
	over(&to.CPUQuota, from.CPUQuota)
	over(&to.CPURealtimePeriod, from.CPURealtimePeriod)
	over(&to.CPURealtimeRuntime, from.CPURealtimeRuntime)
	over(&to.CpusetCpus, from.CpusetCpus)
	over(&to.CpusetMems, from.CpusetMems)
	over(&to.BlkioWeight, from.BlkioWeight)
	over(&to.MemoryReservation, from.MemoryReservation)
	if from.Memory != 0 && from.MemorySwap == 0 && to.MemorySwap == 2*to.Memory {
		to.MemorySwap = 0 // it came from the old limit, and comes from the new one now
	}
	over(&to.Memory, from.Memory)
	over(&to.MemorySwap, from.MemorySwap)
	if from.PidsLimit != nil {
		to.PidsLimit = from.PidsLimit
	}
	if from.NanoCPUs != 0 {
		to.CPUPeriod, to.CPUQuota = 0, 0
	} else if from.CPUQuota != 0 {
		to.NanoCPUs = 0
	}
}

func over[T comparable](to *T, from T) {
	var zero T
	if from != zero {
		*to = from
	}
}
