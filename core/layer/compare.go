package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Compare tells what is different in chain b from chain a, in the order of the paths. What lies in a directory
// that is gone is not told; a directory in which something is different has changed.
func (s *Store) Compare(ctx context.Context, a, b digest.Digest) ([]Change, error) {
	c := comparison{ctx: ctx}
	from, closeFrom, err := s.top(a)
	if err != nil {
		return nil, err
	}
	defer closeFrom()
	to, closeTo, err := s.top(b)
	if err != nil {
		return nil, err
	}
	defer closeTo()
	if _, err := c.dirs(from, to, ""); err != nil {
		return nil, fmt.Errorf("compare layers: %w", err)
	}
	slices.SortFunc(c.changes, func(x, y Change) int { return bytes.Compare([]byte(x.Path), []byte(y.Path)) })
	return c.changes, nil
}

// top opens the root directory of a chain; that of no layers has nothing.
func (s *Store) top(chain digest.Digest) (*found, func(), error) {
	if chain == "" {
		return &found{}, func() {}, nil
	}
	k, err := s.stack(chain)
	if err != nil {
		return nil, nil, err
	}
	defer k.close()
	f, err := k.lookup(".")
	if err != nil {
		return nil, nil, err
	}
	return f, f.close, nil
}

type comparison struct {
	ctx     context.Context
	changes []Change
}

func (c *comparison) say(p string, kind Kind) {
	c.changes = append(c.changes, Change{Path: p, Kind: kind})
}

// dirs compares two directories and reports whether anything in them is different.
func (c *comparison) dirs(a, b *found, at string) (bool, error) {
	if err := c.ctx.Err(); err != nil {
		return false, err
	}
	if same, err := sameHandles(a, b); same || err != nil {
		return false, err
	}
	names, err := bothNames(a, b)
	if err != nil {
		return false, err
	}
	different := false
	for _, name := range names {
		changed, err := c.child(a, b, name, path.Join(at, "/", name))
		if err != nil {
			return false, fmt.Errorf("%s: %w", path.Join(at, "/", name), err)
		}
		different = different || changed
	}
	return different, nil
}

func bothNames(a, b *found) ([]string, error) {
	all := map[string]bool{}
	for _, f := range []*found{a, b} {
		if f == nil {
			continue
		}
		names, err := f.names()
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			all[n] = true
		}
	}
	return slices.Sorted(maps.Keys(all)), nil
}

func (c *comparison) child(a, b *found, name, at string) (bool, error) {
	x, err := childOf(a, name)
	if err != nil {
		return false, err
	}
	if x != nil {
		defer x.close()
	}
	y, err := childOf(b, name)
	if err != nil {
		return false, err
	}
	if y != nil {
		defer y.close()
	}
	switch {
	case x == nil && y == nil:
		return false, nil
	case y == nil:
		c.say(at, Deleted)
		return true, nil
	case x == nil:
		c.say(at, Added)
		if y.isDir() {
			_, err = c.dirs(&found{}, y, at)
		}
		return true, err
	}
	changed, err := differ(x, y)
	if err != nil {
		return false, err
	}
	if y.isDir() {
		if !x.isDir() {
			x = &found{}
		}
		inside, err := c.dirs(x, y, at)
		if err != nil {
			return false, err
		}
		changed = changed || inside
	}
	if changed {
		c.say(at, Modified)
	}
	return changed, nil
}

func childOf(f *found, name string) (*found, error) {
	if f == nil || len(f.fds) == 0 {
		return nil, nil
	}
	return f.child(name)
}

// sameHandles reports whether two directories are the very same files of the same layers.
func sameHandles(a, b *found) (bool, error) {
	if len(a.fds) != len(b.fds) || len(a.fds) == 0 {
		return false, nil
	}
	for i := range a.fds {
		var x, y unix.Stat_t
		if err := unix.Fstat(a.fds[i], &x); err != nil {
			return false, err
		}
		if err := unix.Fstat(b.fds[i], &y); err != nil {
			return false, err
		}
		if x.Dev != y.Dev || x.Ino != y.Ino {
			return false, nil
		}
	}
	return true, nil
}

// differ reports whether two files have other attributes or contents. A directory's time is not its own: it
// tells only that something in it was made.
func differ(a, b *found) (bool, error) {
	x, y := &a.st, &b.st
	if x.Dev == y.Dev && x.Ino == y.Ino {
		return false, nil
	}
	if x.Mode != y.Mode || x.Uid != y.Uid || x.Gid != y.Gid || x.Rdev != y.Rdev {
		return true, nil
	}
	if differ, err := differInXattrs(a, b); differ || err != nil {
		return differ, err
	}
	switch x.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return false, nil
	case unix.S_IFLNK:
		one, err := readlinkat(a.fds[0])
		if err != nil {
			return false, err
		}
		two, err := readlinkat(b.fds[0])
		return one != two, err
	case unix.S_IFREG:
		if x.Size != y.Size || x.Mtim != y.Mtim {
			return true, nil
		}
		return differInContent(a.fds[0], b.fds[0])
	}
	return false, nil
}

func readlinkat(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	return string(buf[:max(n, 0)]), err
}

func differInXattrs(a, b *found) (bool, error) {
	if a.st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return false, nil // a handle of a link cannot be asked
	}
	var list [2]map[string]string
	for i, f := range []*found{a, b} {
		all, err := xattrs(procPath(f.fds[0]), unix.Listxattr, unix.Getxattr)
		if err != nil {
			return false, err
		}
		list[i] = all
	}
	return !maps.Equal(list[0], list[1]), nil
}

func differInContent(a, b int) (bool, error) {
	one, err := os.Open(procPath(a))
	if err != nil {
		return false, err
	}
	defer one.Close()
	two, err := os.Open(procPath(b))
	if err != nil {
		return false, err
	}
	defer two.Close()
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(one, x)
		m, _ := io.ReadFull(two, y)
		if n != m || !bytes.Equal(x[:n], y[:m]) {
			return true, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}
