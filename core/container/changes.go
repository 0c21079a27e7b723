package container

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/container/rootfs"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/wire"
)

// Changes lists what the container has changed of its image's files, in the order of paths.
func (m *Manager) Changes(ctx context.Context, ref string) ([]wire.Change, error) {
	c, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	rec, _ := c.snapshot()
	upper := m.o.Layers.Paths(rec.ID)["UpperDir"]
	if upper == "" {
		return nil, fault.New(fault.Internal, "container %s has no writable layer", rec.Name)
	}
	view, err := m.o.Layers.View(rec.Chain)
	if err != nil {
		return nil, err
	}
	image, err := rootfs.Open(m.mountPoint(), view)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	written, err := os.OpenRoot(upper)
	if err != nil {
		return nil, err
	}
	defer written.Close()
	list := []wire.Change{}
	err = fs.WalkDir(written.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || name == "." {
			return nil // the container removed it meanwhile
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // as above
		}
		if kind, ok := changeOf(image, name, info); ok {
			list = append(list, wire.Change{Path: "/" + name, Kind: kind})
		}
		return nil
	})
	return list, err
}

// changeOf compares an entry of the overlay's upper directory with the image. A character device 0:0
// is a whiteout (Documentation/filesystems/overlayfs.rst).
func changeOf(image *linux.Root, name string, info fs.FileInfo) (kind int, ok bool) {
	if st, isStat := info.Sys().(*syscall.Stat_t); isStat && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
		return wire.ChangeDeleted, true
	}
	below, err := image.OpenNoFollow(path.Join("/", name), unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return wire.ChangeAdded, true
	}
	below.Close()
	return wire.ChangeModified, true
}
