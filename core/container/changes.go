package container

import (
	"context"

	"github.com/sampan-project/sampan/core/wire"
)

// Changes lists what the container has changed of its image's files, in the order of paths.
func (m *Manager) Changes(ctx context.Context, ref string) ([]wire.Change, error) {
	c, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	op := m.o.Operations.Begin("container", "changes", c.id)
	changes, err := m.o.Layers.Changes(ctx, c.id)
	op.End(err)
	if err != nil {
		return nil, err
	}
	list := make([]wire.Change, len(changes))
	for i, change := range changes {
		list[i] = wire.Change{Path: change.Path, Kind: int(change.Kind)}
	}
	return list, nil
}
