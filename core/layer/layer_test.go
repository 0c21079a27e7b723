package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/mount"
)

// A file is one entry of a test's tar; Name ending in "/" is a directory.
type file = tar.Header

var stamp = time.Unix(1700000000, 0)

// archive writes a tar of entries; content of a regular file is its name.
func archive(t *testing.T, files ...file) *bytes.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range files {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			if strings.HasSuffix(h.Name, "/") {
				h.Typeflag = tar.TypeDir
			}
		}
		if h.ModTime.IsZero() {
			h.ModTime = stamp
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		h.Format = tar.FormatPAX
		var body string
		if h.Typeflag == tar.TypeReg {
			body = h.Name
			h.Size = int64(len(body))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(b.Bytes())
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "overlay2"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// unpack unpacks layers one on the other and returns the chain.
func unpack(t *testing.T, s *Store, layers ...[]file) digest.Digest {
	t.Helper()
	var chain digest.Digest
	for _, files := range layers {
		l, err := s.Unpack(t.Context(), chain, archive(t, files...))
		if err != nil {
			t.Fatal(err)
		}
		chain = l.ChainID
	}
	return chain
}

// mounted calls fn in a mount namespace of its own with mounts performed on a directory; the
// thread, and the namespace with it, ends afterwards.
func mounted(t *testing.T, mounts []mount.Mount, fn func(root string) error) {
	t.Helper()
	dir := t.TempDir()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread cannot come back
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return err
			}
			root, err := mount.All(dir, mounts)
			if err != nil {
				return err
			}
			defer root.Close()
			return fn(procPath(int(root.Dir().Fd())))
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// tree lists what is below root, a line each.
func tree(root string) (list []string, err error) {
	err = filepath.WalkDir(root+"/.", func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil || name == "." {
			return err
		}
		for _, m := range mountPoints {
			if m.path == name {
				return nil
			}
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%s %o %d:%d", name, st.Mode, st.Uid, st.Gid)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + to
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q x%d", data, st.Nlink)
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		list = append(list, line)
		return nil
	})
	return list, err
}

var base = []file{
	{Name: "a/", Mode: 0o750, Uid: 5, Gid: 6},
	{Name: "a/one", Mode: 0o4711, Uid: 7, Gid: 8},
	{Name: "a/two"},
	{Name: "b/"}, {Name: "b/three"}, {Name: "b/deep/"}, {Name: "b/deep/four"},
	{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "a/one"},
	{Name: "hard", Typeflag: tar.TypeLink, Linkname: "a/two"},
	{Name: "null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3},
	{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o600},
}

func TestUnpackShows(t *testing.T) {
	for _, c := range []struct {
		name   string
		layers [][]file
		want   []string
	}{
		{"owners and modes and links and devices", [][]file{base}, []string{
			`a 40750 5:6`, `a/one 104711 7:8 "a/one" x1`, `a/two 100755 0:0 "a/two" x2`,
			`b 40755 0:0`, `b/deep 40755 0:0`, `b/deep/four 100755 0:0 "b/deep/four" x1`, `b/three 100755 0:0 "b/three" x1`,
			`hard 100755 0:0 "a/two" x2`, `link 120777 0:0 -> a/one`, `null 20666 0:0 1:3`, `pipe 10600 0:0`,
		}},
		{"whiteouts and directories the tar does not describe", [][]file{base, {
			{Name: "a/.wh.one"}, {Name: ".wh.b"}, {Name: ".wh.hard"}, {Name: ".wh.link"}, {Name: ".wh.null"}, {Name: ".wh.pipe"}, {Name: "a/new"},
		}}, []string{`a 40750 5:6`, `a/new 100755 0:0 "a/new" x1`, `a/two 100755 0:0 "a/two" x2`}},
		{"opaque directory", [][]file{base, {{Name: "b/"}, {Name: "b/new"}, {Name: "b/.wh..wh..opq"}, {Name: ".wh.a"}, {Name: ".wh.hard"}, {Name: ".wh.link"}, {Name: ".wh.null"}, {Name: ".wh.pipe"}}},
			[]string{`b 40755 0:0`, `b/new 100755 0:0 "b/new" x1`}},
		{"opaque root", [][]file{base, {{Name: "b/"}, {Name: "b/new"}, {Name: ".wh..wh..opq"}}},
			[]string{`b 40755 0:0`, `b/new 100755 0:0 "b/new" x1`}},
		{"file becomes directory and back", [][]file{{{Name: "x"}, {Name: "y/"}, {Name: "y/z"}}, {{Name: "x/"}, {Name: "x/in"}, {Name: "y"}}},
			[]string{`x 40755 0:0`, `x/in 100755 0:0 "x/in" x1`, `y 100755 0:0 "y" x1`}},
		{"whiteout before the directory that replaces", [][]file{base, {{Name: ".wh.b"}, {Name: "b/"}, {Name: "b/new"}, {Name: ".wh.a"}, {Name: ".wh.hard"}, {Name: ".wh.link"}, {Name: ".wh.null"}, {Name: ".wh.pipe"}}},
			[]string{`b 40755 0:0`, `b/new 100755 0:0 "b/new" x1`}},
		{"hard link to a lower file", [][]file{{{Name: "d/", Mode: 0o700, Uid: 3}, {Name: "d/f", Mode: 0o4755, Uid: 9}}, {{Name: "e/g", Typeflag: tar.TypeLink, Linkname: "d/f"}}},
			[]string{`d 40700 3:0`, `d/f 104755 9:0 "d/f" x2`, `e 40755 0:0`, `e/g 104755 9:0 "d/f" x2`}},
		{"later entry wins", [][]file{{{Name: "x"}, {Name: "x", Mode: 0o600}}}, []string{`x 100600 0:0 "x" x1`}},
		{"names with ./ and /", [][]file{{{Name: "./x"}, {Name: "/y"}}}, []string{`x 100755 0:0 "./x" x1`, `y 100755 0:0 "/y" x1`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			chain := unpack(t, s, c.layers...)
			view, err := s.View(chain)
			if err != nil {
				t.Fatal(err)
			}
			snapshot, err := s.Prepare(t.Context(), "box", chain)
			if err != nil {
				t.Fatal(err)
			}
			for _, mounts := range [][]mount.Mount{view, snapshot} {
				mounted(t, mounts, func(root string) error {
					got, err := tree(root)
					if diff := cmp.Diff(c.want, got); diff != "" {
						t.Error(diff)
					}
					return err
				})
			}
		})
	}
}

func TestUnpackTimesAndAttributes(t *testing.T) {
	s := open(t)
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	chain := unpack(t, s, []file{
		{Name: "./", Mode: 0o1777, Uid: 1, ModTime: time.Unix(1, 0)},
		{Name: "d/", ModTime: time.Unix(2, 0)},
		{Name: "d/ping", PAXRecords: map[string]string{"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.note": "hello"}},
		{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "nowhere", ModTime: time.Unix(3, 0)},
	}, []file{{Name: "d/more"}})
	mounts, err := s.Prepare(t.Context(), "box", chain)
	if err != nil {
		t.Fatal(err)
	}
	mounted(t, mounts, func(root string) error {
		for name, want := range map[string]int64{"d": 2, "d/l": 3} {
			var st unix.Stat_t
			if err := unix.Lstat(root+"/"+name, &st); err != nil {
				return err
			}
			if st.Mtim.Sec != want {
				t.Errorf("%s: time %d, want %d", name, st.Mtim.Sec, want)
			}
		}
		var st unix.Stat_t
		if err := unix.Stat(root+"/.", &st); err != nil {
			return err
		}
		if st.Mode&0o7777 != 0o1777 || st.Uid != 1 {
			t.Errorf("root has mode %o and owner %d", st.Mode, st.Uid)
		}
		buf := make([]byte, 64)
		n, err := unix.Getxattr(root+"/d/ping", "security.capability", buf)
		if err == nil && string(buf[:n]) != capability {
			t.Errorf("capability %q", buf[:n])
		}
		return err
	})
}

func TestUnpackRefuses(t *testing.T) {
	link := func(name, to string) file { return file{Name: name, Typeflag: tar.TypeSymlink, Linkname: to} }
	for name, files := range map[string][]file{
		"path above the root":        {{Name: "../x"}},
		"path that climbs":           {{Name: "a/../../x"}},
		"absolute link":              {link("l", "/etc"), {Name: "l/x"}},
		"climbing link":              {{Name: "d/"}, link("d/l", "../../.."), {Name: "d/l/x"}},
		"link to proc":               {link("l", "/proc/self/root"), {Name: "l/x"}},
		"hard link outside":          {{Name: "h", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"}},
		"hard link through a link":   {link("l", "/etc"), {Name: "h", Typeflag: tar.TypeLink, Linkname: "l/passwd"}},
		"hard link to nothing":       {{Name: "h", Typeflag: tar.TypeLink, Linkname: "nothing"}},
		"hard link to a directory":   {{Name: "d/"}, {Name: "h", Typeflag: tar.TypeLink, Linkname: "d"}},
		"hard link to itself":        {{Name: "h", Typeflag: tar.TypeLink, Linkname: "h"}},
		"whiteout of the parent":     {{Name: "a/.wh..."}, {Name: "a/.wh..", Mode: 1}},
		"overlay's whiteout":         {{Name: "c", Typeflag: tar.TypeChar}},
		"overlay's attribute":        {{Name: "d/", PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/etc"}}},
		"something inside a file":    {{Name: "f"}, {Name: "f/x"}},
		"something inside whiteout":  {{Name: ".wh.a/x"}},
		"root that is no directory":  {{Name: "./", Typeflag: tar.TypeSymlink, Linkname: "/etc"}},
		"whiteout through a link":    {link("l", "/etc"), {Name: "l/.wh.passwd"}},
		"opaque through a link":      {link("l", "/etc"), {Name: "l/.wh..wh..opq"}},
		"directory through dangling": {link("l", "nothing"), {Name: "l/x"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			_, err := s.Unpack(t.Context(), "", archive(t, files...))
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("got %v, want class invalid", err)
			}
			if len(s.Layers()) != 0 {
				t.Error("a layer came to be")
			}
		})
	}
}

func TestUnpackLimits(t *testing.T) {
	for name, c := range map[string]struct {
		limits Limits
		bad    io.Reader
	}{
		"bytes":       {Limits{Bytes: 10, Entries: 100, Names: 100}, archive(t, file{Name: "a-long-name"})},
		"entries":     {Limits{Bytes: 1000, Entries: 2, Names: 100}, archive(t, file{Name: "a"}, file{Name: "b"}, file{Name: "c"})},
		"directories": {Limits{Bytes: 1000, Entries: 3, Names: 100}, archive(t, file{Name: "a/b/c/d"})},
		"names":       {Limits{Bytes: 1000, Entries: 100, Names: 5}, archive(t, file{Name: "abcdef"})},
		"torn":        {defaultLimits, io.LimitReader(archive(t, file{Name: "a"}), 512)},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			s.SetLimits(c.limits)
			if _, err := s.Unpack(t.Context(), "", c.bad); !fault.Is(err, fault.Invalid) {
				t.Errorf("got %v, want class invalid", err)
			}
		})
	}
}

func TestUnpackTogether(t *testing.T) {
	s := open(t)
	parent := unpack(t, s, base)
	var wait sync.WaitGroup
	got := make([]Layer, 8)
	for i := range got {
		wait.Go(func() {
			var err error
			if got[i], err = s.Unpack(t.Context(), parent, archive(t, file{Name: "x"})); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for _, l := range got[1:] {
		if l != got[0] {
			t.Errorf("got %v and %v", got[0], l)
		}
	}
	if n := len(s.Layers()); n != 2 {
		t.Errorf("%d layers, want 2", n)
	}
	if err := s.Release(t.Context(), got[0].ChainID); err != nil {
		t.Error(err)
	}
	if err := s.Release(t.Context(), parent); err != nil {
		t.Error("the parent has a user too many:", err)
	}
}
