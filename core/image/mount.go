package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

// mounts are the images whose files are shown on the host, read-only, by where. A row of the boot's database
// is written before the mount is made, so that the next daemon finds it and the layers stay.
type mounts struct {
	mu   sync.Mutex
	held map[string]*lease
}

// mountRow is one mount, under its path.
type mountRow struct {
	Image string        `json:"image"` // as it was named
	ID    digest.Digest `json:"id"`
	Own   bool          `json:"own"` // the directory is the store's, and goes with the mount
}

func (s *Store) mountRows() (*state.Table[mountRow], error) {
	if s.o.RunDB == nil || s.o.MountRoot == "" {
		return nil, fault.New(fault.NotImplemented, "images cannot be mounted by this store")
	}
	return state.NewTable[mountRow](s.o.RunDB, "image-mounts"), nil
}

// Mount shows the files of an image at a path, "" for a directory of its own, until Unmount, and returns the
// path. What is mounted stays whole, also when the image is removed meanwhile.
func (s *Store) Mount(_ context.Context, ref, path string) (string, error) {
	rows, err := s.mountRows()
	if err != nil {
		return "", err
	}
	l := s.lease()
	e, _, err := s.leased(l, func() (*entry, error) { return s.find(ref) })
	if err == nil {
		err = e.runnable(ref)
	}
	if err != nil {
		l.end()
		return "", err
	}
	s.mounts.mu.Lock()
	defer s.mounts.mu.Unlock()
	row := mountRow{Image: ref, ID: e.record.ID, Own: path == ""}
	if row.Own {
		path = filepath.Join(s.o.MountRoot, e.record.ID.Encoded())
		if _, mounted := s.mounts.held[path]; mounted {
			l.end()
			return path, nil
		}
		err = os.MkdirAll(path, 0o755)
	} else {
		path, err = mountPlace(path)
	}
	if err == nil && s.mounts.held[path] != nil {
		err = fault.New(fault.Conflict, "%s: an image is mounted there already", path)
	}
	if err == nil {
		err = s.mountAt(rows, l, e, path, row)
	}
	if err != nil {
		l.end()
		return "", fmt.Errorf("mount image %s: %w", ref, err)
	}
	return path, nil
}

