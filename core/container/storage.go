package container

import (
	"context"
	"errors"
	"strings"

	"github.com/docker/go-units"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/wire"
)

// size is how many bytes the container may write in its own layer: --storage-opt size=, or the daemon's overlay2.size.
// 0 is no limit. The options are those of dockerd's overlay2, whose words the errors have.
func (m *Manager) size(h *wire.HostConfig) (uint64, error) {
	size := m.o.StorageSize
	for key, value := range h.StorageOpt {
		if strings.ToLower(key) != "size" {
			return 0, fault.New(fault.Invalid, "Unknown option %s", shortened(key))
		}
		n, err := units.RAMInBytes(value)
		if err != nil || n < 0 {
			return 0, fault.New(fault.Invalid, "invalid size: '%s'", shortened(value))
		}
		size = uint64(n)
	}
	return size, nil
}

// validateStorage refuses a limit that nobody would keep.
func (m *Manager) validateStorage(rec *record) error {
	for key := range rec.Host.StorageOpt {
		if strings.ToLower(key) == "size" {
			if err := m.o.Layers.CanLimit(); err != nil {
				return err
			}
		}
	}
	_, err := m.size(&rec.Host)
	return err
}

// prepareRoot makes the container's snapshot, with its limit.
func (m *Manager) prepareRoot(ctx context.Context, rec *record) ([]mount.Mount, error) {
	size, err := m.size(&rec.Host)
	if err != nil {
		return nil, err
	}
	mounts, err := m.o.Layers.Prepare(ctx, rec.ID, rec.Chain)
	if err == nil && size > 0 {
		if err = m.o.Layers.Limit(ctx, rec.ID, size); err != nil {
			err = errors.Join(err, m.o.Layers.Remove(context.WithoutCancel(ctx), rec.ID))
		}
	}
	return mounts, err
}
