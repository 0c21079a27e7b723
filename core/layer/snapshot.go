package layer

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/mount"
)

// kernelOptions returns the overlay options that undo what this kernel has on by default, each with
// a comma before it. An upper directory must not hold redirects and metadata-only copies, for they
// have no form in a layer tar; an index makes a lower layer that two containers share an error.
func kernelOptions() string {
	var b strings.Builder
	for _, name := range []string{"index", "redirect_dir", "metacopy", "nfs_export"} {
		if v, err := os.ReadFile("/sys/module/overlay/parameters/" + name); err == nil && strings.TrimSpace(string(v)) == "Y" {
			b.WriteString("," + name + "=off")
		}
	}
	return b.String()
}

var keyPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

// snapshotDir returns the directory name of a snapshot: short, because it stands twice in the
// overlay's options, and still with the beginning that a person looks for.
func snapshotDir(key string) (string, error) {
	if !keyPattern.MatchString(key) {
		return "", fault.New(fault.Invalid, "snapshot key %q: expected letters, digits, . _ and -", key)
	}
	return fmt.Sprintf("%.12s-%x", key, sha256.Sum256([]byte(key)))[:min(len(key), 12)+9], nil
}

// Prepare makes a writable snapshot called key on top of a chain ("" is an empty root) and returns
// its mounts: one overlay at "/". A key that is in use is fault.Exists.
func (s *Store) Prepare(ctx context.Context, key string, chain digest.Digest) ([]mount.Mount, error) {
	name, err := snapshotDir(key)
	if err == nil {
		err = s.await(ctx, chain)
	}
	if err != nil {
		return nil, err
	}
	if err := s.initLayer(chain); err != nil {
		return nil, fmt.Errorf("prepare snapshot %s: %w", key, err)
	}
	s.mu.Lock()
	if _, err := s.get(chain); err != nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("prepare snapshot %s: %w", key, err)
	}
	if _, taken := s.snapshots[name]; taken {
		s.mu.Unlock()
		return nil, fault.New(fault.Exists, "snapshot %s exists already", key)
	}
	s.snapshots[name] = chain
	s.use(chain, 1)
	s.mu.Unlock()

	mounts, err := s.makeSnapshot(name, chain)
	if err != nil {
		s.forget(name)
		os.RemoveAll(filepath.Join(s.root, name))
		return nil, fmt.Errorf("prepare snapshot %s: %w", key, err)
	}
	return mounts, nil
}

func (s *Store) makeSnapshot(name string, chain digest.Digest) ([]mount.Mount, error) {
	dir := filepath.Join(s.root, name)
	// A directory of that name is what a crash left: Reconcile has not come to it yet.
	if err := os.Mkdir(dir, 0o711); errors.Is(err, fs.ErrExist) {
		if err := s.discard(dir); err != nil {
			return nil, err
		}
		err = os.Mkdir(dir, 0o711)
		if err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	crash.Point("snapshot", "directory made")
	if err := os.Symlink(linkOfChain(chain), filepath.Join(dir, "lower")); err != nil {
		return nil, err
	}
	crash.Point("snapshot", "lower made")
	upper := filepath.Join(dir, "diff")
	if err := os.Mkdir(upper, 0o755); err != nil {
		return nil, err
	}
	crash.Point("snapshot", "upper made")
	// The root directory of the overlay is the upper one, so the image's owner and mode of "/" must
	// be repeated on it.
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(s.dir(chain), "diff"), &st); err != nil {
		return nil, fmt.Errorf("layer %s: %w", chain, err)
	}
	if st.Uid != 0 || st.Gid != 0 {
		if err := os.Lchown(upper, int(st.Uid), int(st.Gid)); err != nil {
			return nil, err
		}
	}
	if st.Mode&0o7777 != 0o755 {
		if err := unix.Chmod(upper, st.Mode&0o7777); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "work"), 0o711); err != nil {
		return nil, err
	}
	crash.Point("snapshot", "made")
	return s.mounts(name, chain)
}

// Mounts returns the mounts of a snapshot again, or fault.NotFound.
func (s *Store) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	name, chain, err := s.snapshot(key)
	if err == nil {
		err = s.await(ctx, chain)
	}
	if err == nil {
		err = s.unmark(name)
	}
	if err != nil {
		return nil, err
	}
	return s.mounts(name, chain)
}

// Whole returns nil when the snapshot is there with all layers below it, else fault.NotFound. What was read of it before
// is whole then too: a snapshot that is removed is renamed before its first file goes.
func (s *Store) Whole(_ context.Context, key string) error {
	name, chain, err := s.snapshot(key)
	if err == nil {
		_, err = s.mounts(name, chain)
	}
	if err == nil {
		err = s.inPlace(name)
	}
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", key, err)
	}
	return nil
}

func (s *Store) inPlace(name string) error {
	_, err := os.Lstat(filepath.Join(s.root, name, "diff"))
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "it was removed")
	}
	return err
}

// Volatile is Mounts for a snapshot of which nothing is wanted any more once the machine has crashed. Nothing is
// written to the disk for its sake: not when a program asks for it, and not when it is unmounted, which else waits until
// all that anybody has written to the filesystem below is there (overlayfs.rst, "Volatile mount").
func (s *Store) Volatile(ctx context.Context, key string) ([]mount.Mount, error) {
	mounts, err := s.Mounts(ctx, key)
	if err == nil && s.volatile {
		mounts[0].Options = append(mounts[0].Options, "volatile")
	}
	return mounts, err
}

