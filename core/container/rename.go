package container

import (
	"context"
	"fmt"

	"github.com/sampan-project/sampan/core/fault"
)

// Rename gives the container another name.
func (m *Manager) Rename(ctx context.Context, ref, name string) error {
	if name = trimSlash(name); name == "" {
		return fault.New(fault.Invalid, "Neither old nor new names may be empty")
	}
	if err := validName(name); err != nil {
		return fmt.Errorf("Error when allocating new name: %w", err)
	}
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	defer c.op.unlock()
	rec, _ := c.snapshot()
	old := rec.Name
	if old == name {
		return fault.New(fault.Invalid, "Renaming a container with the same name as its current name")
	}
	m.mu.Lock()
	if other := m.names[name]; other != nil {
		m.mu.Unlock()
		return fmt.Errorf("Error when allocating new name: %w", nameConflict(name, other))
	}
	m.names[name] = c
	m.mu.Unlock()
	rec.Name = name
	drop := name
	if err = m.putRecord(c, rec); err == nil {
		drop = old
	}
	m.mu.Lock()
	if m.names[drop] == c {
		delete(m.names, drop)
	}
	m.mu.Unlock()
	if err != nil {
		return fmt.Errorf("rename container %s: %w", old, err)
	}
	if err := m.o.Network.Rename(ctx, c.id, name); err != nil && !fault.Is(err, fault.NotFound) {
		m.log.Warn("tell the networks a container's new name", "container", c.id, "error", err)
	}
	m.emit(&rec, "rename", "oldName", "/"+old)
	return nil
}

// putRecord replaces the record of a container whose op lock is held.
func (m *Manager) putRecord(c *Container, rec record) error {
	if c.isRemoved() {
		return noSuch(rec.ID)
	}
	if err := m.store.put(rec); err != nil {
		return err
	}
	c.mu.Lock()
	c.rec = rec
	c.mu.Unlock()
	return nil
}
