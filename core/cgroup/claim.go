package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// # Claims
//
// Cgroups are made some milliseconds before the first process is in them, and until then look as empty as those
// that a container has left. So who makes cgroups keeps a lock on the directory of one hierarchy, the first, until
// it says Release: nobody takes them for old ones meanwhile. It is an flock(2), which the kernel gives up when its
// process ends, however it ends.
//
//	New      first hierarchy: mkdir, lock; there is one: lock, rmdir if it is empty, and again
//	         the others: mkdir; there is one: rmdir if it is empty, mkdir
//	Release  unlock: the processes that are in it speak for it now
//	Delete   lock, rmdir the others, rmdir the first
//
// Who removes does not depend on the lock, which everything that can open the directory can take, and so a process
// of the container: it only keeps a creation of the same path waiting until all is removed. That the cgroups are those
// of the container at all it knows by the inode of the first directory, which the kernel gives to no other.

// claimWait is how long New waits for another creation or a removal of the same path.
const claimWait = 100 * time.Millisecond

// errMoved says that the directory that was opened is not the one that has the path.
var errMoved = errors.New("the directory was replaced")

// first is the hierarchy whose directory is locked: the first of those in which every container has one. nil when
// there is none, as where v1 has no controllers that are for every container.
func (h *host) first() *hierarchy {
	i := slices.IndexFunc(h.all, func(x *hierarchy) bool { return h.pure() || len(x.wanted(nil, false)) > 0 })
	if i < 0 {
		return nil
	}
	return h.all[i]
}

// claim makes the directory in the first hierarchy, in place of an empty one, and holds its lock.
func (m *Manager) claim(h *hierarchy) error {
	dir := h.mount + m.path
	for end := time.Now().Add(claimWait); ; {
		// Until it is locked only we and root may open it.
		err := h.mkdirBelow(m.path, 0o700)
		fresh := err == nil
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		lock, id, err := lockDir(dir)
		switch {
		case err == nil && fresh:
			m.lock, m.id = lock, id
			if err := lock.Chmod(dirMode); err != nil {
				return errors.Join(err, removeTree(dir, end))
			}
			return nil
		case err == nil:
			err = removeOld(dir)
			unlock(lock)
			if err != nil {
				return err
			}
		case errors.Is(err, unix.EWOULDBLOCK):
			if err := vacant(dir); err != nil {
				return err
			}
			if time.Now().After(end) {
				return fault.New(fault.Conflict, "%s is being used by another creation or removal, expected none", dir)
			}
			time.Sleep(time.Millisecond)
		case !errors.Is(err, errMoved) && !gone(err):
			return err
		}
	}
}

// lockDir locks a directory, and returns with the lock what tells the directory from another one of its name. The
// error is EWOULDBLOCK when somebody else has locked it, errMoved when it was replaced meanwhile.
func lockDir(dir string) (*os.File, uint64, error) {
	fd, err := retryOpen(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return nil, 0, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	if err := linux.Retry(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		f.Close()
		return nil, 0, &os.PathError{Op: "flock", Path: dir, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unlock(f)
		return nil, 0, &os.PathError{Op: "fstat", Path: dir, Err: err}
	}
	if now, err := inode(dir); err != nil || now != st.Ino {
		unlock(f)
		return nil, 0, errMoved
	}
	return f, st.Ino, nil
}

// unlock gives the lock up, also where a process that is being started has a copy of the file for a moment.
func unlock(f *os.File) {
	unix.Flock(int(f.Fd()), unix.LOCK_UN) //nolint:errcheck // then it goes with the file
	f.Close()
}

// inode is the number of a cgroup: kernfs gives none twice.
func inode(dir string) (uint64, error) {
	var st unix.Stat_t
	err := linux.Retry(func() error { return unix.Stat(dir, &st) })
	return st.Ino, err
}

// Release says that the first process has joined the cgroups that New has made: others who are asked for the same
// path see it, and need no longer be kept away.
func (m *Manager) Release() {
	if m == nil || m.lock == nil {
		return
	}
	unlock(m.lock)
	m.lock = nil
}

// ID tells the cgroups that New has made from others that have the path later. 0: not known.
func (m *Manager) ID() uint64 { return m.id }

// Own makes the Manager one of the cgroups with that ID alone: Pids, Kill, Delete and DeleteEmpty find nothing
// where others have taken their place.
func (m *Manager) Own(id uint64) { m.id = id }

// lost reports whether others have the path now.
func (m *Manager) lost() bool {
	if m.id == 0 || m.lock != nil {
		return false
	}
	h := m.host.first()
	if h == nil {
		return false
	}
	now, err := inode(h.mount + m.path)
	return err == nil && now != m.id
}

// guard keeps creations of the same path away from its cgroups until done is called. ours is false when others have
// it. One that is about to take their place is waited for, but not for ever: see above.
func (m *Manager) guard() (done func(), ours bool) {
	nothing := func() {}
	h := m.host.first()
	if m.lock != nil || h == nil {
		return nothing, true
	}
	for end := time.Now().Add(claimWait); ; time.Sleep(time.Millisecond) {
		lock, id, err := lockDir(h.mount + m.path)
		if err == nil && (m.id == 0 || id == m.id) {
			return func() { unlock(lock) }, true
		}
		if err == nil {
			unlock(lock)
			return nothing, false
		}
		wait := m.id != 0 && (errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, errMoved))
		if m.lost() {
			return nothing, false
		}
		if !wait || time.Now().After(end) {
			return nothing, true
		}
	}
}

// removal are the hierarchies in the order in which cgroups are removed: the one with the lock at last.
func (m *Manager) removal() []*hierarchy {
	first := m.host.first()
	if first == nil {
		return m.host.all
	}
	rest := slices.DeleteFunc(slices.Clone(m.host.all), func(h *hierarchy) bool { return h == first })
	return append(rest, first)
}

// mkdirBelow makes a directory, and those above it where they are missing.
func (h *hierarchy) mkdirBelow(p string, mode uint32) error {
	err := h.mkdir(p, mode)
	if errors.Is(err, unix.ENOENT) {
		if err = h.mkdirAll(path.Dir(p)); err == nil {
			err = h.mkdir(p, mode)
		}
	}
	return err
}

// removeOld removes an empty cgroup, whose limits are those of a container that is gone.
func removeOld(dir string) error {
	if err := vacant(dir); err != nil {
		return err
	}
	return removeTree(dir, time.Now().Add(removeWait))
}

// vacant is an error about a cgroup that has processes in it.
func vacant(dir string) error {
	var pids []int
	if err := collect(dir, &pids); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	if len(pids) > 0 {
		return fault.New(fault.Conflict, "%s exists and has %d processes in it (one is %d), expected none", dir, len(pids), pids[0])
	}
	return nil
}
