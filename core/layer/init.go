package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/crash"
)

// mountPoint is a place that the engine mounts something on, or that programs expect.
type mountPoint struct {
	path string
	kind uint32 // S_IFDIR, S_IFREG, S_IFLNK
	link string
}

// mountPoints are the same that Docker makes below a container's own files, so that none of them
// counts as something that the container wrote.
var mountPoints = []mountPoint{
	{path: ".dockerenv", kind: unix.S_IFREG}, // programs look for it to know where they are
	{path: "dev", kind: unix.S_IFDIR},
	{path: "dev/console", kind: unix.S_IFREG},
	{path: "dev/pts", kind: unix.S_IFDIR},
	{path: "dev/shm", kind: unix.S_IFDIR},
	{path: "etc", kind: unix.S_IFDIR},
	{path: "etc/hostname", kind: unix.S_IFREG},
	{path: "etc/hosts", kind: unix.S_IFREG},
	{path: "etc/mtab", kind: unix.S_IFLNK, link: "/proc/mounts"},
	{path: "etc/resolv.conf", kind: unix.S_IFREG},
	{path: "proc", kind: unix.S_IFDIR},
	{path: "sys", kind: unix.S_IFDIR},
}

// initLayer makes the directory of mount points that lies between a chain and the containers on it,
// unless it is there. It has only what the chain lacks, and is made once for a chain.
func (s *Store) initLayer(chain digest.Digest) error {
	s.mu.Lock()
	l, err := s.get(chain)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	l.init.Lock()
	defer l.init.Unlock()
	if l.ready {
		return nil
	}
	final := filepath.Join(s.dir(chain), "init")
	if exists(final) {
		l.ready = true
		return nil
	}
	tmp, err := os.MkdirTemp(filepath.Join(s.root, tmpDir), "init-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := s.fillInit(chain, tmp); err != nil {
		return fmt.Errorf("mount points: %w", err)
	}
	crash.Point("mount points", "before rename")
	if err := os.Rename(tmp, final); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("mount points: %w", err)
	}
	crash.Point("mount points", "after rename")
	l.ready = true
	return nil
}

func (s *Store) fillInit(chain digest.Digest, dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	below, err := s.stack(chain)
	if err != nil {
		return err
	}
	defer below.close()
	root, err := openRoot(dir)
	if err != nil {
		return err
	}
	defer root.close()
	implied := map[string]bool{}
	for _, m := range mountPoints {
		if err := m.make(root, below, implied); err != nil {
			return fmt.Errorf("/%s: %w", m.path, err)
		}
	}
	for dir := range implied {
		if err := inherit(root, below, dir); err != nil {
			return fmt.Errorf("/%s: %w", dir, err)
		}
	}
	return nil
}

// make makes the mount point when the chain has nothing there. Where the image has a link, or no
// directory, in the way, it is the image's decision, and the runtime finds the place when it mounts.
func (m mountPoint) make(root *root, below *stack, implied map[string]bool) error {
	there, err := below.lookup(m.path)
	if err != nil {
		return err
	}
	if there != nil {
		there.close()
		return nil
	}
	if dir := path.Dir(m.path); dir != "." {
		lower, err := below.lookup(dir)
		if err != nil {
			return err
		}
		if lower != nil {
			is := lower.isDir()
			lower.close()
			if !is {
				return nil
			}
		}
	}
	fd, base, err := root.parent(m.path, func(dir string) { implied[dir] = true })
	if err != nil {
		return err
	}
	switch m.kind {
	case unix.S_IFDIR:
		return unix.Mkdirat(fd, base, 0o755)
	case unix.S_IFLNK:
		return unix.Symlinkat(m.link, fd, base)
	}
	file, err := unix.Openat(fd, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o755)
	if err != nil {
		return err
	}
	return unix.Close(file)
}
