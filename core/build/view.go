package build

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
)

// openRoot opens what a store's mounts show at "/" without mounting it anywhere: the filesystem is made
// and lives as long as the handle (fsmount(2)). Nobody else can see it, and a killed daemon leaves
// nothing.
func openRoot(mounts []mount.Mount) (*linux.Root, error) {
	i := slices.IndexFunc(mounts, func(m mount.Mount) bool { return m.Target == "/" })
	if i < 0 || len(mounts) != 1 {
		return nil, fmt.Errorf("open root filesystem: %d mounts: expected one of the root", len(mounts))
	}
	fs, err := linux.NewFilesystem(mounts[i].Type)
	if err != nil {
		return nil, fmt.Errorf("open root filesystem: %w", err)
	}
	defer fs.Close()
	for _, option := range mounts[i].Options {
		if err := setOption(fs, option); err != nil {
			return nil, fmt.Errorf("open root filesystem: %w", err)
		}
	}
	dir, err := fs.Mount(unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open root filesystem: %w", err)
	}
	return linux.NewRoot(dir), nil
}

func setOption(fs *linux.Filesystem, option string) error {
	key, value, has := strings.Cut(option, "=")
	if !has {
		return fs.SetFlag(key)
	}
	if key != "lowerdir" || len(value) <= linux.MaxOption {
		return fs.SetString(key, value)
	}
	// Too long for one option: layer by layer (Linux 6.5), or under shorter names of the same. The
	// layer store's paths have no colon in them.
	dirs := strings.Split(value, ":")
	if err := fs.SetString("lowerdir+", dirs[0]); err != nil {
		return fs.SetDirs("lowerdir", dirs)
	}
	for _, dir := range dirs[1:] {
		if err := fs.SetString("lowerdir+", dir); err != nil {
			return err
		}
	}
	return nil
}

// read runs fn on the files of a result, to be read.
func (v *solve) read(r result, fn func(*linux.Root) error) error {
	var root *linux.Root
	var err error
	if r.local != nil {
		root, err = linux.OpenRoot(r.local.dir)
	} else {
		var mounts []mount.Mount
		if mounts, err = v.o.Layers.View(r.chain()); err == nil {
			root, err = openRoot(mounts)
		}
	}
	if err != nil {
		return err
	}
	defer root.Close()
	return fn(root)
}

// names returns the names in a directory in byte order, which digests and copies rely on.
func names(dir *os.File) ([]string, error) {
	f, err := linux.OpenAt(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := f.Readdirnames(-1)
	slices.Sort(list)
	return list, err
}

// procPath names what a handle is of, for the calls that take only paths.
func procPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
