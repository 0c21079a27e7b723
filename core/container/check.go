package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sampan-project/sampan/core/cgroup/systemd"
	"github.com/sampan-project/sampan/core/check"
	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
)

// Check compares the containers with their rows, their directories, their snapshots, and with what the
// monitor has.
func (m *Manager) Check(ctx context.Context) (found []check.Finding, err error) {
	list, err := m.o.Monitor.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the monitor's containers: %w", err)
	}
	there := map[string]monitor.Status{}
	for _, s := range list {
		there[s.ID] = s
	}
	known := map[string]bool{}
	for _, c := range m.all() {
		known[c.id] = true
		s, is := there[c.id]
		found = append(found, m.checkContainer(ctx, c, s, is)...)
	}
	m.mu.RLock()
	for id := range m.byID { // those that are being made as well
		known[id] = true
	}
	for id := range m.steps {
		known[id] = true
	}
	m.mu.RUnlock()
	for id := range there {
		if !known[id] {
			found = append(found, check.Finding{Kind: "process", Subject: id, Problem: "the monitor has it, and it belongs to no container", Did: "ended it",
				Mend: func(ctx context.Context) error { return m.deleteStranger(ctx, id) }})
		}
	}
	for _, d := range []struct{ kind, path string }{{"directory", m.containersDir()}, {"directory", m.stepDirectory("")}} {
		strangers, err := m.strangers(d.path, known)
		if err != nil {
			return found, err
		}
		found = append(found, strangers...)
	}
	cgroups, err := m.strangeCgroups(known)
	found = append(found, cgroups...)
	if err != nil {
		return found, err
	}
	rubbish, err := m.store.rubbish()
	for _, g := range rubbish {
		found = append(found, check.Finding{Kind: "container", Subject: g.ID, Problem: "it was removed, and some of it is left", Did: "removed the rest",
			Mend: func(ctx context.Context) error { return m.sweep(ctx, g) }})
	}
	return found, err
}

// checkContainer compares one container with what there is of it.
func (m *Manager) checkContainer(ctx context.Context, c *Container, s monitor.Status, there bool) (found []check.Finding) {
	rec, st := c.snapshot()
	c.mu.Lock()
	busy := c.reserved || c.removed || st.Phase == removing
	c.mu.Unlock()
	if busy {
		return nil
	}
	add := func(problem, advice, did string, mend func(context.Context) error) {
		found = append(found, check.Finding{Kind: "container", Subject: rec.ID, Problem: problem, Advice: advice, Did: did, Mend: mend})
	}
	if ok, err := m.store.has(&rec); err == nil && !ok {
		add("the database does not have it", "", "wrote its record", func(ctx context.Context) error { return m.rewrite(ctx, c) })
	}
	if _, err := os.Stat(m.directory(rec.ID)); errors.Is(err, os.ErrNotExist) {
		add("its directory is missing", "", "made it; its log is lost", func(context.Context) error { return m.makeDirectory(rec.ID) })
	}
	if err := m.o.Layers.Whole(ctx, rec.ID); fault.Is(err, fault.NotFound) {
		add("its snapshot, or a layer below it, is missing", "remove the container: what it had written is lost", "", nil)
	}
	for key := range holds(&rec) {
		if err := m.o.Layers.Whole(ctx, key); fault.Is(err, fault.NotFound) {
			add("nothing holds the layers of an image that is mounted in it", "remove the container, or pull its images again", "holds them", func(ctx context.Context) error { return m.hold(ctx, &rec) })
		}
	}
	alive := there && (s.State == monitor.Running || s.State == monitor.Paused)
	switch {
	case st.live() && !alive:
		add(fmt.Sprintf("it is %s, and has no process", st.Phase), "restart the daemon", "", nil)
	case st.live() && s.Pid != st.Pid:
		add(fmt.Sprintf("its process is %d, and the monitor's is %d", st.Pid, s.Pid), "restart the daemon", "", nil)
	case !st.live() && alive:
		add(fmt.Sprintf("it is %s, and has the process %d", st.Phase, s.Pid), "restart the daemon", "", nil)
	}
	if st.live() && alive {
		found = append(found, m.checkNetworks(c, &rec)...)
	}
	return found
}

// rewrite writes the record of a container again, unless it is removed by now.
func (m *Manager) rewrite(ctx context.Context, c *Container) error {
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	defer c.op.unlock()
	if c.isRemoved() {
		return nil
	}
	rec, _ := c.snapshot()
	return m.putRecord(c, rec)
}

// deleteStranger ends what the monitor has and no container is.
func (m *Manager) deleteStranger(ctx context.Context, id string) error {
	m.mu.RLock()
	_, known := m.byID[id]
	known = known || m.steps[id]
	m.mu.RUnlock()
	if known {
		return nil
	}
	if err := m.o.Monitor.Delete(ctx, id, true); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	return nil
}

// strangers are the directories that are named as if they were of a container or a step, and are not.
func (m *Manager) strangers(dir string, known map[string]bool) (found []check.Finding, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if known[e.Name()] || !hexPattern.MatchString(e.Name()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		found = append(found, check.Finding{Kind: "directory", Subject: path, Problem: "it belongs to no container", Did: "removed it",
			Mend: func(context.Context) error { return os.RemoveAll(path) }})
	}
	return found, nil
}

// strangeCgroups looks for cgroups without a container below the daemon's parent, in every hierarchy.
func (m *Manager) strangeCgroups(known map[string]bool) (found []check.Finding, err error) {
	parent := m.o.CgroupParent
	if m.o.SystemdCgroup {
		if parent, err = systemd.SlicePath(parent); err != nil {
			return nil, err
		}
	}
	for _, hierarchy := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		dirs, err := filepath.Glob(filepath.Join(hierarchy, parent, "*"))
		if err != nil {
			return found, err
		}
		for _, dir := range dirs {
			id := filepath.Base(dir)
			if m.o.SystemdCgroup {
				id = strings.TrimSuffix(strings.TrimPrefix(id, spec.ScopePrefix+"-"), ".scope")
			}
			if known[id] || !hexPattern.MatchString(id) {
				continue
			}
			// The kernel keeps one that has processes (cgroups(7)).
			found = append(found, check.Finding{Kind: "cgroup", Subject: dir, Problem: "it belongs to no container", Did: "removed it",
				Mend: func(context.Context) error { return ifThere(os.Remove(dir)) }})
		}
	}
	return found, nil
}

func ifThere(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// setStep notes that a step of a build is running, or no longer is.
func (m *Manager) setStep(id string, runs bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if runs {
		m.steps[id] = true
	} else {
		delete(m.steps, id)
	}
}
