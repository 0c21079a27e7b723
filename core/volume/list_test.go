package volume

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// inUse says who names which volume.
type inUse map[string][]string

func (u inUse) of(name string) []string { return u[name] }

// stocked has the volumes a to d, the anonymous one and the one of another directory.
func stocked(t *testing.T) (m *Manager, anonymous string) {
	t.Helper()
	m = open(t, t.TempDir(), inUse{"vol-a": {"c1"}, "vol-b": {"c1", "c2"}}.of)
	for _, req := range []wire.VolumeCreateRequest{
		{Name: "vol-a", Labels: map[string]string{"tier": "db", "keep": ""}},
		{Name: "vol-b", Labels: map[string]string{"tier": "web"}},
		{Name: "vol-c", Labels: map[string]string{"keep": "yes"}},
		{Name: "elsewhere", DriverOpts: map[string]string{"type": "none", "o": "bind", "device": t.TempDir()}},
		{},
	} {
		v, err := m.Create(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		anonymous = v.Name
	}
	return m, anonymous
}

func TestList(t *testing.T) {
	m, anonymous := stocked(t)
	for _, c := range []struct {
		filters map[string][]string
		want    []string
	}{
		{nil, []string{"elsewhere", "vol-a", "vol-b", "vol-c", anonymous}},
		{map[string][]string{"name": {"vol-", "where"}}, []string{"elsewhere", "vol-a", "vol-b", "vol-c"}},
		{map[string][]string{"label": {"tier"}}, []string{"vol-a", "vol-b"}},
		{map[string][]string{"label": {"tier=db", "keep"}}, []string{"vol-a"}},
		{map[string][]string{"label": {"keep="}}, []string{"vol-a"}},
		{map[string][]string{"dangling": {"true"}, "name": {"vol"}}, []string{"vol-c"}},
		{map[string][]string{"dangling": {"0"}}, []string{"vol-a", "vol-b"}},
		{map[string][]string{"driver": {"local"}, "name": {"vol-c"}}, []string{"vol-c"}},
		{map[string][]string{"driver": {"nfs"}}, nil},
	} {
		list, err := m.List(t.Context(), c.filters)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, v := range list.Volumes {
			names = append(names, v.Name)
		}
		slices.Sort(c.want)
		if diff := cmp.Diff(c.want, names); diff != "" {
			t.Errorf("%v: %s", c.filters, diff)
		}
	}
	for filters, want := range map[string]string{"danglin": `did you mean "dangling"`, "label!": "one of dangling, driver, label, name"} {
		if _, err := m.List(t.Context(), map[string][]string{filters: {"x"}}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", filters, err)
		}
	}
	if _, err := m.List(t.Context(), map[string][]string{"dangling": {"maybe"}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("dangling=maybe: %v", err)
	}
}

func TestPrune(t *testing.T) {
	for _, c := range []struct {
		filters map[string][]string
		want    []string // "" is the anonymous one
	}{
		{nil, []string{""}},
		{map[string][]string{"all": {"true"}}, []string{"", "elsewhere", "vol-c"}},
		{map[string][]string{"all": {"1"}, "label": {"keep"}}, []string{"vol-c"}},
		{map[string][]string{"all": {"1"}, "label!": {"keep"}}, []string{"", "elsewhere"}},
		{map[string][]string{"label": {"keep"}}, nil},
	} {
		m, anonymous := stocked(t)
		var told []string
		m.o.Events = func(action, name string, attributes map[string]string) {
			told = append(told, action+" "+name+attributes["reclaimed"])
		}
		if err := os.WriteFile(filepath.Join(m.dataPath(anonymous), "f"), make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := m.Prune(t.Context(), c.filters)
		if err != nil {
			t.Fatal(err)
		}
		want, events, size := []string{}, []string(nil), uint64(0)
		for _, name := range c.want {
			if name == "" {
				name, size = anonymous, 100
			}
			want = append(want, name)
		}
		slices.Sort(want)
		for _, name := range want {
			events = append(events, "destroy "+name)
			if _, err := os.Stat(m.dataPath(name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%v: %s: %v", c.filters, name, err)
			}
		}
		reclaimed := map[uint64]string{0: "0", 100: "100"}[size]
		if diff := cmp.Diff(wire.VolumesPrune{VolumesDeleted: want, SpaceReclaimed: size}, got); diff != "" {
			t.Errorf("%v: %s", c.filters, diff)
		}
		if diff := cmp.Diff(append(events, "prune "+reclaimed), told); diff != "" {
			t.Errorf("%v: told %s", c.filters, diff)
		}
	}
	m, _ := stocked(t)
	for _, filters := range []map[string][]string{{"all": {"x"}}, {"name": {"vol"}}} {
		if _, err := m.Prune(t.Context(), filters); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", filters, err)
		}
	}
}

// Files are counted once, however many names they have; what is a link elsewhere counts nothing.
func TestUsage(t *testing.T) {
	m, _ := stocked(t)
	data := m.dataPath("vol-b")
	if err := errors.Join(os.Mkdir(filepath.Join(data, "d"), 0o755), os.WriteFile(filepath.Join(data, "f"), make([]byte, 1000), 0o600),
		os.Link(filepath.Join(data, "f"), filepath.Join(data, "d/again")), os.WriteFile(filepath.Join(data, "d/g"), make([]byte, 24), 0o600),
		os.Symlink("/bin/sh", filepath.Join(data, "link"))); err != nil {
		t.Fatal(err)
	}
	list, err := m.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]wire.VolumeUsage{}
	for _, v := range list {
		if strings.HasPrefix(v.Name, "vol-") {
			got[v.Name] = *v.UsageData
		}
	}
	want := map[string]wire.VolumeUsage{"vol-a": {RefCount: 1}, "vol-b": {RefCount: 2, Size: 1024}, "vol-c": {}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBindDevice(t *testing.T) {
	device := t.TempDir()
	for _, c := range []struct {
		options map[string]string
		want    string
		class   fault.Class
	}{
		{nil, "", 0},
		{map[string]string{"type": "none", "o": "bind", "device": device + "/."}, device, 0},
		{map[string]string{"o": "rbind", "device": device}, device, 0},
		{map[string]string{"type": "nfs", "o": "addr=1.2.3.4", "device": ":/x"}, "", 0},
		{map[string]string{"o": "bind,ro", "device": "/x"}, "", 0},
		{map[string]string{"type": "tmpfs", "o": "bind", "device": "/x"}, "", fault.Invalid},
		{map[string]string{"o": "bind,size=1m", "device": "/x"}, "", fault.Invalid},
		{map[string]string{"o": "bind", "device": "x"}, "", fault.Invalid},
		{map[string]string{"device": "/x"}, "", fault.Invalid},
		{map[string]string{"o": "bind"}, "", fault.Invalid},
		{map[string]string{"type": "tmpfs", "device": "tmpfs", "size": "1m"}, "", fault.Invalid},
		{map[string]string{"typ": "tmpfs", "device": "tmpfs"}, "", fault.Invalid},
	} {
		fs, err := parseOptions(c.options)
		got := ""
		if fs != nil {
			got = fs.bind
		}
		if got != c.want || (err == nil) != (c.class == 0) || err != nil && !fault.Is(err, c.class) {
			t.Errorf("%v: got %q, %v, want %q %v", c.options, got, err, c.want, c.class)
		}
	}
	m := open(t, t.TempDir(), nil)
	req := wire.VolumeCreateRequest{Name: "other", DriverOpts: map[string]string{"o": "bind", "device": device}}
	if _, err := m.Create(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if path, err := m.Mount(t.Context(), "other", "user"); path != device || err != nil {
		t.Errorf("got %q, %v", path, err)
	}
	filled := ""
	if err := m.Populate(t.Context(), "other", func(dir string) error { filled = dir; return nil }); err != nil || filled != device {
		t.Errorf("filled %q, %v: want %q, which is empty", filled, err, device)
	}
	req.DriverOpts["device"] = "/elsewhere"
	if _, err := m.Create(t.Context(), req); !fault.Is(err, fault.Conflict) {
		t.Errorf("with other options: %v", err)
	}
	// What is at the device is its owner's, also after the volume is gone.
	if err := os.WriteFile(filepath.Join(device, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(t.Context(), "other", false); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(device, "f")); err != nil {
		t.Error(err)
	}
	if _, err := m.Create(t.Context(), wire.VolumeCreateRequest{Name: "gone", DriverOpts: map[string]string{"o": "bind", "device": device + "/none"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Mount(t.Context(), "gone", "user"); !fault.Is(err, fault.Invalid) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a device that is not there: %v", err)
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]string{
		"ab": "", "a.b-c_D9": "", strings.Repeat("x", 255): "", NewName(): "",
		"a": "too short", "": "invalid", ".a": "invalid", "a b": "invalid", "../x": "invalid", "a\n": "invalid", strings.Repeat("x", 256): "longer than 255",
	} {
		if err := ValidName(name); want == "" && err != nil || want != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", name, err, want)
		}
	}
}

// Another container may have bound the directory of a volume: then it is filled where it is.
func TestPopulateInPlace(t *testing.T) {
	users := inUse{"data": {"c1", "c2"}}
	m := open(t, t.TempDir(), users.of)
	if _, err := m.Create(t.Context(), wire.VolumeCreateRequest{Name: "data"}); err != nil {
		t.Fatal(err)
	}
	bound, err := os.Open(m.dataPath("data"))
	if err != nil {
		t.Fatal(err)
	}
	defer bound.Close()
	if err := m.Populate(t.Context(), "data", func(dir string) error { return os.WriteFile(filepath.Join(dir, "f"), nil, 0o600) }); err != nil {
		t.Fatal(err)
	}
	if names, err := bound.Readdirnames(-1); len(names) != 1 || err != nil {
		t.Errorf("who has it sees %v, %v", names, err)
	}
	if err := m.Populate(t.Context(), "none", nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("no such volume: %v", err)
	}
}
