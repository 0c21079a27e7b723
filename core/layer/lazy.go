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
	if s.release != nil {
		s.removals.Go(func() { s.release(chain) })
	}
	return err
}
