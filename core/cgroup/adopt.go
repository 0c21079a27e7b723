package cgroup

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// Adopt completes cgroups that somebody else made for a process that is already in them: directories
// are made in the hierarchies in which there is none, the process joins those, and the limits are set.
// With nil Resources.Devices no device rules are set: who made the cgroups may have set them.
func (m *Manager) Adopt(pid int, r *specs.LinuxResources) error {
	if m.host.pure() && !exists(m.host.unified.mount+m.path) {
		return fault.New(fault.NotFound, "cgroup %s: there is none, expected the one that process %d was placed in", m.path, pid)
	}
	if r == nil {
		r = &specs.LinuxResources{}
	}
	plan, err := m.plan(r)
	if err != nil {
		return err
	}
	for _, h := range m.host.all {
		if err := m.adoptIn(h, plan); err != nil {
			return err
		}
	}
	if !m.host.pure() {
		// Also where it is already: of a v1 hierarchy systemd may have made the directory alone.
		if err := m.Add(pid); err != nil {
			return err
		}
	}
	if err := m.apply(plan); err != nil || r.Devices == nil {
		return err
	}
	return m.setDevices(r.Devices, true)
}

// Check finds out, before anything is made, whether the limits can be at all.
func (m *Manager) Check(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	if _, err := rules(r.Devices); err != nil {
		return err
	}
	_, err := m.plan(r)
	return err
}

func (m *Manager) adoptIn(h *hierarchy, p *plan) error {
	wanted := h.wanted(p.controllers, m.host.pure())
	switch {
	case h.unified && len(wanted) > 0:
		// Those that systemd does not know, such as hugetlb.
		if err := h.enable(path.Dir(m.path), wanted); err != nil {
			return err
		}
		if !m.host.pure() {
			return h.mkdirAll(m.path)
		}
		return nil
	case h.unified || len(wanted) == 0:
		return nil
	}
	if err := h.mkdirAll(m.path); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	if h.has("cpuset") {
		return h.inheritCpuset(m.path) // systemd leaves an empty one
	}
	return nil
}

// Current fills in what belongs to limits that are given by half, from what is in force: the quota of
// a period and the period of a quota, and the memory of a limit for memory and swap together.
func (m *Manager) Current(r *specs.LinuxResources) error {
	if c := r.CPU; c != nil && given(c.Quota) != given(c.Period) {
		quota, period, err := m.bandwidth()
		if err != nil {
			return err
		}
		with := *c
		if !given(c.Quota) {
			with.Quota = &quota
		} else {
			with.Period = &period
		}
		r.CPU = &with
	}
	h := m.host.of("memory")
	if s := r.Memory; s != nil && given(s.Swap) && *s.Swap > 0 && !given(s.Limit) && h != nil && h.unified {
		limit, err := number(h.mount + m.path + "/memory.max")
		if err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
		if limit > 0 && limit < 1<<63 {
			with := *s
			with.Limit = new(int64)
			*with.Limit = int64(limit)
			r.Memory = &with
		}
	}
	return nil
}

// bandwidth is the quota that is in force, -1 for none, and its period.
func (m *Manager) bandwidth() (quota int64, period uint64, err error) {
	quota, period = -1, 100000
	h := m.host.of("cpu")
	if h == nil {
		return quota, period, nil
	}
	dir := h.mount + m.path
	var q, p string
	if h.unified {
		text, err := readFile(dir + "/cpu.max")
		if errors.Is(err, unix.ENOENT) {
			return quota, period, nil
		}
		if err != nil {
			return 0, 0, fmt.Errorf("cgroup: %w", err)
		}
		q, p, _ = strings.Cut(text, " ")
	} else {
		if q, err = readFile(dir + "/cpu.cfs_quota_us"); err == nil {
			p, err = readFile(dir + "/cpu.cfs_period_us")
		}
		if err != nil {
			return 0, 0, fmt.Errorf("cgroup: %w", err)
		}
	}
	if n, err := strconv.ParseInt(q, 10, 64); err == nil { // "max" is none
		quota = n
	}
	if n, err := strconv.ParseUint(p, 10, 64); err == nil {
		period = n
	}
	return quota, period, nil
}

// Weight is the weight of v2 that CPU shares come to.
func Weight(shares uint64) uint64 { return weight(shares) }

// IOWeight is the weight of v2 that a weight for block devices comes to.
func IOWeight(w uint16) uint64 { return ioWeight(w) }

// Device are devices that are allowed: -1 stands for all numbers, Access is of the letters rwm.
type Device struct {
	Type         byte // 'b' or 'c'
	Major, Minor int64
	Access       string
}

// AllowedDevices puts device rules as a list of what is allowed, for those who know no other: with those
// that are always allowed. all says that everything is. ok is false when the rules allow
// everything but something, or all of a kind but something.
func AllowedDevices(given []specs.LinuxDeviceCgroup) (list []Device, all, ok bool, err error) {
	checked, err := rules(given)
	if err != nil {
		return nil, false, false, err
	}
	allow, rest := decisive(checked)
	if allow {
		return nil, len(dropAllows(rest)) == 0, len(dropAllows(rest)) == 0, nil
	}
	wanted, err := exceptions(false, rest)
	if err != nil {
		return nil, false, false, nil //nolint:nilerr // they cannot be put like this
	}
	for _, w := range wanted {
		_, access, _ := strings.Cut(strings.TrimPrefix(w.text(w.kind), string(w.kind)+" "), " ")
		list = append(list, Device{w.kind, w.major, w.minor, access})
	}
	return list, false, true, nil
}

// Unified reports whether this host has cgroup v2 alone.
func Unified() (bool, error) {
	h, err := thisHost()
	return err == nil && h.pure(), err
}
