package mount

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// private runs fn in a mount namespace of its own, on a directory that is a mount, and fails the test
// with its error. Nothing of it is ever seen outside.
func private(t *testing.T, fn func(dir string) error) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounts are made by root")
	}
	dir := t.TempDir()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread, and the namespace with it, ends with the goroutine
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
				return err
			}
			if err := Propagate("/", unix.MS_PRIVATE|unix.MS_REC); err != nil {
				return err
			}
			if err := unix.Mount("work", dir, "tmpfs", 0, ""); err != nil {
				return err
			}
			return fn(dir)
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); len(entries) != 0 || err != nil {
		t.Errorf("outside the namespace: %v, %v", entries, err)
	}
}

// attach attaches a mount below dir and closes its handle.
func attach(dir string, m Mount) error {
	root, err := linux.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	mnt, err := m.Attach(root)
	if err != nil {
		return err
	}
	return mnt.Close()
}

// fill makes files with their own paths as content, and directories from names that end in a slash.
func fill(dir string, names ...string) error {
	for _, name := range names {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(at, 0o755)
		} else {
			err = os.WriteFile(at, []byte(name), 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// flags are the attributes of the mount at a path, as statfs(2) has them.
func flags(path string) (int64, error) {
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	return st.Flags & (unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC), err
}

func TestAttachTmpfs(t *testing.T) {
	private(t, func(dir string) error {
		if err := fill(dir, "sticky/"); err != nil {
			return err
		}
		if err := os.Chmod(filepath.Join(dir, "sticky"), 0o751|fs.ModeSticky); err != nil {
			return err
		}
		for _, c := range []struct {
			target, options string
			flags           int64
			mode            fs.FileMode
		}{
			{"/sticky", "nosuid,nodev", unix.ST_NOSUID | unix.ST_NODEV, 0o751 | fs.ModeSticky | fs.ModeDir}, // what it hides has it
			{"/made/for/it", "ro,noexec,mode=700", unix.ST_RDONLY | unix.ST_NOEXEC, 0o700 | fs.ModeDir},
		} {
			if err := attach(dir, Mount{Type: "tmpfs", Source: "tmpfs", Target: c.target, Options: strings.Split(c.options, ",")}); err != nil {
				return err
			}
			at := filepath.Join(dir, c.target)
			got, err := flags(at)
			if err != nil {
				return err
			}
			info, err := os.Stat(at)
			if err != nil {
				return err
			}
			if got != c.flags || info.Mode() != c.mode {
				t.Errorf("%s: flags %#x mode %v, want %#x %v", c.target, got, info.Mode(), c.flags, c.mode)
			}
		}
		return nil
	})
}

// A bind lands where the path leads inside the root, as a directory or a file, and has its own
// attributes while its source keeps what it had.
func TestAttachBind(t *testing.T) {
	private(t, func(dir string) error {
		if err := fill(dir, "source/below/", "source/f", "root/real/", "root/etc/hosts"); err != nil {
			return err
		}
		if err := os.Symlink("/real/../../../real", filepath.Join(dir, "root/link")); err != nil {
			return err
		}
		source, root := filepath.Join(dir, "source"), filepath.Join(dir, "root")
		if err := unix.Mount("inner", filepath.Join(source, "below"), "tmpfs", 0, ""); err != nil {
			return err
		}
		if err := fill(source, "below/deep"); err != nil {
			return err
		}
		for _, m := range []Mount{
			{Source: source, Target: "/link/flat", Options: []string{"bind", "ro"}},
			{Source: source, Target: "/tree", Options: []string{"rbind", "ro"}},
			{Source: source, Target: "/sealed", Options: []string{"rbind", "rro"}},
			{Source: filepath.Join(source, "f"), Target: "/etc/hosts"},
			{Source: filepath.Join(source, "f"), Target: "/new/file"},
		} {
			m.Type = "bind"
			if err := attach(root, m); err != nil {
				return err
			}
		}
		for name, want := range map[string]string{
			"real/flat/f": "source/f", "real/flat/below/deep": "", "tree/below/deep": "below/deep", "sealed/below/deep": "below/deep",
			"etc/hosts": "source/f", "new/file": "source/f",
		} {
			if got, _ := os.ReadFile(filepath.Join(root, name)); string(got) != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
		for path, writable := range map[string]bool{
			"source": true, "source/below": true, "root/real/flat": false, "root/tree": false, "root/tree/below": true,
			"root/sealed": false, "root/sealed/below": false,
		} {
			err := os.WriteFile(filepath.Join(dir, path, "written"), nil, 0o644)
			if (err == nil) != writable || !writable && !errors.Is(err, unix.EROFS) {
				t.Errorf("write to %s: %v, want writable %v", path, err, writable)
			}
		}
		return nil
	})
}

// propagation is the optional field of a mount in proc_pid_mountinfo(5): "shared", "master" or "".
func propagation(path string) (string, error) {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); fields[4] == path {
			kind, _, _ := strings.Cut(strings.TrimSuffix(fields[6], "-"), ":")
			return kind, nil
		}
	}
	return "", fs.ErrNotExist
}

func TestAttachPropagation(t *testing.T) {
	private(t, func(dir string) error {
		if err := fill(dir, "source/"); err != nil {
			return err
		}
		source := filepath.Join(dir, "source")
		if err := unix.Mount("shared", source, "tmpfs", 0, ""); err != nil {
			return err
		}
		if err := Propagate(source, unix.MS_SHARED); err != nil {
			return err
		}
		for option, want := range map[string]string{"rshared": "shared", "rslave": "master", "rprivate": "", "unbindable": "unbindable"} {
			if err := attach(dir, Mount{Type: "bind", Source: source, Target: "/" + option, Options: []string{"rbind", option}}); err != nil {
				return err
			}
			if got, err := propagation(filepath.Join(dir, option)); got != want || err != nil {
				t.Errorf("%s: got %q, %v, want %q", option, got, err, want)
			}
		}
		return nil
	})
}

// All stacks mounts: one on "/" is the root of those that follow.
func TestAllOverlay(t *testing.T) {
	private(t, func(dir string) error {
		lower := []string{}
		for _, layer := range strings.Fields("top middle bottom") {
			// Together longer than the kernel takes as one option.
			name := layer + strings.Repeat("x", 100) + ":,"
			if err := fill(filepath.Join(dir, name), layer, "same"); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, name, "same"), []byte(layer), 0o644); err != nil {
				return err
			}
			lower = append(lower, strings.ReplaceAll(filepath.Join(dir, name), ":", `\:`))
		}
		if err := fill(dir, "upper/", "work/", "place/"); err != nil {
			return err
		}
		root, err := All(filepath.Join(dir, "place"), []Mount{
			{Type: "overlay", Source: "overlay", Target: "/", Options: []string{
				"lowerdir=" + strings.Join(lower, ":"), "upperdir=" + filepath.Join(dir, "upper"), "workdir=" + filepath.Join(dir, "work")}},
			{Type: "tmpfs", Source: "tmpfs", Target: "/run", Options: []string{"mode=755"}},
		})
		if err != nil {
			return err
		}
		defer root.Close()
		if tmpfs, err := root.Open("/run", unix.O_PATH, 0); err != nil {
			t.Error(err)
		} else {
			if ok, err := linux.IsFilesystem(tmpfs, unix.TMPFS_MAGIC); !ok || err != nil {
				t.Errorf("/run is not the tmpfs: %v", err)
			}
			tmpfs.Close()
		}
		entries, err := os.ReadDir(filepath.Join(dir, "place"))
		if err != nil {
			return err
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if diff := cmp.Diff([]string{"bottom", "middle", "run", "same", "top"}, names); diff != "" {
			t.Error(diff)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "place/same")); string(got) != "top" || err != nil {
			t.Errorf("the first layer does not win: %q, %v", got, err)
		}
		return nil
	})
}

