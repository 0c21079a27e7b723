package layer

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// A snapshot can have a limit of bytes: a project quota of XFS on its directory, which the kernel keeps. Each such
// snapshot has a project of its own, above that of the store's directory, so that an administrator can keep others'
// numbers apart from ours (as with dockerd). The filesystem is the only place where they are written down.

// quotas are what is known of the projects.
type quotas struct {
	once sync.Once
	err  error // why there are none

	mu   sync.Mutex
	next uint32 // the next project that nobody has
}

// errNoQuota is in Docker's words, on which people search.
var errNoQuota = fault.New(fault.Invalid, "--storage-opt is supported only for overlay over xfs with 'pquota' mount option")

// CanLimit says why snapshots can have no limit, nil when they can.
func (s *Store) CanLimit() error {
	s.quotas.once.Do(func() {
		err := s.findProjects()
		if err != nil {
			s.log.Debug("snapshots can have no limit", "error", err)
			err = errNoQuota
		}
		s.quotas.err = err
	})
	return s.quotas.err
}

// findProjects tries whether the filesystem keeps limits, and finds the first project that is free.
func (s *Store) findProjects() error {
	if !onXFS(s.root) {
		return errNoQuota // ext4 keeps them too, but not from who has CAP_SYS_RESOURCE, as the overlay's mounter
	}
	root, err := os.Open(s.root)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // a handle of a directory
	last, err := linux.Project(root)
	if err != nil {
		return err
	}
	for _, pattern := range []string{"*/diff", tmpDir + "/*/diff"} { // also of what is being removed
		dirs, err := filepath.Glob(filepath.Join(s.root, pattern))
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			id, err := projectOf(dir)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			last = max(last, id)
		}
	}
	s.quotas.next = last + 1
	return linux.LimitProject(root, s.quotas.next, 0)
}

func onXFS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.XFS_SUPER_MAGIC
}

// projectOf is the project of a directory; none of what is no directory, as the files of a layer that are shown
// from elsewhere.
func projectOf(path string) (id uint32, err error) {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() {
		return 0, err
	}
	err = openDir(path, func(dir *os.File) error {
		id, err = linux.Project(dir)
		return err
	})
	return id, err
}

func openDir(path string, do func(*os.File) error) error {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(do(dir), dir.Close())
}

// Limit bounds what can be written in a snapshot on which nothing was written yet, or changes its limit. 0 is none.
func (s *Store) Limit(_ context.Context, key string, bytes uint64) error {
	if err := s.CanLimit(); err != nil {
		return err
	}
	name, _, err := s.snapshot(key)
	if err != nil {
		return err
	}
	top := filepath.Join(s.root, name)
	base, err := projectOf(s.root)
	if err != nil {
		return err
	}
	id, err := projectOf(top)
	if err != nil {
		return err
	}
	if id == base {
		s.quotas.mu.Lock()
		id = s.quotas.next
		s.quotas.next++
		s.quotas.mu.Unlock()
	}
	for _, dir := range []string{top, filepath.Join(top, "diff"), filepath.Join(top, "work")} {
		if err := openDir(dir, func(f *os.File) error { return linux.SetProject(f, id) }); err != nil {
			return err
		}
	}
	return openDir(top, func(f *os.File) error { return linux.LimitProject(f, id, bytes) })
}

// spare is more than XFS wants to have free of a project in which a directory is made.
const spare = 1 << 20

// Ease lets a snapshot that has a limit have a little more, or no longer: while its overlay is mounted. The mount makes a
// directory beside, and would be read-only where that fails: what fills it could not even be removed.
func (s *Store) Ease(_ context.Context, key string, more bool) error {
	if !s.xfs {
		return nil
	}
	name, _, err := s.snapshot(key)
	if err != nil {
		return err
	}
	base, err := projectOf(s.root)
	if err != nil {
		return err
	}
	top := filepath.Join(s.root, name)
	id, err := projectOf(top)
	if err != nil || id == base {
		return err
	}
	var bytes uint64
	if more {
		bytes = spare
	}
	err = openDir(top, func(f *os.File) error { return linux.EaseProject(f, id, bytes) })
	if fault.Is(err, fault.NotImplemented) {
		return nil // it is mounted without quotas now, and keeps no limit
	}
	return err
}

// unlimit gives a directory that is about to be put away the project of the store again: into a directory that passes
// another one on nothing can be renamed (EXDEV). Its files keep theirs until they are gone.
func (s *Store) unlimit(dir string) error {
	if !s.xfs {
		return nil
	}
	base, err := projectOf(s.root)
	if err != nil {
		return err
	}
	id, err := projectOf(dir)
	if err != nil || id == base {
		return err
	}
	return openDir(dir, func(f *os.File) error {
		return errors.Join(linux.LimitProject(f, id, 0), linux.SetProject(f, base))
	})
}
