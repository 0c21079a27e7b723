package images

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree is what there is below a directory: by path what a file is, without what a copy cannot have, such
// as its inode's number and the time of its last change of inode.
type tree map[string]string

func read(t *testing.T, root string) tree {
	t.Helper()
	found, names := tree{}, map[uint64][]string{}
	var files []string
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		files = append(files, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		rel := strings.TrimPrefix(path, root)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			names[st.Ino] = append(names[st.Ino], rel)
		}
		found[rel] = fmt.Sprintf("mode %o owner %d:%d time %d.%09d device %d:%d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, unix.Major(st.Rdev), unix.Minor(st.Rdev)) +
			content(t, path, st.Mode) + xattrs(t, path)
	}
	for _, list := range names {
		if len(list) > 1 {
			slices.Sort(list)
			for _, name := range list {
				found[name] += fmt.Sprintf(" links %q", list)
			}
		}
	}
	return found
}

func content(t *testing.T, path string, mode uint32) string {
	t.Helper()
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(" size %d sha256 %x", len(data), sha256.Sum256(data))
	case unix.S_IFLNK:
		to, err := os.Readlink(path)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(" to %q", to)
	}
	return ""
}

func xattrs(t *testing.T, path string) string {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, name := range bytes.Split(buf[:n], []byte{0}) {
		if len(name) == 0 || bytes.HasPrefix(name, []byte("trusted.overlay.")) {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, string(name), value)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf(" %s=%x", name, value[:n]))
	}
	slices.Sort(list)
	return strings.Join(list, "")
}

// differences lists the paths that are not the same, at most some of them.
func differences(ours, theirs tree) (list []string) {
	for path, is := range ours {
		if theirs[path] != is {
			list = append(list, fmt.Sprintf("%q\n\tours:   %s\n\ttheirs: %s", path, is, theirs[path]))
		}
	}
	for path, is := range theirs {
		if _, ok := ours[path]; !ok {
			list = append(list, fmt.Sprintf("%q\n\tours:   none\n\ttheirs: %s", path, is))
		}
	}
	slices.Sort(list)
	if len(list) > 20 {
		list = append(list[:20], fmt.Sprintf("and %d more", len(list)-20))
	}
	return list
}

// mounted returns the tree of an overlay that an engine's `image inspect` tells.
func mounted(l *lab, inspected string) tree {
	l.t.Helper()
	var driver struct{ UpperDir, LowerDir string }
	l.check(json.Unmarshal([]byte(inspected), &driver))
	dirs := []string{driver.UpperDir}
	if driver.LowerDir != "" {
		dirs = append(dirs, strings.Split(driver.LowerDir, ":")...)
	}
	if len(dirs) == 1 { // an overlay needs two
		dirs = append(dirs, l.t.TempDir())
	}
	at := l.t.TempDir()
	l.check(unix.Mount("overlay", at, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(dirs, ":")))
	defer func() { l.check(unix.Unmount(at, unix.MNT_DETACH)) }()
	return read(l.t, at)
}