func TestAttachRefuses(t *testing.T) {
	private(t, func(dir string) error {
		if err := fill(dir, "f", "d/"); err != nil {
			return err
		}
		for _, c := range []struct {
			mount Mount
			class fault.Class
			cause error
			text  string
		}{
			{Mount{Type: "bind", Target: "/x"}, fault.Invalid, nil, "the path of a file or directory to bind"},
			{Mount{Type: "bind", Source: filepath.Join(dir, "none"), Target: "/x"}, fault.Internal, unix.ENOENT, "on /x: open_tree " + dir},
			{Mount{Type: "bind", Source: filepath.Join(dir, "d"), Target: "/f"}, fault.Invalid, unix.ENOTDIR, "not a directory: Are you trying to mount a directory onto a file (or vice-versa)? Check if"},
			{Mount{Type: "bind", Source: filepath.Join(dir, "f"), Target: "/d"}, fault.Invalid, unix.ENOTDIR, "Are you trying to mount a directory onto a file"},
			{Mount{Type: "bind", Source: filepath.Join(dir, "f"), Target: "/f/x"}, fault.Invalid, unix.ENOTDIR, "Are you trying"},
			{Mount{Type: "nosuchfs", Target: "/x"}, fault.Internal, unix.ENODEV, `filesystem type "nosuchfs"`},
			{Mount{Type: "tmpfs", Target: "/x", Options: []string{"sise=1m"}}, fault.Internal, unix.EINVAL, "sise"},
			{Mount{Type: "proc", Target: "/x", Options: []string{"tmpcopyup"}}, fault.Invalid, nil, "expected a mount of type tmpfs"},
		} {
			err := attach(dir, c.mount)
			if err == nil || fault.ClassOf(err) != c.class || c.cause != nil && !errors.Is(err, c.cause) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%+v: got %v (%v), want %v %v with %q", c.mount, err, fault.ClassOf(err), c.class, c.cause, c.text)
			}
		}
		return nil
	})
}
