package container

import (
	"context"
	"fmt"
	"reflect"
	"strings"

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
	if err := updateConflict(&h, &u); err != nil {
		return answer, fmt.Errorf("Cannot update container %s: %w", rec.ID, err)
	}
	overResources(&h.Resources, &u.Resources)
	if u.RestartPolicy.Name != "" {
		if err := validRestart(u.RestartPolicy, false); err != nil {
			return answer, err
		}
		h.RestartPolicy = u.RestartPolicy
	}
	if names := unchanged(&h.Resources, &u.Resources); len(names) > 0 {
		answer.Warnings = append(answer.Warnings, "An update does not change, and left as they are: "+strings.Join(names, ", ")+".")
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

// updateConflict is what an update says that does not go with what was said before.
func updateConflict(h *wire.HostConfig, u *wire.UpdateRequest) error {
	for _, c := range []struct {
		option, set string
		conflict    bool
	}{
		{"Nano CPUs", "CPU Period", u.NanoCPUs > 0 && h.CPUPeriod > 0},
		{"Nano CPUs", "CPU Quota", u.NanoCPUs > 0 && h.CPUQuota > 0},
		{"CPU Period", "NanoCPUs", u.CPUPeriod > 0 && h.NanoCPUs > 0},
		{"CPU Quota", "NanoCPUs", u.CPUQuota > 0 && h.NanoCPUs > 0},
	} {
		if c.conflict {
			return fault.New(fault.Conflict, "Conflicting options: %s cannot be updated as %s has already been set", c.option, c.set)
		}
	}
	if h.AutoRemove && u.RestartPolicy.Name != "" && u.RestartPolicy.Name != "no" {
		return fault.New(fault.Conflict, "Restart policy cannot be updated because AutoRemove is enabled for the container")
	}
	derived := h.MemorySwap == 2*h.Memory // it follows the limit; see overResources
	if u.Memory > 0 && u.MemorySwap == 0 && h.MemorySwap > 0 && u.Memory > h.MemorySwap && !derived {
		return fault.New(fault.Conflict, "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	}
	return nil
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
}

// unchanged names what was asked for and is not so in what was made of it: what an update does not change. Docker's
// daemon says nothing of that, so it is no error.
func unchanged(made, asked *wire.Resources) (names []string) {
	a, b := reflect.ValueOf(made).Elem(), reflect.ValueOf(asked).Elem()
	for i := range b.NumField() {
		f := b.Field(i)
		empty := f.IsZero() || f.Kind() == reflect.Slice && f.Len() == 0
		if !empty && !reflect.DeepEqual(a.Field(i).Interface(), f.Interface()) {
			names = append(names, b.Type().Field(i).Tag.Get("json"))
		}
	}
	return names
}

func over[T comparable](to *T, from T) {
	var zero T
	if from != zero {
		*to = from
	}
}
