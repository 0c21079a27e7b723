package layer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
)

// Commit makes the staged files the layer on top of the chain parent. When that layer is there
// already, or another Commit makes it first, these files are thrown away and the answer is the
// layer that is there. In any case the staged layer is used up.
func (st *Staged) Commit(ctx context.Context, parent digest.Digest) (_ Layer, err error) {
	defer st.Discard() // does nothing when the directory has become the layer's
	s := st.store
	chain := Chain(parent, st.DiffID)
	s.mu.Lock()
	if l, ok := s.layers[chain]; ok {
		l.released = false
		s.mu.Unlock()
		if st.shown == nil && isShown(s.dir(chain)) {
			// What is shown has been promised to have this diff ID, and these files have it.
			return l.Layer, s.Replace(ctx, chain, st)
		}
		return l.Layer, nil
	}
	if _, err := s.get(parent); err != nil {
		s.mu.Unlock()
		return Layer{}, fmt.Errorf("commit layer: parent: %w", err)
	}
	s.use(parent, 1) // nobody removes it meanwhile
	s.mu.Unlock()
	defer func() {
		if err != nil {
			s.unuse(parent)
		}
	}()
	if err := st.settle(ctx, parent); err != nil {
		return Layer{}, fmt.Errorf("commit layer: %w", err)
	}
	l, err := st.publish(Layer{ChainID: chain, DiffID: st.DiffID, Parent: parent, Size: st.Size})
	if err == nil && st.provisional { // what is below may have come in the meantime
		if err := s.resettle(chain); err != nil {
			s.log.Warn("layer", "error", err)
		}
	}
	return l, err
}

// publish gives the directory its final name. It keeps the use of the parent that Commit took,
// except when the layer came to be meanwhile.
func (st *Staged) publish(l Layer) (Layer, error) {
	s := st.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, ok := s.layers[l.ChainID]; ok {
		other.released = false
		s.use(l.Parent, -1) // the other layer itself keeps the parent in use
		return other.Layer, nil
	}
	l.Link = s.newLink()
	err := st.rename(l)
	if err != nil {
		s.unlink(l.Link)
		delete(s.links, l.Link)
		return Layer{}, fmt.Errorf("commit layer: %w", err)
	}
	st.dir = ""
	made := &layerState{Layer: l}
	for _, chain := range s.snapshots {
		if chain == l.ChainID { // it has lost this layer once, see Distrust
			made.users++
		}
	}
	s.layers[l.ChainID] = made
	return l, nil
}

func (st *Staged) rename(l Layer) error {
	s := st.store
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(st.dir, metaFile), data, 0o600); err != nil {
		return err
	}
	crash.Point("layer", "described")
	final := s.dir(l.ChainID)
	if exists(final) { // not whole: load has not taken it for a layer
		if err := s.discard(final); err != nil {
			return err
		}
	}
	if err := s.link(l.Link, l.ChainID.Encoded()); err != nil {
		return err
	}
	crash.Point("layer", "linked")
	defer crash.Point("layer", "in its place")
	return os.Rename(st.dir, final)
}

// ErrShownBelow is a hard link to a file of a layer that is only shown, or an opaque root above one: nobody knows yet
// whether it has the content of its diff ID, and the copy, or the names that are hidden, would stay when it turns out that
// it has not.
var ErrShownBelow = errors.New("a hard link or an opaque root needs a layer that is not there yet")

// verified returns ErrShownBelow when a layer of the chain is only shown.
func (s *Store) verified(chain digest.Digest) error {
	list, err := s.Chain(chain)
	for _, l := range list {
		if isShown(s.dir(l.ChainID)) {
			return ErrShownBelow
		}
	}
	return err
}

