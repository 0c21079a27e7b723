package network

import (
	"context"
	"errors"
	"fmt"
)

// Down lets every driver remove what it has made on the host: bridges, routes and rules. It is for the
// end of a daemon under which no container is left, so that an engine that is off leaves nothing
// behind. The networks stay known, and Reconcile makes them again.
func (m *Manager) Down(ctx context.Context) error {
	var errs []error
	for _, name := range m.driversInUse() {
		if err := m.down(ctx, name); err != nil {
			errs = append(errs, fmt.Errorf("network driver %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func (m *Manager) down(ctx context.Context, name string) error {
	driver, leave, err := m.enter(ctx, name)
	if err != nil {
		return err
	}
	leave()
	m.mu.Lock()
	g := m.gate(name)
	m.mu.Unlock()
	g.Lock()
	defer g.Unlock()
	if err := driver.Reconcile(ctx, m.owner, nil, nil); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries {
		if e.Driver == name {
			e.made = false
		}
	}
	return nil
}
