package cgroup

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// base are the controllers that every container joins, where the host has them: their files are
// needed to count, to freeze and to confine. All others are joined when a limit asks for them.
var base = []string{"cpu", "cpuacct", "memory", "pids", "freezer", "devices", "blkio", "io"}

// setting is one write. Of several files the first that the kernel has is written.
type setting struct {
	field     string // as config.json names it
	given     string
	hierarchy *hierarchy
	files     []file
	optional  bool // says only what is so anyhow: a kernel without the file is right
}

type file struct{ name, value string }

// plan is what a set of limits comes to on this host.
type plan struct {
	m           *Manager
	settings    []setting
	controllers []string // that settings are about
	err         error
}

// plan translates limits and device rules; nothing is written.
func (m *Manager) plan(r *specs.LinuxResources) (*plan, error) {
	p := &plan{m: m}
	if r.Memory != nil {
		p.memory(r.Memory)
	}
	if r.CPU != nil {
		p.cpu(r.CPU)
	}
	if r.Pids != nil {
		p.pids(r.Pids)
	}
	if r.BlockIO != nil {
		p.blockIO(r.BlockIO)
	}
	for _, h := range r.HugepageLimits {
		p.hugetlb(h)
	}
	if r.Network != nil {
		p.network(r.Network)
	}
	for device, limit := range r.Rdma {
		p.rdma(device, limit)
	}
	for key, value := range r.Unified {
		p.raw(key, value)
	}
	return p, p.err
}

// put plans one setting. A list of files that is nil says that this version of cgroups has no such limit.
func (p *plan) put(controller, field string, given any, v1, v2 []file) {
	h := p.m.host.of(controller)
	s := setting{field: "linux.resources." + field, given: fmt.Sprint(given), hierarchy: h}
	switch {
	case h == nil:
		p.refuse(&s, fault.New(fault.Invalid, "%s %q: this host has no %s cgroup controller", s.field, s.given, controller))
		return
	case h.unified:
		s.files = v2
	default:
		s.files = v1
	}
	if s.files == nil {
		p.refuse(&s, fault.New(fault.Invalid, "%s %q: the %s controller of this host's cgroup version has no such limit", s.field, s.given, controller))
		return
	}
	p.settings = append(p.settings, s)
	if !slices.Contains(p.controllers, controller) {
		p.controllers = append(p.controllers, controller)
	}
}

// optional makes the setting that was planned last optional.
func (p *plan) optional() {
	if n := len(p.settings); n > 0 {
		p.settings[n-1].optional = true
	}
}

// one is the list with one file.
func one(name string, value any) []file { return []file{{name, fmt.Sprint(value)}} }

// refuse takes note of a limit that cannot be: a warning with Clamp, else the error of the plan.
func (p *plan) refuse(s *setting, err error) {
	if p.m.o.Clamp {
		p.m.o.Logger.Warn("limit not set", "limit", s.field, "value", s.given, "error", err)
		return
	}
	p.fail(err)
}

// fail keeps the first error.
func (p *plan) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

// apply writes the settings. Some pairs can be written only in one order, which depends on what was
// set before (memory with swap below memory alone, a quota above its burst): what fails is tried again
// after the rest, as long as anything succeeds.
func (m *Manager) apply(p *plan) error {
	todo := p.settings
	for len(todo) > 0 {
		var failed []setting
		var first error
		for _, s := range todo {
			if err := m.write(&s); err != nil {
				failed = append(failed, s)
				if first == nil {
					first = err
				}
			}
		}
		if len(failed) < len(todo) {
			todo = failed
			continue
		}
		if !m.o.Clamp {
			return first
		}
		for i := range failed {
			m.o.Logger.Warn("limit not set", "limit", failed[i].field, "value", failed[i].given, "error", m.write(&failed[i]))
		}
		return nil
	}
	return nil
}

func (m *Manager) write(s *setting) error {
	dir := s.hierarchy.mount + m.path + "/"
	var err error
	for _, f := range s.files {
		if err = writeFile(dir+f.name, f.value); !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	switch {
	case err == nil, s.optional && errors.Is(err, unix.ENOENT) && exists(dir):
		return nil
	case errors.Is(err, unix.ENOENT) && exists(dir) && s.hierarchy.unified && !s.hierarchy.delegated(dir, s.files[0].name):
		return fault.New(fault.Invalid, "%s %q: the cgroup does not have the controller of %s, which is not delegated to it", s.field, s.given, s.files[0].name)
	case errors.Is(err, unix.ENOENT) && exists(dir):
		return fault.New(fault.Invalid, "%s %q: this kernel has no %s", s.field, s.given, s.files[0].name)
	case errors.Is(err, unix.EBUSY) && strings.HasPrefix(s.field, "linux.resources.memory."):
		usage, _ := readFile(dir + "memory.usage_in_bytes") //nolint:errcheck // decoration
		return fault.New(fault.Conflict, "%s %q: more is in use (%s bytes): %w", s.field, s.given, usage, err)
	}
	return fault.New(fault.Invalid, "%s %q: the kernel refuses it: %w", s.field, s.given, err)
}

// delegated reports whether a cgroup has the controller of a file.
func (h *hierarchy) delegated(dir, file string) bool {
	controller, _, _ := strings.Cut(file, ".")
	list, err := readFile(dir + "cgroup.controllers")
	return err != nil || slices.Contains(strings.Fields(list), controller)
}
