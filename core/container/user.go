package container

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/container/rootfs"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/volume"
)

// maxAccounts bounds /etc/passwd and /etc/group of a container.
const maxAccounts = 4 << 20

// account is a user as a container's files know them.
type account struct {
	User specs.User
	Home string
}

// userCache remembers what a wanted user is in an image: a container that has never run has the
// image's /etc/passwd, and looking into it costs a mount.
type userCache struct{ known sync.Map } // userKey -> account

type userKey struct{ chain, user, groups string }

// lookupUser finds "name", "uid", "name:group" and so on in the root's /etc/passwd and /etc/group,
// and the further groups of --group-add.
func lookupUser(root *linux.Root, wanted string, groupAdd []string) (account, error) {
	passwd, err := accounts(root, "/etc/passwd")
	if err != nil {
		return account{}, err
	}
	group, err := accounts(root, "/etc/group")
	if err != nil {
		return account{}, err
	}
	u, err := user.GetExecUser(wanted, &user.ExecUser{Home: "/"}, reader(passwd), reader(group))
	if err != nil {
		return account{}, fault.As(fault.Invalid, err) // "unable to find user x: no matching entries in passwd file"
	}
	more, err := user.GetAdditionalGroups(groupAdd, reader(group))
	if err != nil {
		return account{}, fault.As(fault.Invalid, err)
	}
	a := account{Home: u.Home, User: specs.User{UID: uint32(u.Uid), GID: uint32(u.Gid)}}
	for _, g := range append(append([]int{u.Gid}, u.Sgids...), more...) {
		if !slices.Contains(a.User.AdditionalGids, uint32(g)) {
			a.User.AdditionalGids = append(a.User.AdditionalGids, uint32(g))
		}
	}
	return a, nil
}

func accounts(root *linux.Root, name string) ([]byte, error) {
	data, err := rootfs.ReadFile(root, name, maxAccounts)
	if rootfs.IsMissing(err) {
		return nil, nil
	}
	return data, err
}

// reader is nil for a file that is missing.
func reader(data []byte) io.Reader {
	if data == nil {
		return nil
	}
	return bytes.NewReader(data)
}

// user finds the user of the container's process. pristine says that the container has never run.
func (m *Manager) user(ctx context.Context, rec *record, pristine bool) (account, error) {
	key := userKey{rec.Chain.String(), rec.Config.User, strings.Join(rec.Host.GroupAdd, "\x00")}
	if pristine {
		if a, ok := m.users.known.Load(key); ok {
			return a.(account), nil
		}
	}
	root, err := m.openSnapshot(ctx, rec.ID)
	if err != nil {
		return account{}, err
	}
	defer root.Close()
	a, err := lookupUser(root, rec.Config.User, rec.Host.GroupAdd)
	if err == nil && pristine {
		m.users.known.Store(key, a)
	}
	return a, err
}

// openSnapshot opens the root filesystem of a container that does not run.
func (m *Manager) openSnapshot(ctx context.Context, id string) (*linux.Root, error) {
	mounts, err := m.o.Layers.Mounts(ctx, id)
	if err != nil {
		return nil, err
	}
	return rootfs.Open(m.mountPoint(), mounts, nil)
}

// openRoot opens the root filesystem of a container as it is now: what its processes see while it
// runs, the snapshot otherwise, with volumes mounted on it if they are wanted.
func (m *Manager) openRoot(ctx context.Context, c *Container, volumes bool) (*linux.Root, error) {
	rec, st := c.snapshot()
	if st.live() {
		if root, err := rootfs.OfProcess(st.Pid); err == nil {
			return root, nil
		}
	}
	// One at a time: of two that mount the same snapshot at once, the kernel makes directories in the way of the other.
	if err := c.op.lock(ctx); err != nil {
		return nil, err
	}
	defer c.op.unlock()
	if c.isRemoved() {
		return nil, noSuch(rec.Name)
	}
	if rec, st = c.snapshot(); st.live() {
		if root, err := rootfs.OfProcess(st.Pid); err == nil {
			return root, nil
		}
	}
	root, err := m.openStopped(ctx, &rec, volumes)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", rec.Name, err)
	}
	return root, nil
}

// wholeStill is the error of what was read of a container that was removed meanwhile: files that go are passed over.
func (m *Manager) wholeStill(ctx context.Context, rec *record) error {
	err := m.o.Layers.Whole(ctx, rec.ID)
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.Conflict, "container %s was removed before its files were read", rec.Name)
	}
	return err
}

// openStopped opens the snapshot, with the container's volumes and binds on it if they are wanted. What a
// tmpfs had is gone.
func (m *Manager) openStopped(ctx context.Context, rec *record, volumes bool) (*linux.Root, error) {
	mounts, err := m.o.Layers.Mounts(ctx, rec.ID)
	if err != nil {
		return nil, err
	}
	if !volumes {
		return m.openMapped(&rec.Host, mounts)
	}
	// What is mounted for volumes is needed until it is bound.
	claim := rec.ID + " " + volume.NewName()
	defer func() {
		if err := m.o.Volumes.Unmount(context.WithoutCancel(ctx), claim); err != nil {
			m.log.Error("unmount the volumes of a container", "container", rec.ID, "error", err)
		}
	}()
	list, err := m.specMounts(ctx, rec, claim)
	if err != nil {
		return nil, err
	}
	own, err := m.imageMounts(ctx, rec)
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		if s.Type == "bind" {
			own = append(own, mount.Mount{Type: s.Type, Source: s.Source, Target: s.Destination, Options: s.Options})
		}
	}
	slices.SortStableFunc(own, func(a, b mount.Mount) int { // one below another comes after it
		return strings.Count(a.Target, "/") - strings.Count(b.Target, "/")
	})
	return m.openMapped(&rec.Host, append(mounts, own...))
}
