package mount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// Tree makes the detached mount of a bind, for a process in another mount or user namespace that has
// not the right to make it: it may not reach the source, or may not map ids. The mount takes part in
// what the host mounts below it, not the reverse. userns is the mapping for "idmap" and "ridmap"; nil
// without them.
func (m Mount) Tree(userns *os.File) (*os.File, error) {
	o, err := m.ParseOptions()
	if err != nil {
		return nil, err
	}
	mnt, err := linux.CloneTree(nil, m.Source, o.Recursive)
	if err != nil {
		return nil, m.wrap(err)
	}
	err = linux.SetMount(mnt, &unix.MountAttr{Propagation: unix.MS_SLAVE}, true)
	if err == nil && userns != nil {
		err = idmap(mnt, userns, o.IDMapTree)
	}
	if err != nil {
		mnt.Close()
		return nil, m.wrap(err)
	}
	return mnt, nil
}

// idmap shows the ids of a detached mount through the mapping of a user namespace (mount_setattr(2),
// MOUNT_ATTR_IDMAP).
func idmap(mnt, userns *os.File, recursive bool) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())}
	err := linux.SetMount(mnt, &attr, recursive)
	switch {
	case errors.Is(err, unix.EINVAL):
		return fault.New(fault.NotImplemented, "idmap: the filesystem or this kernel cannot map ids, or it is mapped already: %w", err)
	case errors.Is(err, unix.EPERM):
		return fault.New(fault.Forbidden, "idmap: expected the right CAP_SYS_ADMIN over the filesystem: %w", err)
	case err != nil:
		return fmt.Errorf("idmap: %w", err)
	}
	return nil
}

// AttachTree is Attach for a mount that Tree has made, which is then closed in any case.
func (m Mount) AttachTree(root *linux.Root, tree *os.File, checks ...func(target *os.File) error) (*os.File, error) {
	return m.attach(root, tree, checks)
}
