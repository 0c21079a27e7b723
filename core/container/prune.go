package container

import (
	"context"
	"strconv"

	"github.com/sampan-project/sampan/core/event"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Prune removes the containers that do not run and that match the filters "until", "label", "label!".
func (m *Manager) Prune(ctx context.Context, given map[string][]string) (wire.ContainersPrune, error) {
	var pruned wire.ContainersPrune
	match, err := m.newFilter(ctx, given)
	if err != nil {
		return pruned, err
	}
	for _, c := range m.sorted() {
		v := m.view(c)
		if v.state.live() || v.state.Phase == restarting || v.state.Phase == removing || !match(v) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return pruned, err
		}
		size, _ := m.sizes(ctx, &v.rec)
		switch err := m.Remove(ctx, c.id, RemoveOptions{}); {
		case fault.Is(err, fault.NotFound), fault.Is(err, fault.Conflict): // somebody removed or started it
		case err != nil:
			return pruned, err
		default:
			pruned.ContainersDeleted = append(pruned.ContainersDeleted, c.id)
			pruned.SpaceReclaimed += uint64(max(0, size))
		}
	}
	m.o.Events.Emit(event.Container, "prune", "", map[string]string{"reclaimed": strconv.FormatUint(pruned.SpaceReclaimed, 10)})
	return pruned, nil
}
