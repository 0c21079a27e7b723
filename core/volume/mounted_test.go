package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/wire"
)

func memory(t *testing.T, m *Manager, name string) {
	t.Helper()
	req := wire.VolumeCreateRequest{Name: name, DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=0750"}}
	if _, err := m.Create(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if there, _ := mounted(m.dataPath(name)); there {
			t.Errorf("volume %s is still mounted", name)
			_ = unmount(m.dataPath(name))
		}
	})
}

func isMounted(t *testing.T, dir string, want bool) {
	t.Helper()
	if got, err := mounted(dir); got != want || err != nil {
		t.Fatalf("%s is mounted: %v, %v; want %v", dir, got, err, want)
	}
}

func TestMountedWhileInUse(t *testing.T) {
	m := open(t, t.TempDir(), nil)
	memory(t, m, "mem")
	data := m.dataPath("mem")
	isMounted(t, data, false)
	for _, user := range []string{"a", "b", "a"} {
		if dir, err := m.Mount(t.Context(), "mem", user); dir != data || err != nil {
			t.Fatalf("%q, %v", dir, err)
		}
	}
	isMounted(t, data, true)
	var st unix.Statfs_t
	if err := unix.Statfs(data, &st); err != nil || st.Blocks*uint64(st.Bsize) != 1<<20 {
		t.Errorf("%d bytes, %v; want 1 MiB", st.Blocks*uint64(st.Bsize), err)
	}
	if info, err := os.Stat(data); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := m.Unmount(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	isMounted(t, data, true) // b has it
	if err := m.Unmount(t.Context(), "nobody"); err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	isMounted(t, data, false)
}

// A daemon that comes after one that was killed takes over what is in use, and unmounts the rest.
func TestAdopt(t *testing.T) {
	root := t.TempDir()
	m := open(t, root, nil)
	memory(t, m, "used")
	memory(t, m, "left")
	for _, name := range []string{"used", "left"} {
		if _, err := m.Mount(t.Context(), name, "c1"); err != nil {
			t.Fatal(err)
		}
	}
	m.users = map[string]map[string]bool{} // the next daemon knows nothing
	found, err := m.Check(t.Context())
	if err != nil || len(found) != 2 || !strings.Contains(found[0].Problem, "nobody uses it") {
		t.Errorf("check: %v, %v", found, err)
	}
	if err := m.Adopt(t.Context(), map[string][]string{"used": {"c1"}}); err != nil {
		t.Fatal(err)
	}
	isMounted(t, m.dataPath("used"), true)
	isMounted(t, m.dataPath("left"), false)
	if found, err := m.Check(t.Context()); len(found) != 0 || err != nil {
		t.Errorf("check: %v, %v", found, err)
	}
	if err := m.Unmount(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	isMounted(t, m.dataPath("used"), false)
}

// What is mounted on a volume's directory is not deleted with the volume.
func TestRemoveUnmounts(t *testing.T) {
	m := open(t, t.TempDir(), nil)
	device := t.TempDir()
	if err := os.WriteFile(filepath.Join(device, "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	req := wire.VolumeCreateRequest{Name: "bound", DriverOpts: map[string]string{"type": "none", "o": "bind,ro", "device": device}}
	if _, err := m.Create(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	dir, err := m.Mount(t.Context(), "bound", "c1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "more"), nil, 0o600); err == nil {
		t.Error("a file was written to a volume with the option ro")
	}
	if err := m.Remove(t.Context(), "bound", false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(device, "kept")); err != nil {
		t.Error(err)
	}
}

func TestMountFails(t *testing.T) {
	m := open(t, t.TempDir(), nil)
	for _, options := range []map[string]string{
		{"type": "ext4", "device": "/nonexistent"},
		{"type": "nosuchfs", "device": "x"},
		{"type": "tmpfs", "device": "tmpfs", "o": "nosuchoption"},
		{"type": "none", "device": "/nonexistent", "o": "bind"},
	} {
		v, err := m.Create(t.Context(), wire.VolumeCreateRequest{DriverOpts: options})
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.Mount(t.Context(), v.Name, "c1")
		if err == nil || !strings.Contains(err.Error(), "failed to mount local volume") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v", options, err)
		}
		isMounted(t, m.dataPath(v.Name), false)
	}
}
