package mount

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// IDMap shows ids through a user namespace.
type IDMap struct {
	UserNS *os.File
	// UID and GID are what its root is outside.
	UID, GID int
}

// Detached performs mounts, of which the first is the root, where nobody sees them, and returns a handle
// of the root: at, an empty directory, is in a mount namespace that belongs to one thread and ends with
// it. The handle keeps the mounts alive.
//
// With ids, files keep the ids that they have on disk, and what has Layers shows through the mapping: of
// an overlay also the layer that is written to; a bind only where its filesystem can. The result is then
// a tree that can be attached elsewhere.
func Detached(at string, mounts []Mount, ids *IDMap) (tree *os.File, err error) {
	err = linux.OnThread(func() error {
		if err := linux.SeparateMounts(); err != nil {
			return err
		}
		root, err := ids.all(at, mounts)
		if err != nil {
			return err
		}
		if len(mounts) < 2 && ids == nil {
			tree = root.Dir()
			return nil
		}
		// With the namespace what is mounted below the root would end too: a copy of the tree keeps it.
		defer root.Close()
		tree, err = linux.CloneTree(root.Dir(), "", true)
		return err
	})
	if err != nil {
		return nil, err
	}
	return tree, nil
}

// all is All with mapped ids, on a thread of its own with a mount namespace of its own.
func (ids *IDMap) all(at string, mounts []Mount) (root *linux.Root, err error) {
	if ids == nil {
		return All(at, mounts)
	}
	// Before there is a mapping over the layers, which may be beside what is bound.
	binds, err := ids.binds(mounts)
	defer func() {
		for _, tree := range binds {
			tree.Close()
		}
	}()
	if err == nil {
		err = ids.layers(mounts)
	}
	// The overlay writes with the rights of who mounts it, and makes files of its own as that user: an id
	// that is mapped.
	if err == nil {
		err = linux.SetFilesystemUser(ids.UID, ids.GID)
	}
	if err == nil {
		root, err = linux.OpenRoot(at)
	}
	if err != nil {
		return nil, err
	}
	for i, m := range mounts {
		tree, bind := binds[i]
		if !bind {
			if root, err = m.attachTo(root); err != nil {
				return nil, err
			}
			continue
		}
		delete(binds, i)
		mnt, err := m.AttachTree(root, tree)
		if err != nil {
			root.Close()
			return nil, err
		}
		mnt.Close()
	}
	return root, nil
}

// binds makes the trees of the binds: mapped, or as they are where nobody says that they can be, or the
// filesystem cannot.
func (ids *IDMap) binds(mounts []Mount) (trees map[int]*os.File, err error) {
	trees = map[int]*os.File{}
	for i, m := range mounts {
		if m.Type != "bind" {
			continue
		}
		userns := ids.UserNS
		if m.Layers == "" {
			userns = nil
		}
		tree, err := m.Tree(userns)
		if userns != nil && fault.Is(err, fault.NotImplemented) {
			tree, err = m.Tree(nil)
		}
		if err != nil {
			return trees, err
		}
		trees[i] = tree
	}
	return trees, nil
}

// layers puts an id-mapped mount over each directory that has layers of an overlay: the names of the
// layers then lead through it. An overlay takes copies of the mounts that its layers are on, with their
// mapping (overlayfs has taken such layers since Linux 5.19).
func (ids *IDMap) layers(mounts []Mount) error {
	done := map[string]bool{}
	for _, m := range mounts {
		if m.Type == "bind" || m.Layers == "" || done[m.Layers] {
			continue
		}
		done[m.Layers] = true
		tree, err := linux.CloneTree(nil, m.Layers, false)
		if err != nil {
			return err
		}
		defer tree.Close()
		if err := idmap(tree, ids.UserNS, false); err != nil {
			return fmt.Errorf("layers in %s: %w", m.Layers, err)
		}
		over, err := linux.OpenAt(nil, m.Layers, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer over.Close()
		if err := linux.MoveMount(tree, over); err != nil {
			return err
		}
	}
	return nil
}

// Probe reports why the layers below a directory cannot be shown through a mapping, nil when they can:
// it makes an overlay of two directories there and throws it away.
func Probe(dir string, ids *IDMap) error {
	work, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	for _, name := range []string{"/lower", "/upper", "/work", "/at"} {
		if err := os.Mkdir(work+name, 0o755); err != nil {
			return err
		}
	}
	tree, err := Detached(work+"/at", []Mount{{
		Type: "overlay", Source: "overlay", Target: "/", Layers: dir,
		Options: []string{"lowerdir=" + work + "/lower", "upperdir=" + work + "/upper", "workdir=" + work + "/work"},
	}}, ids)
	if err != nil {
		return err
	}
	defer tree.Close()
	st, err := linux.Fstat(tree)
	if err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(tree.Fd()), &fs); err != nil {
		return err
	}
	if fs.Flags&unix.ST_RDONLY != 0 { // what an overlay does when it cannot use its work directory
		return fault.New(fault.NotImplemented, "overlay: nothing can be written through mapped ids here")
	}
	if int(st.Uid) != ids.UID || int(st.Gid) != ids.GID {
		return fault.New(fault.NotImplemented, "overlay: this kernel does not map the ids of layers: Linux 5.19 or newer does")
	}
	return nil
}
