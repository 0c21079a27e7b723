package volume

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

func open(t *testing.T, root string, inUse func(string) []string) *Manager {
	t.Helper()
	db, err := state.Open(filepath.Join(root, "state.db"), state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	m, err := NewManager(Options{DB: db, Root: filepath.Join(root, "volumes"), InUse: inUse})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestLife(t *testing.T) {
	users := []string{"c1"}
	m := open(t, t.TempDir(), func(name string) []string { return users })
	v, err := m.Create(t.Context(), wire.VolumeCreateRequest{Name: "data", Labels: map[string]string{"a": "b"}})
	if err != nil || !strings.HasSuffix(v.Mountpoint, "/volumes/data/_data") {
		t.Fatalf("%+v, %v", v, err)
	}
	if again, err := m.Create(t.Context(), wire.VolumeCreateRequest{Name: "data"}); err != nil || again.Labels["a"] != "b" {
		t.Errorf("second create: %+v, %v", again, err)
	}
	if err := m.Remove(t.Context(), "data", true); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "volume is in use - [c1]") {
		t.Errorf("remove while in use: %v", err)
	}
	users = nil
	if err := m.Remove(t.Context(), "data", false); err != nil {
		t.Error(err)
	}
	if err := m.Remove(t.Context(), "data", false); !fault.Is(err, fault.NotFound) || err.Error() != "get data: no such volume" {
		t.Errorf("second remove: %v", err)
	}
	if err := m.Remove(t.Context(), "data", true); err != nil {
		t.Errorf("second remove with force: %v", err)
	}
	if _, err := os.Stat(filepath.Dir(v.Mountpoint)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory: %v", err)
	}
}

func TestPopulate(t *testing.T) {
	m := open(t, t.TempDir(), nil)
	v, err := m.Create(t.Context(), wire.VolumeCreateRequest{Name: "data"})
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	calls := 0
	fill := func(err error) func(string) error {
		return func(dir string) error {
			calls++
			return errors.Join(os.WriteFile(filepath.Join(dir, "file"), nil, 0o644), err)
		}
	}
	if err := m.Populate(t.Context(), "data", fill(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if empty, err := isEmpty(v.Mountpoint); !empty || err != nil {
		t.Errorf("after a failure the volume is not empty: %v", err)
	}
	for range 2 { // the second time there are files, which stay
		if err := m.Populate(t.Context(), "data", fill(nil)); err != nil {
			t.Fatal(err)
		}
	}
	if entries, err := os.ReadDir(v.Mountpoint); len(entries) != 1 || err != nil || calls != 2 {
		t.Errorf("%v, %v after %d calls, want one file after 2", entries, err, calls)
	}
}

func TestReconcile(t *testing.T) {
	root := t.TempDir()
	m := open(t, root, nil)
	for _, name := range []string{"kept", "cut"} {
		if _, err := m.Create(t.Context(), wire.VolumeCreateRequest{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	volumes := filepath.Join(root, "volumes")
	if err := errors.Join(m.o.DB.Close(),
		os.RemoveAll(filepath.Join(volumes, "kept")), // a power failure
		os.Rename(filepath.Join(volumes, "cut"), filepath.Join(volumes, removedPrefix+"cut")),
		os.MkdirAll(filepath.Join(volumes, "found", dataDir), 0o755)); err != nil {
		t.Fatal(err)
	}
	m = open(t, root, nil)
	list, err := m.List(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, v := range list.Volumes {
		names = append(names, v.Name)
	}
	if want := []string{"found", "kept"}; !slices.Equal(names, want) {
		t.Errorf("volumes %v, want %v", names, want)
	}
	if _, err := os.Stat(filepath.Join(volumes, "kept", dataDir)); err != nil {
		t.Error(err)
	}
}

func TestCreateRefuses(t *testing.T) {
	m := open(t, t.TempDir(), nil)
	for _, c := range []struct {
		req  wire.VolumeCreateRequest
		want string
	}{
		{wire.VolumeCreateRequest{Name: "a/b"}, "includes invalid characters"},
		{wire.VolumeCreateRequest{Name: ".removed-x"}, "includes invalid characters"},
		{wire.VolumeCreateRequest{Name: "ab", Driver: "lcoal"}, `did you mean "local"`},
		{wire.VolumeCreateRequest{Driver: "lcoal"}, `create volume: volume driver "lcoal": `},
		{wire.VolumeCreateRequest{Name: "ab", DriverOpts: map[string]string{"o": "bind", "device": "x"}}, "an absolute path"},
		{wire.VolumeCreateRequest{Name: "ab", DriverOpts: map[string]string{"tpye": "nfs"}}, `did you mean "type"`},
	} {
		if _, err := m.Create(t.Context(), c.req); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.req, err, c.want)
		}
	}
}