// mountPlace checks the directory that a user has named.
func mountPlace(path string) (string, error) {
	bad := &fault.Field{Field: "path", Given: path, Expected: "the absolute path of a directory"}
	if !filepath.IsAbs(path) {
		return "", bad
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fault.As(fault.Invalid, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fault.As(fault.Invalid, err)
	}
	if !info.IsDir() {
		return "", bad
	}
	return path, nil
}

func (s *Store) mountAt(rows *state.Table[mountRow], l *lease, e *entry, path string, row mountRow) error {
	for _, layer := range e.Layers {
		l.chain(layer.Chain)
	}
	view, err := s.o.Layers.View(e.ChainID)
	if err != nil {
		return err
	}
	for i := range view {
		// On the host an image's set-user-ID programs and devices would be those of whoever made it.
		view[i].Options = append(view[i].Options, "nosuid", "nodev")
	}
	if err := rows.Put(path, row); err != nil {
		return err
	}
	root, err := mount.All(path, view)
	if err != nil {
		return errors.Join(err, s.forgetMount(rows, path, row))
	}
	root.Close()
	if s.mounts.held == nil {
		s.mounts.held = map[string]*lease{}
	}
	s.mounts.held[path] = l
	return nil
}

func (s *Store) forgetMount(rows *state.Table[mountRow], path string, row mountRow) error {
	if row.Own {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return rows.Delete(path)
}

// Mounts lists the images that are mounted, by path.
func (s *Store) Mounts(context.Context) ([]wire.ImageMount, error) {
	list := []wire.ImageMount{}
	rows, err := s.mountRows()
	if err != nil {
		return list, nil //nolint:nilerr // where none can be there is none
	}
	all, err := rows.All()
	if err != nil {
		return nil, err
	}
	for path, row := range all {
		list = append(list, wire.ImageMount{Image: row.Image, ID: row.ID.String(), Path: path})
	}
	return list, nil
}

// Unmount takes the mounts of an image, or the one at a path, away, or all, and returns their paths.
func (s *Store) Unmount(_ context.Context, ref string, all bool) ([]string, error) {
	rows, err := s.mountRows()
	if err != nil {
		return nil, err
	}
	s.mounts.mu.Lock()
	defer s.mounts.mu.Unlock()
	var id digest.Digest
	if e, err := s.find(ref); err == nil && !all {
		id = e.record.ID
	}
	gone := []string{}
	for _, path := range slices.Sorted(maps.Keys(s.mounts.held)) {
		row, err := rows.Get(path)
		if err != nil {
			return gone, err
		}
		if !all && path != filepath.Clean(ref) && row.Image != ref && (id == "" || row.ID != id) && !isMountID(row, ref) {
			continue
		}
		if err := s.unmountAt(rows, path, row, 0); err != nil {
			return gone, err
		}
		gone = append(gone, path)
	}
	if len(gone) == 0 && !all {
		return nil, fault.New(fault.NotFound, "image %s is not mounted", ref)
	}
	return gone, nil
}

// isMountID reports whether a reference is the ID of a mounted image, which may be gone itself.
func isMountID(row mountRow, ref string) bool {
	const shortest = 12
	return len(ref) >= shortest && strings.HasPrefix(row.ID.Encoded(), strings.TrimPrefix(ref, "sha256:"))
}

func (s *Store) unmountAt(rows *state.Table[mountRow], path string, row mountRow, flags int) error {
	err := unix.Unmount(path, flags|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		return fault.New(fault.Conflict, "%s: a process uses what is mounted there", path)
	}
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // somebody else has unmounted it
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := s.forgetMount(rows, path, row); err != nil {
		return err
	}
	if l := s.mounts.held[path]; l != nil {
		l.end()
	}
	delete(s.mounts.held, path)
	return nil
}

// restoreMounts takes the mounts of an earlier daemon over, and forgets those that are no more.
func (s *Store) restoreMounts() error {
	rows, err := s.mountRows()
	if err != nil {
		return nil //nolint:nilerr // there are none
	}
	list, err := s.Mounts(context.Background())
	if err != nil {
		return err
	}
	s.mounts.mu.Lock()
	defer s.mounts.mu.Unlock()
	s.mounts.held = map[string]*lease{}
	for _, m := range list {
		row, err := rows.Get(m.Path)
		if err != nil {
			return err
		}
		e := s.byID(row.ID)
		if e == nil || !isMountPoint(m.Path) {
			// Without its row nobody keeps the layers: what is mounted there is no image any more.
			if err := s.unmountAt(rows, m.Path, row, unix.MNT_DETACH); err != nil {
				return err
			}
			continue
		}
		l := s.lease()
		l.blob(e.blobs()...)
		for _, layer := range e.Layers {
			l.chain(layer.Chain)
		}
		s.mounts.held[m.Path] = l
	}
	return nil
}

// isMountPoint reports whether another filesystem begins at a directory.
func isMountPoint(path string) bool {
	var at, above unix.Stat_t
	if unix.Lstat(path, &at) != nil || unix.Lstat(filepath.Dir(path), &above) != nil {
		return false
	}
	return at.Dev != above.Dev
}

// CloseMounts takes all mounts away, also those that are in use: nothing of the store stays on the host.
func (s *Store) CloseMounts() error {
	rows, err := s.mountRows()
	if err != nil {
		return nil //nolint:nilerr // there are none
	}
	s.mounts.mu.Lock()
	defer s.mounts.mu.Unlock()
	var errs []error
	for path := range maps.Clone(s.mounts.held) {
		row, err := rows.Get(path)
		if err == nil {
			err = s.unmountAt(rows, path, row, unix.MNT_DETACH)
		}
		errs = append(errs, err)
	}
	if err := os.Remove(s.o.MountRoot); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
