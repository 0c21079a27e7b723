package linux

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSetFilesystemUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may be another user")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil { // it takes root's rights to make files here
		t.Fatal(err)
	}
	err := OnThread(func() error {
		if err := SetFilesystemUser(1234, 5678); err != nil {
			return err
		}
		f, err := OpenAt(nil, filepath.Join(dir, "file"), unix.O_CREAT|unix.O_WRONLY, 0o600)
		if err == nil {
			err = f.Close()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "file"), &st); err != nil || st.Uid != 1234 || st.Gid != 5678 {
		t.Errorf("it is of %d:%d, %v", st.Uid, st.Gid, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "after"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(filepath.Join(dir, "after"), &st); err != nil || st.Uid != 0 {
		t.Errorf("another thread makes files of %d, %v", st.Uid, err)
	}
}

func TestOnThread(t *testing.T) {
	wrong := errors.New("wrong")
	if err := OnThread(func() error { return wrong }); !errors.Is(err, wrong) {
		t.Errorf("got %v", err)
	}
	if err := OnThread(func() error { panic("inside") }); err == nil || !strings.Contains(err.Error(), "inside") {
		t.Errorf("got %v", err)
	}
}

func TestInsideOutside(t *testing.T) {
	list := []IDMapping{{Inside: 0, Outside: 100, Size: 10}, {Inside: 10, Outside: 500, Size: 5}}
	for inside, outside := range map[uint32]uint32{0: 100, 9: 109, 10: 500, 14: 504} {
		if got, ok := Outside(list, inside); !ok || got != outside {
			t.Errorf("Outside(%d) = %d, %v", inside, got, ok)
		}
		if got, ok := Inside(list, outside); !ok || got != inside {
			t.Errorf("Inside(%d) = %d, %v", outside, got, ok)
		}
	}
	for _, id := range []uint32{99, 110, 499, 505} {
		if got, ok := Inside(list, id); ok {
			t.Errorf("Inside(%d) = %d", id, got)
		}
	}
}

func TestCloneTreeOf(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts are copied by root")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	tree, err := CloneTreeOf(os.Getpid(), dir, false)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if err := unix.Fstatat(int(tree.Fd()), "file", &unix.Stat_t{}, 0); err != nil {
		t.Errorf("the copy: %v", err)
	}
	if _, err := CloneTreeOf(os.Getpid(), filepath.Join(dir, "link"), false); !errors.Is(err, unix.ELOOP) {
		t.Errorf("through a symbolic link: %v", err)
	}
}