// settle decides what a layer tar leaves to the layers below it: the attributes of directories that
// the tar does not describe, hard links to lower files, and an opaque root directory.
func (st *Staged) settle(ctx context.Context, parent digest.Digest) error {
	if st.shown != nil {
		return st.settleShown(ctx, parent)
	}
	if parent == "" {
		for name, target := range st.borrowed {
			return fault.New(fault.Invalid, "%q: hard link to %q: there is no such file", brief(name), brief(target))
		}
		return nil
	}
	if len(st.borrowed) > 0 || st.hideRoot {
		if err := st.store.verified(parent); err != nil {
			return err
		}
	}
	below, err := st.store.stack(parent)
	if err != nil {
		return err
	}
	defer below.close()
	root, err := openRoot(filepath.Join(st.dir, "diff"))
	if err != nil {
		return err
	}
	defer root.close()
	for _, name := range slices.Sorted(maps.Keys(st.borrowed)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := st.borrow(root, below, name, st.borrowed[name]); err != nil {
			return fmt.Errorf("%q: %w", brief(name), err)
		}
	}
	if st.hideRoot {
		if err := hideRoot(root, below); err != nil {
			return fmt.Errorf("opaque root: %w", err)
		}
	}
	if err := setDirTimes(root, st.times); err != nil {
		return err
	}
	// Children before their parents: what is made in a directory changes its time.
	dirs := slices.Sorted(maps.Keys(st.implied))
	if err := st.inherited(parent, dirs); err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := inherit(root, below, dir); err != nil {
			return fmt.Errorf("%q: %w", brief(dir), err)
		}
	}
	return nil
}

// inherit gives a directory that was made on the way to a file the attributes of the lower one,
// which it would hide otherwise.
func inherit(root *root, below *stack, dir string) error {
	lower, err := below.lookup(dir)
	if err != nil || lower == nil {
		return err
	}
	defer lower.close()
	if !lower.isDir() {
		return nil
	}
	fd, err := root.dir(dir)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // a later entry of the tar replaced it
	}
	if err != nil {
		return err
	}
	return copyAttributes(lower.fds[0], &lower.st, fd, ".")
}

// borrow makes a hard link whose target is in a lower layer. As with the overlay's own copy-up, both
// names come to lie in this layer, as one file.
func (st *Staged) borrow(root *root, below *stack, name, target string) error {
	lower, err := below.lookup(target)
	if err != nil {
		return err
	}
	if lower == nil {
		return fault.New(fault.Invalid, "hard link to %q: there is no such file", brief(target))
	}
	defer lower.close()
	if lower.isDir() {
		return fault.New(fault.Invalid, "hard link to %q: it is a directory", brief(target))
	}
	imply := func(dir string) { st.implied[dir] = true }
	fd, base, err := root.parent(target, imply)
	if err != nil {
		return err
	}
	if err := copyFile(lower, fd, base); err != nil && !errors.Is(err, unix.EEXIST) { // by another link
		return fmt.Errorf("hard link to %q: %w", brief(target), err)
	}
	st.Size += lower.st.Size
	from, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, link, err := root.parent(name, imply)
	if err != nil {
		return err
	}
	err = unix.Linkat(from, base, to, link, 0)
	if errors.Is(err, unix.EEXIST) {
		return nil // a later entry of the tar has the same name and wins
	}
	return err
}

// copyFile copies what is no directory, with its attributes.
func copyFile(f *found, dir int, name string) error {
	from := f.fds[0]
	var err error
	switch f.st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = copyRegular(from, dir, name)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, rerr := unix.Readlinkat(from, "", buf)
		if rerr != nil {
			return rerr
		}
		err = unix.Symlinkat(string(buf[:n]), dir, name)
	default:
		err = unix.Mknodat(dir, name, f.st.Mode&(unix.S_IFMT|0o600), int(f.st.Rdev))
	}
	if err != nil {
		return err
	}
	return copyAttributes(from, &f.st, dir, name)
}

func copyRegular(from, dir int, name string) error {
	in, err := os.Open(procPath(from))
	if err != nil {
		return err
	}
	defer in.Close()
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), name)
	_, err = out.ReadFrom(in)
	return errors.Join(err, out.Close())
}

// hideRoot hides everything of the layers below: an overlay merges the root directories even when
// one is opaque, so each name is hidden by itself.
func hideRoot(root *root, below *stack) error {
	lower, err := below.lookup(".")
	if err != nil || lower == nil {
		return err
	}
	defer lower.close()
	names, err := lower.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		err := unix.Mknodat(root.fd, name, unix.S_IFCHR, 0)
		if errors.Is(err, unix.EEXIST) {
			var is bool
			if is, err = isDir(root.fd, name); is && err == nil {
				err = unix.Lsetxattr(path.Join(procPath(root.fd), name), opaqueXattr, []byte("y"), 0)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
