package runtime

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
)

// separately starts CRIU in a mount namespace where the container's root is a mount of its own, as CRIU
// demands (criu(8), --root), on the container's directory. Nothing of it is ever on the host: it goes
// with CRIU, however that ends.
func (r *restoring) separately(start func() error) error {
	place, err := filepath.EvalSymlinks(r.c.dir)
	if err != nil {
		return err
	}
	r.call.Options.Root = place
	return linux.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		// What the host unmounts meanwhile goes here too, and nothing comes from here.
		if err := mount.Propagate("/", unix.MS_SLAVE|unix.MS_REC); err != nil {
			return err
		}
		if err := r.o.reopen(&r.call.Options); err != nil {
			return err
		}
		if err := r.mountPoints(place); err != nil {
			return err
		}
		root, err := r.mountRoot(place)
		if err != nil {
			return err
		}
		defer root.Close()
		return start()
	})
}

// mountRoot mounts the container's root.
func (r *restoring) mountRoot(place string) (*linux.Root, error) {
	mounts := r.o.RootMounts
	if len(mounts) == 0 {
		mounts = []mount.Mount{{Type: "bind", Source: rootfsOf(r.o.Spec, r.o.Bundle), Target: "/", Options: []string{"rbind"}}}
	}
	root, err := mount.All(place, mounts)
	if err != nil {
		return nil, fmt.Errorf("root.path: %w", err)
	}
	return root, nil
}

// mountPoints makes the places of the spec's mounts, as Create does: the images have none of what lies on
// the root filesystem or on a bind mount. For a place on one of those it is mounted meanwhile.
func (r *restoring) mountPoints(place string) error {
	root, err := r.mountRoot(place)
	if err != nil {
		return err
	}
	defer root.Close()
	var made []string // mounts that CRIU makes, with all that is in them
	for _, m := range r.o.Spec.Mounts {
		at := path.Clean("/" + m.Destination)
		if isBelow(at, made) {
			continue
		}
		if !isBind(m) {
			dir, err := root.MkdirAll(at, 0o755)
			if err != nil {
				return fmt.Errorf("mounts: %w", err)
			}
			dir.Close()
			made = append(made, at)
			continue
		}
		mnt, err := mount.Mount{Type: "bind", Source: source(m, r.o.Bundle), Target: at, Options: []string{"bind"}}.Attach(root)
		if err != nil {
			return fmt.Errorf("mounts: %w", err)
		}
		mnt.Close()
	}
	if err := unix.Unmount(place, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", place, err)
	}
	return nil
}

func isBelow(name string, dirs []string) bool {
	for _, dir := range dirs {
		if strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/") {
			return true
		}
	}
	return false
}