// unmark takes away what a volatile mount leaves, with which the kernel refuses every further mount, as it does not know
// whether the machine has crashed since. Nobody asks for a snapshot that was volatile after a crash: its container goes
// at the start of the daemon.
func (s *Store) unmark(name string) error {
	return os.RemoveAll(filepath.Join(s.root, name, "work", "work", "incompat"))
}

// kernelHasVolatile: since Linux 5.10.
func kernelHasVolatile() bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false
	}
	var major, minor int
	n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor) //nolint:errcheck // the count says it
	return n == 2 && (major > 5 || major == 5 && minor >= 10)
}

// snapshot returns the directory name of a snapshot and its chain.
func (s *Store) snapshot(key string) (string, digest.Digest, error) {
	name, err := snapshotDir(key)
	if err != nil {
		return "", "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	chain, ok := s.snapshots[name]
	if !ok {
		return "", "", fault.New(fault.NotFound, "no snapshot %s", key)
	}
	return name, chain, nil
}

func (s *Store) mounts(name string, chain digest.Digest) ([]mount.Mount, error) {
	lowers, err := s.lowers(chain)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.root, name)
	return s.overlay("lowerdir="+lowers, "upperdir="+filepath.Join(dir, "diff"), "workdir="+filepath.Join(dir, "work")), nil
}

func (s *Store) overlay(options ...string) []mount.Mount {
	if s.suffix != "" {
		options = append(options, strings.Split(s.suffix[1:], ",")...)
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Target: "/", Options: options, Layers: s.root}}
}

// lowers returns the overlay's lower directories for a container, the top first: the init directory,
// then the layers by their short names.
func (s *Store) lowers(chain digest.Digest) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	top, err := s.get(chain)
	if err != nil {
		return "", err
	}
	short := filepath.Join(s.root, linkDir) + "/"
	list, err := s.chain(chain)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(short + top.Link + "i")
	for _, l := range list {
		b.WriteString(":" + short + l.Link)
	}
	return b.String(), nil
}

// View returns read-only mounts of a chain, at "/". It needs no snapshot and nothing to be removed;
// the layers must be kept by somebody else for as long as it is mounted.
func (s *Store) View(chain digest.Digest) ([]mount.Mount, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.chain(chain)
	if err != nil {
		return nil, err
	}
	short := filepath.Join(s.root, linkDir) + "/"
	names := make([]string, 0, len(list)+2)
	for _, l := range list {
		names = append(names, short+l.Link)
	}
	return []mount.Mount{s.lowersOnly(names)}, nil
}

// Paths returns what GET /containers/{id}/json shows as GraphDriver.Data, nil for an unknown key.
// MergedDir is where Docker would mount it; here a container's root is mounted in its own
// mount namespace only.
func (s *Store) Paths(key string) map[string]string {
	name, chain, err := s.snapshot(key)
	if err != nil {
		return nil
	}
	dir := filepath.Join(s.root, name)
	return map[string]string{
		"LowerDir":  strings.Join(s.lowerPaths(chain), ":"),
		"UpperDir":  filepath.Join(dir, "diff"),
		"WorkDir":   filepath.Join(dir, "work"),
		"MergedDir": filepath.Join(dir, "merged"),
	}
}

// LayerPaths is Paths for an image: its top layer is the upper directory.
func (s *Store) LayerPaths(chain digest.Digest) map[string]string {
	paths := s.lowerPaths(chain)
	if len(paths) == 0 {
		return nil
	}
	m := map[string]string{
		"UpperDir":  paths[0],
		"WorkDir":   filepath.Join(filepath.Dir(paths[0]), "work"),
		"MergedDir": filepath.Join(filepath.Dir(paths[0]), "merged"),
	}
	if len(paths) > 1 {
		m["LowerDir"] = strings.Join(paths[1:], ":")
	}
	return m
}

func (s *Store) lowerPaths(chain digest.Digest) []string {
	list, err := s.Chain(chain)
	if err != nil {
		return nil
	}
	paths := make([]string, len(list))
	for i, l := range list {
		paths[i] = filepath.Join(s.dir(l.ChainID), "diff")
	}
	return paths
}

// Remove removes a snapshot. Its files go in the background; a key that is not there is no error.
func (s *Store) Remove(_ context.Context, key string) error {
	name, err := snapshotDir(key)
	if err != nil {
		return err
	}
	// Renamed first and forgotten then: a Prepare of the same key in between is told that it exists.
	err = s.discard(filepath.Join(s.root, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove snapshot %s: %w", key, err)
	}
	s.forget(name)
	return nil
}

func (s *Store) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if chain, ok := s.snapshots[name]; ok {
		delete(s.snapshots, name)
		s.dropUser(chain)
	}
}

// pause is how long a removal in the background is put off. Those who wait for the container to be gone are told first:
// every step of a removal may wait for the disk.
const pause = 5 * time.Millisecond

// discard renames a directory into tmp/, at once, and removes it there in the background.
func (s *Store) discard(dir string) error {
	away, err := s.putAway(dir)
	if err != nil {
		return err
	}
	s.removals.Go(func() {
		select {
		case <-time.After(pause):
		case <-s.closing:
		}
		if err := os.RemoveAll(away); err != nil {
			s.log.Warn("remove directory", "path", away, "error", err)
		}
	})
	return nil
}

// putAway renames a directory to a fresh name below tmp/.
func (s *Store) putAway(dir string) (string, error) {
	if err := s.unlimit(dir); err != nil {
		return "", err
	}
	crash.Point("directory of layers", "before putting away")
	away := filepath.Join(s.root, tmpDir, "gone-"+rand.Text())
	if err := unix.Rename(dir, away); err != nil {
		return "", err
	}
	crash.Point("directory of layers", "put away")
	return away, nil
}
