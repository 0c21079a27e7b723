package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestCopyUp(t *testing.T) {
	private(t, func(dir string) error {
		at := filepath.Join(dir, "etc")
		err := errors.Join(
			fill(dir, "etc/deep/er/", "etc/first", "etc/deep/file", "outside"),
			os.Link(at+"/first", at+"/deep/second"),
			os.Symlink("/outside", at+"/link"),
			unix.Mkfifo(at+"/fifo", 0o640),
			unix.Mknod(at+"/null", unix.S_IFCHR|0o604, int(unix.Mkdev(1, 3))),
			os.Chown(at+"/first", 7, 8), os.Chmod(at+"/first", 0o4751),
			unix.Setxattr(at+"/first", "user.key", []byte("value"), 0),
			os.Chmod(at+"/deep", 0o1777),
		)
		if err != nil {
			return err
		}
		want, err := listing(at)
		if err != nil {
			return err
		}
		if err := attach(dir, Mount{Type: "tmpfs", Source: "tmpfs", Target: "/etc", Options: []string{"tmpcopyup", "ro"}}); err != nil {
			return err
		}
		got, err := listing(at)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("the copy differs (-want +got): %v\n%s", err, diff)
		}
		var a, b unix.Stat_t
		if err := errors.Join(unix.Stat(at+"/first", &a), unix.Stat(at+"/deep/second", &b)); err != nil || a.Ino != b.Ino {
			t.Errorf("the two names are of two files: %v", err)
		}
		if err := os.WriteFile(at+"/new", nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("write: got %v, want a read-only filesystem", err)
		}
		return nil
	})
}

// listing is what is below a directory: everything but inode numbers and the change times.
func listing(dir string) (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		text := fmt.Sprintf("mode %o owner %d:%d modified %d.%d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			value := make([]byte, 100)
			n, _ := unix.Getxattr(name, "user.key", value) // most have none
			text += fmt.Sprintf(" names %d content %q attribute %q", st.Nlink, content, value[:max(0, n)])
		case unix.S_IFLNK:
			to, err := os.Readlink(name)
			if err != nil {
				return err
			}
			text += " to " + to
		case unix.S_IFCHR:
			text += fmt.Sprintf(" device %x", st.Rdev)
		}
		all[strings.TrimPrefix(name, dir)] = text
		return nil
	})
	return all, err
}

func TestCopyUpIsBounded(t *testing.T) {
	private(t, func(dir string) error {
		deep := filepath.Join(dir, "deep")
		for range maxCopyDepth + 2 {
			deep = filepath.Join(deep, "d")
		}
		if err := errors.Join(os.MkdirAll(deep, 0o755), fill(dir, "full/"), os.WriteFile(dir+"/full/file", make([]byte, 1<<20), 0o600)); err != nil {
			return err
		}
		for target, m := range map[string]struct{ option, text string }{
			"/deep": {"mode=755", "nested more than"}, "/full": {"size=512k", "no space left on device"},
		} {
			err := attach(dir, Mount{Type: "tmpfs", Source: "tmpfs", Target: target, Options: []string{"tmpcopyup", m.option}})
			if err == nil || !strings.Contains(err.Error(), m.text) {
				t.Errorf("%s: got %v, want an error with %q", target, err, m.text)
			}
			var st unix.Statx_t
			if err := unix.Statx(0, dir+target, 0, 0, &st); err != nil || st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
				t.Errorf("%s: something was mounted, %v", target, err)
			}
		}
		return nil
	})
}
