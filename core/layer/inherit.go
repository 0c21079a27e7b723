package layer

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Directories that a layer does not describe have the attributes of the lower ones. As long as one of these is only
// shown, nobody knows whether it is what its diff ID says: who made an image may show anything in the place of a layer
// that others have too. So what was taken from it is written down beside the layer, and taken again when
// the real files are there.
const inheritedFile = "inherited.json"

// inherited writes down the implied directories of a layer whose attributes may be an impostor's.
func (st *Staged) inherited(parent digest.Digest, dirs []string) error {
	err := st.store.verified(parent)
	if !errors.Is(err, ErrShownBelow) || len(dirs) == 0 {
		return err
	}
	raw, err := json.Marshal(dirs)
	if err != nil {
		return err
	}
	st.provisional = true
	return os.WriteFile(filepath.Join(st.dir, inheritedFile), raw, 0o600)
}

// resettle takes the attributes of a layer's implied directories from below once more, when nothing below is only shown.
func (s *Store) resettle(chain digest.Digest) error {
	s.mu.Lock()
	there, err := s.get(chain)
	if err != nil {
		s.mu.Unlock()
		return nil //nolint:nilerr // it is gone
	}
	l := there.Layer
	s.use(chain, 1) // nobody removes it meanwhile
	s.mu.Unlock()
	defer s.unuse(chain)
	dir := s.dir(chain)
	raw, err := os.ReadFile(filepath.Join(dir, inheritedFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && isShown(dir) {
		return nil
	}
	var dirs []string
	if err == nil {
		err = json.Unmarshal(raw, &dirs)
	}
	if err == nil {
		err = s.verified(l.Parent)
	}
	if errors.Is(err, ErrShownBelow) {
		return nil
	}
	if err == nil {
		err = s.inheritAgain(l, dirs)
	}
	if err == nil {
		err = os.Remove(filepath.Join(dir, inheritedFile))
	}
	if err != nil {
		return fmt.Errorf("attributes of layer %s: %w", chain, err)
	}
	return nil
}

func (s *Store) inheritAgain(l Layer, dirs []string) error {
	below, err := s.stack(l.Parent)
	if err != nil {
		return err
	}
	defer below.close()
	root, err := openRoot(filepath.Join(s.dir(l.ChainID), "diff"))
	if err != nil {
		return err
	}
	defer root.close()
	for _, dir := range slices.Backward(slices.Sorted(slices.Values(dirs))) {
		if err := forgetAttributes(root, dir); err != nil {
			return fmt.Errorf("%q: %w", brief(dir), err)
		}
		if err := inherit(root, below, dir); err != nil {
			return fmt.Errorf("%q: %w", brief(dir), err)
		}
	}
	return nil
}

// forgetAttributes makes a directory one that nothing is known of.
func forgetAttributes(root *root, dir string) error {
	fd, err := root.dir(dir)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // as in inherit
	}
	if err != nil {
		return err
	}
	attrs, err := xattrs(procPath(fd), unix.Listxattr, unix.Getxattr)
	if err != nil {
		return err
	}
	for key := range attrs {
		if err := unix.Removexattr(procPath(fd), key); err != nil && !errors.Is(err, unix.ENODATA) {
			return err
		}
	}
	if err := unix.Fchownat(fd, ".", 0, 0, 0); err != nil {
		return err
	}
	return unix.Fchmodat(fd, ".", 0o755, 0)
}

// resettleAbove does it for all layers that stand on a chain, the lower ones first; "" is for all there are.
func (s *Store) resettleAbove(chain digest.Digest) error {
	type above struct {
		chain digest.Digest
		depth int
	}
	var list []above
	for _, l := range s.Layers() {
		if _, err := os.Stat(filepath.Join(s.dir(l.ChainID), inheritedFile)); err != nil {
			continue
		}
		below, err := s.Chain(l.ChainID)
		if err != nil {
			continue // removed meanwhile
		}
		if chain == "" || slices.ContainsFunc(below, func(b Layer) bool { return b.ChainID == chain }) {
			list = append(list, above{l.ChainID, len(below)})
		}
	}
	slices.SortFunc(list, func(a, b above) int { return cmp.Compare(a.depth, b.depth) })
	var errs []error
	for _, l := range list {
		errs = append(errs, s.resettle(l.chain))
	}
	return errors.Join(errs...)
}

// Misled reports whether a layer that is shown was told other attributes of its implied directories than the layers
// below it have now. Times do not count: a table of contents may have them in seconds.
func (s *Store) Misled(chain digest.Digest, told map[string]Attributes) bool {
	s.mu.Lock()
	l, err := s.get(chain)
	s.mu.Unlock()
	if err != nil || l.Parent == "" {
		return false
	}
	below, err := s.stack(l.Parent)
	if err != nil {
		return true
	}
	defer below.close()
	for dir, a := range told {
		f, err := below.lookup(dir)
		if f == nil || err != nil {
			return true
		}
		var now Attributes
		if f.isDir() {
			now, err = f.attributes()
		}
		f.close()
		if err != nil || now.Mode != a.Mode || now.UID != a.UID || now.GID != a.GID || !maps.Equal(now.Xattrs, a.Xattrs) {
			return true
		}
	}
	return false
}
