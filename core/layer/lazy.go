package layer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
)

// A layer may be shown before it is there: its files are a filesystem that somebody mounted elsewhere,
// and its diff is a symbolic link to that place, so that all that goes through a layer's directory or short
// name finds them. Beside it, shown.json is what its owner needs to show it again. Replace puts the
// unpacked files in the place of the link, in one act.
const shownFile = "shown.json"

// grace is how long what showed a layer is kept after its files have taken its place. An overlay that is mounted at that
// moment has looked the old place up, and takes it a moment later: the kernel refuses it (EINVAL) if it is unmounted in
// between.
const grace = 5 * time.Second

// Shown describes a layer that is shown.
type Shown struct {
	DiffID digest.Digest
	Size   int64
	At     string // where its files are mounted
	// Implied are the directories that the layer does not describe: they get their attributes from below.
	Implied []string
	// Settle is told these attributes, and returns what is kept to show the layer again.
	Settle func(ctx context.Context, chain digest.Digest, attributes map[string]Attributes) (json.RawMessage, error)
	// Release is called when the files are not needed after all.
	Release func()
}

// Attributes are those of a directory in the layers below.
type Attributes struct {
	Mode     uint32 // without the type
	UID, GID uint32
	Mtime    time.Time
	Xattrs   map[string]string
}

// OnRelease says who is told when a layer that was shown, and that some process had committed, is
// removed or replaced. It is for the time before the first layer is.
func (s *Store) OnRelease(fn func(chain digest.Digest)) { s.release = fn }

// OnUse says who is asked before a snapshot is mounted on a chain with a layer that is shown, and returns when there is
// none any more. It is for stores whose layers are mounted with mapped ids (userns-remap): where a layer's link leads to
// they would not be. It is for the time before the first snapshot is.
func (s *Store) OnUse(whole func(ctx context.Context, chain digest.Digest) error) { s.whole = whole }

func (s *Store) await(ctx context.Context, chain digest.Digest) error {
	if s.whole == nil || !errors.Is(s.verified(chain), ErrShownBelow) {
		return nil
	}
	return s.whole(ctx, chain)
}

// StageShown is Stage for a layer that is shown.
func (s *Store) StageShown(shown Shown) (*Staged, error) {
	dir, err := os.MkdirTemp(filepath.Join(s.root, tmpDir), "layer-")
	if err != nil {
		return nil, fmt.Errorf("show layer: %w", err)
	}
	st := &Staged{DiffID: shown.DiffID, Size: shown.Size, store: s, dir: dir, shown: &shown}
	err = os.Chmod(dir, 0o711)
	if err == nil {
		err = os.Symlink(shown.At, filepath.Join(dir, "diff"))
	}
	if err != nil {
		st.Discard()
		return nil, fmt.Errorf("show layer: %w", err)
	}
	crash.Point("layer shown", "begun")
	return st, nil
}

// settleShown is settle for a layer that is shown.
func (st *Staged) settleShown(ctx context.Context, parent digest.Digest) error {
	attributes := map[string]Attributes{}
	if parent != "" {
		below, err := st.store.stack(parent)
		if err != nil {
			return err
		}
		defer below.close()
		for _, dir := range st.shown.Implied {
			f, err := below.lookup(dir)
			if err != nil {
				return err
			}
			if f == nil {
				continue
			}
			if f.isDir() {
				attributes[dir], err = f.attributes()
			}
			f.close()
			if err != nil {
				return err
			}
		}
	}
	raw, err := st.shown.Settle(ctx, Chain(parent, st.DiffID), attributes)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(st.dir, shownFile), raw, 0o600)
}

func (f *found) attributes() (Attributes, error) {
	attrs, err := xattrs(procPath(f.fds[0]), unix.Listxattr, unix.Getxattr)
	return Attributes{
		Mode: f.st.Mode & 0o7777, UID: f.st.Uid, GID: f.st.Gid,
		Mtime: time.Unix(f.st.Mtim.Unix()), Xattrs: attrs,
	}, err
}

// isShown reports whether the directory of a layer has a link in the place of its files.
func isShown(dir string) bool {
	info, err := os.Lstat(filepath.Join(dir, "diff"))
	return err == nil && info.Mode()&os.ModeSymlink != 0
}

// IsShown reports whether the layer of a chain is shown and not unpacked.
func (s *Store) IsShown(chain digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.layers[chain]
	return ok && chain != "" && isShown(s.dir(l.ChainID))
}

// resize has a layer's size from its files, in the place of what was said of it.
func (s *Store) resize(chain digest.Digest, size int64) error {
	l := s.layers[chain]
	if l.Size == size {
		return nil
	}
	l.Size = size
	data, err := json.Marshal(l.Layer)
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir(chain), metaFile)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// ShownLayers returns what is kept of the layers that are shown, by chain.
func (s *Store) ShownLayers() map[digest.Digest]json.RawMessage {
	list := map[digest.Digest]json.RawMessage{}
	for _, l := range s.Layers() {
		if !s.IsShown(l.ChainID) {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(s.dir(l.ChainID), shownFile))
		if err != nil {
			s.log.Warn("layer does not say where it comes from", "layer", l.ChainID, "error", err)
			continue
		}
		list[l.ChainID] = raw
	}
	return list
}

// Replace puts unpacked files in the place of a layer that is shown. Mounts that are there keep what
// they show. In any case the staged layer is used up. A layer that is not shown, or not there, stays so.
func (s *Store) Replace(ctx context.Context, chain digest.Digest, st *Staged) error {
	if err := s.replace(ctx, chain, st); err != nil {
		return err
	}
	if err := s.resettleAbove(chain); err != nil {
		s.log.Warn("layers that stand on one that was shown", "error", err)
	}
	return nil
}

func (s *Store) replace(ctx context.Context, chain digest.Digest, st *Staged) error {
	defer st.Discard()
	s.mu.Lock()
	l, err := s.get(chain)
	var parent digest.Digest
	if err == nil {
		parent = l.Parent
		s.use(chain, 1) // nobody removes it meanwhile
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	defer s.unuse(chain)
	if got := Chain(parent, st.DiffID); got != chain {
		return fault.New(fault.Invalid, "layer %s: the files are those of %s", chain, got)
	}
	if err := st.settle(ctx, parent); err != nil {
		return fmt.Errorf("replace layer: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := s.dir(chain)
	if !isShown(dir) {
		return nil
	}
	if st.provisional {
		if err := os.Rename(filepath.Join(st.dir, inheritedFile), filepath.Join(dir, inheritedFile)); err != nil {
			return fmt.Errorf("replace layer: %w", err)
		}
	}
	if err := s.resize(chain, st.Size); err != nil {
		return fmt.Errorf("replace layer: %w", err)
	}
	crash.Point("layer shown", "before exchange")
	// Both names exist all the time: a mount that is made at this moment finds one or the other.
	err = unix.Renameat2(unix.AT_FDCWD, filepath.Join(st.dir, "diff"), unix.AT_FDCWD, filepath.Join(dir, "diff"), unix.RENAME_EXCHANGE)
	if err != nil {
		return fmt.Errorf("replace layer: %w", err)
	}
	crash.Point("layer shown", "after exchange")
	err = os.Remove(filepath.Join(dir, shownFile))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if release := s.release; release != nil {
		s.removals.Go(func() {
			select {
			case <-time.After(grace):
			case <-s.closing:
			}
			release(chain)
		})
	}
	return err
}
