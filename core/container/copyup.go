package container

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/container/archive"
	"github.com/sampan-project/sampan/core/container/rootfs"
	"github.com/sampan-project/sampan/core/linux"
)

// copyUp fills an empty volume with what the image has at the place where it is mounted.
func (m *Manager) copyUp(ctx context.Context, rec *record, p mountPoint) error {
	return m.o.Volumes.Populate(ctx, p.Name, func(dir string) error {
		// With the ids of the host, which volumes have.
		root, err := m.openStopped(ctx, rec, false)
		if err != nil {
			return err
		}
		defer root.Close()
		from, err := root.Open(p.Destination, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if rootfs.IsMissing(err) {
			return nil
		}
		if err != nil {
			return err
		}
		source := linux.NewRoot(from)
		defer source.Close()
		return copyTree(source, dir)
	})
}

// copyTree copies all of source into a directory of the host.
func copyTree(source *linux.Root, dir string) error {
	to, err := linux.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer to.Close()
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := archive.Write(w, source, archive.WriteOptions{})
		w.CloseWithError(err)
		written <- err
	}()
	err = archive.Extract(r, to, archive.ExtractOptions{})
	r.CloseWithError(errors.New("copy ended"))
	if writeErr := <-written; err == nil && writeErr != nil {
		err = fmt.Errorf("copy: %w", writeErr)
	}
	return err
}
