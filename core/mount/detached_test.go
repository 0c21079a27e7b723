package mount

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// mapping is one whose root is 100000 on the host.
func mapping(t *testing.T) *IDMap {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts are made by root")
	}
	ids := []linux.IDMapping{{Inside: 0, Outside: 100000, Size: 65536}}
	ns, err := linux.UserNamespace(ids, ids)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		t.Skipf("no user namespace can be made on this machine: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return &IDMap{UserNS: ns, UID: 100000, GID: 100000}
}

// able skips where the kernel or the filesystem of temporary files cannot map ids.
func able(t *testing.T, err error) {
	t.Helper()
	if fault.Is(err, fault.NotImplemented) || errors.Is(err, unix.EINVAL) {
		t.Skipf("this machine: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func owner(t *testing.T, dir *os.File, name string) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return st.Uid
}

func TestDetached(t *testing.T) {
	ids := mapping(t)
	dir := t.TempDir()
	for _, name := range []string{"lower/a", "upper", "work", "at", "bound", "plain"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir+"/lower/a", 7, 7); err != nil {
		t.Fatal(err)
	}
	mounts := []Mount{
		{Type: "overlay", Source: "overlay", Target: "/", Layers: dir, Options: []string{"lowerdir=" + dir + "/lower", "upperdir=" + dir + "/upper", "workdir=" + dir + "/work"}},
		{Type: "bind", Source: dir + "/bound", Target: "/bound", Layers: dir + "/bound", Options: []string{"rbind"}},
		{Type: "bind", Source: dir + "/plain", Target: "/plain", Options: []string{"rbind"}},
	}
	able(t, Probe(dir, ids))
	for _, k := range []struct {
		ids  *IDMap
		want map[string]uint32
	}{
		{ids, map[string]uint32{".": 100000, "a": 100007, "bound": 100000, "plain": 0}},
		{nil, map[string]uint32{".": 0, "a": 7, "bound": 0, "plain": 0}},
	} {
		tree, err := Detached(dir+"/at", mounts, k.ids)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range k.want {
			if got := owner(t, tree, name); got != want {
				t.Errorf("mapped %v: %s is of %d, want %d", k.ids != nil, name, got, want)
			}
		}
		tree.Close()
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), dir) {
		t.Error("a mount shows on the host")
	}
}

func TestDetachedWrites(t *testing.T) {
	ids := mapping(t)
	dir := t.TempDir()
	for _, name := range []string{"lower", "upper", "work", "at"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := Detached(dir+"/at", []Mount{{Type: "overlay", Source: "overlay", Target: "/", Layers: dir, Options: []string{"lowerdir=" + dir + "/lower", "upperdir=" + dir + "/upper", "workdir=" + dir + "/work"}}}, ids)
	able(t, err)
	defer tree.Close()
	err = linux.OnThread(func() error {
		if err := linux.SetFilesystemUser(100003, 100004); err != nil {
			return err
		}
		f, err := linux.OpenAt(tree, "made", unix.O_CREAT|unix.O_WRONLY, 0o600)
		if err == nil {
			f.Close()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir+"/upper/made", &st); err != nil || st.Uid != 3 || st.Gid != 4 {
		t.Errorf("on disk it is of %d:%d, %v, want 3:4", st.Uid, st.Gid, err)
	}
}
