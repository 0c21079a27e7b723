package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree makes a directory with traps beside what is real.
func tree(t *testing.T) (dir string, root *Root) {
	t.Helper()
	outside := t.TempDir()
	dir = filepath.Join(outside, "root")
	for _, d := range []string{"root/etc", "root/real", "secret"} {
		if err := os.MkdirAll(filepath.Join(outside, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{
		"root/up": "../../../../secret", "root/abs": "/real", "root/hole": "/nothing/here", "root/loop": "loop",
		"root/host": outside + "/secret", "root/magic": "/proc/self/root",
	} {
		if err := os.Symlink(to, filepath.Join(outside, name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return dir, root
}

func TestRootMkdirAll(t *testing.T) {
	for _, c := range []struct {
		name, path, made string
		err              error
	}{
		{"makes parents", "a/b/c", "a/b/c", nil},
		{"takes what exists", "/etc", "etc", nil},
		{"follows an absolute symlink inside", "/abs/x", "real/x", nil},
		{"keeps dots inside", "/../../x", "x", nil},
		{"climbs to the root and no further", "/up/x", "secret/x", nil},
		{"makes what a dangling symlink names", "/hole/x", "nothing/here/x", nil},
		{"keeps an absolute symlink inside", "/host/x", "HOST/x", nil},
		{"does not take a magic link", "/magic/x", "proc/self/root/x", nil},
		{"sees a loop", "/loop/x", "", unix.ELOOP},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, root := tree(t)
			f, err := root.MkdirAll(c.path, 0o755)
			if entries, _ := os.ReadDir(filepath.Join(dir, "../secret")); len(entries) != 0 {
				t.Errorf("made %v outside", entries)
			}
			if !errors.Is(err, c.err) {
				t.Fatalf("got %v, want %v", err, c.err)
			}
			if err != nil {
				return
			}
			defer f.Close()
			c.made = strings.Replace(c.made, "HOST", filepath.Join(filepath.Dir(dir), "secret"), 1)
			got, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
			if err != nil || got != filepath.Join(dir, c.made) {
				t.Errorf("opened %s, want %s (%v)", got, filepath.Join(dir, c.made), err)
			}
		})
	}
}

func TestRootOpenStaysInside(t *testing.T) {
	_, root := tree(t)
	for path, want := range map[string]error{"up": unix.ENOENT, "host": unix.ENOENT, "loop": unix.ELOOP, "../..": nil} {
		f, err := root.Open(path, unix.O_PATH, 0)
		if !errors.Is(err, want) {
			t.Errorf("Open(%q) = %v, want %v", path, err, want)
		}
		if err == nil {
			f.Close()
		}
	}
	if f, err := root.OpenNoFollow("abs", unix.O_PATH, 0); !errors.Is(err, unix.ELOOP) {
		t.Errorf("OpenNoFollow followed a symlink: %v %v", f, err)
	}
}

func TestRootCreateFile(t *testing.T) {
	dir, root := tree(t)
	for _, path := range []string{"/new/file", "/new/file", "/abs/file"} {
		f, err := root.CreateFile(path, 0o644, 0o755)
		if err != nil {
			t.Fatalf("CreateFile(%s): %v", path, err)
		}
		f.Close()
	}
	if _, err := os.Stat(filepath.Join(dir, "real/file")); err != nil {
		t.Error(err)
	}
	f, err := root.CreateFile("/hole", 0o644, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := os.Stat(filepath.Join(dir, "nothing/here")); err != nil {
		t.Error(err)
	}
}
