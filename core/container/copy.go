package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/container/archive"
	"github.com/sampan-project/sampan/core/container/rootfs"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/wire"
)

// noSuchPath is the error for a path that the container does not have; clients match on its words.
func noSuchPath(ref, name string, err error) error {
	if !rootfs.IsMissing(err) {
		return err
	}
	return fault.New(fault.NotFound, "Could not find the file %s in container %s", shortened(name), ref)
}

// resolved is the path as openat2 takes it: a trailing slash, or "/.", follows a symbolic link at the end.
func resolved(name string) (clean string, follow bool) {
	return path.Clean("/" + name), strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.")
}

// StatPath describes a file of the container.
func (m *Manager) StatPath(ctx context.Context, ref, name string) (wire.PathStat, error) {
	c, err := m.find(ref)
	if err != nil {
		return wire.PathStat{}, err
	}
	root, err := m.openRoot(ctx, c, true)
	if err != nil {
		return wire.PathStat{}, err
	}
	defer root.Close()
	clean, follow := resolved(name)
	if follow {
		clean += "/."
	}
	s, err := archive.Stat(root, clean)
	return s, noSuchPath(ref, name, err)
}

// CopyFrom returns a file of the container, or a directory with all that is in it, as a tar archive.
func (m *Manager) CopyFrom(ctx context.Context, ref, name string) (io.ReadCloser, wire.PathStat, error) {
	c, err := m.find(ref)
	if err != nil {
		return nil, wire.PathStat{}, err
	}
	root, err := m.openRoot(ctx, c, true)
	if err != nil {
		return nil, wire.PathStat{}, err
	}
	clean, follow := resolved(name)
	at := clean
	if follow {
		at += "/."
	}
	stat, err := archive.Stat(root, at)
	if err != nil {
		root.Close()
		return nil, wire.PathStat{}, noSuchPath(ref, name, err)
	}
	ids := m.mappingNow(c)
	rec, _ := c.snapshot()
	r, w := io.Pipe()
	m.later(func() {
		defer root.Close()
		err := writePath(w, root, clean, follow, archive.WriteOptions{Name: archiveName(name), IDs: ids})
		if err == nil {
			err = m.wholeStill(m.ctx, &rec)
		}
		w.CloseWithError(err)
	})
	m.emit(&rec, "archive-path")
	return r, stat, nil
}

// archiveName is what a path is called in its archive: its last element, which is "." for what is in a
// directory, "DIR/.".
func archiveName(name string) string {
	if strings.HasSuffix(name, "/.") && path.Clean(name) != "/" {
		return "."
	}
	return path.Base(path.Clean("/" + name))
}

// writePath writes the archive of one path.
func writePath(w io.Writer, root *linux.Root, clean string, follow bool, o archive.WriteOptions) error {
	if follow || clean == "/" {
		dir, err := root.Open(clean, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		sub := linux.NewRoot(dir)
		defer sub.Close()
		return archive.Write(w, sub, o)
	}
	dir, err := root.Open(path.Dir(clean), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return archive.WriteFile(w, dir, path.Base(clean), o)
}

// CopyTo extracts a tar archive into a directory of the container. noOverwriteDirNonDir refuses to
// replace a directory by something else, and the reverse; copyUIDGID gives the files to the
// container's user.
func (m *Manager) CopyTo(ctx context.Context, ref, name string, r io.Reader, noOverwriteDirNonDir, copyUIDGID bool) error {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	rec, _ := c.snapshot()
	root, err := m.openRoot(ctx, c, true)
	if err != nil {
		return err
	}
	defer root.Close()
	clean, _ := resolved(name)
	dir, err := root.Open(clean, unix.O_PATH, 0)
	if err != nil {
		return noSuchPath(ref, name, err)
	}
	defer dir.Close()
	if isDir, err := linux.IsDir(dir); err != nil || !isDir {
		return errors.Join(err, fault.New(fault.Invalid, "extraction point is not a directory"))
	}
	if err := refuseReadonly(&rec, dir.Fd(), clean); err != nil {
		return err
	}
	o := archive.ExtractOptions{Dir: clean, KeepKind: noOverwriteDirNonDir, IDs: m.mappingNow(c)}
	if copyUIDGID && rec.Config.User != "" {
		a, err := lookupUser(root, rec.Config.User, nil)
		if err != nil {
			return err
		}
		o.Owner = &archive.Owner{UID: int(a.User.UID), GID: int(a.User.GID)}
	}
	plain, err := archive.Decompress(bufio.NewReader(r))
	if err != nil {
		return err
	}
	defer plain.Close()
	if err := archive.Extract(plain, root, o); err != nil {
		return fmt.Errorf("copy into container %s: %w", rec.Name, err)
	}
	m.emit(&rec, "extract-to-dir")
	return nil
}

// refuseReadonly refuses to write where the container itself could not.
func refuseReadonly(rec *record, fd uintptr, name string) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(fd), &st); err != nil {
		return err
	}
	mounted := false
	for _, p := range rec.Mounts {
		if name == p.Destination || strings.HasPrefix(name, p.Destination+"/") {
			mounted = true
			if !p.RW {
				return fault.New(fault.Forbidden, "mounted volume is marked read-only")
			}
		}
	}
	if rec.Host.ReadonlyRootfs && !mounted || st.Flags&unix.ST_RDONLY != 0 {
		return fault.New(fault.Forbidden, "container rootfs is marked read-only")
	}
	return nil
}
